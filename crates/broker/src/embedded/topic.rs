//! Topics: what is broadcast to whoever listens now. Not durable.

use async_trait::async_trait;
use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::contract::{BrokerError, Listener, Notice, QueueName};

/// Notices that a listener may lag behind.
const BACKLOG: usize = 256;
/// Largest notice in bytes.
const MAX_NOTICE: usize = 1 << 20;

/// All topics that somebody listens to; `None` when closed.
pub struct Topics(Mutex<Option<HashMap<QueueName, broadcast::Sender<Bytes>>>>);

impl Default for Topics {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Topics {
    /// See [`crate::Broker::broadcast`].
    pub fn broadcast(&self, topic: &QueueName, notice: Bytes) -> Result<(), BrokerError> {
        if notice.len() > MAX_NOTICE {
            return Err(BrokerError::Invalid(format!(
                "the notice is larger than {MAX_NOTICE} bytes"
            )));
        }
        let mut topics = self.0.lock();
        let topics = topics.as_mut().ok_or(BrokerError::Closed)?;
        // An error means that nobody listens any more.
        if let Some(sender) = topics.get(topic)
            && sender.send(notice).is_err()
        {
            topics.remove(topic);
        }
        Ok(())
    }

    /// See [`crate::Broker::listen`].
    pub fn listen(&self, topic: &QueueName) -> Result<Box<dyn Listener>, BrokerError> {
        let mut topics = self.0.lock();
        let topics = topics.as_mut().ok_or(BrokerError::Closed)?;
        topics.retain(|name, sender| name == topic || sender.receiver_count() > 0);
        let sender = topics.entry(topic.clone()).or_insert_with(|| broadcast::channel(BACKLOG).0);
        Ok(Box::new(TopicListener(sender.subscribe())))
    }

    /// Ends all listeners.
    pub fn close(&self) {
        self.0.lock().take();
    }
}

struct TopicListener(broadcast::Receiver<Bytes>);

#[async_trait]
impl Listener for TopicListener {
    async fn next(&mut self) -> Result<Notice, BrokerError> {
        match self.0.recv().await {
            Ok(notice) => Ok(Notice::Message(notice)),
            Err(RecvError::Lagged(_)) => Ok(Notice::Gap),
            Err(RecvError::Closed) => Err(BrokerError::Closed),
        }
    }
}
