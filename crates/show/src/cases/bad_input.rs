//! `bad-input`: everything in the tables is sent to a real node, which must
//! answer as they say, and hold afterwards what it held before.
//!
//! One table is the intake's own, of bodies. The other is here, of everything
//! around a body: how it comes, how it is named, how it ends.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use posthaste_intake::bad_input::{self, Case};
use posthaste_model::Timestamp;
use posthaste_show::{
    http::Client,
    names,
    node::{Node, Settings},
    port,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::bad_http::{self, Exchange, Expected};
use crate::Verdict;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct BadInputArgs {}

/// What a node holds.
#[derive(Debug, PartialEq)]
struct Holding {
    pools: Value,
    /// Messages in all queues, submissions accepted, events in the store.
    counts: Vec<String>,
}

pub async fn run(_args: &BadInputArgs, program: &Path) -> Result<Verdict> {
    let dns = names::all_to_loopback(&[]).await?;
    let mut settings = Settings::new(program, dns.address(), port::free()?.port());
    // A listener that does not wait long, for what is slow.
    let impatient = port::free()?;
    settings.sections = format!("[[api]]\nlisten = \"{impatient}\"\nread_timeout = \"1s\"\n");
    let mut node = Node::start(&settings).await?;
    // Something that stays, so that what is compared is not nothing.
    let mut kept = bad_input::good();
    kept["delay"] = json!(86_400);
    node.submit(&kept).await?;
    let before = settled(&node).await?;
    if before.counts.len() < 4 {
        bail!("the node does not tell what it holds: {before:?}");
    }

    let mut wrong = Vec::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let bodies = bad_input::cases(Timestamp::from_millis(i64::try_from(now.as_millis())?));
    for case in &bodies {
        if let Err(error) = send(&node, case).await {
            wrong.push(format!("{}: {error:#}", case.name));
        }
    }
    let exchanges = bad_http::exchanges()?;
    for one in &exchanges {
        let address = if one.is_slow { impatient } else { node.api() };
        if let Err(error) = exchange(address, one).await {
            wrong.push(format!("{}: {error:#}", one.name));
        }
    }
    wrong.iter().for_each(|one| println!("{one}"));
    let count = bodies.len() + exchanges.len();
    let after = settled(&node).await?;
    let is_unchanged = before == after;
    if !is_unchanged {
        println!("the node held {before:?} before and {after:?} after");
    }
    // It still works.
    node.submit(&bad_input::good()).await?;
    node.stop().await?;
    println!("{} bodies, {} requests of other kinds", bodies.len(), exchanges.len());
    let line =
        format!("bad-input: {count} cases, {} answered as the table says", count - wrong.len());
    Ok(Verdict { line, holds: wrong.is_empty() && is_unchanged })
}

/// What the node holds once its logger has nothing left to write.
async fn settled(node: &Node) -> Result<Holding> {
    let mut last = holding(node).await?;
    loop {
        // Longer than the gauges may be old.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let next = holding(node).await?;
        if next == last {
            return Ok(next);
        }
        last = next;
    }
}

async fn holding(node: &Node) -> Result<Holding> {
    let mut client = node.client().await?;
    let pools = client.get("/v1/pools").await?.json()?;
    let metrics = client.get("/metrics").await?.text();
    let names = [
        "posthaste_queue_messages ",
        "posthaste_api_submissions_accepted_total ",
        "posthaste_api_messages_accepted_total ",
        "posthaste_logger_events_total",
    ];
    let is_counted = |line: &&str| names.iter().any(|name| line.starts_with(name));
    let counts: Vec<_> = metrics.lines().filter(is_counted).map(str::to_owned).collect();
    Ok(Holding { pools, counts })
}

async fn send(node: &Node, case: &Case) -> Result<()> {
    let mut client: Client = node.client().await?;
    let answer = client.post("/v1/submissions", case.body.clone()).await?;
    check_problem(answer.status.as_u16(), &answer.headers, &answer.text(), case.status)?;
    let json = answer.json()?;
    let errors = json["errors"].as_array().cloned().unwrap_or_default();
    match &case.pointer {
        None if json["code"] == case.code && errors.is_empty() => Ok(()),
        Some(pointer) => match errors.as_slice() {
            [one] if one["pointer"] == *pointer && one["code"] == case.code => Ok(()),
            _ => bail!("{pointer:?} {} is not the one error of {json}", case.code),
        },
        None => bail!("{} is not the code of {json}", case.code),
    }
}

/// RFC 9457, whole.
fn check_problem(status: u16, headers: &hyper::HeaderMap, text: &str, expected: u16) -> Result<()> {
    if status != expected {
        bail!("{status} in place of {expected}: {text}");
    }
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
    let json: Value = serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
    let is_whole = ["type", "title", "detail", "code"]
        .iter()
        .all(|field| json[field].as_str().is_some_and(|text| !text.is_empty()));
    if kind != Some("application/problem+json") || json["status"] != status || !is_whole {
        bail!("{kind:?} is no problem: {text}");
    }
    Ok(())
}

async fn exchange(address: SocketAddr, one: &Exchange) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    for part in &one.parts {
        // Whoever is refused in the middle may find the connection closed.
        if stream.write_all(part).await.is_err() {
            break;
        }
    }
    if one.ends_early {
        stream.shutdown().await?;
    }
    let answer = timeout(PATIENCE, read_answer(&mut stream)).await;
    let answer = answer.context("no answer and no end")??;
    match (&one.expected, answer) {
        (Expected::Closed, None) => Ok(()),
        (Expected::Status(status), Some(answer)) if answer.status == *status => Ok(()),
        (Expected::Problem(status, code), Some(answer)) => {
            check_problem(answer.status, &answer.headers, &answer.body, *status)?;
            let json: Value = serde_json::from_str(&answer.body)?;
            if json["code"] != *code {
                bail!("{code} is not the code of {json}");
            }
            Ok(())
        }
        (expected, answer) => bail!("{answer:?} in place of {expected:?}"),
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: hyper::HeaderMap,
    body: String,
}

/// Reads one answer; `None` when the connection ends without one.
async fn read_answer(stream: &mut TcpStream) -> Result<Option<Answer>> {
    let mut read = Vec::new();
    let mut piece = vec![0; 8192];
    let end = loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) if read.is_empty() => return Ok(None),
            Ok(0) | Err(_) => bail!("half an answer: {}", String::from_utf8_lossy(&read)),
            Ok(count) => read.extend_from_slice(&piece[..count]),
        }
    };
    let head = String::from_utf8(read[..end].to_vec())?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
    let mut headers = hyper::HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").context("no header field")?;
        let name: hyper::header::HeaderName = name.parse()?;
        headers.insert(name, value.parse()?);
    }
    let length = headers.get("content-length").and_then(|length| length.to_str().ok());
    let length: usize = length.unwrap_or("0").parse()?;
    let mut body = read[end + 4..].to_vec();
    while body.len() < length {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            bail!("half a body: {}", String::from_utf8_lossy(&body));
        }
        body.extend_from_slice(&piece[..count]);
    }
    let body = String::from_utf8(body)?;
    Ok(Some(Answer { status: status.parse()?, headers, body }))
}
