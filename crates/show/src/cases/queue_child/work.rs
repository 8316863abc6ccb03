//! What the parts do alike: open, insert, drain.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use posthaste_broker::{
    Body, Broker, Credit, Delivery, FlowKey, Publish, PublishOutcome, QueueName, Settlement,
    SubscribeOptions,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_model::{Clock, SystemClock};
use tokio::task::JoinSet;
use uuid::Uuid;

/// As many domains as a mailing has that matter.
const DOMAINS: u64 = 1000;
/// About as large as a real head.
pub const HEAD: usize = 450;
/// Settlements on their way at once.
const SETTLING: usize = 16;
/// Longest end of a queue.
const CLOSING: Duration = Duration::from_secs(60);

/// Opens the queue as the shipped program does.
pub async fn open(dir: &Path) -> Result<Arc<EmbeddedQueue>> {
    open_with(dir, Arc::new(SystemClock)).await
}

/// The same with a clock of one's own.
pub async fn open_with(dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<EmbeddedQueue>> {
    let config = EmbeddedConfig::new(dir);
    Ok(tokio::task::spawn_blocking(move || EmbeddedQueue::open(config, clock)).await??)
}

/// Ends it in order.
pub async fn close(queue: &EmbeddedQueue) -> Result<()> {
    Ok(queue.close(CLOSING).await?)
}

/// The queue of every message here.
pub fn pool() -> Result<QueueName> {
    Ok(QueueName::new("pool.default")?)
}

/// A message of a mailing.
pub fn message(pool: &QueueName, number: u64, head: Bytes, body: Bytes) -> Publish {
    Publish {
        queue: pool.clone(),
        id: Uuid::now_v7(),
        priority: 5,
        due: None,
        flow_key: flow(number),
        head,
        body: Body::Inline(body),
    }
}

/// Its domain.
pub fn flow(number: u64) -> FlowKey {
    FlowKey::new(&format!("domain{}.example", number % DOMAINS))
}

/// Publishes, and fails unless all of it is durable.
pub async fn publish(queue: &EmbeddedQueue, batch: Vec<Publish>) -> Result<()> {
    for outcome in queue.publish(batch).await? {
        if outcome != PublishOutcome::Durable {
            bail!("a publish came to {outcome:?}");
        }
    }
    Ok(())
}

/// `producers` publish the numbers below `messages`, `batch` at a time.
pub async fn insert(
    queue: &Arc<EmbeddedQueue>,
    messages: u64,
    producers: u32,
    batch: u64,
    make: impl Fn(u64) -> Publish + Send + Sync + 'static,
) -> Result<()> {
    let (next, make) = (Arc::new(AtomicU64::new(0)), Arc::new(make));
    let mut tasks = JoinSet::new();
    for _ in 0..producers {
        let (queue, next, make) = (Arc::clone(queue), Arc::clone(&next), Arc::clone(&make));
        tasks.spawn(async move {
            loop {
                let from = next.fetch_add(batch, Ordering::Relaxed);
                if from >= messages {
                    return anyhow::Ok(());
                }
                let numbers = from..(from + batch).min(messages);
                publish(&queue, numbers.map(|number| make(number)).collect()).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Takes `count` messages and settles each batch as `settle` says, some
/// settlements at a time.
pub async fn consume(
    queue: &Arc<EmbeddedQueue>,
    count: u64,
    mut settle: impl FnMut(Vec<Delivery>) -> Result<Settlement>,
) -> Result<()> {
    let options = SubscribeOptions {
        credit: Credit { messages: 8192, bytes: 64 << 20 },
        flow_messages: 8192,
        exclusive: false,
    };
    let mut subscription = queue.subscribe(&pool()?, options).await?;
    let mut settling: JoinSet<Result<()>> = JoinSet::new();
    let mut seen = 0;
    while seen < count {
        let next = tokio::time::timeout(Duration::from_secs(60), subscription.next()).await;
        let Ok(next) = next else {
            bail!("{seen} of {count} messages were handed over, and no more come")
        };
        let taken = next?;
        seen += taken.len() as u64;
        let settlement = settle(taken)?;
        let queue = Arc::clone(queue);
        settling.spawn(async move {
            for result in queue.settle(settlement).await? {
                result?;
            }
            Ok(())
        });
        while settling.len() >= SETTLING {
            if let Some(done) = settling.join_next().await {
                done??;
            }
        }
    }
    while let Some(done) = settling.join_next().await {
        done??;
    }
    Ok(())
}

/// Takes `count` messages and acknowledges them.
pub async fn drain(queue: &Arc<EmbeddedQueue>, count: u64) -> Result<()> {
    consume(queue, count, |taken| {
        let tokens = taken.into_iter().map(|delivery| delivery.token).collect();
        Ok(Settlement { tokens, publishes: Vec::new() })
    })
    .await
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes.into()
}
