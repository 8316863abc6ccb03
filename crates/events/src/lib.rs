//! The delivery logger: events from the queue into the store.
//!
//! Any number of loggers, in any number of processes, consume the queues of
//! log batches. Invariants:
//!
//! - A log message is acknowledged after its events are durable in the store,
//!   and not before. What comes in between (a kill, a lost link) makes it come
//!   again; the store recognises what it has.
//! - An event is never dropped. While the store fails, messages stay
//!   unacknowledged, bounded by the credit, and the queue grows.
//! - A message that cannot be read goes to the quarantine queue whole.
//! - A logger ends when it is told to, or when the broker was closed under it;
//!   nothing else ends it.

mod logger;
mod metrics;
mod outage;
mod source;

use std::{fmt, sync::Arc, time::Duration};

use posthaste_broker::{Broker, BrokerError};
use posthaste_model::{Clock, SystemClock};
use posthaste_store::Store;
use tokio_util::sync::CancellationToken;

use crate::logger::Logger;
pub use crate::metrics::{EventLabels, Metrics};

/// How often expired periods are looked for.
const RETENTION_INTERVAL: Duration = Duration::from_secs(3600);

/// How a delivery logger works.
#[derive(Clone)]
pub struct LoggerConfig {
    /// Events of one transaction, about: what one hand-over of the queue
    /// holds is not torn.
    pub batch_events: usize,
    /// How long a batch that is not full waits for more.
    pub linger: Duration,
    /// Says which periods are expired.
    pub clock: Arc<dyn Clock>,
}

impl Default for LoggerConfig {
    fn default() -> Self {
        Self { batch_events: 500, linger: Duration::from_millis(50), clock: Arc::new(SystemClock) }
    }
}

impl fmt::Debug for LoggerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggerConfig")
            .field("batch_events", &self.batch_events)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

/// Why a delivery logger ended. Completes "failed to log: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggerError {
    /// The broker was closed before the logger was told to end.
    #[error("failed to use the broker: {0}")]
    Broker(#[from] BrokerError),
}

/// Runs a delivery logger until `shutdown`. Then it writes and acknowledges
/// what it has collected and returns; what it could not write stays in the
/// queue.
///
/// # Errors
/// When the broker was closed under it.
pub async fn run_delivery_logger(
    config: LoggerConfig,
    broker: Arc<dyn Broker>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<(), LoggerError> {
    let clock = Arc::clone(&config.clock);
    let logger = Logger::new(&config, broker, Arc::clone(&store), metrics, shutdown.clone())?;
    tokio::select! {
        ended = logger.run() => match ended {
            // Whoever ends everything closes the broker at some time.
            Err(BrokerError::Closed) if shutdown.is_cancelled() => Ok(()),
            ended => Ok(ended?),
        },
        () = enforce_retention(&store, &*clock) => Ok(()),
    }
}

/// Has the store drop what is expired, again and again. Several loggers may.
async fn enforce_retention(store: &Store, clock: &dyn Clock) {
    loop {
        if let Err(error) = store.enforce_retention(clock.now()).await {
            tracing::warn!(%error, "expired periods of the log could not be dropped");
        }
        tokio::time::sleep(RETENTION_INTERVAL).await;
    }
}
