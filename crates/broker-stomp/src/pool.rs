//! Connections for those who publish: a few, shared by all.
//!
//! Contract: a batch goes whole over one connection, in its order, and gets one
//! outcome a message. Requests that come at the same time share a round trip: on
//! Artemis their receipts are on the way together, on Classic what has
//! gathered while one transaction was being committed goes into the next.
//!
//! Invariants: at most [`PoolConfig::queue`] messages wait on each connection,
//! whoever brings more waits; whatever has its turn gets its outcome within the wait
//! for a connection and the receipt's bound.
//!
//! On failure what was sent is *unknown*. A transaction that is refused is
//! repeated message by message, so that one invalid message fails alone.

use std::time::Duration;

use posthaste_broker::LinkState;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    client::{Client, Epochs},
    config::ClientConfig,
    connection::Connection,
    error::LinkError,
    message::{Publication, SendOutcome},
};

/// The bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections, 1 to 64.
    pub connections: usize,
    /// Messages that may wait on each.
    pub queue: usize,
    /// Messages of one transaction at most.
    pub batch: usize,
    /// How long messages wait for a connection.
    pub connection_wait: Duration,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { connections: 4, queue: 1024, batch: 100, connection_wait: Duration::from_secs(5) }
    }
}

/// Publishes over several connections. See the module.
#[derive(Debug)]
pub struct Pool {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    jobs: mpsc::Sender<Job>,
    state: watch::Receiver<LinkState>,
}

struct Job {
    message: Publication,
    reply: oneshot::Sender<SendOutcome>,
}

impl Pool {
    /// Starts to connect.
    ///
    /// # Errors
    /// [`LinkError::Invalid`] when there is no node, or a bound makes no sense.
    pub fn start(
        config: &ClientConfig,
        pool: PoolConfig,
        epochs: &Epochs,
    ) -> Result<Self, LinkError> {
        let window = config.options.window_messages;
        if !(1..=64).contains(&pool.connections) || pool.queue == 0 {
            return Err(LinkError::invalid("a pool has 1 to 64 connections and a queue"));
        }
        if !(1..=window).contains(&pool.batch) {
            return Err(LinkError::invalid("a transaction of the pool must fit into the window"));
        }
        let mut lines = Vec::with_capacity(pool.connections);
        for _ in 0..pool.connections {
            let client = Client::start(config.clone(), epochs.clone())?;
            let state = client.link_state();
            let (jobs, waiting) = mpsc::channel(pool.queue);
            tokio::spawn(Publisher { client, pool }.run(waiting));
            lines.push(Line { jobs, state });
        }
        Ok(Self { lines })
    }

    /// Publishes a batch: one outcome a message, in their order. Cancelling
    /// does not take back what is on its way.
    pub async fn publish(&self, batch: Vec<Publication>) -> Vec<SendOutcome> {
        let Some(line) = self.line() else { return Vec::new() };
        let mut replies = Vec::with_capacity(batch.len());
        for message in batch {
            let (reply, outcome) = oneshot::channel();
            // An error drops the reply, which is an outcome: unknown.
            if line.jobs.send(Job { message, reply }).await.is_err() {
                tracing::debug!("a connection of the pool has ended");
            }
            replies.push(outcome);
        }
        let mut outcomes = Vec::with_capacity(replies.len());
        for outcome in replies {
            outcomes.push(outcome.await.unwrap_or(SendOutcome::Unknown(LinkError::Closed)));
        }
        outcomes
    }

    /// The state of each connection.
    #[must_use]
    pub fn link_states(&self) -> Vec<watch::Receiver<LinkState>> {
        self.lines.iter().map(|line| line.state.clone()).collect()
    }

    /// The connection that lives and has the most room.
    fn line(&self) -> Option<&Line> {
        self.lines.iter().max_by_key(|line| {
            let up = *line.state.borrow() == LinkState::Up;
            (up, line.jobs.capacity())
        })
    }
}

/// Who serves one connection of the pool; ends with the pool.
struct Publisher {
    client: Client,
    pool: PoolConfig,
}

impl Publisher {
    async fn run(self, mut waiting: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(self.pool.batch);
        while waiting.recv_many(&mut jobs, self.pool.batch).await > 0 {
            match self.client.connection(self.pool.connection_wait).await {
                Ok(connection) if connection.dialect().prefers_transactions() => {
                    self.commit(&connection, std::mem::take(&mut jobs)).await;
                }
                Ok(connection) => {
                    for job in jobs.drain(..) {
                        connection.send_to(&job.message, job.reply).await;
                    }
                }
                Err(cause) => {
                    for job in jobs.drain(..) {
                        answer(job.reply, SendOutcome::Unknown(cause.clone()));
                    }
                }
            }
        }
        let within = Duration::from_secs(1);
        if let Err(cause) = self.client.close(within).await {
            tracing::debug!(%cause, "a connection of the pool did not close in order");
        }
    }

    /// Together if they can be, else one by one.
    async fn commit(&self, connection: &Connection, jobs: Vec<Job>) {
        let (messages, replies): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.message, job.reply)).unzip();
        if messages.len() > 1 {
            let outcome = connection.transaction(&messages).await;
            if !matches!(outcome, SendOutcome::Rejected(_)) {
                for reply in replies {
                    answer(reply, outcome.clone());
                }
                return;
            }
        }
        for (message, reply) in messages.iter().zip(replies) {
            // Anew for each: a refusal may have ended the connection.
            let outcome = match self.client.connection(self.pool.connection_wait).await {
                Ok(connection) => connection.send(message).await.outcome().await,
                Err(cause) => SendOutcome::Unknown(cause),
            };
            answer(reply, outcome);
        }
    }
}

/// Who has stopped waiting need not hear.
fn answer(reply: oneshot::Sender<SendOutcome>, outcome: SendOutcome) {
    drop(reply.send(outcome));
}
