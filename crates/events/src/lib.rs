//! The delivery logger: events from the queue into the store.

mod metrics;

use std::{sync::Arc, time::Duration};

use posthaste_broker::{Broker, BrokerError};
use posthaste_model::{Clock, SystemClock};
use posthaste_store::Store;
use tokio_util::sync::CancellationToken;

pub use crate::metrics::Metrics;

/// How a delivery logger works.
#[derive(Clone)]
pub struct LoggerConfig {
    /// Events of one transaction, about: what one message of the queue holds
    /// is not torn.
    pub batch_events: usize,
    /// How long a batch that is not full waits for more.
    pub linger: Duration,
    /// For the retention.
    pub clock: Arc<dyn Clock>,
}

impl Default for LoggerConfig {
    fn default() -> Self {
        Self {
            batch_events: 500,
            linger: Duration::from_millis(50),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Why a delivery logger ended. Completes "failed to log: ".
#[derive(Debug, thiserror::Error)]
pub enum LoggerError {
    /// The broker was closed before the logger was told to end.
    #[error("failed to use the broker: {0}")]
    Broker(#[from] BrokerError),
}

/// Runs a delivery logger until `shutdown`.
///
/// # Errors
/// When the broker was closed under it.
#[allow(unused_variables, clippy::unused_async, reason = "stub")]
pub async fn run_delivery_logger(
    config: LoggerConfig,
    broker: Arc<dyn Broker>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<(), LoggerError> {
    Ok(())
}
