//! A logger writes each event once and acknowledges nothing too early,
//! whatever fails. The store is the real one.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may, as the test")]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use posthaste_broker::{Body, BrokerError};
use posthaste_events::{LoggerConfig, LoggerError, Metrics, run_delivery_logger};
use posthaste_model::{
    DELIVERY_LOGS, Disposition, LogEvent, QUARANTINE, SUBMISSION_LOGS, SubmissionEvent,
};
use posthaste_store::{Period, Store, StoreConfig};
use prometheus_client::registry::Registry;
use support::{FaultyBroker, attempt, batch, eventually, publish, submission};
use tempfile::{TempDir, tempdir};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A logger under test with all that it touches.
struct Trial {
    dir: TempDir,
    broker: FaultyBroker,
    store: Arc<Store>,
    registry: Registry,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    config: LoggerConfig,
}

async fn open(dir: &Path) -> Arc<Store> {
    let dir = dir.join("logs");
    let config = StoreConfig { dir, period: Period::Monthly, retention: Some(1) };
    Arc::new(Store::open(config).await.unwrap())
}

impl Trial {
    async fn new() -> Self {
        let dir = tempdir().unwrap();
        let store = open(dir.path()).await;
        let mut registry = Registry::default();
        Self {
            broker: FaultyBroker::default(),
            store,
            metrics: Arc::new(Metrics::register(&mut registry)),
            registry,
            shutdown: CancellationToken::new(),
            config: LoggerConfig::default(),
            dir,
        }
    }

    fn start(&self) -> JoinHandle<Result<(), LoggerError>> {
        tokio::spawn(run_delivery_logger(
            self.config.clone(),
            Arc::new(self.broker.clone()),
            Arc::clone(&self.store),
            Arc::clone(&self.metrics),
            self.shutdown.clone(),
        ))
    }

    /// Publishes submissions and their attempts, each as a message of its own.
    fn publish(&self, count: usize) -> Vec<SubmissionEvent> {
        let submissions: Vec<_> = (0..count).map(|_| submission()).collect();
        for event in &submissions {
            let attempt = attempt(event, event.time);
            self.broker.push(publish(DELIVERY_LOGS, batch(vec![attempt])));
            let event = LogEvent::Submission(event.clone());
            self.broker.push(publish(SUBMISSION_LOGS, batch(vec![event])));
        }
        submissions
    }

    fn left(&self) -> usize {
        [DELIVERY_LOGS, SUBMISSION_LOGS]
            .map(|queue| self.broker.depth(queue))
            .iter()
            .map(|(ready, unacknowledged)| ready + unacknowledged)
            .sum()
    }

    async fn settled(&self) {
        eventually("all log batches are acknowledged", || self.left() == 0).await;
    }

    async fn stop(&self, logger: JoinHandle<Result<(), LoggerError>>) {
        self.shutdown.cancel();
        logger.await.unwrap().unwrap();
    }

    /// How many of them are whole in the store.
    async fn delivered(&self, submissions: &[SubmissionEvent]) -> usize {
        let mut count = 0;
        for event in submissions {
            let view = self.store.submission(event.submission_id).await.unwrap();
            count += usize::from(view.is_some_and(|view| {
                view.submission == *event
                    && view.messages[0].disposition == Disposition::Delivered
                    && view.messages[0].attempts.len() == 1
            }));
        }
        count
    }
}

#[tokio::test]
async fn events_of_both_queues_are_written_and_acknowledged() {
    let trial = Trial::new().await;
    let logger = trial.start();
    let submissions = trial.publish(40);
    trial.settled().await;
    trial.stop(logger).await;
    assert_eq!(trial.delivered(&submissions).await, 40);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &trial.registry).unwrap();
    let batches = trial.metrics.batches.get();
    for line in [
        r#"logger_events_total{kind="attempt",disposition="delivered"} 40"#,
        r#"logger_events_total{kind="submission",disposition="queued"} 40"#,
        "logger_events_repeated_total 0",
        &format!("logger_append_seconds_count {batches}"),
        "logger_store_up 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_full_batch_does_not_linger() {
    let mut trial = Trial::new().await;
    // The test would last an hour.
    trial.config.linger = Duration::from_secs(3600);
    trial.config.batch_events = 2;
    let submissions = trial.publish(1);
    let logger = trial.start();
    trial.settled().await;
    trial.stop(logger).await;
    assert_eq!(trial.metrics.batches.get(), 1);
    assert_eq!(trial.delivered(&submissions).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_full_waits_for_more_and_no_longer_than_the_linger() {
    let mut trial = Trial::new().await;
    trial.config.linger = Duration::from_secs(60);
    let logger = trial.start();
    for round in 1..=5 {
        trial.publish(1);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(trial.metrics.batches.get(), 0);
        assert_eq!(trial.left(), 2 * round);
    }
    trial.settled().await;
    assert_eq!(trial.metrics.batches.get(), 1);
    trial.stop(logger).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_store_fails_nothing_is_acknowledged_and_nothing_is_lost() {
    let trial = Trial::new().await;
    let logs = trial.dir.path().join("logs");
    std::fs::remove_dir(&logs).unwrap();
    let logger = trial.start();
    let submissions = trial.publish(30);
    eventually("failures", || trial.metrics.store_failures.get() >= 20).await;
    assert_eq!(trial.left(), 60);
    assert_eq!(trial.metrics.store_up.get(), 0);
    let error = trial.metrics.last_error().unwrap();
    assert!(error.contains(logs.to_str().unwrap()), "{error}");

    std::fs::create_dir(&logs).unwrap();
    trial.settled().await;
    assert_eq!(trial.metrics.store_up.get(), 1);
    assert_eq!(trial.metrics.last_error(), None);
    trial.stop(logger).await;
    tokio::time::resume();
    assert_eq!(trial.delivered(&submissions).await, 30);
}

#[tokio::test]
async fn a_kill_between_append_and_acknowledgement_writes_nothing_twice() {
    let mut trial = Trial::new().await;
    let submissions = trial.publish(25);
    trial.broker.fail_settle(1000);
    let logger = trial.start();
    eventually("an append", || trial.metrics.settle_failures.get() >= 1).await;
    logger.abort();
    assert!(logger.await.unwrap_err().is_cancelled());
    // Nothing was acknowledged, all of it comes again: to another process.
    assert_eq!(trial.left(), 50);
    let written = trial.metrics.batches.get();
    assert!(written >= 1);
    trial.broker.clear_faults();
    trial.store = open(trial.dir.path()).await;
    let logger = trial.start();
    trial.settled().await;
    trial.stop(logger).await;
    assert!(trial.metrics.repeated.get() >= 1);
    assert_eq!(trial.delivered(&submissions).await, 25);
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_brings_messages_again_and_a_new_subscription() {
    let trial = Trial::new().await;
    trial.broker.fail_subscribe(5);
    let logger = trial.start();
    let mut submissions = trial.publish(10);
    trial.settled().await;
    // The link is lost after the append, before the acknowledgement.
    trial.broker.fail_settle(1);
    submissions.extend(trial.publish(10));
    eventually("a failure", || trial.metrics.settle_failures.get() >= 1).await;
    trial.broker.end_subscriptions();
    trial.settled().await;
    eventually("tokens that are stale", || trial.metrics.stale.get() >= 1).await;
    assert!(trial.metrics.repeated.get() >= 1);
    assert!(trial.broker.subscriptions() >= 3);
    trial.stop(logger).await;
    tokio::time::resume();
    assert_eq!(trial.delivered(&submissions).await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_goes_to_quarantine_whole() {
    let trial = Trial::new().await;
    let half = [batch(vec![LogEvent::Submission(submission())]), b"{\"x\":".to_vec()].concat();
    let bad = publish(DELIVERY_LOGS, half.clone());
    let id = bad.id;
    trial.broker.push(bad);
    let submissions = trial.publish(5);
    // There is no room for a copy at first: that holds up the bad one alone.
    trial.broker.refuse_publishes(true);
    let logger = trial.start();
    eventually("the others are acknowledged", || trial.left() == 1).await;
    eventually("a failure", || trial.metrics.settle_failures.get() >= 2).await;
    assert_eq!(trial.metrics.quarantined.get(), 0);
    trial.broker.refuse_publishes(false);
    trial.settled().await;
    trial.stop(logger).await;
    assert_eq!(trial.metrics.quarantined.get(), 1);
    assert_eq!(trial.broker.depth(QUARANTINE), (1, 0));
    let found = trial.broker.first(QUARANTINE);
    assert_eq!(found.id, id);
    assert!(matches!(found.body, Body::Inline(bytes) if bytes == half));
    let head: serde_json::Value = serde_json::from_slice(&found.head).unwrap();
    assert_eq!(head["queue"], DELIVERY_LOGS);
    assert!(head["reason"].as_str().unwrap().contains("cannot be read"), "{head}");
    tokio::time::resume();
    assert_eq!(trial.delivered(&submissions).await, 5);
}

#[tokio::test]
async fn at_the_end_what_was_collected_is_written() {
    let mut trial = Trial::new().await;
    trial.config.linger = Duration::from_secs(3600);
    let submissions = trial.publish(3);
    let logger = trial.start();
    let collected =
        || [DELIVERY_LOGS, SUBMISSION_LOGS].iter().all(|queue| trial.broker.depth(queue) == (0, 3));
    eventually("all is collected", collected).await;
    assert_eq!(trial.metrics.batches.get(), 0);
    trial.stop(logger).await;
    assert_eq!(trial.left(), 0);
    assert_eq!(trial.delivered(&submissions).await, 3);
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_store_that_fails() {
    let trial = Trial::new().await;
    std::fs::remove_dir(trial.dir.path().join("logs")).unwrap();
    trial.publish(3);
    let logger = trial.start();
    eventually("a failure", || trial.metrics.store_failures.get() >= 1).await;
    trial.stop(logger).await;
    // Given back with the subscription.
    assert_eq!(trial.left(), 6);
    assert_eq!(trial.broker.depth(DELIVERY_LOGS).1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_loggers_share_the_work() {
    let trial = Trial::new().await;
    let loggers = [trial.start(), trial.start(), trial.start()];
    let submissions = trial.publish(300);
    trial.settled().await;
    trial.shutdown.cancel();
    for logger in loggers {
        logger.await.unwrap().unwrap();
    }
    assert_eq!(trial.delivered(&submissions).await, 300);
    assert_eq!(trial.metrics.repeated.get(), 0);
}

#[tokio::test]
async fn a_broker_that_was_closed_ends_the_logger() {
    let trial = Trial::new().await;
    let logger = trial.start();
    eventually("subscriptions", || trial.broker.subscriptions() == 2).await;
    trial.broker.close_now();
    let error = logger.await.unwrap().unwrap_err();
    assert_eq!(error, LoggerError::Broker(BrokerError::Closed));
}

#[tokio::test]
async fn a_batch_of_no_events_is_one_of_one() {
    let mut trial = Trial::new().await;
    trial.config.batch_events = 0;
    let logger = trial.start();
    let submissions = trial.publish(3);
    trial.settled().await;
    trial.stop(logger).await;
    assert_eq!(trial.delivered(&submissions).await, 3);
}
