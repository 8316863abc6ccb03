//! A broker that records what is published and answers as it is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use posthaste_broker::{
    Broker, BrokerError, Browsed, Depth, LinkState, Listener, Publish, PublishOutcome, QueueName,
    Settlement, SubscribeOptions, Subscription,
};
use tokio::sync::watch;
use uuid::Uuid;

/// What one call of `publish` answers.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "not every crate that includes this needs all")]
pub enum Answer {
    /// All of it is durable.
    Durable,
    /// All is durable but the message at this place.
    UnknownAt(usize),
    /// All is durable but the message at this place.
    RejectedAt(usize),
    /// Nothing was taken.
    Failed(BrokerError),
    /// No answer.
    Hangs,
    /// All of it is durable, after a while.
    Slow(Duration),
}

/// See the module.
pub struct FakeBroker {
    answers: Mutex<VecDeque<Answer>>,
    published: Mutex<Vec<Vec<Publish>>>,
    link: watch::Sender<LinkState>,
}

impl FakeBroker {
    /// Answers these in turn, then that all is durable.
    pub fn new(answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            published: Mutex::default(),
            link: watch::Sender::new(LinkState::Up),
        })
    }

    /// Every batch so far.
    pub fn batches(&self) -> Vec<Vec<Publish>> {
        self.published.lock().unwrap().clone()
    }

    /// Says that the link is up or down.
    #[allow(dead_code, reason = "not every test file that includes this needs it")]
    pub fn set_link(&self, state: LinkState) {
        self.link.send_replace(state);
    }
}

#[async_trait]
impl Broker for FakeBroker {
    async fn declare(&self, _queue: &QueueName) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<PublishOutcome>, BrokerError> {
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Durable);
        let mut outcomes = vec![PublishOutcome::Durable; batch.len()];
        self.published.lock().unwrap().push(batch);
        match answer {
            Answer::Durable => {}
            Answer::UnknownAt(index) => outcomes[index] = PublishOutcome::Unknown("cut".into()),
            Answer::RejectedAt(index) => outcomes[index] = PublishOutcome::Rejected("no".into()),
            Answer::Failed(error) => return Err(error),
            Answer::Hangs => std::future::pending().await,
            Answer::Slow(by) => tokio::time::sleep(by).await,
        }
        Ok(outcomes)
    }

    async fn subscribe(
        &self,
        _queue: &QueueName,
        _options: SubscribeOptions,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        Err(BrokerError::Closed)
    }

    async fn settle(
        &self,
        _settlement: Settlement,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        Err(BrokerError::Closed)
    }

    async fn broadcast(&self, _topic: &QueueName, _notice: Bytes) -> Result<(), BrokerError> {
        Err(BrokerError::Closed)
    }

    async fn listen(&self, _topic: &QueueName) -> Result<Box<dyn Listener>, BrokerError> {
        Err(BrokerError::Closed)
    }

    async fn queues(&self) -> Result<Vec<QueueName>, BrokerError> {
        Ok(Vec::new())
    }

    async fn depth(&self, _queue: &QueueName) -> Result<Depth, BrokerError> {
        Ok(Depth::default())
    }

    async fn browse(
        &self,
        _queue: &QueueName,
        _after: Option<Uuid>,
        _limit: usize,
    ) -> Result<Vec<Browsed>, BrokerError> {
        Ok(Vec::new())
    }

    async fn purge(&self, _queue: &QueueName) -> Result<u64, BrokerError> {
        Ok(0)
    }

    fn link_state(&self) -> watch::Receiver<LinkState> {
        self.link.subscribe()
    }

    async fn close(&self, _within: Duration) -> Result<(), BrokerError> {
        Ok(())
    }
}
