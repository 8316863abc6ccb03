//! Where the queue is, and its opening.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use posthaste_broker::{
    BrokerError,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_model::{Clock, ManualClock, SystemClock, Timestamp};

use crate::config;

/// How long the end of a command may take to write what is pending.
pub const CLOSING: Duration = Duration::from_secs(60);

/// Due then: what the queue itself has put into quarantine, because it cannot
/// read it, and what is therefore handed to nobody.
pub const END_OF_TIME: Timestamp = Timestamp::from_millis(i64::MAX);

/// Where to find the queue.
#[derive(Debug, Args)]
pub struct Place {
    /// The configuration that the process runs with; its data_dir has the
    /// queue.
    #[arg(short, long, global = true, value_name = "FILE", env = "POSTHASTE_CONFIG")]
    config: Option<PathBuf>,
    /// The data directory itself; then no configuration is read.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// The directories, and how the queue in them is opened.
#[derive(Debug)]
pub struct Site {
    pub queue: PathBuf,
    pub journal: PathBuf,
    segment_bytes: Option<u64>,
}

/// A queue that is ours until it is closed.
pub struct Opened {
    pub queue: Arc<EmbeddedQueue>,
    pub journal: PathBuf,
}

impl Place {
    /// Finds the directories; makes none.
    pub fn site(&self) -> anyhow::Result<Site> {
        let (data_dir, segment_bytes) = match &self.data_dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let config = config::load(self.config.as_deref())?;
                (config.data_dir, Some(config.queue.segment_size.0))
            }
        };
        let queue = data_dir.join("queue");
        let found = std::fs::metadata(&queue).with_context(|| {
            format!("there is no queue in {}: is it the right data_dir?", queue.display())
        })?;
        let us = rustix::process::geteuid().as_raw();
        if found.uid() != us {
            // Files that root makes here would stop the process at its start.
            bail!(
                "{} belongs to user {}, this is user {us}: run the command as that user \
                 (sudo -u '#{}' posthaste queue …)",
                queue.display(),
                found.uid(),
                found.uid(),
            );
        }
        Ok(Site { queue, journal: data_dir.join("journal"), segment_bytes })
    }
}

impl Site {
    /// Opens the queue as it is now.
    pub async fn open(&self) -> anyhow::Result<Opened> {
        self.open_with(Arc::new(SystemClock)).await
    }

    /// Opens the queue just before the end of time: everything in it that can
    /// be read is due, so that a subscription hands it over. The due times
    /// themselves stay as they are.
    pub async fn open_for_taking(&self) -> anyhow::Result<Opened> {
        self.open_with(Arc::new(ManualClock::at(Timestamp::from_millis(i64::MAX - 1)))).await
    }

    async fn open_with(&self, clock: Arc<dyn Clock>) -> anyhow::Result<Opened> {
        let mut config = EmbeddedConfig::new(&self.queue);
        // Whoever makes room needs a little of it.
        config.disk_reserve = 0;
        if let Some(bytes) = self.segment_bytes {
            config.segment_bytes = bytes;
        }
        let opened = tokio::task::spawn_blocking(move || EmbeddedQueue::open(config, clock)).await;
        let queue = opened?.map_err(|error| explain(&self.queue, error))?;
        Ok(Opened { queue, journal: self.journal.clone() })
    }
}

/// Says what to do when a process runs.
pub fn explain(dir: &Path, error: BrokerError) -> anyhow::Error {
    match error {
        BrokerError::InUse(_) => anyhow::anyhow!(
            "another process has the queue in {} open. These commands work on a queue at rest: \
             stop Posthaste first (SIGTERM; what was accepted stays), and start it again \
             afterwards. How much a running one holds is in its /metrics",
            dir.display()
        ),
        error => anyhow::Error::new(error).context("failed to open the queue"),
    }
}
