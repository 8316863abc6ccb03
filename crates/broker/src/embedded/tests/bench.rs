//! The embedded queue on the bench of the suite.

use std::{fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use posthaste_model::{Clock, ManualClock, Timestamp};

use super::super::{EmbeddedConfig, EmbeddedQueue};
use crate::{
    contract::Broker,
    suite::{Abilities, Bench},
};

/// Small segments, so that every case crosses their ends.
pub fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig { segment_bytes: 256 << 10, cache_bytes: 1 << 20, ..EmbeddedConfig::new(dir) }
}

/// Copies what a crash at this moment would leave on the disk.
pub fn snapshot(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // A segment may be removed while this looks: it held nothing.
        if let Err(error) = fs::copy(entry.path(), to.join(entry.file_name())) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

struct EmbeddedBench {
    dir: tempfile::TempDir,
    crashes: u32,
    clock: Arc<ManualClock>,
    queue: Arc<EmbeddedQueue>,
}

impl EmbeddedBench {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_764_000_000_000)));
        let queue = EmbeddedQueue::open(config(&dir.path().join("0")), clock.clone()).unwrap();
        Self { dir, crashes: 0, clock, queue }
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
        snapshot(&from, &to);
        self.queue.core.close();
        self.queue = EmbeddedQueue::open(config(&to), self.clock.clone()).unwrap();
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
