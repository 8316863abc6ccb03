//! The subscription of an SMTP client, made again when it ends.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use posthaste_broker::{
    Broker, BrokerError, Delivery, FlowKey, QueueName, SubscribeOptions, Subscription,
};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

type Opened = Result<Box<dyn Subscription>, BrokerError>;

enum State {
    Opening(Pin<Box<dyn Future<Output = Opened> + Send>>),
    Open(Box<dyn Subscription>),
}

/// What comes from the broker.
pub(crate) enum Arrival {
    Messages(Vec<Delivery>),
    /// The subscription ended: all tokens are dead, the messages come again.
    Lost,
}

pub(crate) struct Source {
    broker: Arc<dyn Broker>,
    queue: QueueName,
    options: SubscribeOptions,
    state: State,
    delay: Duration,
}

impl Source {
    pub fn new(broker: Arc<dyn Broker>, queue: QueueName, options: SubscribeOptions) -> Self {
        let state = State::Opening(open(&broker, &queue, options, Duration::ZERO));
        Self { broker, queue, options, state, delay: FIRST_DELAY }
    }

    /// Waits for messages. Cancelling loses nothing.
    ///
    /// # Errors
    /// Only when the broker was closed, or what is asked of it is invalid.
    pub async fn next(&mut self) -> Result<Arrival, BrokerError> {
        loop {
            match &mut self.state {
                State::Opening(opening) => match opening.as_mut().await {
                    Ok(subscription) => {
                        self.state = State::Open(subscription);
                    }
                    Err(error) => self.again(error)?,
                },
                State::Open(subscription) => match subscription.next().await {
                    Ok(messages) => {
                        self.delay = FIRST_DELAY;
                        return Ok(Arrival::Messages(messages));
                    }
                    Err(error) => {
                        self.again(error)?;
                        return Ok(Arrival::Lost);
                    }
                },
            }
        }
    }

    fn again(&mut self, error: BrokerError) -> Result<(), BrokerError> {
        // A future that has ended must not be awaited again.
        self.state = State::Opening(open(&self.broker, &self.queue, self.options, self.delay));
        if matches!(error, BrokerError::Closed | BrokerError::Invalid(_)) {
            return Err(error);
        }
        tracing::warn!(queue = %self.queue, %error, delay = ?self.delay, "the subscription ended and is made again");
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        Ok(())
    }

    pub fn block(&self, flow_key: &FlowKey) {
        if let State::Open(subscription) = &self.state {
            subscription.block(flow_key);
        }
    }

    pub fn unblock(&self, flow_key: &FlowKey) {
        if let State::Open(subscription) = &self.state {
            subscription.unblock(flow_key);
        }
    }
}

fn open(
    broker: &Arc<dyn Broker>,
    queue: &QueueName,
    options: SubscribeOptions,
    delay: Duration,
) -> Pin<Box<dyn Future<Output = Opened> + Send>> {
    let (broker, queue) = (broker.clone(), queue.clone());
    Box::pin(async move {
        tokio::time::sleep(delay).await;
        broker.subscribe(&queue, options).await
    })
}
