//! Publishing in a window of receipts, and in transactions.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    Connection,
    state::{Shared, WINDOW_UNIT, Waiter},
    with_receipt,
    writer::Outgoing,
};
use crate::{
    codec::{Command, Frame, Headers},
    error::LinkError,
    message::{Publication, SendOutcome},
};

/// What will become of a message. Dropping it does not take the message back.
#[derive(Debug)]
pub struct Confirmation(oneshot::Receiver<SendOutcome>);

impl Confirmation {
    /// Waits for the receipt, which has a bound.
    pub async fn outcome(self) -> SendOutcome {
        self.0.await.unwrap_or(SendOutcome::Unknown(LinkError::Closed))
    }
}

impl Connection {
    /// Publishes a message. Returns when it is on its way, which waits for room
    /// in the window; messages keep the order of these calls.
    pub async fn send(&self, message: &Publication) -> Confirmation {
        let (reply, outcome) = oneshot::channel();
        self.send_to(message, reply).await;
        Confirmation(outcome)
    }

    /// The same, with the place where the outcome goes.
    pub(crate) async fn send_to(&self, message: &Publication, reply: oneshot::Sender<SendOutcome>) {
        let waiter = Waiter::Publisher(reply);
        let shared = self.shared();
        let frame = match message.frame(self.dialect(), &shared.options.limits) {
            Ok(frame) => frame,
            Err(error) => return waiter.refused(error),
        };
        let window = self.window(1, message.bytes()).await;
        match (window, self.permit().await) {
            (Ok(window), Ok(permit)) => shared.submit(permit, waiter, window, |receipt| {
                Outgoing::Frame(with_receipt(frame, receipt))
            }),
            (Err(cause), _) | (_, Err(cause)) => waiter.lost(cause),
        }
    }

    /// Publishes messages in one transaction, all or none, and waits until it is
    /// committed. For Classic, where it shares the sync of the store; on Artemis
    /// one repeated duplicate id refuses all of it.
    ///
    /// Should the broker refuse any of them, none is taken, and the connection
    /// is given up with it, since what remains of the transaction is unknown.
    pub async fn transaction(&self, messages: &[Publication]) -> SendOutcome {
        if messages.is_empty() {
            return SendOutcome::Durable;
        }
        match self.commit(messages).await {
            Err(error @ LinkError::Invalid(_)) => SendOutcome::Rejected(error.to_string()),
            Err(cause) => SendOutcome::Unknown(cause),
            Ok(outcome) => outcome,
        }
    }

    async fn commit(&self, messages: &[Publication]) -> Result<SendOutcome, LinkError> {
        let shared = self.shared();
        if messages.len() > shared.options.window_messages {
            return Err(LinkError::invalid("there are more messages than the window takes"));
        }
        let mut frames = Vec::with_capacity(messages.len() + 2);
        for message in messages {
            frames.push(message.frame(self.dialect(), &shared.options.limits)?);
        }
        let bytes = messages.iter().map(Publication::bytes).sum();
        let window = self.window(messages.len(), bytes).await?;
        let name = self.transaction_name().await?;
        for frame in &mut frames {
            frame.headers.push("transaction", name.text);
        }
        let mark = |command| Frame::new(command, Headers::new().with("transaction", name.text));
        frames.insert(0, mark(Command::Begin));
        let commit = mark(Command::Commit);
        let (reply, outcome) = oneshot::channel();
        let permit = self.permit().await?;
        // In one piece: should this be cancelled, it is either all on its way
        // or not begun, and the name can be used again.
        shared.submit(permit, Waiter::Committer(reply), window, |receipt| {
            frames.push(with_receipt(commit, receipt));
            Outgoing::Frames(frames)
        });
        Ok(Confirmation(outcome).outcome().await)
    }

    /// Waits for one of the few names of transactions.
    async fn transaction_name(&self) -> Result<TransactionName<'_>, LinkError> {
        let turn = self.acquire(&self.shared().transactions, 1).await?;
        TransactionName::take(self.shared(), turn)
    }

    /// Waits for room for so many messages and bytes. More bytes than the whole
    /// window wait for all of it.
    async fn window(
        &self,
        messages: usize,
        bytes: usize,
    ) -> Result<Vec<OwnedSemaphorePermit>, LinkError> {
        let shared = self.shared();
        let all = (shared.options.window_bytes / WINDOW_UNIT).max(1);
        let units = bytes.div_ceil(WINDOW_UNIT).clamp(1, all);
        Ok(vec![
            self.acquire(&shared.window_messages, messages).await?,
            self.acquire(&shared.window_bytes, units).await?,
        ])
    }

    async fn acquire(
        &self,
        semaphore: &Arc<Semaphore>,
        count: usize,
    ) -> Result<OwnedSemaphorePermit, LinkError> {
        let closed = || self.cause().unwrap_or(LinkError::Closed);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            () = self.shared().closed.cancelled() => Err(closed()),
            permit = Arc::clone(semaphore).acquire_many_owned(count) => permit.map_err(|_| closed()),
        }
    }
}

/// One of the few names of transactions, while it is used.
struct TransactionName<'a> {
    shared: &'a Shared,
    text: &'static str,
    // Given back after the name is: see the order of drops.
    _turn: OwnedSemaphorePermit,
}

impl<'a> TransactionName<'a> {
    fn take(shared: &'a Shared, turn: OwnedSemaphorePermit) -> Result<Self, LinkError> {
        let text = shared.take_transaction().ok_or(LinkError::Closed)?;
        Ok(Self { shared, text, _turn: turn })
    }
}

impl Drop for TransactionName<'_> {
    fn drop(&mut self) {
        self.shared.give_transaction(self.text);
    }
}
