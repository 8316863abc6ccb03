//! The loop of a logger: collect, append, settle.

use std::sync::Arc;

use bytes::Bytes;
use posthaste_broker::{
    Body, Broker, BrokerError, Delivery, FlowKey, Publish, QueueName, Settlement, Token,
};
use posthaste_model::{DELIVERY_LOGS, LogBatch, LogEvent, QUARANTINE, SUBMISSION_LOGS};
use posthaste_store::Store;
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{LoggerConfig, Metrics, outage::Outage, source::Source};

/// A delivery logger with what it consumes.
pub(crate) struct Logger {
    batch_events: usize,
    linger: Duration,
    delivery_logs: Source,
    submission_logs: Source,
    writer: Writer,
    shutdown: CancellationToken,
}

/// What a logger does with what it has collected.
struct Writer {
    broker: Arc<dyn Broker>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    quarantine: QueueName,
    store_outage: Outage,
    settle_outage: Outage,
    shutdown: CancellationToken,
}

/// Messages that are written together.
#[derive(Default)]
struct Batch {
    events: Vec<LogEvent>,
    /// Of the messages that hold them.
    tokens: Vec<Token>,
    /// Messages that could not be read, and why.
    unreadable: Vec<(Delivery, Bytes)>,
}

impl Batch {
    fn add(&mut self, queue: &QueueName, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            match LogBatch::decode(&delivery.body) {
                Ok(LogBatch(events)) => {
                    self.events.extend(events);
                    self.tokens.push(delivery.token);
                }
                Err(error) => {
                    tracing::error!(%queue, id = %delivery.id, %error, "a message goes to quarantine");
                    let reason = error.to_string();
                    let head = serde_json::json!({ "queue": queue.as_str(), "reason": reason });
                    self.unreadable.push((delivery, head.to_string().into()));
                }
            }
        }
    }

    fn messages(&self) -> usize {
        self.tokens.len() + self.unreadable.len()
    }
}

impl Logger {
    pub(crate) fn new(
        config: &LoggerConfig,
        broker: Arc<dyn Broker>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Result<Self, BrokerError> {
        Ok(Self {
            // With none at all it would go round without ever waiting.
            batch_events: config.batch_events.max(1),
            linger: config.linger,
            delivery_logs: Source::new(DELIVERY_LOGS, config.batch_events)?,
            submission_logs: Source::new(SUBMISSION_LOGS, config.batch_events)?,
            writer: Writer {
                broker,
                store,
                metrics,
                quarantine: QueueName::new(QUARANTINE)?,
                store_outage: Outage::new("write events into the store"),
                settle_outage: Outage::new("acknowledge log batches"),
                shutdown: shutdown.clone(),
            },
            shutdown,
        })
    }

    /// Until it is told to end; then once more for what was collected.
    pub(crate) async fn run(mut self) -> Result<(), BrokerError> {
        while !self.shutdown.is_cancelled() {
            let batch = self.collect().await?;
            self.writer.write(batch).await?;
        }
        Ok(())
    }

    /// Waits for a first message, then until the batch is full, the linger is
    /// over or the logger shall end.
    async fn collect(&mut self) -> Result<Batch, BrokerError> {
        let broker = Arc::clone(&self.writer.broker);
        let mut batch = Batch::default();
        let mut until = None;
        while batch.events.len() < self.batch_events && batch.messages() < Settlement::MAX_TOKENS {
            tokio::select! {
                found = self.delivery_logs.next(&*broker) => {
                    batch.add(self.delivery_logs.queue(), found?);
                }
                found = self.submission_logs.next(&*broker) => {
                    batch.add(self.submission_logs.queue(), found?);
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => break,
                () = self.shutdown.cancelled() => break,
            }
            until.get_or_insert_with(|| Instant::now() + self.linger);
        }
        Ok(batch)
    }
}

impl Writer {
    async fn write(&mut self, batch: Batch) -> Result<(), BrokerError> {
        if self.append(&batch.events).await {
            for tokens in batch.tokens.chunks(Settlement::MAX_TOKENS) {
                self.settle(Settlement { tokens: tokens.to_vec(), publishes: Vec::new() }).await?;
            }
        }
        // Apart from the others: there may be no room for a copy, and what is
        // written shall be acknowledged all the same.
        for (delivery, head) in batch.unreadable {
            let publish = Publish {
                queue: self.quarantine.clone(),
                id: delivery.id,
                priority: delivery.priority,
                due: None,
                flow_key: FlowKey::default(),
                head,
                body: Body::Inline(delivery.body),
            };
            let tokens = vec![delivery.token];
            if self.settle(Settlement { tokens, publishes: vec![publish] }).await? {
                self.metrics.quarantined.inc();
            }
        }
        Ok(())
    }

    /// Writes events, however long the store fails; `false` when they were not
    /// written before the logger had to end: then they come again.
    async fn append(&mut self, events: &[LogEvent]) -> bool {
        if events.is_empty() {
            return true;
        }
        loop {
            let started = Instant::now();
            let error = match self.store.append(events).await {
                Ok(new) => {
                    self.store_outage.over();
                    self.metrics.appended(events, new, started.elapsed());
                    return true;
                }
                Err(error) => error,
            };
            self.metrics.store_failed(&error);
            let delay = self.store_outage.failed(&error);
            if !self.wait(delay).await {
                tracing::warn!(events = events.len(), %error, "events are left in the queue");
                return false;
            }
        }
    }

    /// Acknowledges, however long the broker fails; `false` when it did not
    /// work before the logger had to end: then the messages come again.
    async fn settle(&mut self, settlement: Settlement) -> Result<bool, BrokerError> {
        loop {
            let error = match self.broker.settle(settlement.clone()).await {
                Ok(results) => {
                    self.settle_outage.over();
                    // Stale: its subscription ended, the message comes again.
                    let stale = results.iter().filter(|result| result.is_err()).count();
                    self.metrics.stale.inc_by(u64::try_from(stale).unwrap_or(0));
                    return Ok(true);
                }
                Err(BrokerError::Closed) => return Err(BrokerError::Closed),
                Err(error) => error,
            };
            self.metrics.settle_failures.inc();
            let delay = self.settle_outage.failed(&error);
            if !self.wait(delay).await {
                tracing::warn!(%error, "log batches that are written stay unacknowledged");
                return Ok(false);
            }
        }
    }

    /// `false` when the logger shall end.
    async fn wait(&self, delay: Duration) -> bool {
        tokio::select! {
            () = sleep(delay) => true,
            () = self.shutdown.cancelled() => false,
        }
    }
}
