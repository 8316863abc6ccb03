//! How fast the embedded queue is on this disk, beside what the disk can do.
//!
//! ```text
//! cargo run --release -p posthaste-broker --example queue_bench [DIR [MESSAGES [BYTES]]]
//! ```
//!
//! Prints the durable inserts of 16 producers, one message a call; the same
//! bytes as raw writes and syncs with the batch size that the producers gave;
//! the drain, acknowledged in batches; and the CPU time of each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement, which may as well end"
)]

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use posthaste_broker::{
    Body, Broker, Credit, FlowKey, Publish, QueueName, Settlement, SubscribeOptions,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_model::SystemClock;
use uuid::Uuid;

const PRODUCERS: usize = 16;
/// Turns of inserts and raw writes.
const SLICES: usize = 10;

/// CPU time and memory of this process.
fn usage() -> (Duration, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    (Duration::from_millis(ticks * 10), fields[21].parse::<u64>().unwrap() * 4096)
}

fn report(what: &str, messages: usize, started: Instant, cpu: Duration) {
    let seconds = started.elapsed().as_secs_f64();
    let (now, memory) = usage();
    println!(
        "{what:<24} {:>9.0} messages/s  {:>7.1} us CPU each  {:>5} MB resident",
        messages as f64 / seconds,
        (now - cpu).as_secs_f64() * 1e6 / messages as f64,
        memory >> 20,
    );
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let messages: usize = arguments.next().map_or(100_000, |text| text.parse().unwrap());
    let bytes: usize = arguments.next().map_or(10 << 10, |text| text.parse().unwrap());
    let dir = tempfile::tempdir_in(base).unwrap();
    let body = Bytes::from((0..bytes).map(|n| (n * 31 % 251) as u8).collect::<Vec<u8>>());
    let path = dir.path().join("queue");
    let queue = EmbeddedQueue::open(EmbeddedConfig::new(&path), Arc::new(SystemClock)).unwrap();
    let pool = QueueName::new("pool").unwrap();

    compare(&queue, dir.path(), &body, messages).await;
    drop(queue);

    let (started, cpu) = (Instant::now(), usage().0);
    let queue = EmbeddedQueue::open(EmbeddedConfig::new(&path), Arc::new(SystemClock)).unwrap();
    report("start", messages, started, cpu);
    drain(&queue, &pool, messages).await;
    through(&queue, &pool, &body, messages).await;
}

fn message(pool: &QueueName, body: &Bytes, number: usize) -> Publish {
    Publish {
        queue: pool.clone(),
        id: Uuid::now_v7(),
        priority: 5,
        due: None,
        flow_key: FlowKey::new(&format!("domain{}.example", number % 500)),
        head: Bytes::from_static(&[b'h'; 200]),
        body: Body::Inline(body.clone()),
    }
}

/// What one kind of writing took.
#[derive(Default)]
struct Taken {
    time: Duration,
    cpu: Duration,
}

impl Taken {
    fn report(&self, what: &str, messages: usize) {
        println!(
            "{what:<24} {:>9.0} messages/s  {:>7.1} us CPU each",
            messages as f64 / self.time.as_secs_f64(),
            self.cpu.as_secs_f64() * 1e6 / messages as f64,
        );
    }
}

/// Inserts and raw writes of the same bytes in the same batches, by turns, so
/// that a disk that is now fast and now slow is so for both.
async fn compare(queue: &Arc<EmbeddedQueue>, dir: &Path, body: &Bytes, messages: usize) {
    let pool = QueueName::new("pool").unwrap();
    let (mut inserts, mut writes) = (Taken::default(), Taken::default());
    let mut raw = Raw::new(dir);
    let slice = messages / SLICES;
    for _ in 0..SLICES {
        let commits = queue.stats().commits;
        insert(queue, &pool, body, slice, &mut inserts).await;
        let batch = (slice as u64).div_ceil(queue.stats().commits - commits);
        raw.write(body, slice, usize::try_from(batch).unwrap(), &mut writes);
    }
    inserts.report("insert, 16 producers", messages);
    writes.report("raw write + fdatasync", messages);
    println!(
        "{:<24} {:>8.0}% of raw, {:.1} messages a sync",
        "",
        100.0 * writes.time.as_secs_f64() / inserts.time.as_secs_f64(),
        messages as f64 / queue.stats().commits as f64
    );
    std::fs::remove_file(&raw.path).unwrap();
}

async fn insert(
    queue: &Arc<EmbeddedQueue>,
    pool: &QueueName,
    body: &Bytes,
    messages: usize,
    taken: &mut Taken,
) {
    let (started, cpu) = (Instant::now(), usage().0);
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let (queue, pool, body) = (Arc::clone(queue), pool.clone(), body.clone());
        producers.spawn(async move {
            for number in 0..messages / PRODUCERS {
                let one = message(&pool, &body, number * PRODUCERS + producer);
                queue.publish(vec![one]).await.unwrap();
            }
        });
    }
    while let Some(done) = producers.join_next().await {
        done.unwrap();
    }
    taken.time += started.elapsed();
    taken.cpu += usage().0 - cpu;
}

/// What the disk does with the same bytes in the same batches.
struct Raw {
    path: PathBuf,
    file: std::fs::File,
    offset: u64,
    reserved: u64,
}

impl Raw {
    fn new(dir: &Path) -> Self {
        let path = dir.join("raw");
        let file = OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
        Self { path, file, offset: 0, reserved: 0 }
    }

    fn write(&mut self, body: &Bytes, messages: usize, batch: usize, taken: &mut Taken) {
        let batch_bytes: Vec<u8> = body.repeat(batch);
        let (started, cpu) = (Instant::now(), usage().0);
        for _ in 0..messages.div_ceil(batch) {
            if self.offset + batch_bytes.len() as u64 > self.reserved {
                self.reserved += 64 << 20;
                let flags = rustix::fs::FallocateFlags::empty();
                rustix::fs::fallocate(&self.file, flags, 0, self.reserved).unwrap();
                self.file.sync_all().unwrap();
            }
            self.file.write_all_at(&batch_bytes, self.offset).unwrap();
            self.file.sync_data().unwrap();
            self.offset += batch_bytes.len() as u64;
        }
        taken.time += started.elapsed();
        taken.cpu += usage().0 - cpu;
    }
}

fn options() -> SubscribeOptions {
    SubscribeOptions {
        credit: Credit { messages: 1000, bytes: 64 << 20 },
        flow_messages: 1000,
        exclusive: false,
    }
}

async fn drain(queue: &Arc<EmbeddedQueue>, pool: &QueueName, messages: usize) {
    let (started, cpu) = (Instant::now(), usage().0);
    let mut subscription = queue.subscribe(pool, options()).await.unwrap();
    let mut settling = tokio::task::JoinSet::new();
    let mut seen = 0;
    while seen < messages / PRODUCERS * PRODUCERS {
        let taken = subscription.next().await.unwrap();
        seen += taken.len();
        let tokens = taken.iter().map(|delivery| delivery.token).collect();
        let queue = Arc::clone(queue);
        settling.spawn(async move {
            queue.settle(Settlement { tokens, publishes: Vec::new() }).await.unwrap();
        });
        while settling.try_join_next().is_some() {}
    }
    while settling.join_next().await.is_some() {}
    report("drain", messages, started, cpu);
}

/// Publish, hand over and settle at once, one message a call each.
async fn through(queue: &Arc<EmbeddedQueue>, pool: &QueueName, body: &Bytes, messages: usize) {
    let (started, cpu) = (Instant::now(), usage().0);
    let mut subscription = queue.subscribe(pool, options()).await.unwrap();
    let producing = {
        let (queue, pool, body) = (Arc::clone(queue), pool.clone(), body.clone());
        tokio::spawn(async move {
            let mut producers = tokio::task::JoinSet::new();
            for producer in 0..PRODUCERS {
                let (queue, pool, body) = (Arc::clone(&queue), pool.clone(), body.clone());
                producers.spawn(async move {
                    for number in 0..messages / PRODUCERS {
                        let one = message(&pool, &body, number * PRODUCERS + producer);
                        queue.publish(vec![one]).await.unwrap();
                    }
                });
            }
            while producers.join_next().await.is_some() {}
        })
    };
    let mut settling = tokio::task::JoinSet::new();
    let mut seen = 0;
    while seen < messages / PRODUCERS * PRODUCERS {
        for delivery in subscription.next().await.unwrap() {
            seen += 1;
            let queue = Arc::clone(queue);
            settling.spawn(async move {
                let tokens = vec![delivery.token];
                queue.settle(Settlement { tokens, publishes: Vec::new() }).await.unwrap();
            });
        }
        while settling.try_join_next().is_some() {}
    }
    producing.await.unwrap();
    while settling.join_next().await.is_some() {}
    report("publish, take, settle", messages, started, cpu);
}
