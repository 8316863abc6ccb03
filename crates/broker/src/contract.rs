//! What every broker backend does.
//!
//! Invariants, each a case of the suite:
//!
//! - A publish is *durable* when its outcome says so, and not before. One that
//!   is *unknown* is published again to the same queue with the same id.
//! - A message that was handed over and is not acknowledged comes back when
//!   its subscription or its connection ends, and never before.
//! - [`Broker::settle`] makes its publishes durable, then acknowledges. No
//!   interruption leaves zero copies.
//! - A [`Token`] dies with its subscription. A dead one is an error, never an
//!   acknowledgement of something else.
//! - There is no negative acknowledgement: to give a message back, settle it
//!   with a copy of itself ([`Body::Kept`]).
//! - Nothing is handed over before its due time.
//! - Within a priority and a flow key the order is that of publication, but
//!   for what comes back; a higher priority goes first.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use posthaste_model::Timestamp;
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

/// Name of a queue or a topic: 1 to 200 of `a-z A-Z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 200;

    /// Checks and makes a name.
    ///
    /// # Errors
    /// [`BrokerError::Invalid`] when the text is not a queue name.
    pub fn new(name: &str) -> Result<Self, BrokerError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > Self::MAX_LEN || !name.bytes().all(allowed) {
            return Err(BrokerError::Invalid(format!(
                "{name:?} is not a queue name: 1 to 200 of letters, digits, '.', '_' and '-'"
            )));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What shares a fate: messages with the same key are slow, blocked or dead
/// together (for mail, the recipient domain). Empty where that means nothing.
/// At most [`FlowKey::MAX_LEN`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey(Arc<str>);

impl FlowKey {
    /// Longest key in bytes.
    pub const MAX_LEN: usize = 255;

    /// Makes a key. A longer text than [`Self::MAX_LEN`] is refused when it is
    /// published.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(key.into())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for FlowKey {
    fn default() -> Self {
        Self::new("")
    }
}

/// A body that several messages of one batch share, stored once where the
/// backend can.
#[derive(Debug, Clone)]
pub struct SharedBody {
    /// Names the body; unique over all bodies ever published.
    pub id: Uuid,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The body of a message that is published.
#[derive(Debug, Clone)]
pub enum Body {
    /// Its own.
    Inline(Bytes),
    /// Shared with other messages of the same batch.
    Shared(SharedBody),
    /// The body of a message that the same [`Settlement`] acknowledges. With
    /// the id of that message too it is a deferral, which the embedded queue
    /// does without writing the body again.
    Kept(Token),
}

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to. A queue that does not exist is declared.
    pub queue: QueueName,
    /// By which a repeated publish is recognised, where it is.
    pub id: Uuid,
    /// 0 to 9, higher goes first.
    pub priority: u8,
    /// Not handed over before; `None` or the past: at once.
    pub due: Option<Timestamp>,
    /// See [`FlowKey`].
    pub flow_key: FlowKey,
    /// The small part, at most [`Publish::MAX_HEAD`] bytes: a deferral writes it anew.
    pub head: Bytes,
    /// The large part, at most [`Publish::MAX_BODY`] bytes.
    pub body: Body,
}

impl Publish {
    /// Largest head in bytes.
    pub const MAX_HEAD: usize = 1 << 20;
    /// Largest body in bytes.
    pub const MAX_BODY: usize = 64 << 20;
}

/// What became of one published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It survives a crash.
    Durable,
    /// It was not taken and will not be: the reason.
    Rejected(String),
    /// It may or may not have been taken: publish it again with its id.
    Unknown(String),
}

/// Proof of a hand-over, for its acknowledgement. Opaque; valid once, while
/// its subscription lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Which subscription of which connection.
    pub epoch: u64,
    /// Which message, and which time it was handed over.
    pub tag: u64,
}

/// Outcomes made durable, then their messages acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Settlement {
    /// What is acknowledged, at most [`Settlement::MAX_TOKENS`].
    pub tokens: Vec<Token>,
    /// What is published first: records of the outcomes, due copies.
    pub publishes: Vec<Publish>,
}

impl Settlement {
    /// Most tokens of one settlement.
    pub const MAX_TOKENS: usize = 1024;
}

/// A message that was handed over.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// For its acknowledgement.
    pub token: Token,
    /// Its id.
    pub id: Uuid,
    /// Its priority.
    pub priority: u8,
    /// Its flow key.
    pub flow_key: FlowKey,
    /// The small part.
    pub head: Bytes,
    /// The large part.
    pub body: Bytes,
    /// A hint that it may have been handed over before.
    pub redelivered: bool,
    /// When it was handed over.
    pub handed_over: Instant,
}

/// How much may be handed over and not yet acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Messages.
    pub messages: u32,
    /// Bytes of heads and bodies. One message is always allowed.
    pub bytes: u64,
}

/// How to subscribe.
#[derive(Debug, Clone, Copy)]
pub struct SubscribeOptions {
    /// The bound on what is handed over and not acknowledged.
    pub credit: Credit,
    /// The same bound in messages for each single flow key, so that one flow
    /// cannot fill the credit; for backends that hold flows apart (the
    /// embedded queue), elsewhere lanes stand in for it.
    pub flow_messages: u32,
    /// Whether to be the only consumer: others wait until this one ends.
    pub exclusive: bool,
}

/// Messages of one queue, as they come. Dropping it ends it: what is not
/// acknowledged goes back to the queue.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for messages: at least one, in order. Cancelling loses nothing.
    ///
    /// # Errors
    /// When the subscription ended: what was handed over comes again to the
    /// next one, and its tokens are dead.
    async fn next(&mut self) -> Result<Vec<Delivery>, BrokerError>;

    /// Changes the credit. Lowering it takes nothing back.
    fn set_credit(&self, credit: Credit);

    /// Hands over nothing of this flow until it is unblocked. What is on the
    /// way may still come.
    fn block(&self, flow_key: &FlowKey);

    /// Ends a [`Self::block`].
    fn unblock(&self, flow_key: &FlowKey);
}

/// What a topic's listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something was broadcast.
    Message(Bytes),
    /// Notices were lost: read the desired state again.
    Gap,
}

/// Hears what is broadcast on one topic, from its making on.
#[async_trait]
pub trait Listener: Send {
    /// Waits for the next notice. Cancelling loses nothing.
    ///
    /// # Errors
    /// When the broker was closed.
    async fn next(&mut self) -> Result<Notice, BrokerError>;
}

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Could be handed over now.
    pub ready: u64,
    /// Wait for their due time.
    pub delayed: u64,
    /// Handed over and not acknowledged.
    pub unacknowledged: u64,
}

impl Depth {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.ready + self.delayed + self.unacknowledged
    }
}

/// Where a browsed message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageState {
    /// Could be handed over now.
    Ready,
    /// Waits for its due time.
    Delayed,
    /// Handed over and not acknowledged.
    Unacknowledged,
}

/// A message as a look into the queue shows it.
#[derive(Debug, Clone)]
pub struct Browsed {
    /// Its id.
    pub id: Uuid,
    /// Its priority.
    pub priority: u8,
    /// Its due time.
    pub due: Option<Timestamp>,
    /// Its flow key.
    pub flow_key: FlowKey,
    /// The small part.
    pub head: Bytes,
    /// Bytes of the large part.
    pub body_len: u64,
    /// Where it stands.
    pub state: MessageState,
}

/// Whether the backend can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// It answers.
    Up,
    /// It does not, and why. Publishing fails or waits.
    Down(String),
}

/// What went wrong with the broker. Completes "failed to use the broker: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// It was closed by us.
    #[error("it is closed")]
    Closed,
    /// The token's subscription has ended, or it was used before.
    #[error("the token is no longer valid: the message comes, or came, again")]
    StaleToken,
    /// Another consumer is exclusive, another process holds the directory.
    #[error("it is in use: {0}")]
    InUse(String),
    /// A name or a size outside the contract.
    #[error("{0}")]
    Invalid(String),
    /// There is no room. Nothing was taken.
    #[error("there is no room: {0}")]
    Full(String),
    /// The disk or the files failed: what, where and what to do.
    #[error("the storage failed: {0}")]
    Storage(String),
    /// The network or the server failed.
    #[error("the link failed: {0}")]
    Link(String),
}

/// A message broker. See the module for what holds on all of them.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Makes sure that a queue exists.
    ///
    /// # Errors
    /// When it cannot be made.
    async fn declare(&self, queue: &QueueName) -> Result<(), BrokerError>;

    /// Publishes a batch; the outcomes are in its order. Where the backend can
    /// (the embedded queue), a batch is taken whole or not at all.
    ///
    /// # Errors
    /// When nothing of the batch was taken.
    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<PublishOutcome>, BrokerError>;

    /// Starts to consume a queue, which is declared if need be.
    ///
    /// # Errors
    /// [`BrokerError::InUse`] is not among them: an exclusive subscription
    /// waits for its turn inside `next`.
    async fn subscribe(
        &self,
        queue: &QueueName,
        options: SubscribeOptions,
    ) -> Result<Box<dyn Subscription>, BrokerError>;

    /// Makes the publishes durable, then acknowledges; returns when both are
    /// durable. One result a token, in their order.
    ///
    /// A token that is dead gets [`BrokerError::StaleToken`] in its place: its
    /// message comes, or came, again. The other publishes stand all the same
    /// (they record what happened), except copies with the [`Body::Kept`] of
    /// a dead token, which would double the message. In the embedded queue a
    /// settlement is one atomic record.
    ///
    /// # Errors
    /// When nothing was made durable and nothing acknowledged, or (on a link
    /// that failed) that is unknown. Settling again is safe.
    async fn settle(
        &self,
        settlement: Settlement,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError>;

    /// Tells all who listen now. Not durable.
    ///
    /// # Errors
    /// When it could not be sent.
    async fn broadcast(&self, topic: &QueueName, notice: Bytes) -> Result<(), BrokerError>;

    /// Starts to listen.
    ///
    /// # Errors
    /// When the backend cannot be reached.
    async fn listen(&self, topic: &QueueName) -> Result<Box<dyn Listener>, BrokerError>;

    /// All queues that exist.
    ///
    /// # Errors
    /// When the backend cannot tell.
    async fn queues(&self) -> Result<Vec<QueueName>, BrokerError>;

    /// What a queue holds; nothing for one that does not exist.
    ///
    /// # Errors
    /// When the backend cannot tell.
    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError>;

    /// Looks at up to `limit` messages after the one with id `after`, in the
    /// order of ids.
    ///
    /// # Errors
    /// When the backend cannot tell.
    async fn browse(
        &self,
        queue: &QueueName,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Browsed>, BrokerError>;

    /// Removes what is ready or delayed; returns how many.
    ///
    /// # Errors
    /// When it was not removed.
    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError>;

    /// Follows the state of the link.
    fn link_state(&self) -> watch::Receiver<LinkState>;

    /// Ends all subscriptions, writes what is pending and lets go, within the
    /// bound.
    ///
    /// # Errors
    /// When what was pending could not be written.
    async fn close(&self, within: Duration) -> Result<(), BrokerError>;
}
