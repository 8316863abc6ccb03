//! `posthaste demo`: the whole path on loopback, with nothing real at risk.
//!
//! A test DNS and a receiving server are started beside the roles that `run`
//! starts; then mails are submitted over HTTP like anybody's, and their life
//! is read from the API.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use posthaste_trial::{
    dns::{TestDns, Zones},
    sink::{Rule, Sink, SinkConfig},
};
use serde_json::{Value, json};

use crate::{
    config::{self, Config},
    http::ApiClient,
    life::{self, Followed},
    run,
};

/// Name of the receiving server.
const RECEIVER: &str = "mx.receiver.test";
/// How long the last mail may take.
const WITHIN: Duration = Duration::from_secs(60);

/// What the demonstration does otherwise.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Show the log of the process too.
    #[arg(long)]
    verbose: bool,
}

pub fn execute(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    if args.verbose {
        run::init_log(&config::load(None)?);
    }
    run::runtime()?.block_on(demonstrate())
}

async fn demonstrate() -> anyhow::Result<ExitCode> {
    let dir = tempdir()?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let dns = TestDns::start(loopback, zones()).await.context("failed to start the test DNS")?;
    let sink = Sink::start(sink_config(loopback)?).await.context("failed to start the sink")?;
    let config = demo_config(&dir, dns.address(), sink.address());
    let posthaste = run::Posthaste::start(config).await?;
    let address = posthaste.api_addresses().first().copied().context("there is no API")?;
    println!("test DNS on {}, receiving server on {}", dns.address(), sink.address());
    println!("Posthaste on http://{address}, its files in {}\n", dir.display());

    let api = ApiClient::new(&format!("http://{address}"), None)?;
    let mut followed = Vec::new();
    for (title, submission) in mails() {
        let accepted = api.submit(&submission).await?;
        let id = accepted["id"].as_str().context("the answer has no id")?.to_owned();
        println!("accepted {id}  {title}");
        followed.push(Followed { id, title: title.to_owned() });
    }
    println!();
    let ends = life::follow(&api, &followed, WITHIN).await?;

    posthaste.stop().await?;
    sink.stop().await;
    dns.stop().await;
    std::fs::remove_dir_all(&dir).with_context(|| format!("failed to remove {}", dir.display()))?;
    finish(&ends)
}

fn finish(ends: &std::collections::BTreeMap<String, usize>) -> anyhow::Result<ExitCode> {
    let count = |end: &str| ends.get(end).copied().unwrap_or(0);
    println!("\n{} delivered, {} undeliverable", count("delivered"), count("undeliverable"));
    println!(
        "\nSend your own:\n  \
         cargo run --release -p posthaste -- run\nand in another terminal:\n  \
         cargo run --release -p posthaste -- send --from you@your.domain --to friend@example.com \\\n    \
         --subject Hello --text \"Hello.\" --wait"
    );
    let as_planned = count("delivered") == 7 && count("undeliverable") == 1;
    Ok(if as_planned { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tempdir() -> anyhow::Result<std::path::PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let dir = std::env::temp_dir().join(format!("posthaste-demo-{}", std::process::id()));
    // Its own: one that is there already may be somebody else's.
    let made = std::fs::DirBuilder::new().mode(0o700).create(&dir);
    made.with_context(|| format!("failed to make {}", dir.display()))?;
    Ok(dir)
}

fn demo_config(dir: &std::path::Path, dns: SocketAddr, sink: SocketAddr) -> Config {
    let mut config = Config { data_dir: dir.to_path_buf(), ..Config::default() };
    config.hostname = "demo.posthaste.test".into();
    config.complete();
    config.resolver.servers = vec![dns];
    config.resolver.allow_private_destinations = true;
    for api in &mut config.api {
        api.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    }
    for client in &mut config.smtp_client {
        client.port = sink.port();
        client.retry.set_delays(&[Duration::from_secs(2)]);
    }
    config
}

/// The domains of the demonstration; each names its receiving server by MX.
fn zones() -> Zones {
    let mut zones = Zones::new().a(RECEIVER, [127, 0, 0, 1]);
    for domain in ["example.net", "example.org", "busy.test"] {
        zones = zones.mx(domain, 10, RECEIVER);
    }
    zones
}

fn sink_config(listen: SocketAddr) -> anyhow::Result<SinkConfig> {
    let mut config = SinkConfig::new(listen);
    config.server.hostname = RECEIVER.into();
    config.server.starttls = true;
    let rules = [
        "rcpt=greta@busy.test:450 4.2.1 Mailbox busy, try again later:once",
        "rcpt=nobody@*:550 5.1.1 No such user here",
    ];
    config.rules = rules.iter().map(|rule| rule.parse()).collect::<Result<Vec<Rule>, _>>()?;
    Ok(config)
}

/// The mails, with what to call them.
fn mails() -> Vec<(&'static str, Value)> {
    let from = json!({ "email": "news@sender.test", "name": "The Demo" });
    let png = BASE64_STANDARD.encode(include_bytes!("demo-dot.png"));
    vec![
        (
            "plain",
            json!({ "from": from, "to": ["anna@example.net"], "subject": "Plain",
                    "text": "Just text.", "tags": ["demo"] }),
        ),
        (
            "HTML with attachment",
            json!({ "from": from, "to": ["Boris Ö. <boris@example.org>"],
                    "subject": "HTML, with a dot attached – and a dash",
                    "text": "For those without HTML.", "html": "<p>A <b>dot</b> is attached.</p>",
                    "attachments": [{ "filename": "dot.png", "content_type": "image/png",
                                      "content": png }] }),
        ),
        (
            "CC and BCC",
            json!({ "from": from, "to": ["clara@example.net"], "cc": ["dan@example.org"],
                    "bcc": ["eve@example.net"], "subject": "Copies", "text": "Who sees whom?" }),
        ),
        (
            "in 3 seconds",
            json!({ "from": from, "to": ["finn@example.net"], "subject": "Later",
                    "text": "Not before its time.", "delay": 3 }),
        ),
        (
            "deferred once",
            json!({ "from": from, "to": ["greta@busy.test"], "subject": "Try again",
                    "text": "The server is busy at first." }),
        ),
        (
            "refused",
            json!({ "from": from, "to": ["nobody@example.org"], "subject": "No such user",
                    "text": "The server refuses the recipient." }),
        ),
    ]
}
