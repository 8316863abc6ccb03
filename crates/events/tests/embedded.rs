//! A logger between the embedded queue and the store, both real.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may, as the test")]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use posthaste_broker::{
    Broker, PublishOutcome, QueueName,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_events::{LoggerConfig, LoggerError, Metrics, run_delivery_logger};
use posthaste_model::{
    DELIVERY_LOGS, Disposition, LogEvent, QUARANTINE, SUBMISSION_LOGS, SystemClock,
};
use posthaste_store::{Period, Store, StoreConfig};
use prometheus_client::registry::Registry;
use support::{attempt, batch, publish, submission};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(10);

async fn store(dir: &Path) -> Arc<Store> {
    let dir = dir.join("logs");
    Arc::new(
        Store::open(StoreConfig { dir, period: Period::Daily, retention: None }).await.unwrap(),
    )
}

fn queue(dir: &Path) -> Arc<EmbeddedQueue> {
    EmbeddedQueue::open(EmbeddedConfig::new(dir.join("queue")), Arc::new(SystemClock)).unwrap()
}

fn start(
    queue: &Arc<EmbeddedQueue>,
    store: &Arc<Store>,
    shutdown: &CancellationToken,
) -> (JoinHandle<Result<(), LoggerError>>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::register(&mut Registry::default()));
    let broker: Arc<dyn Broker> = Arc::<EmbeddedQueue>::clone(queue);
    let logger = tokio::spawn(run_delivery_logger(
        LoggerConfig::default(),
        broker,
        Arc::clone(store),
        Arc::clone(&metrics),
        shutdown.clone(),
    ));
    (logger, metrics)
}

async fn total(queue: &EmbeddedQueue, name: &str) -> u64 {
    queue.depth(&QueueName::new(name).unwrap()).await.unwrap().total()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_from_the_queue_into_the_store_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let submissions: Vec<_> = (0..200).map(|_| submission()).collect();
    {
        let queue = queue(dir.path());
        let mut messages = vec![publish(DELIVERY_LOGS, b"no event".to_vec())];
        for events in submissions.chunks(3) {
            let attempts = events.iter().map(|event| attempt(event, event.time)).collect();
            messages.push(publish(DELIVERY_LOGS, batch(attempts)));
            let events = events.iter().cloned().map(LogEvent::Submission).collect();
            messages.push(publish(SUBMISSION_LOGS, batch(events)));
        }
        let outcomes = queue.publish(messages).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == PublishOutcome::Durable));
        // A logger is given up at some point of its work.
        let (logger, metrics) = start(&queue, &store(dir.path()).await, &CancellationToken::new());
        support::eventually("a first batch", || metrics.batches.get() >= 1).await;
        logger.abort();
        assert!(logger.await.is_err_and(|error| error.is_cancelled()));
        queue.close(BOUND).await.unwrap();
    }
    let (queue, store) = (queue(dir.path()), store(dir.path()).await);
    let shutdown = CancellationToken::new();
    let (logger, _) = start(&queue, &store, &shutdown);
    let started = std::time::Instant::now();
    while total(&queue, DELIVERY_LOGS).await + total(&queue, SUBMISSION_LOGS).await > 0 {
        assert!(started.elapsed() < BOUND, "the queues are not drained");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shutdown.cancel();
    logger.await.unwrap().unwrap();
    assert_eq!(total(&queue, QUARANTINE).await, 1);
    for event in submissions {
        let view = store.submission(event.submission_id).await.unwrap().unwrap();
        assert_eq!(view.submission, event);
        assert_eq!(view.messages[0].disposition, Disposition::Delivered);
        assert_eq!(view.messages[0].attempts.len(), 1);
    }
    queue.close(BOUND).await.unwrap();
    store.close().await.unwrap();
}
