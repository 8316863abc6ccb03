//! `deferral`: every message is deferred five times, as when a large
//! destination is down; then all but one in twenty are delivered.
//!
//! It holds when nothing is lost or invented, and the disk never takes more
//! than three times what lives: a deferral leaves a dead head behind, a
//! delivered message a dead body, and compaction has to keep up. What a queue
//! keeps of freed segments, to use them again, comes on top at the end.

use anyhow::Result;
use clap::Args;

use super::queue_child::{Deferred, Part};
use crate::Verdict;

/// Most bytes on the disk for a byte that lives.
const SPACE: f64 = 3.0;
/// Most bytes that a queue keeps to use them again.
const KEPT: u64 = 512 << 20;
const TIMES: u32 = 5;

#[derive(Debug, Args)]
pub struct DeferralArgs {
    /// Messages that are deferred.
    #[arg(long, env = "MESSAGES", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Bytes of each body; a head has 450.
    #[arg(long, env = "BODY", default_value_t = 2048)]
    body: usize,
}

pub async fn run(args: &DeferralArgs) -> Result<Verdict> {
    let dir = tempfile::Builder::new().prefix("posthaste-deferral-").tempdir()?;
    println!("{} messages of {} bytes, each deferred {TIMES} times:", args.messages, args.body);
    let part = Part::Deferral { messages: args.messages, times: TIMES, bytes: args.body };
    let it: Deferred = part.call(&dir.path().join("queue")).await?;
    let deferrals = (args.messages * u64::from(TIMES)) as f64;
    let (each, compacted) = (it.written as f64 / deferrals, it.compacted as f64 / deferrals);
    let space = |bytes: u64| bytes as f64 / it.live as f64;
    let share = (it.compacting + it.tail_compacting) / (it.seconds + it.tail_seconds);
    println!(
        "  {:.0} deferrals/s; {each:.0} bytes written for each, {compacted:.0} of them by compaction",
        deferrals / it.seconds
    );
    println!(
        "  disk: {} MiB live, {} MiB when queued ({:.2} x), {} MiB at most ({:.2} x), {} MiB at the \
         end ({:.2} x), {} MiB after the drain",
        it.live >> 20,
        it.disk_inserted >> 20,
        space(it.disk_inserted),
        it.disk_peak >> 20,
        space(it.disk_peak),
        it.disk >> 20,
        space(it.disk),
        it.disk_drained >> 20,
    );
    println!(
        "  compaction: {} segments, {:.1} s of {:.1} s; restart in {:.1} s",
        it.compactions, it.compacting, it.seconds, it.start
    );
    println!(
        "  all but one in twenty delivered in {:.1} s: {} MiB live, {} MiB on the disk; compaction: {} \
         segments, {} MiB copied in {:.1} s",
        it.tail_seconds,
        it.tail_live >> 20,
        it.tail_disk >> 20,
        it.tail_compactions,
        it.tail_compacted >> 20,
        it.tail_compacting,
    );
    let line = format!(
        "deferral: {} messages deferred {TIMES} times: {each:.0} bytes written for each deferral, \
         disk at most {:.2} x and at the end {:.2} x of what lives, {} MiB for the last {} MiB, \
         compaction {:.1} % of the time, lost {}, invented {}",
        args.messages,
        space(it.disk_peak),
        space(it.disk),
        it.tail_disk >> 20,
        it.tail_live >> 20,
        share * 100.0,
        it.lost,
        it.invented
    );
    let tail_bound = it.tail_live as f64 * SPACE + KEPT as f64;
    let holds = it.lost == 0
        && it.invented == 0
        && space(it.disk_peak.max(it.disk)) <= SPACE
        && it.tail_disk as f64 <= tail_bound;
    Ok(Verdict { line, holds })
}
