//! Submissions of a large content to many recipients, as intake publishes
//! them: one batch a submission, its body shared.

use std::{
    path::Path,
    process::id,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Result, bail};
use posthaste_broker::{
    Body, Broker, Credit, Publish, SharedBody, SubscribeOptions, embedded::EmbeddedQueue,
};
use posthaste_show::measure;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::work::{HEAD, close, message, noise, open, pool, publish};

/// Submitters at once.
const SUBMITTERS: u32 = 4;
/// Messages whose bodies are looked at.
const SAMPLE: usize = 250;

/// What it took.
#[derive(Debug, Serialize, Deserialize)]
pub struct SharedBodies {
    /// Until all of it was durable.
    pub seconds: f64,
    /// On the disk.
    pub disk: u64,
    /// Resident at most.
    pub peak: u64,
    /// Messages that were looked at, with the right body.
    pub sampled: u64,
    /// Removal of all, in seconds, and the disk after it.
    pub purge: f64,
    pub disk_purged: u64,
}

pub async fn run(
    dir: &Path,
    submissions: u64,
    recipients: u64,
    bytes: usize,
) -> Result<SharedBodies> {
    let queue = open(dir).await?;
    let begin = Instant::now();
    submit_all(&queue, submissions, recipients, bytes).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let disk = measure::disk_usage(dir)?;
    let peak = measure::peak_rss(id())?;
    eprintln!("  {submissions} submissions in {seconds:.1} s, {} MiB on the disk", disk >> 20);
    let sampled = sample(&queue, bytes).await?;
    let begin = Instant::now();
    let purged = queue.purge(&pool()?).await?;
    if purged != submissions * recipients {
        bail!("{purged} messages were there, of {}", submissions * recipients);
    }
    let purge = begin.elapsed().as_secs_f64();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let disk_purged = measure::disk_usage(dir)?;
    close(&queue).await?;
    Ok(SharedBodies { seconds, disk, peak, sampled, purge, disk_purged })
}

async fn submit_all(
    queue: &Arc<EmbeddedQueue>,
    submissions: u64,
    recipients: u64,
    bytes: usize,
) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..SUBMITTERS {
        let (queue, next) = (Arc::clone(queue), Arc::clone(&next));
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= submissions {
                    return anyhow::Ok(());
                }
                publish(&queue, submission(number, recipients, bytes)?).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Its head says which body it has.
fn submission(number: u64, recipients: u64, bytes: usize) -> Result<Vec<Publish>> {
    let body = SharedBody { id: Uuid::now_v7(), bytes: noise(number, bytes) };
    let mut head = number.to_le_bytes().to_vec();
    head.resize(HEAD, b'h');
    let (pool, head) = (pool()?, bytes::Bytes::from(head));
    let one = |recipient| Publish {
        body: Body::Shared(body.clone()),
        ..message(&pool, recipient, head.clone(), bytes::Bytes::new())
    };
    Ok((0..recipients).map(one).collect())
}

/// Is handed some, checks their bodies, and gives them back.
async fn sample(queue: &Arc<EmbeddedQueue>, bytes: usize) -> Result<u64> {
    let credit = Credit { messages: u32::try_from(SAMPLE)?, bytes: u64::MAX };
    let options = SubscribeOptions { credit, flow_messages: 1, exclusive: false };
    let mut subscription = queue.subscribe(&pool()?, options).await?;
    let mut sampled = 0;
    while sampled < SAMPLE {
        let next = tokio::time::timeout(std::time::Duration::from_secs(5), subscription.next());
        // There may be fewer flows than that.
        let Ok(taken) = next.await else { break };
        for delivery in taken? {
            let mut number = [0; 8];
            number.copy_from_slice(&delivery.head[..8]);
            if delivery.body != noise(u64::from_le_bytes(number), bytes) {
                bail!("a message has not the body of its submission");
            }
            sampled += 1;
        }
    }
    Ok(sampled as u64)
}
