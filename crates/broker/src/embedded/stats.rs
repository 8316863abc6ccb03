//! What the queue tells about its disk and its work.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What the commit thread counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes written into segments.
    pub bytes_written: Counter,
    /// Commits.
    pub commits: Counter,
    /// Segments from spare files.
    pub recycled: Counter,
    /// Segments from new files.
    pub created: Counter,
    /// Spare files now.
    pub spares: Counter,
    /// Segments compacted away.
    pub compactions: Counter,
    /// Bytes written by compaction.
    pub compaction_bytes: Counter,
    /// Microseconds given to compaction.
    pub compaction_micros: Counter,
}

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers of an open queue. Counters begin at its opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// Messages that live.
    pub messages: u64,
    /// Shared bodies that live.
    pub bodies: u64,
    /// Segment files, without the spare ones.
    pub segments: u64,
    /// Freed segment files that wait to be used again.
    pub spares: u64,
    /// Bytes of all frames in the segments.
    pub bytes_on_disk: u64,
    /// Of these, what live messages need; about.
    pub live_bytes: u64,
    /// Bytes written into segments.
    pub bytes_written: u64,
    /// Commits, each with one sync.
    pub commits: u64,
    /// Segments that were made from a spare file.
    pub recycled: u64,
    /// Segments that were made as new files.
    pub created: u64,
    /// Segments that were compacted away.
    pub compactions: u64,
    /// Of the bytes written, those by compaction.
    pub compaction_bytes: u64,
    /// Time that the commit thread gave to compaction.
    pub compaction_time: Duration,
    /// How long the opening took to read the disk.
    pub recovery_time: Duration,
    /// Segments that were read from the index beside them at the opening.
    pub indexes_used: u64,
    /// Segments whose index was missing or damaged at the opening.
    pub indexes_missing: u64,
}

/// What a full compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompactReport {
    /// Segments compacted away.
    pub segments: u64,
    /// Bytes copied.
    pub copied: u64,
    /// Bytes of segments before.
    pub before: u64,
    /// Bytes of segments after.
    pub after: u64,
}
