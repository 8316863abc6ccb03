//! Whether there is room for more: how much the queue holds, and how much the
//! disk has left.
//!
//! Both are looked at no more than once a second, by whoever asks first after
//! that; the others go by what was seen last. The bounds are soft for that
//! reason: what a second brings is taken beyond them, and the reserve must be
//! larger than that.
//!
//! On failure to look nothing is refused: a broker that does not answer, or a
//! disk that is full, says so itself when something is published.

use std::{path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use posthaste_broker::Broker;
use tokio::time::Instant;

use crate::{metrics::ApiMetrics, problem::Problem};

/// How long one look counts.
const FRESH: Duration = Duration::from_secs(1);
/// When a refused submitter is told to come again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The bounds.
#[derive(Debug, Clone)]
pub struct AdmissionConfig {
    /// Messages in all queues together above which nothing more is accepted:
    /// 5 million.
    pub queue_messages: u64,
    /// Bytes of the disk that are left free: 1 GiB.
    pub disk_reserve: u64,
    /// A directory on the disk that is meant; `None`: no disk of ours.
    pub disk: Option<PathBuf>,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self { queue_messages: 5_000_000, disk_reserve: 1 << 30, disk: None }
    }
}

/// Why nothing is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    Queue,
    Disk,
}

impl Pressure {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Queue => "queue_full",
            Self::Disk => "disk_reserve",
        }
    }

    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Queue => "the queue holds as many messages as it may; try again later",
            Self::Disk => "the disk has no more than its reserve left; try again later",
        }
    }
}

impl From<Pressure> for Problem {
    fn from(pressure: Pressure) -> Self {
        let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, pressure.code(), pressure.detail()).retry_after(RETRY_AFTER)
    }
}

/// Says whether there is room. Shared by all listeners of a process.
pub struct Admission {
    config: AdmissionConfig,
    broker: Arc<dyn Broker>,
    metrics: ApiMetrics,
    seen: Mutex<Option<Seen>>,
    /// Held by the one who looks.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    at: Instant,
    pressure: Option<Pressure>,
}

impl Admission {
    /// Looks at the depth of this broker's queues, and at the disk.
    #[must_use]
    pub fn new(config: AdmissionConfig, broker: Arc<dyn Broker>, metrics: ApiMetrics) -> Self {
        Self {
            config,
            broker,
            metrics,
            seen: Mutex::new(None),
            looking: tokio::sync::Mutex::new(()),
        }
    }

    /// `None` when there is room.
    pub(crate) async fn pressure(&self) -> Option<Pressure> {
        let last = *self.seen.lock();
        let looking = match last {
            Some(seen) if seen.at.elapsed() < FRESH => return seen.pressure,
            Some(seen) => match self.looking.try_lock() {
                Ok(looking) => looking,
                Err(_) => return seen.pressure,
            },
            None => self.looking.lock().await,
        };
        // Another may have looked while this one waited.
        if let Some(seen) = *self.seen.lock()
            && seen.at.elapsed() < FRESH
        {
            return seen.pressure;
        }
        let pressure = self.look().await;
        let was = self.seen.lock().replace(Seen { at: Instant::now(), pressure });
        drop(looking);
        self.tell(was.and_then(|seen| seen.pressure), pressure);
        pressure
    }

    fn tell(&self, was: Option<Pressure>, is: Option<Pressure>) {
        self.metrics.refusing.set(i64::from(is.is_some()));
        match (was, is) {
            (_, Some(now)) if was != is => {
                tracing::warn!(cause = now.code(), "submissions are refused: {}", now.detail());
            }
            (Some(before), None) => {
                tracing::info!(cause = before.code(), "submissions are accepted again");
            }
            _ => {}
        }
    }

    async fn look(&self) -> Option<Pressure> {
        if let Some(messages) = self.messages().await {
            self.metrics.queued.set(i64::try_from(messages).unwrap_or(i64::MAX));
            if messages >= self.config.queue_messages {
                return Some(Pressure::Queue);
            }
        }
        let free = self.free_bytes().await?;
        self.metrics.disk_free.set(i64::try_from(free).unwrap_or(i64::MAX));
        (free < self.config.disk_reserve).then_some(Pressure::Disk)
    }

    /// Messages of all queues.
    async fn messages(&self) -> Option<u64> {
        let depths = async {
            let mut messages = 0_u64;
            for queue in self.broker.queues().await? {
                messages = messages.saturating_add(self.broker.depth(&queue).await?.total());
            }
            Ok::<_, posthaste_broker::BrokerError>(messages)
        };
        match depths.await {
            Ok(messages) => Some(messages),
            Err(error) => {
                tracing::warn!(%error, "failed to read the depth of the queues");
                None
            }
        }
    }

    async fn free_bytes(&self) -> Option<u64> {
        let disk = self.config.disk.clone()?;
        // A file system may take its time, on a network above all.
        let asked = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&disk)).await;
        match asked {
            Ok(Ok(disk)) => Some(disk.f_bavail.saturating_mul(disk.f_frsize)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "failed to ask how much room the disk has");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "failed to ask how much room the disk has");
                None
            }
        }
    }
}
