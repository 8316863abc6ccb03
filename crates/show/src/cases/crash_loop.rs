//! `crash-loop`: `kill -9` during load, restart, again and again, then drain.
//!
//! Every message that was answered with 202 must have arrived. A message may
//! have arrived twice only if, at a kill, the sink had taken it and the reply
//! was not yet in the journal (RFC 1047): such attempts are counted at every
//! kill, before the restart, and each allows one repetition of that message.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use posthaste_delivery::journal;
use posthaste_model::AttemptId;
use posthaste_show::{
    load::{DOMAINS, Load, OnFailure, Outcome},
    measure, names,
    node::{Node, Settings},
    sink::SinkProcess,
};

use super::evidence;
use crate::Verdict;

/// No progress for so long ends the wait for what is missing.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct CrashLoopArgs {
    /// How often the process is killed.
    #[arg(long, env = "KILLS", default_value_t = 50)]
    kills: u32,
    /// Connections of the submitters.
    #[arg(long, env = "CONNECTIONS", default_value_t = 8)]
    connections: usize,
}

/// What the sink took and what the kills allow, by message id.
#[derive(Debug, Default)]
struct Ledger {
    taken: HashMap<String, u32>,
    taken_since_kill: HashSet<String>,
    allowed: HashMap<String, u32>,
    in_doubt: HashSet<AttemptId>,
}

impl Ledger {
    /// Adds what the sink took, as message ids.
    fn take(&mut self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            *self.taken.entry(id.clone()).or_default() += 1;
            self.taken_since_kill.insert(id);
        }
    }

    /// At a kill: the attempts whose end was not journalled. Where the sink
    /// has taken the message since the last kill, one repetition of it is
    /// allowed; an attempt that was open at an earlier kill already allows no
    /// further one.
    fn allow(&mut self, unjournalled: impl IntoIterator<Item = (AttemptId, String)>) {
        for (attempt, id) in unjournalled {
            if self.in_doubt.insert(attempt) && self.taken_since_kill.contains(&id) {
                *self.allowed.entry(id).or_default() += 1;
            }
        }
        self.taken_since_kill.clear();
    }

    fn lost<'a>(&self, confirmed: &HashSet<&'a str>) -> Vec<&'a str> {
        confirmed.iter().copied().filter(|id| !self.taken.contains_key(*id)).collect()
    }

    fn duplicates(&self) -> u32 {
        self.taken.values().map(|times| times - 1).sum()
    }

    fn all_allowed(&self) -> u32 {
        self.allowed.values().sum()
    }

    /// Messages that arrived more often than the kills allow.
    fn excess(&self) -> Vec<&str> {
        let allowed = |id: &String| self.allowed.get(id).copied().unwrap_or(0);
        let over = self.taken.iter().filter(|(id, times)| **times - 1 > allowed(id));
        over.map(|(id, _)| id.as_str()).collect()
    }
}

pub async fn run(args: &CrashLoopArgs, program: &Path) -> Result<Verdict> {
    let mut sink = SinkProcess::start(program).await?;
    let dns = names::all_to_loopback(&DOMAINS).await?;
    let settings = Settings::new(program, dns.address(), sink.address().port());
    let mut node = Node::start(&settings).await?;
    let mut ledger = Ledger::default();
    let load = Load::start(node.api(), args.connections, u64::MAX, OnFailure::Reconnect);
    let begin = Instant::now();
    for kill in 1..=args.kills {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..=900))).await;
        node.kill()?;
        ledger.take(sink.accepted_to_the_last().await?.into_iter().map(|one| one.id));
        ledger.allow(unjournalled(&node)?);
        node.start_again().await?;
        if kill % 10 == 0 || kill == args.kills {
            let (taken, allowed) = (ledger.taken.len(), ledger.all_allowed());
            let seconds = begin.elapsed().as_secs();
            println!("{seconds:>4} s: {kill} kills, {taken} delivered, {allowed} in doubt");
        }
    }
    load.end();
    let outcome = load.finish().await?;
    drain(&mut sink, &mut ledger, &outcome).await?;
    measure::wait_until_idle(node.process().id()).await?;
    node.stop().await?;
    ledger.take(sink.accepted_to_the_last().await?.into_iter().map(|one| one.id));
    report(args, &node, &ledger, &outcome).await
}

/// Waits until everything that was confirmed has arrived, or nothing more
/// comes.
async fn drain(sink: &mut SinkProcess, ledger: &mut Ledger, outcome: &Outcome) -> Result<()> {
    let ids: HashSet<&str> = outcome.confirmed.iter().map(|one| one.id.as_str()).collect();
    let mut progress = Instant::now();
    while !ledger.lost(&ids).is_empty() && progress.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let more = sink.accepted()?;
        if !more.is_empty() {
            progress = Instant::now();
        }
        ledger.take(more.into_iter().map(|one| one.id));
    }
    Ok(())
}

async fn report(
    args: &CrashLoopArgs,
    node: &Node,
    ledger: &Ledger,
    outcome: &Outcome,
) -> Result<Verdict> {
    let ids: HashSet<&str> = outcome.confirmed.iter().map(|one| one.id.as_str()).collect();
    let lost = ledger.lost(&ids);
    let excess = ledger.excess();
    let accepted = ids.len();
    let without_evidence = evidence::missing(node, ids).await?;
    println!("kills                     {:>8}", args.kills);
    println!("answered with 202         {accepted:>8}");
    println!("submissions without 202   {:>8}", outcome.unconfirmed);
    println!("messages delivered        {:>8}", ledger.taken.len());
    println!("lost                      {:>8} {}", lost.len(), some(&lost));
    println!("duplicates                {:>8}", ledger.duplicates());
    println!("  allowed by the kills    {:>8}", ledger.all_allowed());
    println!("  not allowed             {:>8} {}", excess.len(), some(&excess));
    println!("without evidence in SQL   {:>8} {}", without_evidence.len(), some(&without_evidence));
    let line = format!(
        "crash-loop: {} kills, {accepted} accepted, lost {}, duplicates {} of {} allowed",
        args.kills,
        lost.len(),
        ledger.duplicates(),
        ledger.all_allowed(),
    );
    let holds = accepted > 0 && lost.is_empty() && excess.is_empty() && without_evidence.is_empty();
    Ok(Verdict { line, holds })
}

/// The first few, for a report.
fn some<T: AsRef<str>>(ids: &[T]) -> String {
    ids.iter().take(3).map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

/// The attempts that have begun and whose end is not in the journal of the
/// killed node, with their messages.
fn unjournalled(node: &Node) -> Result<Vec<(AttemptId, String)>> {
    let attempts = journal::read(&node.data_dir().join("journal"))?;
    let open = attempts.into_iter().filter(|attempt| !attempt.has_final && !attempt.is_settled);
    Ok(open.map(|attempt| (attempt.attempt_id, attempt.message_id.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn a_repetition_needs_a_doubt_of_its_own() {
        let (first, second, third) = (AttemptId::new(), AttemptId::new(), AttemptId::new());
        let mut ledger = Ledger::default();
        ledger.take(ids(&["a", "b", "c"]));
        // `d` was begun and did not reach the sink: it allows nothing.
        ledger.allow([(first, "a".to_owned()), (second, "d".to_owned())]);
        ledger.take(ids(&["a", "d"]));
        // The first is still open at the next kill, which is not a new doubt.
        ledger.allow([(first, "a".to_owned())]);
        assert_eq!((ledger.duplicates(), ledger.all_allowed()), (1, 1));
        assert!(ledger.excess().is_empty());
        // The sink took nothing of `b` since that kill.
        ledger.allow([(third, "b".to_owned())]);
        ledger.take(ids(&["a", "b"]));
        assert_eq!(ledger.duplicates(), 3);
        let mut excess = ledger.excess();
        excess.sort_unstable();
        assert_eq!(excess, ["a", "b"]);
        assert_eq!(ledger.lost(&HashSet::from(["a", "e"])), ["e"]);
    }
}
