//! Events, and a broker in memory whose faults the test chooses.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "the helpers of a test may, as the test")]

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use posthaste_broker::{
    Body, Broker, BrokerError, Browsed, Credit, Delivery, Depth, FlowKey, LinkState, Listener,
    Publish, PublishOutcome, QueueName, Settlement, SubscribeOptions, Subscription, Token,
};
use posthaste_model::{
    LogBatch, LogEvent, MessageId, PoolName, RecipientKind, SubmissionEvent, SubmissionId,
    SubmittedMessage, Timestamp,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use uuid::Uuid;

pub fn submission() -> SubmissionEvent {
    let submission_id = SubmissionId::new();
    SubmissionEvent {
        submission_id,
        // The store looks for it where its id says.
        time: submission_id.time().unwrap(),
        interface: "http".into(),
        length_us: 1,
        source_address: "127.0.0.1".into(),
        token: None,
        sender: "a@example.com".parse().unwrap(),
        subject: String::new(),
        tags: Vec::new(),
        pool: PoolName::default(),
        priority: 5,
        size: 1,
        due_at: None,
        messages: vec![SubmittedMessage {
            message_id: MessageId::new(),
            recipient: "b@example.net".parse().unwrap(),
            kind: RecipientKind::To,
        }],
    }
}

pub fn publish(queue: &str, body: Vec<u8>) -> Publish {
    Publish {
        queue: QueueName::new(queue).unwrap(),
        id: Uuid::now_v7(),
        priority: 5,
        due: None,
        flow_key: FlowKey::default(),
        head: Bytes::from_static(b"{}"),
        body: Body::Inline(body.into()),
    }
}

pub fn batch(events: Vec<LogEvent>) -> Vec<u8> {
    LogBatch(events).encode()
}

/// A queue of the [`FaultyBroker`].
#[derive(Default)]
struct Queue {
    ready: VecDeque<Publish>,
    /// By epoch and tag.
    unacknowledged: BTreeMap<(u64, u64), Publish>,
}

#[derive(Default)]
struct State {
    queues: HashMap<QueueName, Queue>,
    /// Of the subscriptions that live.
    epochs: Vec<u64>,
    last: u64,
    settle_faults: VecDeque<BrokerError>,
    subscribe_faults: VecDeque<BrokerError>,
    refuse_publishes: bool,
    subscriptions: usize,
    closed: bool,
}

impl State {
    fn end(&mut self, epoch: u64) {
        self.epochs.retain(|it| *it != epoch);
        for queue in self.queues.values_mut() {
            let (back, kept) = std::mem::take(&mut queue.unacknowledged)
                .into_iter()
                .partition(|((of, _), _)| *of == epoch);
            queue.unacknowledged = kept;
            for (_, message) in BTreeMap::into_iter(back).rev() {
                queue.ready.push_front(message);
            }
        }
    }
}

/// Keeps the contract in memory; fails when it is told to.
#[derive(Default, Clone)]
pub struct FaultyBroker {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl FaultyBroker {
    pub fn push(&self, message: Publish) {
        let mut state = self.state.lock();
        state.queues.entry(message.queue.clone()).or_default().ready.push_back(message);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The next settlements fail so; nothing of them is done.
    pub fn fail_settle(&self, times: usize) {
        let fault = BrokerError::Link("cut".into());
        self.state.lock().settle_faults.extend(std::iter::repeat_n(fault, times));
    }

    pub fn clear_faults(&self) {
        self.state.lock().settle_faults.clear();
    }

    /// Settlements that publish something fail: there is no room.
    pub fn refuse_publishes(&self, refuse: bool) {
        self.state.lock().refuse_publishes = refuse;
    }

    pub fn fail_subscribe(&self, times: usize) {
        let fault = BrokerError::Link("cut".into());
        self.state.lock().subscribe_faults.extend(std::iter::repeat_n(fault, times));
    }

    /// As when the link is lost: tokens die, messages come again.
    pub fn end_subscriptions(&self) {
        let mut state = self.state.lock();
        for epoch in state.epochs.clone() {
            state.end(epoch);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub fn subscriptions(&self) -> usize {
        self.state.lock().subscriptions
    }

    /// Ready and unacknowledged.
    pub fn depth(&self, queue: &str) -> (usize, usize) {
        let state = self.state.lock();
        let queue = state.queues.get(&QueueName::new(queue).unwrap());
        queue.map_or((0, 0), |queue| (queue.ready.len(), queue.unacknowledged.len()))
    }

    pub fn first(&self, queue: &str) -> Publish {
        self.state.lock().queues[&QueueName::new(queue).unwrap()].ready[0].clone()
    }

    pub fn close_now(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
    }
}

struct FakeSubscription {
    broker: FaultyBroker,
    queue: QueueName,
    epoch: u64,
    credit: Credit,
}

impl FakeSubscription {
    fn take(&self) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.broker.state.lock();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        if !state.epochs.contains(&self.epoch) {
            return Err(BrokerError::Link("ended".into()));
        }
        let State { queues, last, .. } = &mut *state;
        let queue = queues.entry(self.queue.clone()).or_default();
        let held = queue.unacknowledged.keys().filter(|(of, _)| *of == self.epoch).count();
        let room = usize::try_from(self.credit.messages).unwrap().saturating_sub(held);
        // Few at a time, so that a batch takes several.
        let count = room.min(queue.ready.len()).min(7);
        let taken = queue.ready.drain(..count).collect::<Vec<_>>();
        let deliveries = taken.into_iter().map(|message| {
            *last += 1;
            let delivery = Delivery {
                token: Token { epoch: self.epoch, tag: *last },
                id: message.id,
                priority: message.priority,
                flow_key: message.flow_key.clone(),
                head: message.head.clone(),
                body: match &message.body {
                    Body::Inline(bytes) => bytes.clone(),
                    _ => Bytes::new(),
                },
                redelivered: false,
                handed_over: Instant::now(),
            };
            queue.unacknowledged.insert((self.epoch, *last), message);
            delivery
        });
        Ok(deliveries.collect())
    }
}

#[async_trait]
impl Subscription for FakeSubscription {
    async fn next(&mut self) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let changed = self.broker.changed.clone();
            let mut waiting = std::pin::pin!(changed.notified());
            waiting.as_mut().enable();
            let taken = self.take()?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            waiting.await;
        }
    }

    fn set_credit(&self, _: Credit) {}
    fn block(&self, _: &FlowKey) {}
    fn unblock(&self, _: &FlowKey) {}
}

impl Drop for FakeSubscription {
    fn drop(&mut self) {
        self.broker.state.lock().end(self.epoch);
        self.broker.changed.notify_waiters();
    }
}

fn unused<T>() -> Result<T, BrokerError> {
    Err(BrokerError::Invalid("a logger does not use it".into()))
}

#[async_trait]
impl Broker for FaultyBroker {
    async fn subscribe(
        &self,
        queue: &QueueName,
        options: SubscribeOptions,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let mut state = self.state.lock();
        if let Some(fault) = state.subscribe_faults.pop_front() {
            return Err(fault);
        }
        state.last += 1;
        state.subscriptions += 1;
        let epoch = state.last;
        state.epochs.push(epoch);
        let (broker, queue) = (self.clone(), queue.clone());
        Ok(Box::new(FakeSubscription { broker, queue, epoch, credit: options.credit }))
    }

    async fn settle(
        &self,
        settlement: Settlement,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        assert!(settlement.tokens.len() <= Settlement::MAX_TOKENS);
        let mut state = self.state.lock();
        if state.closed {
            return Err(BrokerError::Closed);
        }
        if let Some(fault) = state.settle_faults.pop_front() {
            return Err(fault);
        }
        if state.refuse_publishes && !settlement.publishes.is_empty() {
            return Err(BrokerError::Full("the disk".into()));
        }
        for message in settlement.publishes {
            state.queues.entry(message.queue.clone()).or_default().ready.push_back(message);
        }
        let mut results = Vec::new();
        for token in settlement.tokens {
            let key = (token.epoch, token.tag);
            let found =
                state.queues.values_mut().any(|it| it.unacknowledged.remove(&key).is_some());
            results.push(if found { Ok(()) } else { Err(BrokerError::StaleToken) });
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(results)
    }

    fn link_state(&self) -> watch::Receiver<LinkState> {
        watch::channel(LinkState::Up).1
    }

    async fn close(&self, _: Duration) -> Result<(), BrokerError> {
        self.close_now();
        Ok(())
    }

    async fn declare(&self, _: &QueueName) -> Result<(), BrokerError> {
        unused()
    }
    async fn publish(&self, _: Vec<Publish>) -> Result<Vec<PublishOutcome>, BrokerError> {
        unused()
    }
    async fn broadcast(&self, _: &QueueName, _: Bytes) -> Result<(), BrokerError> {
        unused()
    }
    async fn listen(&self, _: &QueueName) -> Result<Box<dyn Listener>, BrokerError> {
        unused()
    }
    async fn queues(&self) -> Result<Vec<QueueName>, BrokerError> {
        unused()
    }
    async fn depth(&self, _: &QueueName) -> Result<Depth, BrokerError> {
        unused()
    }
    async fn browse(
        &self,
        _: &QueueName,
        _: Option<Uuid>,
        _: usize,
    ) -> Result<Vec<Browsed>, BrokerError> {
        unused()
    }
    async fn purge(&self, _: &QueueName) -> Result<u64, BrokerError> {
        unused()
    }
}

/// Waits until `done`; fails after ten seconds of real time, whatever the
/// runtime's clock does.
pub async fn eventually(what: &str, done: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// For the log of deliveries: an attempt that delivered the submission's
/// message.
pub fn attempt(submission: &SubmissionEvent, time: Timestamp) -> LogEvent {
    use posthaste_model::{AttemptEvent, AttemptId, Disposition, EventKind, Reason};
    use serde_json::value::RawValue;
    LogEvent::Attempt(AttemptEvent {
        attempt_id: AttemptId::new(),
        message_id: submission.messages[0].message_id,
        submission_id: submission.submission_id,
        kind: EventKind::Attempt,
        disposition: Disposition::Delivered,
        reason: Reason::Accepted,
        detail: None,
        started_at: submission.time,
        time,
        length_ms: 1,
        attempt: 1,
        reply: None,
        recipient: submission.messages[0].recipient.clone(),
        pool: PoolName::default(),
        smtp_client: "c1".into(),
        remote_host: None,
        remote_address: None,
        tls: None,
        next_attempt_at: None,
        headers: RawValue::from_string("[]".into()).unwrap(),
        client: RawValue::from_string("{}".into()).unwrap(),
    })
}
