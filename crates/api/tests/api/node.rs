//! A running API with the real queue, the real store and a clock of its own,
//! whose directory outlives it.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use posthaste_api::{Admission, AdmissionConfig, ApiConfig, ApiMetrics, ApiState, run};
use posthaste_broker::{
    Broker, BrokerError, Browsed, Credit, Delivery, Depth, LinkState, Listener, Publish,
    PublishOutcome, QueueName, Settlement, SubscribeOptions, Subscription,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_intake::{Intake, IntakeConfig};
use posthaste_model::{LogBatch, ManualClock, Timestamp};
use posthaste_store::{Control, Period, Store, StoreConfig};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::client::{Answer, Client, request};

/// Where a publish stops for ever, as if the process were killed there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    #[default]
    Never,
    /// Nothing was taken.
    BeforePublish,
    /// All is durable; nobody was told.
    AfterPublish,
}

pub struct Settings {
    pub api: ApiConfig,
    pub intake: IntakeConfig,
    pub admission: AdmissionConfig,
    pub stop: Stop,
    pub time: Timestamp,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api: ApiConfig::default(),
            intake: IntakeConfig::new("mta.example.com"),
            admission: AdmissionConfig { disk_reserve: 0, ..AdmissionConfig::default() },
            stop: Stop::Never,
            time: Timestamp::from_millis(1_795_500_000_000),
        }
    }
}

pub struct Node {
    pub address: SocketAddr,
    pub clock: Arc<ManualClock>,
    pub broker: Arc<Watched>,
    pub store: Arc<Store>,
    control: Arc<Control>,
    shutdown: CancellationToken,
}

impl Node {
    pub async fn start(dir: &Path, settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::at(settings.time));
        let config = EmbeddedConfig::new(dir.join("queue"));
        let queue = EmbeddedQueue::open(config, clock.clone()).unwrap();
        let broker = Arc::new(Watched {
            queue,
            stop: settings.stop,
            looks: AtomicU32::new(0),
            stopped: Notify::new(),
        });
        let logs = StoreConfig { dir: dir.join("logs"), period: Period::Monthly, retention: None };
        let store = Arc::new(Store::open(logs).await.unwrap());
        let control = Arc::new(Control::open(dir.join("control")).await.unwrap());
        let mut registry = Registry::default();
        let metrics = ApiMetrics::register(&mut registry);
        let admission = Admission::new(settings.admission, broker.clone(), metrics.clone());
        let state = ApiState {
            intake: Intake::new(broker.clone(), clock.clone(), settings.intake),
            store: store.clone(),
            control: control.clone(),
            admission: Arc::new(admission),
            broker: broker.clone(),
            clock: clock.clone(),
            registry: Arc::new(registry),
            metrics,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(run(settings.api, listener, state, shutdown.clone()));
        Self { address, clock, broker, store, control, shutdown }
    }

    /// Ends it without a word to those who are in the middle of something:
    /// what they hold is closed under them, and they never come to their end.
    pub async fn kill(self) {
        self.shutdown.cancel();
        self.broker.queue.close(Duration::from_secs(5)).await.unwrap();
        self.control.close().await.unwrap();
        self.store.close().await.unwrap();
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut client = Client::connect(self.address).await;
        client.send(request(method, path, headers, body)).await;
        client.answer().await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    pub async fn post(&self, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.ask("POST", "/v1/submissions", &headers, body.to_string().as_bytes()).await
    }

    pub async fn post_with_key(&self, key: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        self.ask("POST", "/v1/submissions", &headers, body.to_string().as_bytes()).await
    }

    pub async fn depth(&self, queue: &str) -> u64 {
        self.broker.depth(&QueueName::new(queue).unwrap()).await.unwrap().total()
    }

    /// Takes everything out of a queue, as who has dealt with it.
    pub async fn consume(&self, queue: &str) -> Vec<Delivery> {
        let options = SubscribeOptions {
            credit: Credit { messages: 10_000, bytes: 1 << 30 },
            flow_messages: 10_000,
            exclusive: false,
        };
        let name = QueueName::new(queue).unwrap();
        let mut taken = Vec::new();
        let mut subscription = self.broker.subscribe(&name, options).await.unwrap();
        while self.broker.depth(&name).await.unwrap().total() > 0 {
            let deliveries = subscription.next().await.unwrap();
            let tokens = deliveries.iter().map(|delivery| delivery.token).collect();
            let settlement = Settlement { tokens, publishes: Vec::new() };
            for settled in self.broker.settle(settlement).await.unwrap() {
                settled.unwrap();
            }
            taken.extend(deliveries);
        }
        taken
    }

    /// What a logger does with the submission logs.
    pub async fn log(&self) {
        for log in self.consume("submission-logs").await {
            self.store.append(&LogBatch::decode(&log.body).unwrap().0).await.unwrap();
        }
    }
}

/// The real queue, watched, and stopped where the test wants it.
pub struct Watched {
    queue: Arc<EmbeddedQueue>,
    stop: Stop,
    /// How often the names of the queues were asked for.
    pub looks: AtomicU32,
    /// Told when a publish has stopped.
    pub stopped: Notify,
}

impl Watched {
    async fn stop_at(&self, stop: Stop) {
        if self.stop == stop {
            self.stopped.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Broker for Watched {
    async fn declare(&self, queue: &QueueName) -> Result<(), BrokerError> {
        self.queue.declare(queue).await
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Vec<PublishOutcome>, BrokerError> {
        self.stop_at(Stop::BeforePublish).await;
        let outcomes = self.queue.publish(batch).await?;
        self.stop_at(Stop::AfterPublish).await;
        Ok(outcomes)
    }

    async fn subscribe(
        &self,
        queue: &QueueName,
        options: SubscribeOptions,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        self.queue.subscribe(queue, options).await
    }

    async fn settle(
        &self,
        settlement: Settlement,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        self.queue.settle(settlement).await
    }

    async fn broadcast(&self, topic: &QueueName, notice: Bytes) -> Result<(), BrokerError> {
        self.queue.broadcast(topic, notice).await
    }

    async fn listen(&self, topic: &QueueName) -> Result<Box<dyn Listener>, BrokerError> {
        self.queue.listen(topic).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>, BrokerError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.queue.queues().await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError> {
        self.queue.depth(queue).await
    }

    async fn browse(
        &self,
        queue: &QueueName,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Browsed>, BrokerError> {
        self.queue.browse(queue, after, limit).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64, BrokerError> {
        self.queue.purge(queue).await
    }

    fn link_state(&self) -> watch::Receiver<LinkState> {
        self.queue.link_state()
    }

    async fn close(&self, within: Duration) -> Result<(), BrokerError> {
        self.queue.close(within).await
    }
}
