//! Faults of the disk, tried one after the other on a real queue.
//!
//! Each round does random work in a directory of its own, lets one fault
//! happen somewhere in it, ends the process or its disk, and opens what is
//! left. The books say what must be there: all that was confirmed and not
//! settled, with its bytes; and nothing that was refused or acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use posthaste_model::SystemClock;
use uuid::Uuid;

use super::{
    EmbeddedConfig, EmbeddedQueue,
    faulty::{Faults, FaultyDisk, mix},
};
use crate::contract::{
    Body, Broker, BrokerError, Credit, Delivery, FlowKey, Publish, PublishOutcome, QueueName,
    Settlement, SharedBody, SubscribeOptions,
};

/// What became of the faults of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCount {
    /// Faults that were tried.
    pub tried: u64,
    /// Confirmed messages that were gone, or handed over with wrong bytes.
    pub lost: u64,
    /// Messages that were there and should not.
    pub invented: u64,
    /// Times that an error said what was wrong: of a publish, of an opening, or
    /// of a message that went to quarantine.
    pub refused_with_error: u64,
}

/// All kinds of faults, by name.
pub type FaultReport = BTreeMap<&'static str, FaultCount>;

/// How a fault shows.
#[derive(Clone, Copy)]
enum Kind {
    /// The disk does so while the queue works.
    Disk(fn(&mut Faults, u64)),
    /// The process is killed.
    Kill,
    /// Both, after every change of the disk that a compaction makes.
    Compaction,
    /// The power fails: renames are lost, writes are torn.
    Power,
    /// A bit of a file has changed when it is opened.
    Flip,
}

const KINDS: [(&str, Kind); 11] = [
    ("short write", Kind::Disk(|faults, n| faults.short_write = Some(1 + n as usize % 400))),
    ("no space in a write", Kind::Disk(|faults, n| faults.write_room = Some(n as usize % 3000))),
    ("no space for a file", Kind::Disk(|faults, _| faults.largest_file = Some(0))),
    ("failed fsync", Kind::Disk(|faults, _| faults.sync = true)),
    ("failed fsync and cut", Kind::Disk(|f, _| (f.sync, f.truncate) = (true, true))),
    ("failed rename", Kind::Disk(|faults, _| (faults.rename, faults.remove) = (true, true))),
    ("failed fsync of the directory", Kind::Disk(|faults, _| faults.sync_dir = true)),
    ("kill", Kind::Kill),
    ("kill amid a compaction", Kind::Compaction),
    ("torn tail and lost rename", Kind::Power),
    ("bit flip", Kind::Flip),
];

const ALL: SubscribeOptions = SubscribeOptions {
    credit: Credit { messages: u32::MAX, bytes: u64::MAX },
    flow_messages: u32::MAX,
    exclusive: false,
};

/// Tries every kind of fault `rounds` times, in directories of its own under
/// the temporary directory. Blocks; may be called from anywhere.
///
/// # Panics
/// When the temporary directory cannot be used.
#[must_use]
#[expect(clippy::expect_used, reason = "a check, which ends with what it cannot do")]
pub fn run(seed: u64, rounds: u32) -> FaultReport {
    let tried = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut report = FaultReport::new();
            for (number, (name, kind)) in KINDS.into_iter().enumerate() {
                let count = report.entry(name).or_default();
                for round in 0..rounds {
                    let seed = mix(seed ^ (number as u64) << 32 ^ u64::from(round));
                    Round::start(seed).run(kind, count).await;
                }
            }
            report
        })
    };
    // A runtime cannot be made within another one.
    std::thread::spawn(tried).join().expect("no round panics")
}

/// What is known of the messages.
#[derive(Default)]
struct Books {
    /// Confirmed, with their bodies.
    live: BTreeMap<Uuid, Bytes>,
    /// May be there or not: an outcome was unknown, or was not told in time.
    open: BTreeSet<Uuid>,
}

struct Round {
    root: PathBuf,
    disk: FaultyDisk,
    chance: u64,
    books: Books,
    pool: QueueName,
}

impl Drop for Round {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            tracing::warn!(%error, path = %self.root.display(), "a directory is left");
        }
    }
}

impl Round {
    #[expect(clippy::expect_used, reason = "see `run`")]
    fn start(seed: u64) -> Self {
        let root = std::env::temp_dir().join(format!("posthaste-faults-{}", Uuid::now_v7()));
        fs::create_dir(&root).expect("the temporary directory is usable");
        let pool = QueueName::new("pool").expect("a name");
        let (disk, books) = (FaultyDisk::default(), Books::default());
        Self { root, disk, chance: seed, books, pool }
    }

    fn next(&mut self, below: u64) -> u64 {
        self.chance = mix(self.chance);
        self.chance % below
    }

    fn live(&self) -> PathBuf {
        self.root.join("live")
    }

    fn open(&self, dir: &Path) -> Result<Arc<EmbeddedQueue>, BrokerError> {
        let config = EmbeddedConfig {
            segment_bytes: 8192,
            cache_bytes: 4096,
            compact_dead: 30,
            disk_reserve: 0,
            ..EmbeddedConfig::new(dir)
        };
        EmbeddedQueue::open_on(Arc::new(self.disk.clone()), config, Arc::new(SystemClock))
    }

    async fn run(&mut self, kind: Kind, count: &mut FaultCount) {
        count.tried += 1;
        let Ok(queue) = self.open(&self.live()) else {
            count.lost += 1;
            return;
        };
        let (steps, from) = (20 + self.next(30), self.next(20));
        let until = from + 1 + self.next(6);
        for step in 0..steps {
            if let Kind::Disk(fault) = kind {
                let size = self.next(1 << 20);
                self.disk.set(|faults| {
                    *faults = Faults::default();
                    if (from..until).contains(&step) {
                        fault(faults, size);
                    }
                });
            }
            count.refused_with_error += u64::from(!self.step(&queue).await);
        }
        self.disk.set(|faults| *faults = Faults::default());
        if matches!(kind, Kind::Compaction) {
            return self.compaction(&queue, count).await;
        }
        let dir = self.end(kind, queue).await;
        self.look(&dir, kind, count).await;
    }

    /// Does something; false when it was refused.
    async fn step(&mut self, queue: &Arc<EmbeddedQueue>) -> bool {
        match self.next(10) {
            0..5 => self.publish(queue).await,
            5..9 => self.settle(queue).await,
            _ => queue.compact().await.is_ok(),
        }
    }

    fn batch(&mut self) -> Vec<Publish> {
        let shared = self.next(3) == 0;
        let body = SharedBody { id: Uuid::now_v7(), bytes: vec![b's'; 1000].into() };
        let (count, len) = (1 + self.next(5), self.next(1500));
        let one = |number: u64| {
            let id = Uuid::now_v7();
            let own = Bytes::from(id.as_bytes().repeat(1 + len as usize / 16));
            Publish {
                queue: self.pool.clone(),
                id,
                priority: 5,
                due: None,
                flow_key: FlowKey::new(["a.test", "b.test"][number as usize % 2]),
                head: Bytes::from_static(b"head"),
                body: if shared { Body::Shared(body.clone()) } else { Body::Inline(own) },
            }
        };
        (0..count).map(one).collect()
    }

    async fn publish(&mut self, queue: &Arc<EmbeddedQueue>) -> bool {
        let batch = self.batch();
        let outcomes = queue.publish(batch.clone()).await;
        let taken = outcomes.is_ok();
        for (publish, outcome) in batch.iter().zip(outcomes.into_iter().flatten()) {
            match outcome {
                PublishOutcome::Durable => {
                    let (Body::Inline(body) | Body::Shared(SharedBody { bytes: body, .. })) =
                        &publish.body
                    else {
                        continue;
                    };
                    self.books.live.insert(publish.id, body.clone());
                }
                PublishOutcome::Unknown(_) => drop(self.books.open.insert(publish.id)),
                PublishOutcome::Rejected(_) => {}
            }
        }
        taken
    }

    async fn settle(&mut self, queue: &Arc<EmbeddedQueue>) -> bool {
        let Ok(mut subscription) = queue.subscribe(&self.pool, ALL).await else { return false };
        let wait = Duration::from_millis(20);
        let Ok(Ok(mut taken)) = tokio::time::timeout(wait, subscription.next()).await else {
            return true;
        };
        taken.truncate(1 + self.next(6) as usize);
        let (deferred, done): (Vec<&Delivery>, Vec<&Delivery>) =
            taken.iter().partition(|delivery| delivery.id.as_bytes()[15] % 3 == 0);
        let copy = |delivery: &&Delivery| Publish {
            queue: self.pool.clone(),
            id: delivery.id,
            priority: 5,
            due: None,
            flow_key: delivery.flow_key.clone(),
            head: Bytes::from_static(b"deferred"),
            body: Body::Kept(delivery.token),
        };
        let settlement = Settlement {
            tokens: taken.iter().map(|delivery| delivery.token).collect(),
            publishes: deferred.iter().map(copy).collect(),
        };
        let settled = queue.settle(settlement).await.is_ok();
        for delivery in done {
            self.books.live.remove(&delivery.id);
            if !settled {
                self.books.open.insert(delivery.id);
            }
        }
        settled
    }

    /// Ends it as the fault says: the directory that is left.
    async fn end(&mut self, kind: Kind, queue: Arc<EmbeddedQueue>) -> PathBuf {
        let (live, left) = (self.live(), self.root.join("left"));
        let copied = match kind {
            Kind::Kill => self.disk.snapshot(&live, &left),
            Kind::Power => {
                // With a publish on its way.
                self.disk.set(|faults| faults.hold = true);
                let batch = self.batch();
                self.books.open.extend(batch.iter().map(|publish| publish.id));
                let publishing = {
                    let queue = Arc::clone(&queue);
                    tokio::spawn(async move { queue.publish(batch).await })
                };
                tokio::time::sleep(Duration::from_millis(2)).await;
                let seed = self.next(u64::MAX);
                let copied = self.disk.crash(&live, &left, seed);
                self.disk.set(|faults| faults.hold = false);
                if let Err(error) = publishing.await {
                    tracing::error!(%error, "a publish has panicked");
                }
                copied
            }
            Kind::Disk(_) | Kind::Flip | Kind::Compaction => {
                // A queue that went down says so; what is left counts.
                queue.close(Duration::from_secs(10)).await.ok();
                return live;
            }
        };
        if let Err(error) = copied {
            tracing::error!(%error, "the crash could not be made");
        }
        left
    }

    /// Each copy that was made amid a compaction is one fault.
    async fn compaction(&mut self, queue: &EmbeddedQueue, count: &mut FaultCount) {
        let copies = self.root.join("copies");
        if fs::create_dir(&copies).is_err() {
            return;
        }
        self.disk.watch(&self.live(), &copies);
        let compacted = queue.compact().await;
        count.lost += u64::from(compacted.is_err());
        let made = self.disk.watched();
        count.tried += made.saturating_sub(1);
        for copy in 0..made {
            self.look(&copies.join(copy.to_string()), Kind::Compaction, count).await;
        }
    }

    /// Opens what is left, and compares.
    async fn look(&mut self, dir: &Path, kind: Kind, count: &mut FaultCount) {
        let flipped = matches!(kind, Kind::Flip).then(|| self.flip(dir)).flatten();
        let mut opened = self.open(dir);
        if let (Err(_), Some((path, bytes))) = (&opened, flipped) {
            // Refused. With the right bit all is there.
            count.refused_with_error += 1;
            if fs::write(path, bytes).is_ok() {
                opened = self.open(dir);
            }
        }
        let Ok(queue) = opened else {
            count.lost += self.books.live.len() as u64;
            return;
        };
        let (found, wrong) = self.all(&queue).await;
        let damaged = queue.damaged();
        count.refused_with_error += damaged;
        let missing = self.books.live.keys().filter(|id| !found.contains(id)).count() as u64;
        count.lost += wrong + missing.saturating_sub(damaged);
        let known = |id: &&Uuid| self.books.live.contains_key(id) || self.books.open.contains(id);
        count.invented += found.iter().filter(|id| !known(id)).count() as u64;
    }

    /// Changes one bit of a file: the file and its bytes before.
    fn flip(&mut self, dir: &Path) -> Option<(PathBuf, Vec<u8>)> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0));
        files.sort();
        let path = files.get(self.next(files.len().max(1) as u64) as usize)?.clone();
        let before = fs::read(&path).ok()?;
        let mut bytes = before.clone();
        let at = self.next(bytes.len() as u64 * 8);
        bytes[at as usize / 8] ^= 1 << (at % 8);
        fs::write(&path, bytes).ok()?;
        Some((path, before))
    }

    /// All that can be read, and how many had wrong bytes.
    async fn all(&self, queue: &EmbeddedQueue) -> (BTreeSet<Uuid>, u64) {
        let (mut found, mut wrong) = (BTreeSet::new(), 0);
        let total = queue.depth(&self.pool).await.map_or(0, |depth| depth.total());
        let Ok(mut subscription) = queue.subscribe(&self.pool, ALL).await else {
            return (found, wrong);
        };
        while (found.len() as u64) + queue.damaged() < total {
            let next = tokio::time::timeout(Duration::from_millis(500), subscription.next());
            let Ok(Ok(some)) = next.await else { break };
            for delivery in some {
                let right = self.books.live.get(&delivery.id);
                wrong += u64::from(right.is_some_and(|body| *body != delivery.body));
                // Twice is one too many.
                wrong += u64::from(!found.insert(delivery.id));
            }
        }
        (found, wrong)
    }
}
