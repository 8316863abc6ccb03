//! Running an SMTP client.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use posthaste_broker::{Broker, BrokerError, PublishOutcome};
use posthaste_dns::Resolver;
use posthaste_model::{Clock, LogBatch};
use posthaste_smtp::TlsClient;
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    task::JoinError,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    Journal, Metrics, SmtpClientConfig, clear_hosts::ClearHosts, client::Client, evidence,
    journal::Start, owner::Owner, settle::log_message,
};

/// Most interrupted attempts that are reported in one message.
const REPORTED: usize = 256;
/// Contents up to this size need no room: all workers together hold little.
const SMALL_CONTENT: u32 = 64 << 10;
/// KiB of larger contents, decompressed, that a process holds at once.
const CONTENTS_KIB: u32 = 256 << 10;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// What the SMTP clients of a process share.
pub struct Shared {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) resolver: Resolver,
    pub(crate) tls: TlsClient,
    pub(crate) journal: Arc<Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) clear_hosts: ClearHosts,
    /// Room for decompressed contents, in KiB: the window counts compressed
    /// bytes, and some contents are a hundred times as large.
    contents: Semaphore,
    /// Held by the client that reports the interrupted attempts.
    reporting: Mutex<()>,
}

impl Shared {
    /// Puts them together.
    #[must_use]
    pub fn new(
        broker: Arc<dyn Broker>,
        resolver: Resolver,
        tls: TlsClient,
        journal: Arc<Journal>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self {
            broker,
            resolver,
            tls,
            journal,
            clock,
            metrics,
            clear_hosts: ClearHosts::default(),
            contents: Semaphore::new(CONTENTS_KIB as usize),
            reporting: Mutex::new(()),
        }
    }
}

impl Shared {
    /// Waits until there is room for a content of `size` bytes.
    pub(crate) async fn room(&self, size: u32) -> Option<SemaphorePermit<'_>> {
        if size <= SMALL_CONTENT {
            return None;
        }
        // One that is larger than all the room has it alone. Nobody closes it.
        self.contents.acquire_many(size.div_ceil(1024).min(CONTENTS_KIB)).await.ok()
    }
}

/// Why an SMTP client ended. Completes "failed to deliver: ".
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The broker was closed, or cannot be used as configured.
    #[error("the broker cannot be used: {0}")]
    Broker(#[from] BrokerError),
    /// A fault of this program.
    #[error("a settlement was ended by a fault of this program: {0}")]
    Settlement(#[from] JoinError),
}

/// Runs one SMTP client until `shutdown` is cancelled and it has drained.
///
/// Before it delivers, it reports the attempts that the journal knows as
/// interrupted, those of other clients too.
///
/// # Errors
/// [`DeliveryError`]: what was in flight comes again when it is run again, and
/// the journal knows the outcomes that were not settled.
pub async fn run(
    config: SmtpClientConfig,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> Result<(), DeliveryError> {
    let client = Arc::new(Client::new(config, shared)?);
    let reported =
        tokio::select! { () = shutdown.cancelled() => None, r = report(&client) => Some(r) };
    match reported {
        Some(reported) => reported?,
        None => return Ok(()),
    }
    Owner::new(client).run(&shutdown).await
}

/// Publishes the interrupted attempts to the delivery log. Their events have
/// the ids of the attempts, so that a second report is no second event.
async fn report(client: &Client) -> Result<(), BrokerError> {
    let _one_at_a_time = client.shared.reporting.lock().await;
    let journal = &client.shared.journal;
    let mut delay = FIRST_DELAY;
    loop {
        let starts = journal.interrupted();
        let Some(batch) = starts.chunks(REPORTED).next() else { return Ok(()) };
        let error = match publish(client, batch).await {
            Ok(()) => {
                tracing::warn!(attempts = batch.len(), "interrupted attempts were reported");
                let ids: Vec<_> = batch.iter().map(|start| start.attempt_id).collect();
                if let Err(error) = journal.settled(&ids) {
                    tracing::warn!(%error, "a settlement cannot be written to the journal");
                }
                delay = FIRST_DELAY;
                continue;
            }
            Err(error @ (BrokerError::Closed | BrokerError::Invalid(_))) => return Err(error),
            Err(error) => error,
        };
        tracing::error!(%error, again_in = ?delay, "interrupted attempts cannot be reported");
        sleep(delay).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

async fn publish(client: &Client, starts: &[Start]) -> Result<(), BrokerError> {
    let now = client.shared.clock.now();
    let events = starts.iter().map(|start| evidence::interrupted(start, now)).collect();
    let body = Bytes::from(LogBatch(events).encode());
    let outcomes = client.shared.broker.publish(vec![log_message(client, Uuid::now_v7(), body)]);
    match outcomes.await?.into_iter().next() {
        Some(PublishOutcome::Durable) => Ok(()),
        Some(PublishOutcome::Rejected(why) | PublishOutcome::Unknown(why)) => {
            Err(BrokerError::Link(why))
        }
        None => Err(BrokerError::Link("no outcome".to_owned())),
    }
}
