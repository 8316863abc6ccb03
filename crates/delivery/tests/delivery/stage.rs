//! What every scenario stands on.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use posthaste_broker::{
    Body, Broker, Credit, Depth, FlowKey, Publish, QueueName, SubscribeOptions,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_delivery::{
    DeliveryError, Journal, Metrics, RetrySchedule, Shared, SmtpClientConfig,
};
use posthaste_dns::{AddressPolicy, Resolver, ResolverConfig};
use posthaste_mail::compress;
use posthaste_model::{
    AttemptEvent, Clock, Codec, DELIVERY_LOGS, LogBatch, LogEvent, MessageHead, MessageId,
    PoolName, QUARANTINE, RECORD_VERSION, SubmissionId, SystemClock, Timestamp,
};
use posthaste_smtp::TlsClient;
use posthaste_trial::{
    dns::{TestDns, Zones},
    sink::{Action, Keep, Pattern, Received, Rule, RuleStage, Sink, SinkConfig},
};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Far longer than anything takes: a scenario that hangs ends.
const PATIENCE: Duration = Duration::from_secs(60);

pub const CONTENT: &str = "Subject: hello\r\nFrom: a@sender.test\r\n\r\nline\r\n.dot\r\n";

pub struct Stage {
    /// Holds the queue and the journal.
    pub dir: PathBuf,
    _temporary: Option<TempDir>,
    pub queue: Arc<dyn Broker>,
    pub dns: TestDns,
    pub journal: Option<Arc<Journal>>,
    pub config: SmtpClientConfig,
    pub clock: Arc<dyn Clock>,
    pub allow_private: bool,
    events: watch::Receiver<Vec<AttemptEvent>>,
}

pub fn pool() -> QueueName {
    QueueName::new("pool.default").unwrap()
}

pub fn quarantine() -> QueueName {
    QueueName::new(QUARANTINE).unwrap()
}

/// Times in milliseconds.
pub fn retry(delays: &[u64], max_attempts: u32) -> RetrySchedule {
    RetrySchedule {
        delays: delays.iter().copied().map(Duration::from_millis).collect(),
        jitter: 0.0,
        max_attempts,
        no_route_attempts: 2,
    }
}

impl Stage {
    pub async fn new(zones: Zones) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut stage = Self::within(temporary.path(), zones).await;
        stage._temporary = Some(temporary);
        stage
    }

    /// In a directory of the caller's.
    pub async fn within(dir: &Path, zones: Zones) -> Self {
        let config = EmbeddedConfig::new(dir.join("queue"));
        let queue = EmbeddedQueue::open(config, Arc::new(SystemClock)).unwrap();
        Self::over(dir, queue, zones).await
    }

    pub async fn over(dir: &Path, queue: Arc<dyn Broker>, zones: Zones) -> Self {
        let dns = TestDns::start("127.0.0.1:0".parse().unwrap(), zones).await.unwrap();
        let events = watch_events(&queue).await;
        let mut config = SmtpClientConfig::new("c1", PoolName::default(), "client.test");
        config.retry = retry(&[50], 3);
        config.drain_timeout = Duration::from_secs(10);
        Self {
            dir: dir.to_owned(),
            _temporary: None,
            queue,
            dns,
            journal: None,
            config,
            clock: Arc::new(SystemClock),
            allow_private: true,
            events,
        }
    }

    /// A sink on `ip`, at the port of the others.
    pub async fn sink(&mut self, ip: &str, rules: Vec<Rule>) -> TestSink {
        self.sink_with(ip, rules, |_| {}).await
    }

    pub async fn sink_with(
        &mut self,
        ip: &str,
        rules: Vec<Rule>,
        adjust: impl FnOnce(&mut SinkConfig),
    ) -> TestSink {
        let port = if self.config.port == 25 { 0 } else { self.config.port };
        let mut config = SinkConfig::new(SocketAddr::new(ip.parse().unwrap(), port));
        let (sender, received) = mpsc::channel(1000);
        config.rules = rules;
        config.keep = Keep::All;
        config.observer = Some(sender);
        adjust(&mut config);
        let sink = Sink::start(config).await.unwrap();
        self.config.port = sink.address().port();
        TestSink { sink, received }
    }

    pub fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// Starts the SMTP client; with the journal that is open, if one is.
    pub fn start(&mut self) -> Running {
        let journal = self.journal.take().unwrap_or_else(|| {
            let (journal, _) = Journal::open(&self.journal_dir()).unwrap();
            Arc::new(journal)
        });
        self.journal = Some(journal.clone());
        let resolver = Resolver::new(ResolverConfig {
            servers: vec![self.dns.address()],
            min_ttl: Duration::ZERO,
            failure_ttl: Duration::ZERO,
            timeout: Duration::from_secs(2),
            addresses: AddressPolicy { allow_private: self.allow_private, ..Default::default() },
            ..ResolverConfig::default()
        });
        let shared = Shared::new(
            self.queue.clone(),
            resolver.unwrap(),
            TlsClient::new().unwrap(),
            journal,
            self.clock.clone(),
            Metrics::register(&mut Registry::default()),
        );
        let shutdown = CancellationToken::new();
        let (config, shared, token) = (self.config.clone(), Arc::new(shared), shutdown.clone());
        let task = tokio::spawn(posthaste_delivery::run(config, shared, token));
        Running { shutdown, task }
    }

    /// Ends the SMTP client and lets go of the journal.
    pub async fn stop(&mut self, running: Running) {
        running.stop().await;
        self.journal = None;
    }

    pub fn head(&self, recipient: &str) -> MessageHead {
        MessageHead {
            v: RECORD_VERSION,
            submission_id: SubmissionId::new(),
            message_id: MessageId::new(),
            return_path: Some("a@sender.test".parse().unwrap()),
            recipient: recipient.parse().unwrap(),
            sender_domain: "sender.test".parse().unwrap(),
            pool: PoolName::default(),
            priority: 5,
            tags: vec![],
            accepted_at: Timestamp::from_millis(0),
            attempts: 0,
            first_attempt_at: None,
            expires_at: None,
            smtputf8: false,
            eight_bit: false,
            codec: Codec::Zstd,
            content_size: u32::try_from(CONTENT.len()).unwrap(),
            fields: format!("To: {recipient}\r\n"),
        }
    }

    pub async fn send(&self, recipient: &str) -> MessageId {
        self.send_head(&self.head(recipient)).await
    }

    pub async fn send_head(&self, head: &MessageHead) -> MessageId {
        let body = compress::compress(head.codec, CONTENT.as_bytes(), compress::DEFAULT_LEVEL);
        self.publish(head, Bytes::from(head.encode()), body.unwrap().into()).await
    }

    pub async fn publish(&self, head: &MessageHead, encoded: Bytes, body: Bytes) -> MessageId {
        let publish = Publish {
            queue: pool(),
            id: head.message_id.into(),
            priority: head.priority,
            due: None,
            flow_key: FlowKey::new(head.recipient.domain().as_str()),
            head: encoded,
            body: Body::Inline(body),
        };
        let outcomes = self.queue.publish(vec![publish]).await.unwrap();
        assert_eq!(outcomes, [posthaste_broker::PublishOutcome::Durable]);
        head.message_id
    }

    /// The events of the delivery log once `enough` of them are there.
    pub async fn events_until(
        &mut self,
        enough: impl Fn(&[AttemptEvent]) -> bool,
    ) -> Vec<AttemptEvent> {
        let waited = timeout(PATIENCE, self.events.wait_for(|events| enough(events))).await;
        let came = waited.map(|events| events.map(|events| events.clone()));
        match came {
            Ok(events) => events.unwrap(),
            Err(_) => panic!("the events did not come; there are: {:#?}", self.events()),
        }
    }

    pub async fn events_of(&mut self, id: MessageId, count: usize) -> Vec<AttemptEvent> {
        let of = |events: &[AttemptEvent]| -> Vec<AttemptEvent> {
            events.iter().filter(|event| event.message_id == id).cloned().collect()
        };
        of(&self.events_until(|events| of(events).len() >= count).await)
    }

    /// The one event of a message that has no other.
    pub async fn event_of(&mut self, id: MessageId) -> AttemptEvent {
        self.events_of(id, 1).await.remove(0)
    }

    pub fn events(&self) -> Vec<AttemptEvent> {
        self.events.borrow().clone()
    }

    pub async fn depth(&self) -> Depth {
        self.queue.depth(&pool()).await.unwrap()
    }
}

/// A sink and what it has accepted.
pub struct TestSink {
    pub sink: Sink,
    pub received: mpsc::Receiver<Received>,
}

impl TestSink {
    pub async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.received.recv()).await.expect("a message").expect("a sink")
    }

    pub fn accepted(&self) -> u64 {
        self.sink.stats().accepted
    }
}

pub struct Running {
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), DeliveryError>>,
}

impl Running {
    pub async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.expect("it drains").unwrap().unwrap();
    }
}

async fn watch_events(queue: &Arc<dyn Broker>) -> watch::Receiver<Vec<AttemptEvent>> {
    let credit = Credit { messages: 1_000_000, bytes: u64::MAX };
    let options = SubscribeOptions { credit, flow_messages: 1_000_000, exclusive: false };
    let logs = QueueName::new(DELIVERY_LOGS).unwrap();
    let mut subscription = queue.subscribe(&logs, options).await.unwrap();
    let (sender, receiver) = watch::channel(vec![]);
    tokio::spawn(async move {
        while let Ok(messages) = subscription.next().await {
            for message in messages {
                assert_eq!(&message.head[..], b"{}");
                for event in LogBatch::decode(&message.body).unwrap().0 {
                    let LogEvent::Attempt(event) = event else { panic!("not an attempt") };
                    sender.send_modify(|events| events.push(event));
                }
            }
        }
    });
    receiver
}

/// A rule that replies.
pub fn says(stage: RuleStage, code: u16, enhanced: &str) -> Rule {
    let text = "as the trial asks".to_owned();
    let enhanced = enhanced.parse().ok();
    Rule::new(stage, Action::Reply(posthaste_model::SmtpReply { code, enhanced, text }))
}

pub fn times(count: u32, rule: Rule) -> Rule {
    Rule { times: Some(count), ..rule }
}

pub fn to(pattern: &str, rule: Rule) -> Rule {
    Rule { pattern: Some(Pattern::new(pattern)), ..rule }
}

pub fn delay(stage: RuleStage, millis: u64) -> Rule {
    Rule::new(stage, Action::Delay(Duration::from_millis(millis)))
}

/// One domain with one host at 127.0.0.1.
pub fn one_host(domain: &str) -> Zones {
    Zones::new().mx(domain, 10, "mx.test").a("mx.test", [127, 0, 0, 1])
}

pub fn files_in(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Waits until something is so that nothing tells of.
pub async fn until(so: impl AsyncFn() -> bool) {
    let poll = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, poll).await.expect("it is so in the end");
}
