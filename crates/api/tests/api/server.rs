//! A running API for the tests.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use posthaste_api::{Admission, AdmissionConfig, ApiConfig, ApiError, ApiMetrics, ApiState, run};
use posthaste_broker::Body;
use posthaste_intake::{Intake, IntakeConfig};
use posthaste_model::{LogBatch, LogEvent, SystemClock};
use posthaste_store::{Control, Period, Store, StoreConfig};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Answer, Client, request},
    fake_broker::{self, FakeBroker},
};

pub struct Server {
    pub address: SocketAddr,
    pub broker: Arc<FakeBroker>,
    pub store: Arc<Store>,
    pub shutdown: CancellationToken,
    pub running: JoinHandle<Result<(), ApiError>>,
    _dir: TempDir,
}

impl Server {
    pub async fn start(config: ApiConfig) -> Self {
        Self::start_with(config, []).await
    }

    pub async fn start_with(
        config: ApiConfig,
        answers: impl IntoIterator<Item = fake_broker::Answer>,
    ) -> Self {
        Self::start_patient(config, answers, Duration::from_millis(500)).await
    }

    /// With an intake that waits for the broker as long as that takes.
    pub async fn start_slow(config: ApiConfig, answer: fake_broker::Answer) -> Self {
        Self::start_patient(config, [answer], Duration::from_secs(60)).await
    }

    async fn start_patient(
        config: ApiConfig,
        answers: impl IntoIterator<Item = fake_broker::Answer>,
        publish_timeout: Duration,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let store_config =
            StoreConfig { dir: dir.path().join("logs"), period: Period::Monthly, retention: None };
        let store = Arc::new(Store::open(store_config).await.unwrap());
        let broker = FakeBroker::new(answers);
        let clock = Arc::new(SystemClock);
        let mut registry = Registry::default();
        let metrics = ApiMetrics::register(&mut registry);
        let intake_config =
            IntakeConfig { publish_timeout, ..IntakeConfig::new("mta.example.com") };
        let control = Control::open(dir.path().join("control")).await.unwrap();
        let admission = Admission::new(AdmissionConfig::default(), broker.clone(), metrics.clone());
        let state = ApiState {
            control: Arc::new(control),
            admission: Arc::new(admission),
            intake: Intake::new(broker.clone(), clock.clone(), intake_config),
            store: store.clone(),
            broker: broker.clone(),
            clock,
            registry: Arc::new(registry),
            metrics,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(config, listener, state, shutdown.clone()));
        Self { address, broker, store, shutdown, running, _dir: dir }
    }

    /// One request over a connection of its own.
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

    pub async fn post(&self, body: impl AsRef<[u8]>) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.ask("POST", "/v1/submissions", &headers, body.as_ref()).await
    }

    /// Writes what was published to the submission log into the store.
    pub async fn log(&self) {
        let mut events = Vec::new();
        for publish in self.broker.batches().concat() {
            if publish.queue.as_str() != "submission-logs" {
                continue;
            }
            let Body::Inline(bytes) = &publish.body else { panic!("a log that is shared") };
            events.extend(LogBatch::decode(bytes).unwrap().0);
        }
        self.append(&events).await;
    }

    pub async fn append(&self, events: &[LogEvent]) {
        self.store.append(events).await.unwrap();
    }

    pub fn nothing_was_published(&self) -> bool {
        self.broker.batches().is_empty()
    }
}

pub fn mail() -> Value {
    json!({"from": "a@example.com", "to": ["b@example.net"], "subject": "S", "text": "hello"})
}
