//! The room on the disk that publishes leave alone.
//!
//! What is accepted must be worked off, and that takes room too: for
//! acknowledgements, for records of outcomes, and for the other files on the
//! same disk. So publishes are refused below the reserve, and settlements are
//! not.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::disk::Disk;
use crate::contract::BrokerError;

/// How long a look at the disk counts.
const LOOK: Duration = Duration::from_millis(500);

/// See the module.
pub struct Reserve {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    bytes: u64,
    seen: Mutex<Option<(Instant, u64)>>,
}

impl Reserve {
    /// Keeps so many bytes.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, bytes: u64) -> Self {
        Self { disk, dir, bytes, seen: Mutex::new(None) }
    }

    /// Bytes that are free. A file system that cannot tell counts as empty:
    /// what does not fit is then refused by its write.
    fn free(&self) -> u64 {
        let mut seen = self.seen.lock();
        if let Some((at, free)) = *seen
            && at.elapsed() < LOOK
        {
            return free;
        }
        let free = self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        *seen = Some((Instant::now(), free));
        free
    }

    /// The next look is a fresh one.
    pub fn look_again(&self) {
        *self.seen.lock() = None;
    }

    /// Whether so many bytes more leave the reserve alone.
    pub fn allows(&self, more: u64) -> bool {
        self.bytes == 0 || self.free().saturating_sub(more) >= self.bytes
    }

    /// Why a publish is refused, when it is.
    ///
    /// # Errors
    /// [`BrokerError::Full`] below the reserve.
    pub fn check(&self) -> Result<(), BrokerError> {
        if self.allows(0) { Ok(()) } else { Err(BrokerError::Full(self.why())) }
    }

    /// What is said of it.
    pub fn why(&self) -> String {
        format!(
            "{} MiB are free on the disk of {}, and {} MiB are kept in reserve. What waits is \
             still delivered, which frees room; or free some by hand",
            self.free() >> 20,
            self.dir.display(),
            self.bytes >> 20
        )
    }
}
