//! Random operations, crashes and restarts, against a model.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use posthaste_model::{Clock, ManualClock, Timestamp};
use proptest::prelude::*;
use uuid::Uuid;

use super::name;
use crate::{
    contract::{
        Body, Broker, Delivery, FlowKey, Publish, PublishOutcome, QueueName, Settlement,
        SharedBody, Subscription, Token,
    },
    embedded::{EmbeddedConfig, EmbeddedQueue, faulty::FaultyDisk},
    suite::{AMPLE, tokens},
};

#[derive(Debug, Clone)]
enum Step {
    Publish { queue: usize, count: usize, priority: u8, len: usize, shared: bool, due: bool },
    Repeat,
    Take,
    Acknowledge(usize),
    Defer { count: usize, queue: usize, due: bool },
    Copy(usize),
    Drop,
    Purge(usize),
    Compact,
    Crash,
    PowerLoss(u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let publish = (0..2usize, 1..6usize, 0..10u8, 0..1500usize, any::<bool>(), any::<bool>());
    let step = prop_oneof![
        6 => publish.prop_map(|(queue, count, priority, len, shared, due)| Step::Publish {
            queue, count, priority, len, shared, due
        }),
        1 => Just(Step::Repeat),
        6 => Just(Step::Take),
        6 => (0..8usize).prop_map(Step::Acknowledge),
        3 => (1..4usize, 0..2usize, any::<bool>())
            .prop_map(|(count, queue, due)| Step::Defer { count, queue, due }),
        1 => (1..3usize).prop_map(Step::Copy),
        1 => Just(Step::Drop),
        1 => (0..2usize).prop_map(Step::Purge),
        1 => Just(Step::Compact),
        1 => Just(Step::Crash),
        1 => any::<u64>().prop_map(Step::PowerLoss),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

type Known = (usize, Bytes, Bytes);

struct Run {
    root: tempfile::TempDir,
    number: u32,
    clock: Arc<ManualClock>,
    disk: FaultyDisk,
    config: (u8, usize),
    queue: Option<Arc<EmbeddedQueue>>,
    queues: [QueueName; 2],
    subscription: Option<Box<dyn Subscription>>,
    held: Vec<Delivery>,
    live: BTreeMap<Uuid, Known>,
    last: Vec<Publish>,
}

impl Run {
    /// Compaction and spare files as given.
    fn new(config: (u8, usize)) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_000_000)));
        let mut run = Self {
            root: tempfile::tempdir().unwrap(),
            number: 0,
            clock,
            disk: FaultyDisk::default(),
            config,
            queue: None,
            queues: [name("a"), name("b")],
            subscription: None,
            held: Vec::new(),
            live: BTreeMap::new(),
            last: Vec::new(),
        };
        run.open();
        run
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(self.number.to_string())
    }

    fn open(&mut self) {
        let config = EmbeddedConfig {
            segment_bytes: 4096,
            cache_bytes: 4000,
            compact_dead: self.config.0,
            spare_segments: self.config.1,
            ..EmbeddedConfig::new(self.dir())
        };
        self.disk = FaultyDisk::default();
        let disk = Arc::new(self.disk.clone());
        self.queue = Some(EmbeddedQueue::open_on(disk, config, self.clock.clone()).unwrap());
    }

    fn queue(&self) -> Arc<EmbeddedQueue> {
        Arc::clone(self.queue.as_ref().unwrap())
    }

    fn due(&self, due: bool) -> Option<Timestamp> {
        due.then(|| self.clock.now().plus(std::time::Duration::from_millis(50)))
    }

    async fn publish(&mut self, batch: Vec<Publish>) {
        let outcomes = self.queue().publish(batch.clone()).await.unwrap();
        assert_eq!(outcomes, vec![PublishOutcome::Durable; batch.len()]);
        for publish in &batch {
            let queue = usize::from(publish.queue == self.queues[1]);
            let body = match &publish.body {
                Body::Inline(bytes) => bytes.clone(),
                Body::Shared(shared) => shared.bytes.clone(),
                Body::Kept(_) => unreachable!(),
            };
            self.live.entry(publish.id).or_insert((queue, publish.head.clone(), body));
        }
        self.last = batch;
    }

    async fn settle(&self, deliveries: &[Delivery], publishes: Vec<Publish>) {
        let settlement = Settlement { tokens: tokens(deliveries), publishes };
        for result in self.queue().settle(settlement).await.unwrap() {
            result.unwrap();
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish { queue, count, priority, len, shared, due } => {
                let body = SharedBody { id: Uuid::now_v7(), bytes: vec![7; len].into() };
                let batch = (0..count).map(|n| Publish {
                    queue: self.queues[queue].clone(),
                    id: Uuid::now_v7(),
                    priority,
                    due: self.due(due),
                    flow_key: FlowKey::new(["x", "y", "z"][n % 3]),
                    head: Bytes::from(format!("{n}")),
                    body: match shared {
                        true => Body::Shared(body.clone()),
                        false => Body::Inline(Bytes::from(n.to_string().repeat(len))),
                    },
                });
                let batch = batch.collect();
                self.publish(batch).await;
            }
            Step::Repeat => {
                let batch = self.last.clone();
                self.publish(batch).await;
            }
            Step::Take => self.take().await,
            Step::Acknowledge(count) => {
                let some: Vec<_> = self.held.drain(..count.min(self.held.len())).collect();
                self.settle(&some, vec![]).await;
                some.iter().for_each(|delivery| drop(self.live.remove(&delivery.id)));
            }
            Step::Defer { count, queue, due } => self.defer(count, queue, due).await,
            Step::Copy(count) => self.copy(count).await,
            Step::Drop => self.drop_subscription(),
            Step::Purge(queue) => {
                let purged = self.queue().purge(&self.queues[queue]).await.unwrap();
                let before = self.live.len();
                let held: BTreeSet<_> = self.held.iter().map(|delivery| delivery.id).collect();
                self.live.retain(|id, (of, ..)| *of != queue || held.contains(id));
                assert_eq!(usize::try_from(purged).unwrap(), before - self.live.len());
            }
            Step::Compact => {
                let report = self.queue().compact().await.unwrap();
                assert!(report.after <= report.before, "{report:?}");
            }
            Step::Crash | Step::PowerLoss(_) => {
                let from = self.dir();
                self.number += 1;
                match step {
                    Step::PowerLoss(seed) => self.disk.crash(&from, &self.dir(), seed).unwrap(),
                    _ => self.disk.snapshot(&from, &self.dir()).unwrap(),
                }
                self.restart();
                self.check().await;
            }
            Step::Restart => {
                self.restart();
                self.check().await;
            }
        }
    }

    fn drop_subscription(&mut self) {
        self.subscription = None;
        self.held.clear();
    }

    fn restart(&mut self) {
        self.drop_subscription();
        self.queue = None;
        self.open();
    }

    async fn take(&mut self) {
        self.clock.advance(std::time::Duration::from_millis(20));
        if self.subscription.is_none() {
            self.subscription = Some(self.queue().subscribe(&self.queues[0], AMPLE).await.unwrap());
        }
        if self.queue().depth(&self.queues[0]).await.unwrap().ready == 0 {
            return;
        }
        let taken = self.subscription.as_mut().unwrap().next().await.unwrap();
        for delivery in &taken {
            let (queue, head, body) = &self.live[&delivery.id];
            assert_eq!((*queue, head, body), (0, &delivery.head, &delivery.body));
            assert!(self.held.iter().all(|held| held.id != delivery.id), "handed over twice");
        }
        self.held.extend(taken);
    }

    async fn defer(&mut self, count: usize, queue: usize, due: bool) {
        let some: Vec<_> = self.held.drain(..count.min(self.held.len())).collect();
        let copies = some.iter().map(|delivery| Publish {
            head: Bytes::from_static(b"deferred"),
            ..self.kept(delivery.token, delivery.id, queue, due)
        });
        let copies = copies.collect();
        self.settle(&some, copies).await;
        for delivery in some {
            let known = self.live.get_mut(&delivery.id).unwrap();
            (known.0, known.1) = (queue, Bytes::from_static(b"deferred"));
        }
    }

    async fn copy(&mut self, count: usize) {
        let some: Vec<_> = self.held.drain(..count.min(self.held.len())).collect();
        let copies: Vec<_> =
            some.iter().map(|d| self.kept(d.token, Uuid::now_v7(), 1, false)).collect();
        self.settle(&some, copies.clone()).await;
        for (delivery, copy) in some.iter().zip(copies) {
            let (_, _, body) = self.live.remove(&delivery.id).unwrap();
            self.live.insert(copy.id, (1, copy.head, body));
        }
    }

    fn kept(&self, token: Token, id: Uuid, queue: usize, due: bool) -> Publish {
        Publish {
            queue: self.queues[queue].clone(),
            id,
            priority: 5,
            due: self.due(due),
            flow_key: FlowKey::new("kept"),
            head: Bytes::from_static(b"copied"),
            body: Body::Kept(token),
        }
    }

    async fn check(&self) {
        let mut found = BTreeMap::new();
        for (number, name) in self.queues.iter().enumerate() {
            let queue = self.queue();
            let browsed = queue.browse(name, None, 10_000).await.unwrap();
            assert_eq!(browsed.len() as u64, queue.depth(name).await.unwrap().total());
            for message in browsed {
                found.insert(message.id, (number, message.head, message.body_len));
            }
        }
        let expected: BTreeMap<_, _> = self
            .live
            .iter()
            .map(|(id, (queue, head, body))| (*id, (*queue, head.clone(), body.len() as u64)))
            .collect();
        assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(steps in steps(), dead in 0..100u8, spares in 0..3usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new((dead, spares));
            for step in steps {
                run.step(step).await;
            }
            run.check().await;
            run.restart();
            run.check().await;
            // Drained, it is empty on the disk too.
            run.clock.advance(std::time::Duration::from_secs(1));
            while run.queue().depth(&run.queues[0]).await.unwrap().ready > 0 {
                run.take().await;
            }
            let all = std::mem::take(&mut run.held);
            run.settle(&all, vec![]).await;
            run.queue().purge(&run.queues[1]).await.unwrap();
            run.live.clear();
            run.restart();
            run.check().await;
            run.queue = None;
            let verified = crate::embedded::offline::verify(&run.dir()).unwrap();
            assert_eq!((verified.messages, verified.problems), (0, vec![]));
            assert!(super::segments(&run.dir()).len() <= 1);
        });
    }
}
