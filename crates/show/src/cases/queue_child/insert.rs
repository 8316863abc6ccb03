//! Durable inserts beside raw writes and syncs of the same bytes in batches
//! of the same size.
//!
//! Both are measured twice: into new files, and into files that were written
//! before, which is how a queue works once it has recycled segments. A sync
//! of new blocks costs the file system's journal too, so each is compared with
//! its like.

use std::{fs::OpenOptions, os::unix::fs::FileExt as _, path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use posthaste_broker::embedded::EmbeddedQueue;
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};

use super::work::{HEAD, close, drain, insert, message, noise, open, pool};

/// As many as the REST API has busy connections.
const PRODUCERS: u32 = 16;
/// The queue keeps a few segments to use them again: parts that fit in those.
const PARTS: u64 = 5;
/// Reserved at once, as the queue does it.
const RESERVE: u64 = 64 << 20;

/// Messages a second.
#[derive(Debug, Serialize, Deserialize)]
pub struct Round {
    /// The queue in an empty directory.
    pub fresh: f64,
    /// The queue when it is drained again and again: in segments that are used
    /// again.
    pub steady: f64,
    /// Raw, into a new file that is reserved.
    pub raw_new: f64,
    /// Raw, over a file that is written.
    pub raw_written: f64,
    /// Messages a sync.
    pub batch: f64,
    /// Segments that were used again.
    pub recycled: u64,
}

pub async fn run(dir: &Path, messages: u64, bytes: usize, rounds: u32) -> Result<Vec<Round>> {
    let body = noise(1, bytes);
    let head = noise(2, HEAD);
    let mut all = Vec::new();
    let mut batch = f64::from(PRODUCERS);
    for round in 0..rounds {
        // Who goes first changes: a disk is not the same all the time.
        let before = round % 2 == 1;
        let mut raw = (0.0, 0.0);
        if before {
            raw = raw_both(dir, messages, bytes, batch)?;
        }
        let path = dir.join(format!("round{round}"));
        let queue = open(&path).await?;
        let fresh = messages as f64 / timed(&queue, messages, &head, &body).await?;
        batch = messages as f64 / queue.stats().commits.max(1) as f64;
        drain(&queue, messages).await?;
        let stats = queue.stats();
        let mut seconds = 0.0;
        for _ in 0..PARTS {
            seconds += timed(&queue, messages / PARTS, &head, &body).await?;
            drain(&queue, messages / PARTS).await?;
        }
        let steady = (messages / PARTS * PARTS) as f64 / seconds;
        let after = queue.stats();
        close(&queue).await?;
        drop(queue);
        std::fs::remove_dir_all(path)?;
        if !before {
            raw = raw_both(dir, messages, bytes, batch)?;
        }
        let recycled = after.recycled.saturating_sub(stats.recycled);
        let (raw_new, raw_written) = raw;
        eprintln!(
            "  round {}: queue {fresh:.0}/s new, {steady:.0}/s recycled; raw {raw_new:.0}/s new, \
             {raw_written:.0}/s written; {batch:.1} messages a sync, {recycled} segments recycled",
            round + 1
        );
        all.push(Round { fresh, steady, raw_new, raw_written, batch, recycled });
    }
    Ok(all)
}

/// Seconds of so many inserts.
async fn timed(
    queue: &Arc<EmbeddedQueue>,
    messages: u64,
    head: &Bytes,
    body: &Bytes,
) -> Result<f64> {
    let (pool, head, body) = (pool()?, head.clone(), body.clone());
    let make = move |number| message(&pool, number, head.clone(), body.clone());
    let begin = Instant::now();
    insert(queue, messages, PRODUCERS, 1, make).await?;
    Ok(begin.elapsed().as_secs_f64())
}

fn raw_both(dir: &Path, messages: u64, bytes: usize, batch: f64) -> Result<(f64, f64)> {
    let path = dir.join("raw");
    let piece = noise(3, ((bytes + HEAD) as f64 * batch) as usize);
    let size = messages * (bytes + HEAD) as u64;
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let mut rates = [0.0; 2];
    for (pass, rate) in rates.iter_mut().enumerate() {
        let begin = Instant::now();
        let (mut at, mut reserved) = (0, 0);
        while at < size {
            if pass == 0 && at + piece.len() as u64 > reserved {
                fallocate(&file, FallocateFlags::empty(), reserved, RESERVE)
                    .context("failed to reserve")?;
                reserved += RESERVE;
                file.sync_all()?;
            }
            file.write_all_at(&piece, at)?;
            file.sync_data()?;
            at += piece.len() as u64;
        }
        *rate = messages as f64 / begin.elapsed().as_secs_f64();
    }
    std::fs::remove_file(path)?;
    Ok((rates[0], rates[1]))
}
