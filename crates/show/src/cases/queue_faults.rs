//! `queue-faults`: faults of the disk under the embedded queue, of every kind
//! and again and again with another seed, until the time is over.
//!
//! A fault may make the queue refuse, with an error that says what is wrong.
//! It may not make it lose what was confirmed, nor hand over what was not
//! published.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use posthaste_broker::embedded::faults::{self, FaultCount};

use crate::Verdict;

#[derive(Debug, Args)]
pub struct QueueFaultsArgs {
    /// Seconds after which no further seed is begun.
    #[arg(long, env = "DURATION", default_value_t = 120)]
    seconds: u64,
    /// Faults of each kind for one seed.
    #[arg(long, env = "ROUNDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// The first seed.
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
}

pub async fn run(args: &QueueFaultsArgs) -> Result<Verdict> {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let (rounds, mut seed) = (args.rounds, args.seed);
    let mut table = BTreeMap::<&'static str, FaultCount>::new();
    loop {
        let report = tokio::task::spawn_blocking(move || faults::run(seed, rounds)).await?;
        for (kind, count) in report {
            if count.lost + count.invented > 0 {
                println!("  {kind}: {count:?} with SEED={seed} ROUNDS={rounds}");
            }
            add(table.entry(kind).or_default(), count);
        }
        seed += 1;
        if Instant::now() >= end {
            break;
        }
    }
    println!(
        "{:<28} {:>9} {:>6} {:>9} {:>19}",
        "kind", "tried", "lost", "invented", "refused with error"
    );
    let mut all = FaultCount::default();
    for (kind, count) in &table {
        let FaultCount { tried, lost, invented, refused_with_error } = count;
        println!("{kind:<28} {tried:>9} {lost:>6} {invented:>9} {refused_with_error:>19}");
        add(&mut all, *count);
    }
    println!(
        "{} seeds from {} on, {rounds} faults of each kind a seed",
        seed - args.seed,
        args.seed
    );
    let line = format!(
        "queue-faults: {} faults of {} kinds, lost {}, invented {}",
        all.tried,
        table.len(),
        all.lost,
        all.invented
    );
    // Without a fault of every kind nothing is shown.
    let all_tried = !table.is_empty() && table.values().all(|count| count.tried > 0);
    Ok(Verdict { line, holds: all_tried && all.lost == 0 && all.invented == 0 })
}

fn add(to: &mut FaultCount, count: FaultCount) {
    to.tried += count.tried;
    to.lost += count.lost;
    to.invented += count.invented;
    to.refused_with_error += count.refused_with_error;
}
