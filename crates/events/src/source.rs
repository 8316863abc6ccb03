//! One queue of log batches, subscribed to anew whenever a subscription ends.

use posthaste_broker::{
    Broker, BrokerError, Credit, Delivery, QueueName, SubscribeOptions, Subscription,
};
use tokio::time::{Instant, sleep_until};

use crate::outage::Outage;

/// Bytes of a queue that a logger holds: what is being written, and what comes
/// next.
const CREDIT_BYTES: u64 = 16 << 20;
/// The same in messages, at least and at most.
const CREDIT_MESSAGES: (u32, u32) = (64, 16_384);

/// A queue and the subscription to it, while there is one.
pub(crate) struct Source {
    queue: QueueName,
    options: SubscribeOptions,
    subscription: Option<Box<dyn Subscription>>,
    outage: Outage,
    retry_at: Option<Instant>,
}

impl Source {
    /// With room for a batch that is written and one that is collected.
    pub(crate) fn new(queue: &str, batch_events: usize) -> Result<Self, BrokerError> {
        let (least, most) = CREDIT_MESSAGES;
        let wanted = u32::try_from(batch_events.saturating_mul(2)).unwrap_or(most);
        let messages = wanted.clamp(least, most);
        Ok(Self {
            queue: QueueName::new(queue)?,
            options: SubscribeOptions {
                credit: Credit { messages, bytes: CREDIT_BYTES },
                // All batches are of one flow.
                flow_messages: messages,
                exclusive: false,
            },
            subscription: None,
            outage: Outage::new("consume a queue of log batches"),
            retry_at: None,
        })
    }

    pub(crate) const fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// Waits for messages, however long a subscription takes. Cancelling loses
    /// nothing.
    ///
    /// # Errors
    /// [`BrokerError::Closed`] alone.
    pub(crate) async fn next(&mut self, broker: &dyn Broker) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let error = match &mut self.subscription {
                Some(subscription) => match subscription.next().await {
                    Ok(deliveries) => {
                        self.outage.over();
                        return Ok(deliveries);
                    }
                    Err(error) => error,
                },
                None => {
                    if let Some(at) = self.retry_at {
                        sleep_until(at).await;
                        self.retry_at = None;
                    }
                    match broker.subscribe(&self.queue, self.options).await {
                        Ok(subscription) => {
                            self.subscription = Some(subscription);
                            continue;
                        }
                        Err(error) => error,
                    }
                }
            };
            self.subscription = None;
            if error == BrokerError::Closed {
                return Err(error);
            }
            let text = format_args!("{}: {error}", self.queue).to_string();
            self.retry_at = Some(Instant::now() + self.outage.failed(&text));
        }
    }
}
