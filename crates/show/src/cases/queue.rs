//! `queue`: what the embedded queue makes of the disk and of memory.
//!
//! Every part runs in a process of its own. It holds when durable inserts
//! reach 70 % of the raw disk with the same batch size (the medians of rounds
//! that alternate, new files with new files and written ones with written
//! ones), a queued message takes at most 100 bytes of memory, what many
//! recipients share is stored once, and a drained queue gives the disk back.

use anyhow::{Result, bail};
use clap::Args;
use rustix::fs::statvfs;

use super::queue_child::{Filled, Part, Round, SharedBodies, Started};
use crate::Verdict;

/// Least share of the raw disk.
const SHARE: f64 = 0.7;
/// Most bytes of memory a message.
const MEMORY: f64 = 100.0;
/// Most bytes on the disk for a byte of shared contents. A segment is not cut
/// when the next large content does not fit any more.
const OVERHEAD: f64 = 1.1;
/// Most bytes that a drained queue keeps, to use them again.
const KEPT: u64 = 1 << 30;
/// What the parts need at once, at their default sizes.
const ROOM: u64 = 20 << 30;

#[derive(Debug, Args)]
pub struct QueueArgs {
    /// Messages of 10 KiB in each round of inserts.
    #[arg(long, env = "INSERTS", default_value_t = 20_000)]
    inserts: u64,
    /// Rounds of inserts.
    #[arg(long, env = "ROUNDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Messages that are queued at once; a fifth of them for the first figure.
    #[arg(long, env = "MESSAGES", default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(5..))]
    messages: u64,
    /// Submissions of 5 MiB to 100 recipients.
    #[arg(long, env = "SUBMISSIONS", default_value_t = 1000)]
    submissions: u64,
}

const BODY: usize = 10 << 10;
const LARGE: usize = 5 << 20;
const RECIPIENTS: u64 = 100;

pub async fn run(args: &QueueArgs) -> Result<Verdict> {
    let dir = tempfile::Builder::new().prefix("posthaste-queue-").tempdir()?;
    let disk = statvfs(dir.path())?;
    if disk.f_bavail * disk.f_frsize < ROOM {
        bail!("{} has less than {} GiB free", dir.path().display(), ROOM >> 30);
    }
    let sub = |name: &str| -> Result<_> {
        let path = dir.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    };
    println!("durable inserts of 10 KiB by 16 producers, and raw write + fdatasync:");
    let insert = Part::Insert { messages: args.inserts, bytes: BODY, rounds: args.rounds };
    let rounds: Vec<Round> = insert.call(&sub("insert")?).await?;
    let inserts = Inserts::of(&rounds);
    inserts.print();

    println!("memory of queued messages:");
    let first = args.messages / 5;
    let full = dir.path().join("full");
    let filled: Filled = Part::Fill { first, all: args.messages }.call(&full).await?;
    let memory = Memory::of(&filled, first, args.messages);
    let started: Started = Part::Start.call(&full).await?;
    print_memory(&memory, &filled, &started, first, args.messages);
    if started.messages != filled.messages {
        bail!("{} messages are there after a start, of {}", started.messages, filled.messages);
    }
    std::fs::remove_dir_all(full)?;

    println!("{} submissions of 5 MiB to {RECIPIENTS} recipients:", args.submissions);
    let shared =
        Part::Shared { submissions: args.submissions, recipients: RECIPIENTS, bytes: LARGE };
    let shared: SharedBodies = shared.call(&dir.path().join("shared")).await?;
    let content = args.submissions * LARGE as u64;
    print_shared(&shared, content);

    let holds = inserts.new >= SHARE
        && inserts.written >= SHARE
        && memory.first <= MEMORY
        && memory.all <= MEMORY
        && started.disk_drained <= KEPT
        && shared.disk_purged <= KEPT
        && shared.disk as f64 <= content as f64 * OVERHEAD;
    let line = format!(
        "queue: inserts {:.0} % of raw into new files, {:.0} % into written ones; {:.0} bytes of \
         memory a message with {first}, {:.0} with {}; start {:.1} s; {} MiB after the drain; \
         {} x 5 MiB x {RECIPIENTS} recipients: {} MiB in {:.0} s",
        inserts.new * 100.0,
        inserts.written * 100.0,
        memory.first,
        memory.all,
        args.messages,
        started.seconds,
        started.disk_drained >> 20,
        args.submissions,
        shared.disk >> 20,
        shared.seconds,
    );
    Ok(Verdict { line, holds })
}

/// Shares of the raw disk, and what they are of.
struct Inserts {
    new: f64,
    written: f64,
    fresh: f64,
    steady: f64,
}

impl Inserts {
    fn of(rounds: &[Round]) -> Self {
        let median_of = |of: fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        let (fresh, steady) = (median_of(|r| r.fresh), median_of(|r| r.steady));
        Self {
            new: fresh / median_of(|r| r.raw_new),
            written: steady / median_of(|r| r.raw_written),
            fresh,
            steady,
        }
    }

    fn print(&self) {
        println!(
            "  median: {:.0}/s into new files, {:.0} % of raw; {:.0}/s into recycled segments, \
             {:.0} % of raw over a written file",
            self.fresh,
            self.new * 100.0,
            self.steady,
            self.written * 100.0
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Bytes a message.
struct Memory {
    first: f64,
    all: f64,
}

impl Memory {
    fn of(filled: &Filled, first: u64, all: u64) -> Self {
        let each = |rss: u64, count: u64| rss.saturating_sub(filled.base) as f64 / count as f64;
        Self { first: each(filled.first, first), all: each(filled.all, all) }
    }
}

fn print_memory(memory: &Memory, filled: &Filled, started: &Started, first: u64, all: u64) {
    println!(
        "  base {} MiB; {:.1} bytes a message with {first}, {:.1} with {all}; published at {:.0}/s; \
         {} MiB on the disk",
        filled.base >> 20,
        memory.first,
        memory.all,
        filled.rate,
        filled.disk >> 20
    );
    let beyond = started.after.saturating_sub(started.before) as f64 / started.messages as f64;
    println!(
        "  start with {}: {:.1} s, {:.1} s of CPU, {beyond:.1} bytes a message, {} MiB at most",
        started.messages,
        started.seconds,
        started.cpu,
        started.peak >> 20
    );
    println!(
        "  drain {:.0}/s; then {} MiB on the disk, {} MiB after the end",
        started.drain,
        started.disk_drained >> 20,
        started.disk_closed >> 20
    );
}

fn print_shared(shared: &SharedBodies, content: u64) {
    println!(
        "  published to the broker as intake does, contents that do not compress: {:.1} s, {:.0} \
         MiB/s; {} MiB on the disk for {} MiB of contents ({} MiB were each stored for itself); {} \
         MiB of memory at most; {} bodies looked at",
        shared.seconds,
        content as f64 / shared.seconds / f64::from(1 << 20),
        shared.disk >> 20,
        content >> 20,
        (content * RECIPIENTS) >> 20,
        shared.peak >> 20,
        shared.sampled,
    );
    println!(
        "  all purged in {:.1} s; then {} MiB on the disk",
        shared.purge,
        shared.disk_purged >> 20
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(super::median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
