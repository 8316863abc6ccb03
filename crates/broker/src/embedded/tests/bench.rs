//! The embedded queue on the bench of the suite.

use std::{fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use posthaste_model::{Clock, ManualClock, Timestamp};

use super::super::{EmbeddedConfig, EmbeddedQueue, faulty::FaultyDisk};
use crate::{
    contract::Broker,
    suite::{Abilities, Bench},
};

/// Small segments, so that every case crosses their ends.
pub fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig {
        segment_bytes: 256 << 10,
        cache_bytes: 1 << 20,
        compact_dead: 20,
        ..EmbeddedConfig::new(dir)
    }
}

/// Copies a directory in which nothing but help files changes.
pub fn snapshot(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // An index may be renamed while this looks.
        if let Err(error) = fs::copy(entry.path(), to.join(entry.file_name())) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

struct EmbeddedBench {
    dir: tempfile::TempDir,
    crashes: u32,
    clock: Arc<ManualClock>,
    disk: FaultyDisk,
    queue: Arc<EmbeddedQueue>,
}

fn open(disk: &FaultyDisk, dir: &Path, clock: &Arc<ManualClock>) -> Arc<EmbeddedQueue> {
    EmbeddedQueue::open_on(Arc::new(disk.clone()), config(dir), clock.clone()).unwrap()
}

impl EmbeddedBench {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_764_000_000_000)));
        let disk = FaultyDisk::default();
        let queue = open(&disk, &dir.path().join("0"), &clock);
        Self { dir, crashes: 0, clock, disk, queue }
    }
}

#[async_trait]
impl Bench for EmbeddedBench {
    fn abilities(&self) -> Abilities {
        Abilities { atomic: true, native_flows: true, shared_bodies: true, strict_priority: true }
    }

    fn broker(&self) -> Arc<dyn Broker> {
        self.queue.clone()
    }

    async fn crash(&mut self) {
        let from = self.dir.path().join(self.crashes.to_string());
        self.crashes += 1;
        let to = self.dir.path().join(self.crashes.to_string());
        self.disk.snapshot(&from, &to).unwrap();
        self.queue.core.close();
        self.disk = FaultyDisk::default();
        self.queue = open(&self.disk, &to, &self.clock);
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.queue.clock_moved();
    }
}

crate::suite!(EmbeddedBench::start());
