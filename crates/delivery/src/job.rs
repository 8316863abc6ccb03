//! A message on its way through the SMTP client, and what became of it.

use bytes::Bytes;
use posthaste_broker::{Body, Delivery, FlowKey, Publish, QueueName, Token};
use posthaste_model::{AttemptId, MessageHead, RecordError, Timestamp};
use tokio::time::Instant;
use uuid::Uuid;

use crate::journal;

/// A message that was handed over and is to be attempted.
#[derive(Debug)]
pub(crate) struct Job {
    pub delivery: Delivery,
    pub head: MessageHead,
    /// Of the attempt that it waits for.
    pub attempt_id: AttemptId,
}

impl Job {
    pub fn new(delivery: Delivery) -> Result<Self, (RecordError, Box<Delivery>)> {
        match MessageHead::decode(&delivery.head) {
            Ok(head) => {
                let mut delivery = delivery;
                if delivery.flow_key.as_str().is_empty() {
                    delivery.flow_key = FlowKey::new(head.recipient.domain().as_str());
                }
                Ok(Self { delivery, head, attempt_id: AttemptId::new() })
            }
            Err(error) => Err((error, Box::new(delivery))),
        }
    }

    /// Which attempt it is, from 1.
    pub const fn number(&self) -> u32 {
        self.head.attempts.saturating_add(1)
    }

    pub const fn handed_over(&self) -> Instant {
        self.delivery.handed_over
    }
}

/// What settlement does with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    Acknowledge,
    Defer { due: Timestamp, head: Bytes },
    Quarantine { head: Bytes },
}

impl From<journal::Next> for After {
    fn from(next: journal::Next) -> Self {
        match next {
            journal::Next::Acknowledge => Self::Acknowledge,
            journal::Next::Defer { due, head } => Self::Defer { due, head },
        }
    }
}

/// What became of a message, to be settled.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub token: Token,
    pub id: Uuid,
    pub priority: u8,
    pub flow_key: FlowKey,
    /// The attempt, where the journal knows it.
    pub journalled: Option<AttemptId>,
    /// One line for the delivery log.
    pub event: Option<Bytes>,
    pub after: After,
}

impl Outcome {
    pub fn new(delivery: &Delivery, after: After) -> Self {
        Self {
            token: delivery.token,
            id: delivery.id,
            priority: delivery.priority,
            flow_key: delivery.flow_key.clone(),
            journalled: None,
            event: None,
            after,
        }
    }

    /// The outcome that the journal holds of an earlier hand-over.
    pub fn journalled(delivery: &Delivery, ended: journal::Final) -> Self {
        Self {
            journalled: Some(ended.attempt_id),
            event: Some(ended.event),
            ..Self::new(delivery, ended.next.into())
        }
    }

    /// The copy of the message that is published, if any.
    pub fn copy(&self, pool: &QueueName, quarantine: &QueueName) -> Option<Publish> {
        let (queue, due, head) = match &self.after {
            After::Acknowledge => return None,
            After::Defer { due, head } => (pool, Some(*due), head),
            After::Quarantine { head } => (quarantine, None, head),
        };
        Some(Publish {
            queue: queue.clone(),
            id: self.id,
            priority: self.priority,
            due,
            flow_key: self.flow_key.clone(),
            head: head.clone(),
            body: Body::Kept(self.token),
        })
    }
}
