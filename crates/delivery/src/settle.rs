//! Settlement: outcomes are made durable at the broker, then acknowledged.
//!
//! Outcomes are collected while a settlement is under way, so that its cost is
//! shared when there are many and nobody waits when there are few. One
//! settlement publishes one batch of events to the delivery log and the due
//! copies of what was deferred, and acknowledges all of it.
//!
//! On failure a settlement is repeated, with pauses that grow; the owner starts
//! nothing new meanwhile. An outcome whose token is dead is dropped: its
//! message comes, or came, again and is settled from the journal.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use posthaste_broker::{Body, BrokerError, FlowKey, Publish, Settlement};
use posthaste_model::AttemptId;
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use crate::{client::Client, job::Outcome};

/// Most outcomes of one settlement.
const MOST: usize = 64;
/// Outcomes for which another settlement is begun beside the one under way.
const ENOUGH: usize = 32;
/// Most settlements at once.
const AT_ONCE: usize = 4;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Priority of what goes to the delivery log.
const LOG_PRIORITY: u8 = 5;

pub(crate) struct Settler {
    client: Arc<Client>,
    pending: VecDeque<Outcome>,
    tasks: JoinSet<usize>,
    in_flight: usize,
    failing: Arc<AtomicUsize>,
}

impl Settler {
    pub fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            pending: VecDeque::new(),
            tasks: JoinSet::new(),
            in_flight: 0,
            failing: Arc::default(),
        }
    }

    pub fn push(&mut self, outcome: Outcome) {
        self.pending.push_back(outcome);
    }

    /// Outcomes that are not settled.
    pub fn unsettled(&self) -> usize {
        self.pending.len() + self.in_flight
    }

    /// Whether the last try of some settlement failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed) > 0
    }

    pub fn is_busy(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Begins settlements where it is their time.
    pub fn pump(&mut self) {
        while !self.pending.is_empty()
            && (self.tasks.is_empty()
                || (self.pending.len() >= ENOUGH && self.tasks.len() < AT_ONCE))
        {
            let count = self.pending.len().min(MOST);
            let batch: Vec<_> = self.pending.drain(..count).collect();
            self.in_flight += count;
            self.tasks.spawn(settle(self.client.clone(), batch, self.failing.clone()));
        }
    }

    /// Waits for a settlement to end. Cancelling loses nothing.
    pub async fn ended(&mut self) -> Result<(), JoinError> {
        if let Some(count) = self.tasks.join_next().await.transpose()? {
            self.in_flight -= count;
        }
        Ok(())
    }
}

/// Counts a settlement as failing while it is repeated.
struct Failing(Arc<AtomicUsize>);

impl Failing {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter.clone())
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Settles a batch; returns how many outcomes it had.
async fn settle(client: Arc<Client>, batch: Vec<Outcome>, counter: Arc<AtomicUsize>) -> usize {
    let count = batch.len();
    let mut todo = vec![batch];
    while let Some(batch) = todo.pop() {
        if settle_batch(&client, &batch, &counter).await.is_err() {
            // One that is outside the contract must not hold up the others.
            todo.extend(batch.into_iter().map(|outcome| vec![outcome]));
        }
    }
    count
}

/// The batch cannot be settled as a whole, whatever is tried.
struct Split;

async fn settle_batch(
    client: &Client,
    batch: &[Outcome],
    counter: &Arc<AtomicUsize>,
) -> Result<(), Split> {
    let mut batch: Vec<&Outcome> = batch.iter().collect();
    let log_id = Uuid::now_v7();
    let mut failing = None;
    let mut delay = FIRST_DELAY;
    loop {
        let error = match client.shared.broker.settle(settlement(client, &batch, log_id)).await {
            Ok(results) => match conclude(client, &mut batch, results) {
                None => return Ok(()),
                Some(error) => error,
            },
            Err(error) => error,
        };
        client.metrics.settle_failures.inc();
        match error {
            BrokerError::Closed => {
                tracing::warn!(
                    outcomes = batch.len(),
                    "the broker is closed: outcomes stay in the journal"
                );
                return Ok(());
            }
            BrokerError::Invalid(_) if batch.len() > 1 => return Err(Split),
            BrokerError::Invalid(error) => {
                let id = batch.first().map(|outcome| outcome.id);
                tracing::error!(%error, ?id, "an outcome cannot be settled and stays in the journal");
                return Ok(());
            }
            error => {
                tracing::error!(%error, outcomes = batch.len(), again_in = ?delay, "settlement failed");
                failing.get_or_insert_with(|| Failing::new(counter));
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
    }
}

fn settlement(client: &Client, batch: &[&Outcome], log_id: Uuid) -> Settlement {
    let mut publishes = Vec::with_capacity(batch.len() + 1);
    let lines: Vec<&Bytes> = batch.iter().filter_map(|outcome| outcome.event.as_ref()).collect();
    if !lines.is_empty() {
        // A LogBatch is its events' lines one after the other.
        let mut body = Vec::with_capacity(lines.iter().map(|line| line.len()).sum());
        lines.iter().for_each(|line| body.extend_from_slice(line));
        publishes.push(log_message(client, log_id, body.into()));
    }
    let copies = batch.iter().filter_map(|o| o.copy(&client.queue, &client.quarantine));
    publishes.extend(copies);
    Settlement { tokens: batch.iter().map(|outcome| outcome.token).collect(), publishes }
}

/// A message to the delivery log.
pub(crate) fn log_message(client: &Client, id: Uuid, body: Bytes) -> Publish {
    Publish {
        queue: client.delivery_logs.clone(),
        id,
        priority: LOG_PRIORITY,
        due: None,
        flow_key: FlowKey::default(),
        head: Bytes::from_static(b"{}"),
        body: Body::Inline(body),
    }
}

/// Notes what was settled; leaves in `batch` what is to be tried again, with
/// the error.
fn conclude(
    client: &Client,
    batch: &mut Vec<&Outcome>,
    results: Vec<Result<(), BrokerError>>,
) -> Option<BrokerError> {
    let mut settled: Vec<AttemptId> = Vec::with_capacity(batch.len());
    let mut failed = None;
    let mut again = vec![];
    let mut results = results.into_iter();
    for outcome in batch.iter() {
        // A broker that gives too few results has not settled the rest.
        match results.next().unwrap_or(Err(BrokerError::Link("no result".to_owned()))) {
            Ok(()) => settled.extend(outcome.journalled),
            Err(BrokerError::StaleToken) => {
                client.metrics.stale_tokens.inc();
                tracing::debug!(id = %outcome.id, "an outcome came too late: its message had gone back to the queue");
            }
            Err(error) => {
                again.push(*outcome);
                failed = Some(error);
            }
        }
    }
    if let Err(error) = client.shared.journal.settled(&settled) {
        client.metrics.journal_failures.inc();
        tracing::warn!(%error, "a settlement cannot be written to the journal");
    }
    *batch = again;
    failed
}
