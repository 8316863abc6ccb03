//! The embedded durable queue (being written: the API is final).

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use posthaste_model::Clock;
use tokio::sync::watch;
use uuid::Uuid;

use crate::contract::{
    Broker, BrokerError, Browsed, Depth, LinkState, Listener, Publish, PublishOutcome, QueueName,
    Settlement, SubscribeOptions, Subscription,
};

/// Where the queue lives and how much it may hold at once.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Directory of its own.
    pub dir: PathBuf,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// Most bytes written with one sync, but for a single larger frame.
    pub commit_max_bytes: usize,
    /// Most bytes that wait to be written; publishers wait beyond it.
    pub max_pending_bytes: usize,
    /// Bytes of just published messages kept in memory.
    pub cache_bytes: usize,
}

impl EmbeddedConfig {
    /// The defaults, in this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            commit_max_bytes: 4 << 20,
            max_pending_bytes: 32 << 20,
            cache_bytes: 16 << 20,
        }
    }
}

/// The embedded durable queue.
#[derive(Debug)]
pub struct EmbeddedQueue(());

impl EmbeddedQueue {
    /// Opens or makes the queue in its directory. Blocks on the disk.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(_config: EmbeddedConfig, _clock: Arc<dyn Clock>) -> Result<Arc<Self>, BrokerError> {
        Err(BrokerError::Closed)
    }
}

#[async_trait]
impl Broker for EmbeddedQueue {
    async fn declare(&self, _: &QueueName) -> Result<(), BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn publish(&self, _: Vec<Publish>) -> Result<Vec<PublishOutcome>, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn subscribe(
        &self,
        _: &QueueName,
        _: SubscribeOptions,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn settle(&self, _: Settlement) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn broadcast(&self, _: &QueueName, _: Bytes) -> Result<(), BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn listen(&self, _: &QueueName) -> Result<Box<dyn Listener>, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn queues(&self) -> Result<Vec<QueueName>, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn depth(&self, _: &QueueName) -> Result<Depth, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn browse(
        &self,
        _: &QueueName,
        _: Option<Uuid>,
        _: usize,
    ) -> Result<Vec<Browsed>, BrokerError> {
        Err(BrokerError::Closed)
    }
    async fn purge(&self, _: &QueueName) -> Result<u64, BrokerError> {
        Err(BrokerError::Closed)
    }
    fn link_state(&self) -> watch::Receiver<LinkState> {
        watch::channel(LinkState::Up).1
    }
    async fn close(&self, _: Duration) -> Result<(), BrokerError> {
        Ok(())
    }
}
