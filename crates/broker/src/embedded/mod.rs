//! The embedded durable queue: the broker contract in a directory of its own.
//!
//! # Contract
//!
//! All of [`crate::contract`]. A publish is durable when its bytes have been
//! written and synced; a settlement is one atomic record. The directory
//! belongs to one process, which holds a lock on it. A queue without messages
//! is forgotten at the end of the process. All messages that are found at
//! the start count as redelivered, because they may have been handed over.
//! Two messages cannot live with one id: publishing a live id again is
//! durable and changes nothing.
//!
//! # On disk
//!
//! Mode 0600, in a directory of mode 0700: `lock`; segments,
//! `00000000000000000001.seg`, `…2.seg`, …; beside each sealed one its index,
//! `….idx` (see `sidecar`); and a few freed segment files, `….spare`, to be
//! used again (see `files`). A segment is reserved at its making, so that
//! writing into it changes no metadata. After a header it holds frames, each at
//! a multiple of 8, up to its end frame; what stands behind that has no
//! meaning:
//!
//! ```text
//! segment = magic 8, version 2, zero 6, sequence 8, queue id 16, zero 20, CRC 4; frames
//! frame   = magic 4, length of ops 4, length of bodies 8, segment 8, commit 8,
//!           start of commit 4, frames left of commit 4, CRC of ops 4, CRC of header 4;
//!           ops; bodies; zeros up to a multiple of 8
//! end     = a frame without ops and bodies, with the number of the last commit
//! op      = 1, meta, 0, length 4, CRC 4              put, with a body of its own
//!         | 1, meta, 1, id 16, length 4, CRC 4       put, with a shared body
//!         | 2, id 16, length 4, CRC 4                body, to be shared
//!         | 3, meta                                  rehead: the head is replaced
//!         | 4, id 16                                 ack
//!         | 5, as 1 | 6, as 3 | 7, as 2              moved here by compaction
//! meta    = id 16, priority 1, due 8, queue 1+n, flow key 1+n, head 4+n
//! ```
//!
//! All little-endian; the CRC is CRC-32C. One frame is one call of `publish`
//! or `settle`, and is taken whole or not at all. The bodies stand behind the
//! ops, so that a start reads heads and skips bodies. The sequence of the
//! segment is in each frame's checksum: what an earlier use of a file has left
//! is never taken for a frame. A deferral is a rehead: its body is not written
//! again.
//!
//! The version is 2. A directory of version 1 (no end frames, no moves, no
//! indexes) is upgraded when it is opened, segment by segment; an older program
//! refuses it from then on. A newer version is refused, and nothing changed.
//!
//! # Recovery
//!
//! Sealed segments are read from their indexes, or from their frames when there
//! is none; the last one always from its frames. Each frame says where its
//! commit begins, so that a place without a frame can be judged by what stands
//! behind it: see `recovery`. A torn tail is cut, damage to what was confirmed
//! is an error that names file and offset. Both an orderly end and a recovery
//! write an end frame, which makes even damage to the last commit an error.
//! After a crash, damage to the very last commit cannot be told from a torn
//! tail.
//!
//! # What happens on failure
//!
//! A failed write or sync: see `log`. No room: [`BrokerError::Full`], nothing
//! is taken; acknowledgements may still find room in a small segment, and
//! `disk_reserve` is kept for them: see `reserve`. A head or body that fails its
//! checksum when it is to be handed over: the message goes to `quarantine`.
//!
//! # Space
//!
//! A segment is freed when nothing in it is needed: see `needs`. One that is
//! mostly dead is emptied by `compaction`, so that the space stays within about
//! twice of what lives. A message that was copied stays where it stands in its
//! flow; only after a restart it may come behind others of its flow that were
//! published after it.

mod admin;
mod apply;
mod bodies;
mod browse;
mod cache;
mod codec;
mod compaction;
mod consumer;
mod disk;
mod draft;
#[cfg(any(test, feature = "suite"))]
pub mod faults;
#[cfg(any(test, feature = "suite"))]
mod faulty;
mod files;
mod flow;
mod frame;
#[cfg(any(test, feature = "suite"))]
pub mod fuzz;
mod handoff;
mod index;
mod indexing;
mod line;
mod log;
mod moving;
mod needs;
pub mod offline;
mod purge;
mod quarantine;
mod record;
mod recovery;
mod reserve;
mod scan;
mod segment;
mod settle;
mod sidecar;
mod slab;
mod stats;
mod subscription;
#[cfg(test)]
mod tests;
mod topic;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use posthaste_model::Clock;
use tokio::sync::watch;
use uuid::Uuid;

pub use self::{
    admin::StoredMessage,
    stats::{CompactReport, QueueStats},
};
use self::{
    compaction::Compactor,
    disk::{Disk, RealDisk},
    files::Files,
    handoff::Handoff,
    index::Index,
    indexing::Indexer,
    log::Committer,
    reserve::Reserve,
    segment::Reader,
    stats::Counters,
    subscription::EmbeddedSubscription,
    topic::Topics,
};
use crate::contract::{
    Broker, BrokerError, Browsed, Depth, LinkState, Listener, Publish, PublishOutcome, QueueName,
    Settlement, SubscribeOptions, Subscription,
};

/// Where the queue lives and how much it may hold at once.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Directory of its own.
    pub dir: PathBuf,
    /// Bytes of a segment file; a larger frame gets a segment of its own size.
    pub segment_bytes: u64,
    /// Most bytes written with one sync, but for a single larger frame.
    pub commit_max_bytes: usize,
    /// Most bytes that wait to be written; publishers wait beyond it.
    pub max_pending_bytes: usize,
    /// Bytes of just published messages kept in memory, so that they are not
    /// read back; and as many of shared bodies, or a single larger one.
    pub cache_bytes: usize,
    /// Bytes of the disk that publishes leave free.
    pub disk_reserve: u64,
    /// Most freed segment files that are kept to be used again.
    pub spare_segments: usize,
    /// Percent of the sealed segments that may be dead before compaction
    /// begins; 100: never.
    pub compact_dead: u8,
    /// Bytes that compaction may write beside a hundred of others.
    pub compact_rate: u16,
}

impl EmbeddedConfig {
    /// The defaults, in this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            commit_max_bytes: 4 << 20,
            max_pending_bytes: 32 << 20,
            cache_bytes: 16 << 20,
            disk_reserve: 256 << 20,
            spare_segments: 2,
            compact_dead: 50,
            compact_rate: 100,
        }
    }

    fn check(&self) -> Result<(), BrokerError> {
        if (1 << 12..=1 << 31).contains(&self.segment_bytes) {
            return Ok(());
        }
        let why =
            format!("a segment of {} bytes is not within 4 KiB and 2 GiB", self.segment_bytes);
        Err(BrokerError::Invalid(why))
    }
}

/// What the queue, its subscriptions and its commit thread share.
struct Core {
    index: Arc<Mutex<Index>>,
    handoff: Arc<Handoff>,
    reader: Arc<Reader>,
    clock: Arc<dyn Clock>,
    topics: Topics,
    damaged: AtomicU64,
    reserve: Arc<Reserve>,
    counters: Arc<Counters>,
    opened: Opened,
}

/// What the opening found.
struct Opened {
    time: Duration,
    indexes_used: u64,
    indexes_missing: u64,
}

impl Core {
    /// Nothing is taken or handed over any more; what waits is still written.
    fn close(&self) {
        {
            let mut index = self.index.lock();
            index.closed = Some(BrokerError::Closed);
            index.wake_all();
        }
        self.topics.close();
        self.handoff.close();
    }

    fn check_open(&self) -> Result<(), BrokerError> {
        self.index.lock().closed.clone().map_or(Ok(()), Err)
    }
}

/// The embedded durable queue. See the module.
pub struct EmbeddedQueue {
    core: Arc<Core>,
    link: watch::Receiver<LinkState>,
    ended: watch::Receiver<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedQueue {
    /// Opens or makes the queue in its directory. Reads the heads of all that
    /// it holds: blocks on the disk.
    ///
    /// # Errors
    /// [`BrokerError::InUse`] when another process has it open;
    /// [`BrokerError::Storage`] when the directory cannot be used or what was
    /// confirmed is damaged.
    pub fn open(config: EmbeddedConfig, clock: Arc<dyn Clock>) -> Result<Arc<Self>, BrokerError> {
        Self::open_on(Arc::new(RealDisk), config, clock)
    }

    fn open_on(
        disk: Arc<dyn Disk>,
        config: EmbeddedConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, BrokerError> {
        config.check()?;
        let started = std::time::Instant::now();
        let dir = config.dir.clone();
        let failed = |error: std::io::Error| {
            BrokerError::Storage(format!("{} could not be used: {error}", dir.display()))
        };
        disk.make_dir(&dir).map_err(failed)?;
        let lock = offline::lock(&dir)?;
        // The epochs of two openings must not meet.
        let mut index = Index::new(config.cache_bytes, Uuid::now_v7().as_u64_pair().1 << 20);
        let recovered = recovery::recover(&*disk, &dir, &mut index, clock.now().as_millis())?;
        let next_sequence = recovered.last.map_or(Some(1), |last| last.checked_add(1));
        let used_up =
            || BrokerError::Storage(format!("{} has used up its segments", dir.display()));
        let reserve = Arc::new(Reserve::new(Arc::clone(&disk), dir.clone(), config.disk_reserve));
        let counters = Arc::new(Counters::default());
        let mut files = Files {
            disk: Arc::clone(&disk),
            dir: dir.clone(),
            queue: recovered.queue.unwrap_or_else(Uuid::now_v7),
            segment_bytes: config.segment_bytes,
            next_sequence: next_sequence.ok_or_else(used_up)?,
            spares: Vec::new(),
            max_spares: config.spare_segments,
            reserve: Arc::clone(&reserve),
            counters: Arc::clone(&counters),
        };
        for of in &recovered.old {
            files.upgrade(of).map_err(failed)?;
        }
        if !recovered.old.is_empty() {
            tracing::info!(dir = %dir.display(), segments = recovered.old.len(), "the queue was upgraded: an older program cannot open it any more");
        }
        files.tidy(|sequence| index.needs.contains(sequence)).map_err(failed)?;
        let opened = Opened {
            time: started.elapsed(),
            indexes_used: recovered.indexes_used,
            indexes_missing: recovered.unindexed.len() as u64,
        };
        tracing::info!(dir = %dir.display(), messages = index.entries.live(), time = ?opened.time, "the queue is open");
        let (link_sender, link) = watch::channel(LinkState::Up);
        let (ended_sender, ended) = watch::channel(false);
        let core = Arc::new(Core {
            index: Arc::new(Mutex::new(index)),
            handoff: Arc::new(Handoff::new(config.max_pending_bytes)),
            reader: Arc::new(Reader::new(Arc::clone(&disk), dir.clone(), config.cache_bytes)),
            clock: Arc::clone(&clock),
            topics: Topics::default(),
            damaged: AtomicU64::new(0),
            reserve,
            counters: Arc::clone(&counters),
            opened,
        });
        let (index, reader) = (Arc::clone(&core.index), Arc::clone(&core.reader));
        let compactor = Compactor::new(index, reader, Arc::clone(&disk), &config);
        let committer = Committer {
            files,
            lock,
            index: Arc::clone(&core.index),
            handoff: Arc::clone(&core.handoff),
            reader: Arc::clone(&core.reader),
            link: link_sender,
            clock,
            commit_max_bytes: config.commit_max_bytes as u64,
            open: None,
            commit: recovered.commit,
            removal_failed: false,
            compactor,
            indexer: Indexer::start(disk, dir.clone(), recovered.unindexed).map_err(failed)?,
            counters,
            ended: ended_sender,
        };
        let thread = std::thread::Builder::new()
            .name("queue-commit".to_owned())
            .spawn(move || committer.run())
            .map_err(failed)?;
        Ok(Arc::new(Self { core, link, ended, thread: Mutex::new(Some(thread)) }))
    }

    /// Tells the queue that its clock was moved. Without it, waiting messages
    /// are looked at once a second.
    pub fn clock_moved(&self) {
        self.core.index.lock().wake_all();
    }

    /// Messages that could not be read since the start. Each was logged and
    /// put into quarantine: look at the disk.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.core.damaged.load(Ordering::Relaxed)
    }

    /// Numbers about its disk and its work.
    #[must_use]
    pub fn stats(&self) -> QueueStats {
        let (index, counters) = (self.core.index.lock(), &self.core.counters);
        let mut stats = QueueStats {
            messages: index.entries.live() as u64,
            bodies: index.bodies.live() as u64,
            spares: counters.spares.get(),
            bytes_written: counters.bytes_written.get(),
            commits: counters.commits.get(),
            recycled: counters.recycled.get(),
            created: counters.created.get(),
            compactions: counters.compactions.get(),
            compaction_bytes: counters.compaction_bytes.get(),
            compaction_time: Duration::from_micros(counters.compaction_micros.get()),
            recovery_time: self.core.opened.time,
            indexes_used: self.core.opened.indexes_used,
            indexes_missing: self.core.opened.indexes_missing,
            ..QueueStats::default()
        };
        for (_, segment) in index.needs.iter() {
            stats.segments += 1;
            stats.bytes_on_disk += segment.bytes;
            stats.live_bytes += segment.bytes - segment.dead();
        }
        stats
    }

    /// Copies all that lives out of segments that hold dead bytes, and frees
    /// those. Works beside everything else; returns when it is done.
    ///
    /// # Errors
    /// When it could not go on; nothing is lost.
    pub async fn compact(&self) -> Result<CompactReport, BrokerError> {
        let (request, report) = tokio::sync::oneshot::channel();
        self.core.handoff.ask(request)?;
        report.await.unwrap_or(Err(BrokerError::Closed))
    }

    fn join(&self) -> Result<(), BrokerError> {
        let Some(thread) = self.thread.lock().take() else { return Ok(()) };
        thread.join().map_err(|_| BrokerError::Storage("the commit thread has panicked".to_owned()))
    }
}

impl Drop for EmbeddedQueue {
    fn drop(&mut self) {
        self.core.close();
        if let Err(error) = self.join() {
            tracing::error!(%error, "the queue did not end in order");
        }
    }
}

#[async_trait]
impl Broker for EmbeddedQueue {
    async fn declare(&self, queue: &QueueName) -> Result<(), BrokerError> {
        self.core.check_open()?;
        self.core.index.lock().flows.queue(queue);
        Ok(())
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<PublishOutcome>, BrokerError> {
        self.core.publish(batch).await
    }

    async fn subscribe(
        &self,
        queue: &QueueName,
        options: SubscribeOptions,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        Ok(Box::new(EmbeddedSubscription::start(Arc::clone(&self.core), queue, options)?))
    }

    async fn settle(
        &self,
        settlement: Settlement,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        self.core.settle(settlement).await
    }

    async fn broadcast(&self, topic: &QueueName, notice: Bytes) -> Result<(), BrokerError> {
        self.core.topics.broadcast(topic, notice)
    }

    async fn listen(&self, topic: &QueueName) -> Result<Box<dyn Listener>, BrokerError> {
        self.core.topics.listen(topic)
    }

    async fn queues(&self) -> Result<Vec<QueueName>, BrokerError> {
        self.core.check_open()?;
        let index = self.core.index.lock();
        Ok(index.flows.queues.iter().map(|queue| queue.name.clone()).collect())
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError> {
        self.core.check_open()?;
        let mut index = self.core.index.lock();
        let Some(queue) = index.flows.find_queue(queue.as_str()) else {
            return Ok(Depth::default());
        };
        index.promote(queue, self.core.clock.now().as_millis());
        Ok(index.flows.queues[queue as usize].depth)
    }

    async fn browse(
        &self,
        queue: &QueueName,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Browsed>, BrokerError> {
        self.core.browse(queue, after, limit).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        self.core.purge(queue).await
    }

    fn link_state(&self) -> watch::Receiver<LinkState> {
        self.link.clone()
    }

    async fn close(&self, within: Duration) -> Result<(), BrokerError> {
        self.core.close();
        let mut ended = self.ended.clone();
        let waited = tokio::time::timeout(within, ended.wait_for(|ended| *ended)).await;
        if waited.is_err() {
            return Err(BrokerError::Storage(format!(
                "what was pending could not be written within {within:?}"
            )));
        }
        // It has ended: this does not block.
        self.join()
    }
}
