//! Messages that are handed over, deferred, handed over again …, as when every
//! destination says "later"; then most are delivered, and what is left stands
//! here and there in all segments. The clock is moved, nothing waits.

use std::{
    collections::HashSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use bytes::Bytes;
use posthaste_broker::{
    Body, Broker as _, Delivery, Publish, QueueName, Settlement,
    embedded::{EmbeddedQueue, QueueStats},
};
use posthaste_model::{Clock as _, ManualClock, Timestamp};
use posthaste_show::measure;
use serde::{Deserialize, Serialize};

use super::work::{HEAD, close, consume, drain, insert, message, open_with, pool};

/// Until the next attempt.
const DELAY: Duration = Duration::from_secs(3600);
/// Of so many messages one is left at the end, as of a mailing.
const TAIL: u64 = 20;
/// Messages of one publish.
const BATCH: u64 = 100;

/// What the deferrals took.
#[derive(Debug, Serialize, Deserialize)]
pub struct Deferred {
    /// Heads and bodies that live, in bytes.
    pub live: u64,
    /// The disk after the inserts, at most, and at the end.
    pub disk_inserted: u64,
    pub disk_peak: u64,
    pub disk: u64,
    /// Bytes written for the deferrals, and those of compaction among them.
    pub written: u64,
    pub compacted: u64,
    /// Seconds of all deferrals, and those of compaction among them.
    pub seconds: f64,
    pub compacting: f64,
    /// Segments that were compacted away.
    pub compactions: u64,
    /// Confirmed messages that were gone or not as they should be at the end,
    /// after a restart.
    pub lost: u64,
    /// Messages that were handed over and should not.
    pub invented: u64,
    /// Seconds of that restart.
    pub start: f64,
    /// Heads and bodies of the one in twenty that is left when the others were
    /// delivered, and the disk then.
    pub tail_live: u64,
    pub tail_disk: u64,
    /// Seconds of that, those of compaction among them, its segments and bytes.
    pub tail_seconds: f64,
    pub tail_compacting: f64,
    pub tail_compactions: u64,
    pub tail_compacted: u64,
    /// The disk after the drain.
    pub disk_drained: u64,
}

/// The number of a message and its attempts stand in its head, the number in
/// its body too.
fn head(number: u64, attempts: u32) -> Bytes {
    let mut head = [number.to_le_bytes().as_slice(), &attempts.to_le_bytes()].concat();
    head.resize(HEAD, b'h');
    head.into()
}

fn body(number: u64, bytes: usize) -> Bytes {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(bytes.max(8), number as u8);
    body.into()
}

/// What a delivery says of itself; `None` when it was never published so.
fn read(delivery: &Delivery, bytes: usize) -> Option<(u64, u32)> {
    let number = u64::from_le_bytes(delivery.head.get(..8)?.try_into().ok()?);
    let attempts = u32::from_le_bytes(delivery.head.get(8..12)?.try_into().ok()?);
    let as_published = delivery.body == body(number, bytes) && delivery.head.len() == HEAD;
    as_published.then_some((number, attempts))
}

/// Which numbers were seen in a round.
#[derive(Debug, Default)]
struct Seen {
    numbers: HashSet<u64>,
    invented: u64,
}

impl Seen {
    fn add(&mut self, read: Option<(u64, u32)>, attempts: u32, messages: u64) -> Option<u64> {
        match read {
            Some((number, found))
                if found == attempts && number < messages && self.numbers.insert(number) =>
            {
                Some(number)
            }
            _ => {
                self.invented += 1;
                None
            }
        }
    }
}

pub async fn run(dir: &Path, messages: u64, times: u32, bytes: usize) -> Result<Deferred> {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_764_000_000_000)));
    let queue = open_with(dir, Arc::<ManualClock>::clone(&clock)).await?;
    let name = pool()?;
    let make = move |number| message(&name, number, head(number, 0), body(number, bytes));
    insert(&queue, messages, 4, BATCH, make).await?;
    let disk_inserted = measure::disk_usage(dir)?;
    eprintln!("  {messages} messages queued, {} MiB on the disk", disk_inserted >> 20);

    let (before, begin) = (queue.stats(), Instant::now());
    let (mut disk_peak, mut invented) = (disk_inserted, 0);
    for time in 0..times {
        invented += defer_all(&queue, &clock, messages, time, bytes).await?;
        clock.advance(DELAY);
        queue.clock_moved();
        let disk = measure::disk_usage(dir)?;
        disk_peak = disk_peak.max(disk);
        report(time + 1, begin, disk, &queue.stats());
    }
    let seconds = begin.elapsed().as_secs_f64();
    let after = queue.stats();
    close(&queue).await?;
    drop(queue);
    let disk = measure::disk_usage(dir)?;

    let begin = Instant::now();
    let queue = open_with(dir, Arc::<ManualClock>::clone(&clock)).await?;
    let start = begin.elapsed().as_secs_f64();
    let there = queue.depth(&pool()?).await?.total();
    let begin = Instant::now();
    let seen = deliver_most(&queue, &clock, there, messages, times, bytes).await?;
    let tail = messages.div_ceil(TAIL);
    let tail_seconds = begin.elapsed().as_secs_f64();
    let tail_disk = at_rest(dir).await?;
    let tail_stats = queue.stats();
    eprintln!("  all but {tail} delivered, {} MiB on the disk", tail_disk >> 20);
    clock.advance(DELAY);
    queue.clock_moved();
    drain(&queue, queue.depth(&pool()?).await?.total()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let disk_drained = measure::disk_usage(dir)?;
    close(&queue).await?;
    Ok(Deferred {
        live: messages * (HEAD + bytes.max(8)) as u64,
        disk_inserted,
        disk_peak,
        disk,
        written: after.bytes_written - before.bytes_written,
        compacted: after.compaction_bytes - before.compaction_bytes,
        seconds,
        compacting: (after.compaction_time - before.compaction_time).as_secs_f64(),
        compactions: after.compactions - before.compactions,
        lost: messages - seen.numbers.len() as u64,
        invented: invented + seen.invented,
        start,
        tail_live: tail * (HEAD + bytes.max(8)) as u64,
        tail_disk,
        tail_seconds,
        tail_compacting: tail_stats.compaction_time.as_secs_f64(),
        tail_compactions: tail_stats.compactions,
        tail_compacted: tail_stats.compaction_bytes,
        disk_drained,
    })
}

fn report(time: u32, begin: Instant, disk: u64, stats: &QueueStats) {
    eprintln!(
        "  deferred {time} times after {:.1} s: {} MiB on the disk, {} segments, {} compacted away",
        begin.elapsed().as_secs_f64(),
        disk >> 20,
        stats.segments,
        stats.compactions,
    );
}

/// Takes every message once: most are delivered, one in twenty is deferred
/// again. Gives which were there.
async fn deliver_most(
    queue: &Arc<EmbeddedQueue>,
    clock: &ManualClock,
    there: u64,
    messages: u64,
    attempts: u32,
    bytes: usize,
) -> Result<Seen> {
    let (name, due) = (pool()?, clock.now().plus(DELAY));
    let mut seen = Seen::default();
    consume(queue, there, |taken| {
        let mut settlement = Settlement::default();
        for delivery in taken {
            settlement.tokens.push(delivery.token);
            let number = seen.add(read(&delivery, bytes), attempts, messages);
            if let Some(number) = number.filter(|number| number % TAIL == 0) {
                settlement.publishes.push(deferred(&name, delivery, due, number, attempts));
            }
        }
        Ok(settlement)
    })
    .await?;
    Ok(seen)
}

/// The same message, to be handed over again.
fn deferred(
    name: &QueueName,
    delivery: Delivery,
    due: Timestamp,
    number: u64,
    attempts: u32,
) -> Publish {
    Publish {
        queue: name.clone(),
        id: delivery.id,
        priority: delivery.priority,
        due: Some(due),
        flow_key: delivery.flow_key,
        head: head(number, attempts + 1),
        body: Body::Kept(delivery.token),
    }
}

/// What the directory takes when it has stopped to shrink.
async fn at_rest(dir: &Path) -> Result<u64> {
    let (mut disk, mut since) = (measure::disk_usage(dir)?, Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = measure::disk_usage(dir)?;
        if now != disk {
            (disk, since) = (now, Instant::now());
        }
    }
    Ok(disk)
}

/// Takes every message once and defers it; gives how many came that should
/// not.
async fn defer_all(
    queue: &Arc<EmbeddedQueue>,
    clock: &ManualClock,
    messages: u64,
    attempts: u32,
    bytes: usize,
) -> Result<u64> {
    let (name, due) = (pool()?, clock.now().plus(DELAY));
    let mut seen = Seen::default();
    consume(queue, messages, |taken| {
        let mut settlement = Settlement::default();
        for delivery in taken {
            let number = seen.add(read(&delivery, bytes), attempts, messages);
            let Some(number) = number else { bail!("{} is not as it was published", delivery.id) };
            settlement.tokens.push(delivery.token);
            settlement.publishes.push(deferred(&name, delivery, due, number, attempts));
        }
        Ok(settlement)
    })
    .await?;
    Ok(seen.invented)
}
