//! With the real embedded queue: what is accepted is there after a restart.

use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use posthaste_broker::{
    Broker, Credit, Delivery, QueueName, Settlement, SubscribeOptions,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_intake::{
    Accepted, Derived, Intake, IntakeConfig, Limits, Mode, Principal, Request, Source,
    SubmitOptions,
};
use posthaste_mail::compress::decompress;
use posthaste_model::{Clock, Codec, LogBatch, LogEvent, MessageHead, SystemClock};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

fn open(dir: &Path) -> Arc<EmbeddedQueue> {
    EmbeddedQueue::open(EmbeddedConfig::new(dir), Arc::new(SystemClock)).unwrap()
}

async fn submit(broker: Arc<EmbeddedQueue>, codec: Codec, body: &Value) -> Vec<Accepted> {
    let config = IntakeConfig { codec, ..IntakeConfig::new("mta.example.com") };
    let intake = Intake::new(broker, Arc::new(SystemClock), config);
    let request = Request::from_json(body.to_string().as_bytes(), &Limits::default()).unwrap();
    let source = Source { interface: "http", address: Ipv4Addr::LOCALHOST.into() };
    intake.submit(request, &Principal::default(), &source, Instant::now()).await.unwrap()
}

async fn take(broker: &EmbeddedQueue, queue: &str, count: usize) -> Vec<Delivery> {
    let options = SubscribeOptions {
        credit: Credit { messages: 1000, bytes: 1 << 30 },
        flow_messages: 1000,
        exclusive: false,
    };
    let queue = QueueName::new(queue).unwrap();
    let mut subscription = broker.subscribe(&queue, options).await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(subscription.next().await.unwrap());
    }
    taken
}

#[tokio::test]
async fn what_is_accepted_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let one = json!({"from": "a@example.com", "to": ["b@example.net", "c@example.net"],
        "bcc": "d@example.org", "subject": "S", "text": "hello"});
    let two = json!({"from": "a@example.com", "to": "b@example.net", "html": "<p>hello</p>"});
    let broker = open(dir.path());
    let accepted = submit(broker.clone(), Codec::Zstd, &json!([one, two])).await;
    // Acceptance alone must be enough: what closing writes is not needed for
    // it, but an open queue holds the lock.
    broker.close(Duration::from_secs(5)).await.unwrap();
    drop(broker);

    let broker = open(dir.path());
    let messages = take(&broker, "pool.default", 4).await;
    let mut told: Vec<_> =
        accepted.iter().flat_map(|a| &a.messages).map(|m| (m.message_id, &m.recipient)).collect();
    let heads: Vec<_> = messages.iter().map(|m| MessageHead::decode(&m.head).unwrap()).collect();
    let mut found: Vec<_> = heads.iter().map(|h| (h.message_id, &h.recipient)).collect();
    told.sort();
    found.sort();
    assert_eq!(found, told);
    for (message, head) in messages.iter().zip(&heads) {
        let content = decompress(head.codec, &message.body, head.content_size as usize).unwrap();
        assert!(String::from_utf8(content).unwrap().contains("hello"));
    }
    let mut events = 0;
    for log in take(&broker, "submission-logs", 2).await {
        for event in LogBatch::decode(&log.body).unwrap().0 {
            let LogEvent::Submission(event) = event else { panic!("not a submission") };
            assert!(accepted.iter().any(|a| a.submission_id == event.submission_id));
            events += 1;
        }
    }
    assert_eq!(events, 2);
}

#[tokio::test]
async fn a_batch_above_what_the_queue_likes_to_hold_is_taken() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path());
    // 16 MiB each when encoded again, not compressed, in one batch.
    let large = json!({"from": "a@example.com", "to": ["b@example.net", "c@example.net"],
        "text": "", "attachments": [{"content": "QUJD".repeat(4 << 20)}]});
    let accepted = submit(broker.clone(), Codec::None, &json!([large, large, large])).await;
    assert_eq!(accepted.len(), 3);
    let messages = take(&broker, "pool.default", 6).await;
    assert!(messages.iter().all(|message| message.body.len() > 16 << 20));
    broker.close(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_repetition_is_recognised_by_the_queue() {
    let dir = TempDir::new().unwrap();
    let to: Vec<_> = (0..5)
        .map(|n| json!({"email": format!("r{n}@example.net"), "substitutions": {"n": n}}))
        .collect();
    let alike = json!({"from": "a@example.com", "to": ["b@example.net", "c@example.net"],
        "text": "hello"});
    let subjects = json!({"from": "a@example.com", "to": to, "subject": "{{n}}", "text": "hello"});
    let bodies = json!({"from": "a@example.com", "to": to, "text": "hello {{n}}"});
    let list = json!([alike, subjects, bodies]).to_string();
    let derived = Some(Derived { seed: [9; 16], time: SystemClock.now() });
    let options = SubmitOptions { mode: Mode::Strict, derived };
    let source = Source { interface: "http", address: Ipv4Addr::LOCALHOST.into() };
    let mut all = Vec::new();
    // The third time after a restart.
    for round in 0..3 {
        let broker = open(dir.path());
        let config = IntakeConfig::new("mta.example.com");
        let intake = Intake::new(broker.clone(), Arc::new(SystemClock), config);
        for _ in 0..2 {
            let request = Request::from_json(list.as_bytes(), &Limits::default()).unwrap();
            let outcomes = intake
                .submit_with(request, &Principal::default(), &source, Instant::now(), &options)
                .await
                .unwrap();
            all.push(outcomes);
        }
        let pool = QueueName::new("pool.default").unwrap();
        assert_eq!(broker.depth(&pool).await.unwrap().total(), 12, "round {round}");
        let logs = QueueName::new("submission-logs").unwrap();
        assert_eq!(broker.depth(&logs).await.unwrap().total(), 3, "round {round}");
        if round == 2 {
            for message in take(&broker, "pool.default", 12).await {
                let head = MessageHead::decode(&message.head).unwrap();
                let size = head.content_size as usize;
                let content = decompress(head.codec, &message.body, size).unwrap();
                assert!(String::from_utf8(content).unwrap().contains("hello"));
            }
        }
        broker.close(Duration::from_secs(5)).await.unwrap();
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

/// What was delivered meanwhile is not in the queue any more: it is taken
/// again, whole, which is why the key itself is remembered too.
#[tokio::test]
async fn a_repetition_after_delivery_is_whole() {
    let dir = TempDir::new().unwrap();
    let broker = open(dir.path());
    let intake =
        Intake::new(broker.clone(), Arc::new(SystemClock), IntakeConfig::new("mta.example.com"));
    let body =
        json!({"from": "a@example.com", "to": ["b@example.net", "c@example.net", "d@example.net"],
        "text": "hello"})
        .to_string();
    let derived = Some(Derived { seed: [3; 16], time: SystemClock.now() });
    let options = SubmitOptions { mode: Mode::Strict, derived };
    let source = Source { interface: "http", address: Ipv4Addr::LOCALHOST.into() };
    let pool = QueueName::new("pool.default").unwrap();
    let subscribe = SubscribeOptions {
        credit: Credit { messages: 100, bytes: 1 << 30 },
        flow_messages: 100,
        exclusive: false,
    };
    // One of three is delivered, then all of them.
    for (round, settled) in [1, 3, 3].into_iter().enumerate() {
        let request = Request::from_json(body.as_bytes(), &Limits::default()).unwrap();
        intake
            .submit_with(request, &Principal::default(), &source, Instant::now(), &options)
            .await
            .unwrap();
        assert_eq!(broker.depth(&pool).await.unwrap().total(), 3, "round {round}");
        let mut subscription = broker.subscribe(&pool, subscribe).await.unwrap();
        let mut taken: Vec<Delivery> = Vec::new();
        while taken.len() < 3 {
            taken.extend(subscription.next().await.unwrap());
        }
        for message in &taken {
            let head = MessageHead::decode(&message.head).unwrap();
            let content =
                decompress(head.codec, &message.body, head.content_size as usize).unwrap();
            assert!(String::from_utf8(content).unwrap().ends_with("hello\r\n"));
        }
        let tokens = taken.iter().take(settled).map(|message| message.token).collect();
        let settlement = Settlement { tokens, publishes: Vec::new() };
        assert!(broker.settle(settlement).await.unwrap().iter().all(Result::is_ok));
    }
    broker.close(Duration::from_secs(5)).await.unwrap();
}
