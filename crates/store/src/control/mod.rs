//! Control data: rows that change, in a file of their own (`control.db`), so
//! that they and the evidence do not wait for each other.
//!
//! It holds the idempotency keys. A key is *claimed* before the work it stands
//! for begins, with a lease that its holder renews; it is *answered* when the
//! work is done, and then the answer is given to everybody who asks again. A
//! claim whose lease has run out can be taken over with the same seed and
//! time, from which the same ids are derived.
//!
//! Contract:
//!
//! - [`Control::claim`] returns when the claim survives a power cut, and so do
//!   the others when they say that they changed something.
//! - Of two who claim the same key at once one gets it.
//! - Who has lost a claim to another cannot change its row any more.
//! - Dropping a call does not undo it: what was asked for is done, or not.
//!
//! One task writes. It takes all requests that wait, up to a bound, into one
//! transaction: many claims cost one sync. When that transaction fails, all of
//! them get the error, nothing of it is there, and the file is opened anew by
//! the next.
//!
//! Rows that have expired are deleted, a bounded number with every claim: they
//! go faster than they come.

mod keys;
mod worker;

use std::{path::PathBuf, time::Duration};

use posthaste_model::Timestamp;
use tokio::sync::{mpsc, oneshot};

use self::worker::{Command, Worker};
use crate::{StoreError, sqlite::make_dir};

/// Requests that may wait for the writer; more wait to be put there.
const WAITING: usize = 1024;

/// Asks for a key.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// Whose key, and which: a hash, so that neither is told by the file.
    pub key: [u8; 32],
    /// What the key stands for: a hash of the request.
    pub fingerprint: [u8; 32],
    /// From which the ids are derived; of the first claim it is kept.
    pub seed: [u8; 16],
    /// Tells this holder from all others: random.
    pub holder: u64,
    /// The time now; of the first claim it is kept.
    pub now: Timestamp,
    /// How long the claim holds unless it is renewed.
    pub lease: Duration,
    /// How long the key is kept, from its first claim on.
    pub keep: Duration,
}

/// A claim that holds until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// As asked for.
    pub key: [u8; 32],
    /// As asked for.
    pub holder: u64,
    /// Of the first claim of this key.
    pub seed: [u8; 16],
    /// When it was first claimed.
    pub time: Timestamp,
}

/// What a key was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The status of HTTP.
    pub status: u16,
    /// The body; `None` when it was too large to keep.
    pub body: Option<Vec<u8>>,
}

/// What became of a [`ClaimRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Nobody had it.
    Fresh(Claim),
    /// Its holder did not come to an end in time: part of the work may be done.
    TakenOver(Claim),
    /// Its holder is at work, until then if it does not renew.
    InFlight {
        /// End of the lease.
        until: Timestamp,
    },
    /// It stands for something else.
    OtherRequest,
    /// The work is done.
    Answered {
        /// Its claim, for what is derived from it.
        claim: Claim,
        /// What was answered.
        answer: KeptAnswer,
    },
}

/// The control data. See the module for its contract.
#[derive(Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
}

impl Control {
    /// Opens `control.db` in a directory, which is made if need be. All
    /// processes that use it run on one host. Needs a runtime, on which the
    /// task that writes runs until the end.
    ///
    /// # Errors
    /// When the directory cannot be used, or the file is not a database or was
    /// made by a newer program.
    pub async fn open(dir: PathBuf) -> Result<Self, StoreError> {
        let made = dir.clone();
        let result = tokio::task::spawn_blocking(move || make_dir(&made)).await;
        result
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(|source| StoreError::file("make or open the directory", &dir, source))?;
        let worker = Worker::open(dir.join("control.db")).await?;
        let (commands, received) = mpsc::channel(WAITING);
        tokio::spawn(worker.run(received));
        Ok(Self { commands })
    }

    /// Claims a key.
    ///
    /// # Errors
    /// When it could not be written: nothing is claimed.
    pub async fn claim(&self, request: ClaimRequest) -> Result<Claimed, StoreError> {
        self.ask(|reply| Command::Claim(request, reply)).await
    }

    /// Moves the end of a lease; the past ends it. `false` when the claim is
    /// another's by now, or gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn renew(&self, claim: &Claim, until: Timestamp) -> Result<bool, StoreError> {
        self.ask(|reply| Command::Renew(claim.clone(), until, reply)).await
    }

    /// Keeps the answer. `false` when the claim is another's by now, or gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn answer(&self, claim: &Claim, answer: KeptAnswer) -> Result<bool, StoreError> {
        self.ask(|reply| Command::Answer(claim.clone(), answer, reply)).await
    }

    /// Gives a key back, as if it had never been claimed: for work that left
    /// nothing behind. `false` when the claim is another's by now, or gone.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn release(&self, claim: &Claim) -> Result<bool, StoreError> {
        self.ask(|reply| Command::Release(claim.clone(), reply)).await
    }

    /// Finishes what waits and lets go. Every later call fails.
    ///
    /// # Errors
    /// When the file could not be closed in order. Nothing is lost: the next
    /// opening recovers it.
    pub async fn close(&self) -> Result<(), StoreError> {
        match self.ask(Command::Close).await {
            // It was closed before.
            Err(StoreError::Closed) => Ok(()),
            result => result,
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}
