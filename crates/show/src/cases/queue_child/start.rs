//! A start with many messages, and the drain of all of them.

use std::{path::Path, process::id, time::Instant};

use anyhow::Result;
use posthaste_broker::Broker as _;
use posthaste_show::measure;
use serde::{Deserialize, Serialize};

use super::work::{close, drain, open, pool};

/// What a start took.
#[derive(Debug, Serialize, Deserialize)]
pub struct Started {
    /// Seconds until messages can be taken and handed over.
    pub seconds: f64,
    /// CPU seconds of the same.
    pub cpu: f64,
    /// Messages that are there.
    pub messages: u64,
    /// Resident before and after, and at most, in bytes.
    pub before: u64,
    pub after: u64,
    pub peak: u64,
    /// Messages a second of the drain.
    pub drain: f64,
    /// On the disk after the drain, and after the end of the process.
    pub disk_drained: u64,
    pub disk_closed: u64,
}

pub async fn run(dir: &Path) -> Result<Started> {
    let (before, cpu) = (measure::rss(id())?, measure::cpu_time(id())?);
    let begin = Instant::now();
    let queue = open(dir).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = measure::cpu_time(id())?.saturating_sub(cpu).as_secs_f64();
    let (after, peak) = (measure::rss(id())?, measure::peak_rss(id())?);
    let messages = queue.depth(&pool()?).await?.total();
    eprintln!("  started in {seconds:.1} s with {messages} messages, {} MiB resident", after >> 20);
    let begin = Instant::now();
    drain(&queue, messages).await?;
    let rate = messages as f64 / begin.elapsed().as_secs_f64();
    // What is freed behind the last acknowledgement is freed by then.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let disk_drained = measure::disk_usage(dir)?;
    close(&queue).await?;
    let disk_closed = measure::disk_usage(dir)?;
    Ok(Started {
        seconds,
        cpu,
        messages,
        before,
        after,
        peak,
        drain: rate,
        disk_drained,
        disk_closed,
    })
}
