//! Subscriptions and acknowledgements.

use std::sync::Arc;

use bytes::Bytes;
use posthaste_broker::Token;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Connection,
    buffer::Buffer,
    state::Waiter,
    with_receipt,
    writer::{Outgoing, unsubscribe},
};
use crate::{
    codec::{Command, Frame, Headers},
    error::LinkError,
    message::Receive,
};

/// The token's subscription or connection has ended, or it was used before:
/// the message comes, or came, again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is no longer valid: the message comes, or came, again")]
pub struct StaleToken;

/// A message that was handed over.
#[derive(Debug, Clone)]
pub struct Message {
    /// For its acknowledgement; `None` where handing over is enough.
    pub token: Option<Token>,
    /// All headers of the MESSAGE. Those that its SEND carried come back, the
    /// `receipt` too: when it is published again, copy your own alone.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
    /// When it was handed over.
    pub handed_over: Instant,
}

impl Message {
    pub(super) fn new(token: Option<Token>, frame: Frame) -> Self {
        Self { token, headers: frame.headers, body: frame.body, handed_over: Instant::now() }
    }

    /// A hint that it may have been handed over before; it is absent after a
    /// crash of the broker.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.headers.get("redelivered") == Some("true")
    }

    /// Its priority, 4 where none is said.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.headers.get("priority").and_then(|text| text.parse().ok()).unwrap_or(4)
    }

    /// What a buffer counts it as.
    pub(super) fn bytes(&self) -> usize {
        self.headers.bytes() + self.body.len()
    }
}

/// Messages of one destination, as they come. Dropping it ends it; to end it in
/// order: [`Self::stop`], settle what was handed over, [`Self::unsubscribe`].
pub struct Subscription {
    connection: Connection,
    buffer: Arc<Buffer>,
    id: u64,
}

impl Subscription {
    /// Waits for messages: at least one, in order. Cancelling loses nothing.
    ///
    /// # Errors
    /// When the subscription was stopped or the connection ended: all tokens
    /// of it that were not used come again.
    pub async fn next(&mut self) -> Result<Vec<Message>, LinkError> {
        self.buffer.take().await
    }

    /// Takes no more messages; those that wait in memory are dropped
    /// unacknowledged. Tokens of messages that were handed over stay valid.
    pub fn stop(&self) {
        self.buffer.stop();
    }

    /// Ends it: what is not acknowledged goes back to the queue, its tokens are
    /// dead. Acknowledgements that were made before are written before.
    ///
    /// # Errors
    /// When the broker does not confirm it: the connection has ended.
    pub async fn unsubscribe(self) -> Result<(), LinkError> {
        self.stop();
        let (reply, answer) = oneshot::channel();
        let permit = self.connection.permit().await?;
        let frame = unsubscribe(self.id);
        self.connection.shared().unsubscribe(self.id, permit, Waiter::Control(reply), |receipt| {
            Outgoing::Frame(with_receipt(frame, receipt))
        });
        answer.await.unwrap_or(Err(LinkError::Closed))
    }

    /// The connection that it belongs to.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.connection.shared().abandon(self.id);
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Connection {
    /// Starts to receive; returns when the broker has confirmed it.
    ///
    /// # Errors
    /// When the broker refuses, or the connection ends.
    pub async fn subscribe(&self, request: &Receive) -> Result<Subscription, LinkError> {
        if !request.destination.is_valid() {
            let name = request.destination.name();
            return Err(LinkError::invalid(format!("{name:?} is not a name of a queue or topic")));
        }
        let headers = self.dialect().subscribe_headers(request);
        let buffer =
            Buffer::new(request.settling, request.buffer_messages.max(1), request.buffer_bytes());
        let buffer = Arc::new(buffer);
        let (reply, answer) = oneshot::channel();
        let permit = self.permit().await?;
        let id = self.shared().subscribe(
            permit,
            &buffer,
            Waiter::Control(reply),
            move |id, receipt| {
                let mut headers = headers;
                headers.push("id", &id.to_string());
                let frame = Frame::new(Command::Subscribe, headers);
                Outgoing::Frame(with_receipt(frame, receipt))
            },
        )?;
        // From here on: should this be cancelled, its Drop ends it.
        let subscription = Subscription { connection: self.clone(), buffer, id };
        if let Err(cause) = answer.await.unwrap_or(Err(LinkError::Closed)) {
            // The broker does not know it: an UNSUBSCRIBE would be an error.
            self.shared().forget(subscription.id);
            return Err(cause);
        }
        Ok(subscription)
    }

    /// Acknowledges, soon: acknowledgements are gathered for
    /// [`ack_batch`](crate::ConnectionOptions::ack_batch) and
    /// [`ack_delay`](crate::ConnectionOptions::ack_delay). One result a token,
    /// in their order. A message whose acknowledgement is lost comes again.
    ///
    /// # Errors
    /// When the connection has ended: all its tokens are dead.
    pub async fn acknowledge(
        &self,
        tokens: &[Token],
    ) -> Result<Vec<Result<(), StaleToken>>, LinkError> {
        let permit = self.permit().await?;
        Ok(self.shared().acknowledge(tokens, permit, None))
    }

    /// The same, and returns when the broker has confirmed it: the messages do
    /// not come again.
    ///
    /// # Errors
    /// When the broker refuses, or the connection ends, which a refusal brings
    /// about: it is unknown whether the messages come again.
    pub async fn acknowledge_durably(
        &self,
        tokens: &[Token],
    ) -> Result<Vec<Result<(), StaleToken>>, LinkError> {
        let (reply, answer) = oneshot::channel();
        let permit = self.permit().await?;
        let waiter = Some(Waiter::Acknowledger(reply));
        let results = self.shared().acknowledge(tokens, permit, waiter);
        answer.await.unwrap_or(Err(LinkError::Closed))?;
        Ok(results)
    }
}
