//! `load`: how fast, and at what cost, beside Postfix on the same machine in
//! the same run.
//!
//! Posthaste: everything durable, submissions of 5 KiB over HTTP, delivered to
//! the sink. Postfix: fed by its own `smtp-source` with mails of the same size,
//! relaying to such a sink. Both without TLS.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use posthaste_show::{
    accept_log::Accepted,
    load::{DOMAINS, Load, OnFailure, quantile},
    measure, names,
    node::{Node, Settings},
    peers::{Postfix, Purpose},
    sink::SinkProcess,
};

use super::evidence;
use crate::Verdict;

/// What the figure has to be.
const LEAST_RATIO: f64 = 3.0;
const MOST_CPU: Duration = Duration::from_micros(600);
/// No progress for so long is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct LoadArgs {
    /// How many messages.
    #[arg(long, env = "MESSAGES", default_value_t = 20_000)]
    messages: u64,
    /// Connections of the submitters, and sessions of smtp-source.
    #[arg(long, env = "CONNECTIONS", default_value_t = 20)]
    connections: usize,
}

struct Ours {
    accepted: f64,
    delivered: f64,
    p50: Duration,
    p99: Duration,
    cpu: Duration,
    rss: u64,
    /// Confirmed and not delivered exactly once.
    not_once: usize,
    without_evidence: usize,
}

struct Theirs {
    accepted: f64,
    delivered: f64,
}

pub async fn run(args: &LoadArgs, program: &Path) -> Result<Verdict> {
    if let Some(missing) = Postfix::missing() {
        let line = format!("load: no comparison, since {missing}");
        return Ok(Verdict { line, holds: false });
    }
    let cores = std::thread::available_parallelism()?;
    println!(
        "{} messages of 5 KiB, {} connections, {cores} cores",
        args.messages, args.connections
    );
    let ours = posthaste(args, program).await.context("Posthaste")?;
    let theirs = postfix(args, program).await.context("Postfix")?;
    println!("{:22} {:>10} {:>10}", "", "Posthaste", "Postfix");
    println!("{:22} {:>10.0} {:>10.0}", "accepted/s", ours.accepted, theirs.accepted);
    println!("{:22} {:>10.0} {:>10.0}", "delivered/s", ours.delivered, theirs.delivered);
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!("{:22} {:>10.1}", "accept p50, ms", millis(ours.p50));
    println!("{:22} {:>10.1}", "accept p99, ms", millis(ours.p99));
    println!("{:22} {:>10}", "CPU µs a message", ours.cpu.as_micros());
    println!("{:22} {:>10}", "peak RSS, MiB", ours.rss >> 20);
    println!("{:22} {:>10}", "not delivered once", ours.not_once);
    println!("{:22} {:>10}", "without evidence", ours.without_evidence);
    let ratio = ours.delivered / theirs.delivered;
    let line = format!(
        "load: accepted {:.0}/s, delivered {:.0}/s, {} µs CPU a message, RSS {} MiB; \
         Postfix {:.0}/s; ratio {ratio:.1}",
        ours.accepted,
        ours.delivered,
        ours.cpu.as_micros(),
        ours.rss >> 20,
        theirs.delivered,
    );
    let complete = ours.not_once == 0 && ours.without_evidence == 0;
    let holds = ratio >= LEAST_RATIO && ours.cpu <= MOST_CPU && complete;
    Ok(Verdict { line, holds })
}

async fn posthaste(args: &LoadArgs, program: &Path) -> Result<Ours> {
    let mut sink = SinkProcess::start(program).await?;
    let dns = names::all_to_loopback(&DOMAINS).await?;
    let mut settings = Settings::new(program, dns.address(), sink.address().port());
    // As many sessions as the other side has.
    settings.client = "concurrency = 20\nmessages_per_connection = 1000".to_owned();
    let mut node = Node::start(&settings).await?;
    let pid = node.process().id();

    let (begin, begin_wall, cpu_before) = (Instant::now(), unix_millis()?, measure::cpu_time(pid)?);
    let load = Load::start(node.api(), args.connections, args.messages, OnFailure::End);
    let outcome = load.finish().await?;
    let accepted_in = begin.elapsed();
    let mut taken = wait_for(&mut sink, args.messages).await?;
    let last = taken.last().map_or(begin_wall, |one| one.at);
    measure::wait_until_idle(pid).await?;
    let cpu = measure::cpu_time(pid)?.saturating_sub(cpu_before);
    let rss = measure::peak_rss(pid)?;
    node.stop().await?;
    taken.extend(sink.accepted_to_the_last().await?);

    let ids: HashSet<&str> = outcome.confirmed.iter().map(|one| one.id.as_str()).collect();
    if ids.len() as u64 != args.messages {
        bail!("{} messages have an id of their own, of {}", ids.len(), args.messages);
    }
    Ok(Ours {
        accepted: args.messages as f64 / accepted_in.as_secs_f64(),
        delivered: args.messages as f64 / seconds(begin_wall, last),
        p50: quantile(&outcome.confirmed, 0.5),
        p99: quantile(&outcome.confirmed, 0.99),
        cpu: cpu / u32::try_from(args.messages)?,
        rss,
        not_once: not_once(&ids, &taken),
        without_evidence: evidence::missing(&node, ids).await?.len(),
    })
}

async fn postfix(args: &LoadArgs, program: &Path) -> Result<Theirs> {
    let mut sink = SinkProcess::start(program).await?;
    let postfix = Postfix::start(&Purpose::Relay(sink.address())).await?;
    let (begin, begin_wall) = (Instant::now(), unix_millis()?);
    let fed = tokio::process::Command::new("/usr/sbin/smtp-source")
        .env("MAIL_CONFIG", postfix.config_dir())
        .args(["-s", &args.connections.to_string(), "-l", "5120", "-m", &args.messages.to_string()])
        .args(["-f", "sender@example.com", "-t", "r@a.test"])
        .arg(postfix.address().to_string())
        .stdin(Stdio::null())
        .status()
        .await?;
    if !fed.success() {
        bail!("smtp-source ended with {fed}");
    }
    let accepted_in = begin.elapsed();
    let taken = wait_for(&mut sink, args.messages).await?;
    let last = taken.last().map_or(begin_wall, |one| one.at);
    Ok(Theirs {
        accepted: args.messages as f64 / accepted_in.as_secs_f64(),
        delivered: args.messages as f64 / seconds(begin_wall, last),
    })
}

/// Waits until the sink has accepted `count` messages; gives them.
async fn wait_for(sink: &mut SinkProcess, count: u64) -> Result<Vec<Accepted>> {
    let mut taken = Vec::new();
    let mut progress = Instant::now();
    while (taken.len() as u64) < count {
        let more = sink.accepted()?;
        if !more.is_empty() {
            progress = Instant::now();
        }
        taken.extend(more);
        if progress.elapsed() > PATIENCE {
            bail!("the sink has {} of {count} messages, and no more come", taken.len());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(taken)
}

/// How many of `ids` the sink did not take exactly once.
fn not_once(ids: &HashSet<&str>, taken: &[Accepted]) -> usize {
    let mut times: HashMap<&str, u32> = HashMap::new();
    for one in taken {
        *times.entry(one.id.as_str()).or_default() += 1;
    }
    ids.iter().filter(|id| times.get(*id) != Some(&1)).count()
}

fn unix_millis() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn seconds(from: u64, to: u64) -> f64 {
    // At least a millisecond: nothing is infinitely fast.
    to.saturating_sub(from).max(1) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_comes_once() {
        let taken = |ids: &[&str]| -> Vec<Accepted> {
            let one = |id: &&str| Accepted { at: 0, id: (*id).into(), recipient: String::new() };
            ids.iter().map(one).collect()
        };
        let ids = HashSet::from(["a", "b"]);
        assert_eq!(not_once(&ids, &taken(&["b", "a"])), 0);
        assert_eq!(not_once(&ids, &taken(&["b", "b"])), 2);
    }
}
