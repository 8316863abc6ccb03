//! Many small messages that stay, and the memory that they take.

use std::{
    path::Path,
    process::id,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use posthaste_broker::{Publish, embedded::EmbeddedQueue};
use posthaste_show::measure;
use serde::{Deserialize, Serialize};

use super::work::{HEAD, close, insert, message, noise, open, pool, publish};

/// Small, so that the disk suffices: the body is not held in memory anyway.
const BODY: usize = 64;
/// Their bodies fill the cache of what was just published, which is bounded
/// by configuration: it belongs to the base.
const WARM: (u64, usize) = (4000, 10 << 10);

/// Messages that are published until the memory is read.
const SETTLING: u64 = 100;

/// Resident memory in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Filled {
    /// Of the process with an open queue and full buffers.
    pub base: u64,
    /// With the first messages.
    pub first: u64,
    /// With all of them.
    pub all: u64,
    /// Messages a second.
    pub rate: f64,
    /// On the disk, in bytes.
    pub disk: u64,
    /// Messages in the queue.
    pub messages: u64,
}

pub async fn run(dir: &Path, first: u64, all: u64) -> Result<Filled> {
    let queue = open(dir).await?;
    let (pool, head, small) = (pool()?, noise(2, HEAD), noise(1, BODY));
    let of = |body: bytes::Bytes| {
        let (pool, head) = (pool.clone(), head.clone());
        move |number| message(&pool, number, head.clone(), body.clone())
    };
    insert(&queue, WARM.0, 16, 1, of(noise(3, WARM.1))).await?;
    let base = settled(&queue, of(small.clone())).await?;
    let begin = Instant::now();
    insert(&queue, first, 4, 250, of(small.clone())).await?;
    let with_first = settled(&queue, of(small.clone())).await?;
    eprintln!("  {first} messages queued, {} MiB resident", with_first >> 20);
    insert(&queue, all.saturating_sub(first), 4, 250, of(small.clone())).await?;
    let rate = all as f64 / begin.elapsed().as_secs_f64();
    let with_all = settled(&queue, of(small.clone())).await?;
    eprintln!("  {all} messages queued, {} MiB resident", with_all >> 20);
    close(&queue).await?;
    let disk = measure::disk_usage(dir)?;
    Ok(Filled {
        base,
        first: with_first,
        all: with_all,
        rate,
        disk,
        messages: all + WARM.0 + 3 * SETTLING,
    })
}

/// The memory, when what was freed had the time to be given back: the
/// allocator does that a moment later, when it is used again.
async fn settled(queue: &Arc<EmbeddedQueue>, of: impl Fn(u64) -> Publish) -> Result<u64> {
    for number in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        publish(queue, (0..20).map(|other| of(number * 20 + other)).collect()).await?;
    }
    measure::rss(id())
}
