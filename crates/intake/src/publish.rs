//! Hands messages to the broker until every one of them is durable.
//!
//! An outcome that is unknown is published again with the same id, a bounded
//! number of times, within a bounded time. What is not durable then makes the
//! request unavailable: the submitter is told to repeat it.

use std::time::Duration;

use posthaste_broker::{Broker, BrokerError, Publish, PublishOutcome};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{config::IntakeConfig, errors::IntakeError};

/// First pause before an unknown outcome is published again; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Publishes a batch and returns when all of it is durable.
///
/// # Errors
/// [`IntakeError::Unavailable`] when that cannot be said of all of it.
pub(crate) async fn publish(
    broker: &dyn Broker,
    batch: Vec<Publish>,
    config: &IntakeConfig,
) -> Result<(), IntakeError> {
    let deadline = Instant::now() + config.publish_timeout;
    match timeout_at(deadline, until_durable(broker, batch, config.publish_retries)).await {
        Ok(result) => result,
        Err(_) => Err(unavailable("the broker did not confirm in time")),
    }
}

async fn until_durable(
    broker: &dyn Broker,
    mut batch: Vec<Publish>,
    retries: u32,
) -> Result<(), IntakeError> {
    let mut pause = FIRST_PAUSE;
    for round in 0..=retries {
        // Handing over takes the batch; what it holds is reference counted.
        let sent = batch.clone();
        let outcomes = match broker.publish(sent).await {
            Ok(outcomes) => outcomes,
            Err(error) => return Err(failed(&error)),
        };
        if outcomes.len() != batch.len() {
            return Err(unavailable("the broker did not confirm every message"));
        }
        let mut unknown = Vec::new();
        for (publish, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                PublishOutcome::Durable => {}
                PublishOutcome::Rejected(reason) => {
                    tracing::warn!(queue = %publish.queue, id = %publish.id, %reason, "the broker rejected a message");
                    return Err(unavailable("the broker rejected a message"));
                }
                PublishOutcome::Unknown(reason) => {
                    tracing::warn!(queue = %publish.queue, id = %publish.id, round, %reason, "the broker did not confirm a message");
                    unknown.push(publish);
                }
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        batch = unknown;
        if round < retries {
            sleep(pause).await;
            pause = pause.saturating_mul(2);
        }
    }
    Err(unavailable("the broker did not confirm"))
}

/// The cause goes to the log; the submitter gets no more than the kind of it.
fn failed(error: &BrokerError) -> IntakeError {
    tracing::error!(%error, "failed to publish a submission");
    unavailable(match error {
        BrokerError::Full(_) => "the queue has no room",
        BrokerError::Closed => "this process is shutting down",
        BrokerError::Storage(_) => "the queue's storage failed",
        BrokerError::Link(_) => "the broker cannot be reached",
        BrokerError::StaleToken | BrokerError::InUse(_) | BrokerError::Invalid(_) => {
            "the broker did not take the messages"
        }
    })
}

pub(crate) fn unavailable(detail: &str) -> IntakeError {
    IntakeError::Unavailable { detail: detail.to_owned(), retry_after: Duration::from_secs(5) }
}
