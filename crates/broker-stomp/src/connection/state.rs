//! What the two tasks of a connection and its users share: receipts that are
//! awaited, messages that are not acknowledged, subscriptions, the cause of death.
//!
//! Whatever has to keep its order on the wire is put into the writer's channel
//! under the lock that guards the bookkeeping for it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use posthaste_broker::Token;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Wake, buffer::Buffer, consume::StaleToken, handshake::Server, writer::Outgoing};
use crate::{config::ConnectionOptions, error::LinkError, message::SendOutcome};

/// Names of transactions. A few, used again and again: Artemis keeps a session
/// for each name until the connection ends.
const TRANSACTIONS: [&str; 4] = ["t0", "t1", "t2", "t3"];

pub(super) struct Shared {
    pub(super) epoch: u64,
    pub(super) server: Server,
    pub(super) options: ConnectionOptions,
    /// Cancelled when it has ended.
    pub(super) closed: CancellationToken,
    /// A subscription was dropped.
    pub(super) dropped: Wake,
    pub(super) window_messages: Arc<Semaphore>,
    /// In units of [`WINDOW_UNIT`].
    pub(super) window_bytes: Arc<Semaphore>,
    pub(super) transactions: Arc<Semaphore>,
    state: Mutex<State>,
}

/// Granularity of the window's bytes.
pub(super) const WINDOW_UNIT: usize = 1024;

struct State {
    dead: Option<LinkError>,
    next: u64,
    /// In the order of their numbers, which is that of their deadlines.
    receipts: BTreeMap<u64, Pending>,
    unacknowledged: HashMap<u64, Unacknowledged>,
    subscriptions: HashMap<u64, Arc<Buffer>>,
    /// Dropped, and to be told to the broker.
    ending: Vec<u64>,
    free_transactions: Vec<&'static str>,
}

struct Pending {
    waiter: Waiter,
    deadline: Instant,
    /// Its room in the windows, given back with the receipt.
    permits: Vec<OwnedSemaphorePermit>,
}

struct Unacknowledged {
    subscription: u64,
    id: Box<str>,
}

/// Who waits for a receipt.
pub(super) enum Waiter {
    Publisher(oneshot::Sender<SendOutcome>),
    /// Of a transaction.
    Committer(oneshot::Sender<SendOutcome>),
    Control(oneshot::Sender<Result<(), LinkError>>),
    /// Of acknowledgements.
    Acknowledger(oneshot::Sender<Result<(), LinkError>>),
}

impl Waiter {
    // Whoever has stopped waiting need not hear: the result of send is of no use.
    pub(super) fn confirmed(self) {
        match self {
            Self::Publisher(reply) | Self::Committer(reply) => {
                drop(reply.send(SendOutcome::Durable));
            }
            Self::Control(reply) | Self::Acknowledger(reply) => drop(reply.send(Ok(()))),
        }
    }

    pub(super) fn refused(self, error: LinkError) {
        match self {
            Self::Publisher(reply) | Self::Committer(reply) => {
                drop(reply.send(SendOutcome::Rejected(error.to_string())));
            }
            Self::Control(reply) | Self::Acknowledger(reply) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn lost(self, cause: LinkError) {
        match self {
            Self::Publisher(reply) | Self::Committer(reply) => {
                drop(reply.send(SendOutcome::Unknown(cause)));
            }
            Self::Control(reply) | Self::Acknowledger(reply) => drop(reply.send(Err(cause))),
        }
    }

    /// Whether a refusal leaves behind what only the connection's end clears:
    /// half a transaction, or used tokens of messages that the broker still
    /// holds for us.
    const fn refusal_is_fatal(&self) -> bool {
        matches!(self, Self::Committer(_) | Self::Acknowledger(_))
    }
}

/// Whether a receipt was awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    No,
}

impl Shared {
    pub(super) fn new(epoch: u64, server: Server, options: ConnectionOptions) -> Self {
        let bytes = (options.window_bytes / WINDOW_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            epoch,
            server,
            options,
            closed: CancellationToken::new(),
            dropped: Wake::new(),
            window_messages: Arc::new(Semaphore::new(options.window_messages.max(1))),
            window_bytes: Arc::new(Semaphore::new(bytes)),
            transactions: Arc::new(Semaphore::new(TRANSACTIONS.len())),
            state: Mutex::new(State {
                dead: None,
                next: 0,
                receipts: BTreeMap::new(),
                unacknowledged: HashMap::new(),
                subscriptions: HashMap::new(),
                ending: Vec::new(),
                free_transactions: TRANSACTIONS.to_vec(),
            }),
        }
    }

    pub(super) fn cause(&self) -> Option<LinkError> {
        self.state.lock().dead.clone()
    }

    /// Ends the connection. The first cause counts.
    pub(super) fn fail(&self, cause: LinkError) {
        let (receipts, subscriptions) = {
            let mut state = self.state.lock();
            if state.dead.is_some() {
                return;
            }
            state.dead = Some(cause.clone());
            state.unacknowledged.clear();
            (std::mem::take(&mut state.receipts), std::mem::take(&mut state.subscriptions))
        };
        self.closed.cancel();
        for pending in receipts.into_values() {
            pending.waiter.lost(cause.clone());
        }
        for buffer in subscriptions.into_values() {
            buffer.end(cause.clone());
        }
    }

    /// Sends what carries a receipt, and remembers who waits for it.
    pub(super) fn submit(
        &self,
        permit: mpsc::Permit<'_, Outgoing>,
        waiter: Waiter,
        permits: Vec<OwnedSemaphorePermit>,
        outgoing: impl FnOnce(u64) -> Outgoing,
    ) {
        let mut state = self.state.lock();
        if let Some(cause) = state.dead.clone() {
            drop(state);
            return waiter.lost(cause);
        }
        let receipt = state.expect(waiter, permits, self.deadline());
        permit.send(outgoing(receipt));
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.options.receipt_timeout
    }

    /// When the oldest receipt must be here.
    pub(super) fn oldest_deadline(&self) -> Option<Instant> {
        self.state.lock().receipts.first_key_value().map(|(_, pending)| pending.deadline)
    }

    /// A receipt came.
    pub(super) fn receipt(&self, receipt: u64) -> Known {
        match self.take(receipt) {
            Some(waiter) => {
                waiter.confirmed();
                Known::Yes
            }
            None => Known::No,
        }
    }

    /// An ERROR came for a receipt.
    pub(super) fn refused(&self, receipt: u64, text: &str) -> Known {
        let Some(waiter) = self.take(receipt) else { return Known::No };
        let error = LinkError::Server(text.into());
        let fatal = waiter.refusal_is_fatal();
        waiter.refused(error.clone());
        if fatal {
            self.fail(error);
        }
        Known::Yes
    }

    fn take(&self, receipt: u64) -> Option<Waiter> {
        let pending = self.state.lock().receipts.remove(&receipt)?;
        // Before the answer, so that who hears it finds the window open.
        drop(pending.permits);
        Some(pending.waiter)
    }

    /// Starts a subscription; its number comes with its receipt's.
    pub(super) fn subscribe(
        &self,
        permit: mpsc::Permit<'_, Outgoing>,
        buffer: &Arc<Buffer>,
        waiter: Waiter,
        outgoing: impl FnOnce(u64, u64) -> Outgoing,
    ) -> Result<u64, LinkError> {
        let mut state = self.state.lock();
        if let Some(cause) = state.dead.clone() {
            return Err(cause);
        }
        let receipt = state.expect(waiter, Vec::new(), self.deadline());
        // Receipts and subscriptions share one row of numbers.
        state.subscriptions.insert(receipt, Arc::clone(buffer));
        permit.send(outgoing(receipt, receipt));
        Ok(receipt)
    }

    /// Ends a subscription with a receipt: its tokens are dead from now on.
    pub(super) fn unsubscribe(
        &self,
        subscription: u64,
        permit: mpsc::Permit<'_, Outgoing>,
        waiter: Waiter,
        outgoing: impl FnOnce(u64) -> Outgoing,
    ) {
        let mut state = self.state.lock();
        if let Some(cause) = state.dead.clone() {
            drop(state);
            return waiter.lost(cause);
        }
        state.forget(subscription);
        let receipt = state.expect(waiter, Vec::new(), self.deadline());
        permit.send(outgoing(receipt));
    }

    /// Ends a subscription that the broker refused.
    pub(super) fn forget(&self, subscription: u64) {
        self.state.lock().forget(subscription);
    }

    /// Ends a subscription that was dropped. The writer tells the broker.
    pub(super) fn abandon(&self, subscription: u64) {
        let mut state = self.state.lock();
        if state.subscriptions.contains_key(&subscription) {
            state.forget(subscription);
            state.ending.push(subscription);
            self.dropped.notify_one();
        }
    }

    /// The subscriptions that were dropped since it was asked last. What was
    /// put into the writer's channel by now goes before their UNSUBSCRIBE.
    pub(super) fn take_ending(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.lock().ending)
    }

    /// The buffer of a subscription, if it lives.
    pub(super) fn buffer(&self, subscription: u64) -> Option<Arc<Buffer>> {
        self.state.lock().subscriptions.get(&subscription).cloned()
    }

    /// Notes a message that has to be acknowledged; `None`: its subscription has ended.
    pub(super) fn handed_over(
        &self,
        subscription: u64,
        id: &str,
    ) -> Result<Option<Token>, LinkError> {
        let mut state = self.state.lock();
        if !state.subscriptions.contains_key(&subscription) {
            return Ok(None);
        }
        if state.unacknowledged.len() >= self.options.max_unacknowledged {
            return Err(LinkError::protocol("more messages than the credit allows"));
        }
        state.next += 1;
        let tag = state.next;
        state.unacknowledged.insert(tag, Unacknowledged { subscription, id: id.into() });
        Ok(Some(Token { epoch: self.epoch, tag }))
    }

    /// Acknowledges: one result a token, in their order. `waiter` gets the
    /// receipt of the last one.
    pub(super) fn acknowledge(
        &self,
        tokens: &[Token],
        permit: mpsc::Permit<'_, Outgoing>,
        waiter: Option<Waiter>,
    ) -> Vec<Result<(), StaleToken>> {
        let mut state = self.state.lock();
        let mut ids = Vec::with_capacity(tokens.len());
        let results = tokens
            .iter()
            .map(|token| {
                let known = (token.epoch == self.epoch)
                    .then(|| state.unacknowledged.remove(&token.tag))
                    .flatten();
                ids.push(known.ok_or(StaleToken)?.id);
                Ok(())
            })
            .collect();
        if ids.is_empty() {
            drop(state);
            if let Some(waiter) = waiter {
                waiter.confirmed();
            }
            return results;
        }
        let receipt = waiter.map(|waiter| state.expect(waiter, Vec::new(), self.deadline()));
        permit.send(Outgoing::Acks { ids, receipt });
        results
    }

    pub(super) fn take_transaction(&self) -> Option<&'static str> {
        self.state.lock().free_transactions.pop()
    }

    pub(super) fn give_transaction(&self, name: &'static str) {
        self.state.lock().free_transactions.push(name);
    }
}

impl State {
    fn expect(
        &mut self,
        waiter: Waiter,
        permits: Vec<OwnedSemaphorePermit>,
        deadline: Instant,
    ) -> u64 {
        self.next += 1;
        self.receipts.insert(self.next, Pending { waiter, deadline, permits });
        self.next
    }

    fn forget(&mut self, subscription: u64) {
        if let Some(buffer) = self.subscriptions.remove(&subscription) {
            buffer.stop();
        }
        self.unacknowledged.retain(|_, message| message.subscription != subscription);
    }
}
