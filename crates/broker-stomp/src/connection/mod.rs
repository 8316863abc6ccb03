//! One connection to a broker.
//!
//! Contract: [`Connection::open`] connects, checks what the broker is, and
//! starts two tasks, a reader and a writer. Messages are published in a window
//! of receipts, received by subscriptions with credit, and acknowledged one by
//! one. Clones are the same connection; it ends with the last of them and of
//! its subscriptions.
//!
//! Invariants:
//!
//! - The writer alone writes, in the order in which things were put into its
//!   bounded channel; that is done under one lock with the bookkeeping, so that
//!   no acknowledgement can slip behind its UNSUBSCRIBE.
//! - The reader alone reads, and stops when the buffer of a subscription is
//!   full. Who shares a connection between subscriptions, or waits for receipts
//!   on it, keeps taking messages meanwhile; publishers have connections of
//!   their own ([`crate::pool`]).
//! - The first cause of death is the one that everybody hears.
//! - An ERROR with a receipt's id refuses what that receipt was for, and nothing
//!   else. Classic goes on after it, Artemis closes the connection: one refused
//!   message makes the others on the way unknown.
//!
//! On failure (the peer closes, is silent for two heart-beats, leaves out a
//! receipt, sends an ERROR that belongs to no receipt or what is not STOMP) the
//! connection ends: what waits for receipts is *unknown*, subscriptions end,
//! tokens are dead.

mod buffer;
mod consume;
mod handshake;
mod publish;
mod reader;
mod state;
mod writer;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Notify, mpsc, oneshot};

pub use consume::{Message, StaleToken, Subscription};
pub use publish::Confirmation;

use crate::{
    codec::{Command, Frame, Headers},
    config::{ClientConfig, ConnectionOptions, Node},
    dialect::Dialect,
    error::LinkError,
};
use handshake::Opened;
use state::{Shared, Waiter};
use writer::Outgoing;

/// Items that may wait for the writer.
const CHANNEL: usize = 256;

/// A connection. See the module.
#[derive(Clone)]
pub struct Connection(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    out: mpsc::Sender<Outgoing>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.fail(LinkError::Closed);
    }
}

impl Connection {
    /// Connects to a node. Tokens of this connection will carry `epoch`, which
    /// must be used once only.
    ///
    /// # Errors
    /// When the node cannot be reached in time, refuses, or is not what is needed.
    pub async fn open(node: &Node, config: &ClientConfig, epoch: u64) -> Result<Self, LinkError> {
        let opened = handshake::open(node, config).await?;
        Ok(Self::start(opened, config.options, epoch))
    }

    /// From the agreed connection on.
    fn start(opened: Opened, options: ConnectionOptions, epoch: u64) -> Self {
        let (out, outgoing) = mpsc::channel(CHANNEL);
        let shared = Arc::new(Shared::new(epoch, opened.server, options));
        tokio::spawn(writer::run(
            Arc::clone(&shared),
            outgoing,
            opened.write,
            opened.heart_beat.send_every,
        ));
        tokio::spawn(reader::run(
            Arc::clone(&shared),
            opened.read,
            opened.decoder,
            opened.rest,
            opened.heart_beat.expect_within,
        ));
        Self(Arc::new(Handle { shared, out }))
    }

    /// The epoch of its tokens.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared().epoch
    }

    /// Whose words it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.shared().server.dialect
    }

    /// What the broker says it is.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.shared().server.name.as_deref()
    }

    /// Why it has ended, if it has.
    #[must_use]
    pub fn cause(&self) -> Option<LinkError> {
        self.shared().cause()
    }

    /// Waits until it ends, and says why.
    pub async fn ended(&self) -> LinkError {
        self.shared().closed.cancelled().await;
        self.shared().cause().unwrap_or(LinkError::Closed)
    }

    /// Ends it in order: what was put before is written and answered
    /// (DISCONNECT with a receipt), then the socket is closed.
    ///
    /// # Errors
    /// When that is not done in time; it is closed all the same.
    pub async fn close(&self, within: Duration) -> Result<(), LinkError> {
        let disconnect = Frame::new(Command::Disconnect, Headers::new());
        let result = match tokio::time::timeout(within, self.control(disconnect)).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::Timeout { what: "answer to DISCONNECT", within }),
        };
        self.shared().fail(LinkError::Closed);
        result
    }

    /// Sends a frame and waits for its receipt.
    async fn control(&self, frame: Frame) -> Result<(), LinkError> {
        let (reply, answer) = oneshot::channel();
        let permit = self.permit().await?;
        let waiter = Waiter::Control(reply);
        self.shared().submit(permit, waiter, Vec::new(), |receipt| {
            Outgoing::Frame(with_receipt(frame, receipt))
        });
        answer.await.unwrap_or(Err(LinkError::Closed))
    }

    /// Room in the writer's channel.
    async fn permit(&self) -> Result<mpsc::Permit<'_, Outgoing>, LinkError> {
        let closed = || self.shared().cause().unwrap_or(LinkError::Closed);
        tokio::select! {
            biased;
            () = self.shared().closed.cancelled() => Err(closed()),
            permit = self.0.out.reserve() => permit.map_err(|_| closed()),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("epoch", &self.epoch())
            .field("server", &self.shared().server)
            .field("cause", &self.cause())
            .finish_non_exhaustive()
    }
}

fn with_receipt(mut frame: Frame, receipt: u64) -> Frame {
    frame.headers.push("receipt", &receipt.to_string());
    frame
}

/// Tells the writer that a subscription was dropped.
type Wake = Notify;
