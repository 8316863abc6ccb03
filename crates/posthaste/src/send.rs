//! `posthaste send`: a submission from the command line.

use std::{io::Read as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::{
    http::ApiClient,
    life::{self, Followed},
};

/// What to send and where.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The API to submit to.
    #[arg(long, default_value = "http://127.0.0.1:8025", value_name = "URL")]
    server: String,
    /// The token's secret, where the server asks for one.
    #[arg(long, env = "POSTHASTE_TOKEN", hide_env_values = true, value_name = "SECRET")]
    token: Option<String>,
    /// Sender: a@example.com or "Name <a@example.com>".
    #[arg(long, value_name = "ADDRESS")]
    from: String,
    /// Recipient; can be given several times.
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Recipient of a copy.
    #[arg(long, value_name = "ADDRESS")]
    cc: Vec<String>,
    /// Recipient of a copy whom nobody else sees.
    #[arg(long, value_name = "ADDRESS")]
    bcc: Vec<String>,
    /// Where replies should go.
    #[arg(long, value_name = "ADDRESS")]
    reply_to: Vec<String>,
    /// The subject.
    #[arg(long, default_value = "")]
    subject: String,
    /// The text; with neither --text nor --html it is read from standard input.
    #[arg(long)]
    text: Option<String>,
    /// A file with an HTML version.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// A file to attach; can be given several times.
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
    /// A header field, "Name: value".
    #[arg(long, value_name = "FIELD")]
    header: Vec<String>,
    /// A tag.
    #[arg(long)]
    tag: Vec<String>,
    /// The pool.
    #[arg(long)]
    pool: Option<String>,
    /// 0 to 9, higher goes first.
    #[arg(long)]
    priority: Option<u8>,
    /// Seconds to wait before the first attempt.
    #[arg(long, value_name = "SECONDS", conflicts_with = "schedule")]
    delay: Option<u64>,
    /// Time of the first attempt, RFC 3339.
    #[arg(long, value_name = "TIME")]
    schedule: Option<String>,
    /// Wait until every message is delivered or undeliverable, and show each
    /// attempt; exit status 1 when one is undeliverable.
    #[arg(long)]
    wait: bool,
    /// With --wait: how long, in seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
}

pub fn execute(args: &SendArgs) -> anyhow::Result<ExitCode> {
    let submission = submission(args)?;
    let api = ApiClient::new(&args.server, args.token.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let accepted = api.submit(&submission).await?;
        let id = accepted["id"].as_str().context("the answer has no id")?.to_owned();
        println!("accepted as {id}");
        for message in accepted["messages"].as_array().into_iter().flatten() {
            let part = |key: &str| message[key].as_str().unwrap_or("").to_owned();
            println!("  {} {}", part("id"), part("recipient"));
        }
        if !args.wait {
            println!("what became of it: {}/v1/submissions/{id}", args.server);
            return Ok(ExitCode::SUCCESS);
        }
        let followed = [Followed { id, title: args.subject.chars().take(24).collect() }];
        let ends = life::follow(&api, &followed, Duration::from_secs(args.timeout)).await?;
        Ok(if ends.contains_key("undeliverable") { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    })
}

fn submission(args: &SendArgs) -> anyhow::Result<Value> {
    let mut text = args.text.clone();
    if text.is_none() && args.html.is_none() {
        let mut input = String::new();
        std::io::stdin().read_to_string(&mut input).context("failed to read standard input")?;
        text = Some(input);
    }
    let html = args.html.as_ref().map(|path| {
        std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
    });
    let mut headers = Map::new();
    for field in &args.header {
        let Some((name, value)) = field.split_once(':') else {
            bail!("--header {field:?} is not \"Name: value\"");
        };
        headers.insert(name.trim().to_owned(), value.trim().into());
    }
    let attachments: Vec<Value> = args.attach.iter().map(attachment).collect::<Result<_, _>>()?;
    let optional = [
        ("text", text.map(Value::from)),
        ("html", html.transpose()?.map(Value::from)),
        ("pool", args.pool.clone().map(Value::from)),
        ("priority", args.priority.map(Value::from)),
        ("delay", args.delay.map(Value::from)),
        ("schedule", args.schedule.clone().map(Value::from)),
    ];
    let mut submission = json!({
        "from": args.from, "to": args.to, "cc": args.cc, "bcc": args.bcc,
        "reply_to": args.reply_to, "subject": args.subject, "headers": headers,
        "attachments": attachments, "tags": args.tag,
    });
    for (key, value) in optional {
        if let Some(value) = value {
            submission[key] = value;
        }
    }
    Ok(submission)
}

fn attachment(path: &PathBuf) -> anyhow::Result<Value> {
    let content =
        std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let filename = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(json!({ "filename": filename, "content": BASE64_STANDARD.encode(&content),
               "content_type": content_type(path) }))
}

/// The types that a trial needs; the API takes any.
fn content_type(path: &std::path::Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or("") {
        "txt" => "text/plain; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "csv" => "text/csv",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "json" => "application/json",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}
