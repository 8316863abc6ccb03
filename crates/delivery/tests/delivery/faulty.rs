//! A broker that fails as a network broker does.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use posthaste_broker::{
    Broker, BrokerError, Browsed, Credit, Delivery, Depth, FlowKey, LinkState, Listener, Publish,
    PublishOutcome, QueueName, Settlement, SubscribeOptions, Subscription,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_model::{Disposition, SystemClock};
use posthaste_trial::sink::RuleStage;
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::stage::{Stage, delay, one_host, pool, until};

struct Faulty {
    inner: Arc<EmbeddedQueue>,
    /// So many settlements fail before they are done,
    settle_fails: AtomicU32,
    /// and so many after.
    settle_unknown: AtomicU32,
    /// Ends the pool's subscription.
    cut: Arc<Notify>,
    subscribed: Mutex<u32>,
}

struct Cut {
    inner: Box<dyn Subscription>,
    cut: Arc<Notify>,
}

#[async_trait]
impl Subscription for Cut {
    async fn next(&mut self) -> Result<Vec<Delivery>, BrokerError> {
        tokio::select! {
            messages = self.inner.next() => messages,
            () = self.cut.notified() => Err(BrokerError::Link("cut".into())),
        }
    }

    fn set_credit(&self, credit: Credit) {
        self.inner.set_credit(credit);
    }

    fn block(&self, flow_key: &FlowKey) {
        self.inner.block(flow_key);
    }

    fn unblock(&self, flow_key: &FlowKey) {
        self.inner.unblock(flow_key);
    }
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

#[async_trait]
impl Broker for Faulty {
    async fn declare(&self, queue: &QueueName) -> Result<(), BrokerError> {
        self.inner.declare(queue).await
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<PublishOutcome>, BrokerError> {
        self.inner.publish(batch).await
    }

    async fn subscribe(
        &self,
        queue: &QueueName,
        options: SubscribeOptions,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let inner = self.inner.subscribe(queue, options).await?;
        if *queue != pool() {
            return Ok(inner);
        }
        *self.subscribed.lock().unwrap() += 1;
        Ok(Box::new(Cut { inner, cut: self.cut.clone() }))
    }

    async fn settle(
        &self,
        settlement: Settlement,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        if take_one(&self.settle_fails) {
            return Err(BrokerError::Storage("as the trial asks".into()));
        }
        let results = self.inner.settle(settlement).await;
        if take_one(&self.settle_unknown) {
            return Err(BrokerError::Link("as the trial asks".into()));
        }
        results
    }

    async fn broadcast(&self, topic: &QueueName, notice: Bytes) -> Result<(), BrokerError> {
        self.inner.broadcast(topic, notice).await
    }

    async fn listen(&self, topic: &QueueName) -> Result<Box<dyn Listener>, BrokerError> {
        self.inner.listen(topic).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>, BrokerError> {
        self.inner.queues().await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError> {
        self.inner.depth(queue).await
    }

    async fn browse(
        &self,
        queue: &QueueName,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Browsed>, BrokerError> {
        self.inner.browse(queue, after, limit).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        self.inner.purge(queue).await
    }

    fn link_state(&self) -> watch::Receiver<LinkState> {
        self.inner.link_state()
    }

    async fn close(&self, within: Duration) -> Result<(), BrokerError> {
        self.inner.close(within).await
    }
}

async fn stage(dir: &TempDir) -> (Stage, Arc<Faulty>) {
    let config = EmbeddedConfig::new(dir.path().join("queue"));
    let faulty = Arc::new(Faulty {
        inner: EmbeddedQueue::open(config, Arc::new(SystemClock)).unwrap(),
        settle_fails: AtomicU32::new(0),
        settle_unknown: AtomicU32::new(0),
        cut: Arc::default(),
        subscribed: Mutex::new(0),
    });
    (Stage::over(dir.path(), faulty.clone(), one_host("a.test")).await, faulty)
}

#[tokio::test]
async fn a_settlement_that_fails_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let (mut stage, faulty) = stage(&dir).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    faulty.settle_fails.store(3, Ordering::SeqCst);
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    sink.next().await;
    assert_eq!(stage.event_of(id).await.disposition, Disposition::Delivered);
    stage.stop(running).await;
    assert_eq!(faulty.settle_fails.load(Ordering::SeqCst), 0);
    assert_eq!((stage.events().len(), sink.accepted()), (1, 1));
    assert_eq!(stage.depth().await.total(), 0);
}

#[tokio::test]
async fn nothing_is_started_while_nothing_can_be_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (mut stage, faulty) = stage(&dir).await;
    let sink = stage.sink("127.0.0.1", vec![]).await;
    faulty.settle_fails.store(u32::MAX, Ordering::SeqCst);
    let running = stage.start();
    stage.send("first@a.test").await;
    until(async || faulty.settle_fails.load(Ordering::SeqCst) < u32::MAX).await;
    stage.send("second@a.test").await;
    let tries = faulty.settle_fails.load(Ordering::SeqCst);
    until(async || {
        let still_failing = tries - faulty.settle_fails.load(Ordering::SeqCst) >= 2;
        still_failing && stage.depth().await.unacknowledged == 2
    })
    .await;
    assert_eq!(sink.accepted(), 1);
    faulty.settle_fails.store(0, Ordering::SeqCst);
    stage.events_until(|events| events.len() == 2).await;
    stage.stop(running).await;
    assert_eq!(sink.accepted(), 2);
    assert_eq!(stage.depth().await.total(), 0);
}

#[tokio::test]
async fn a_settlement_of_unknown_fate_is_repeated_without_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (mut stage, faulty) = stage(&dir).await;
    let refusal = crate::stage::times(1, crate::stage::says(RuleStage::Rcpt, 450, ""));
    let mut sink = stage.sink("127.0.0.1", vec![refusal]).await;
    faulty.settle_unknown.store(1, Ordering::SeqCst);
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    sink.next().await;
    // The loggers recognise the ids of events: a second one does no harm.
    let delivered = |events: &[posthaste_model::AttemptEvent]| {
        events.iter().any(|event| event.disposition == Disposition::Delivered)
    };
    let mut events = stage.events_until(delivered).await;
    events.dedup_by_key(|event| event.attempt_id);
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.message_id == id));
    stage.stop(running).await;
    assert_eq!(sink.accepted(), 1);
    assert_eq!(stage.depth().await.total(), 0);
}

#[tokio::test]
async fn a_lost_subscription_delivers_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (mut stage, faulty) = stage(&dir).await;
    let mut sink = stage.sink("127.0.0.1", vec![delay(RuleStage::EndOfData, 300)]).await;
    stage.config.domain_concurrency = 2;
    let running = stage.start();
    for n in 0..6 {
        stage.send(&format!("{n}@a.test")).await;
    }
    // In the midst of the transactions, and again.
    for subscribed in [2, 3] {
        sink.next().await;
        faulty.cut.notify_one();
        until(async || *faulty.subscribed.lock().unwrap() == subscribed).await;
    }
    let delivered = |events: &[posthaste_model::AttemptEvent]| {
        let mut ids: Vec<_> = events.iter().map(|event| event.message_id).collect();
        ids.sort();
        ids.dedup();
        ids.len()
    };
    stage.events_until(|events| delivered(events) == 6).await;
    stage.stop(running).await;
    assert_eq!(sink.accepted(), 6);
    assert_eq!(stage.depth().await.total(), 0);
}
