//! The same key and body are one request, whatever dies when.

use std::{path::Path, time::Duration};

use posthaste_api::{ApiConfig, Auth, Secret, Token};
use posthaste_broker::BrokerError;
use posthaste_model::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    client::{Answer, Client, request},
    fake_broker,
    node::{Node, Settings, Stop},
    server::{Server, mail},
};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const REPLAYED: &str = "idempotency-replayed";
const LEASE: Duration = Duration::from_secs(30);

/// A list of two, with three recipients in all.
fn two() -> Value {
    let mut first = mail();
    first["bcc"] = json!("c@example.org");
    json!([first, mail()])
}

/// All message ids of an answer to a list.
fn message_ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let messages = json.as_array().unwrap().iter().flat_map(|one| one["messages"].as_array());
    messages.flatten().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_repetition_gets_the_same_answer() {
    let dir = TempDir::new().unwrap();
    let node = Node::start(dir.path(), Settings::default()).await;
    let first = node.post_with_key("k", &two()).await;
    assert_eq!((first.status, first.header(REPLAYED)), (202, ""), "{first:?}");
    for hours in [0, 1, 22] {
        node.clock.advance(Duration::from_secs(hours * 3600));
        let again = node.post_with_key("k", &two()).await;
        assert_eq!((again.status, &again.body), (202, &first.body));
        assert_eq!(again.header(REPLAYED), "true");
        assert_eq!(again.header("content-type"), "application/json");
    }
    assert_eq!(node.depth("pool.default").await, 3);

    // Another body or another mode is another request.
    let other = node.post_with_key("k", &mail()).await;
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency_key_reused"));
    let headers = [JSON, ("Idempotency-Key", "k")];
    let body = two().to_string();
    let path = "/v1/submissions?mode=permissive";
    let other = node.ask("POST", path, &headers, body.as_bytes()).await;
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency_key_reused"));
    // Another key is another request, and so is none.
    assert_ne!(node.post_with_key("K", &two()).await.body, first.body);
    assert_ne!(node.post(&two()).await.body, first.body);
    assert_eq!(node.depth("pool.default").await, 9);
    // A day after the first it is forgotten.
    node.clock.advance(Duration::from_secs(3600));
    assert_ne!(node.post_with_key("k", &two()).await.body, first.body);
    assert_eq!(node.depth("pool.default").await, 12);
}

#[tokio::test]
async fn the_answer_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let node = Node::start(dir.path(), Settings::default()).await;
    let first = node.post_with_key("k", &two()).await;
    node.kill().await;
    let node = Node::start(dir.path(), Settings::default()).await;
    let again = node.post_with_key("k", &two()).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(node.depth("pool.default").await, 3);
}

/// Starts a node that stops at `stop`, sends it a request with a key, kills it
/// there, and starts it again.
async fn killed(dir: &Path, stop: Stop) -> Node {
    let node = Node::start(dir, Settings { stop, ..Settings::default() }).await;
    let mut client = Client::connect(node.address).await;
    let headers = [JSON, ("Idempotency-Key", "k")];
    client.send(request("POST", "/v1/submissions", &headers, two().to_string().as_bytes())).await;
    node.broker.stopped.notified().await;
    node.kill().await;
    let time = Settings::default().time.plus(Duration::from_secs(1));
    Node::start(dir, Settings { time, ..Settings::default() }).await
}

/// While the lease runs nobody knows that its holder is dead.
async fn refused_until_the_lease_ends(node: &Node) {
    let early = node.post_with_key("k", &two()).await;
    assert_eq!((early.status, early.problem().as_str()), (409, "idempotency_key_in_flight"));
    assert_eq!(early.header("retry-after"), "29");
    let other = node.post_with_key("k", &mail()).await;
    assert_eq!((other.status, other.problem().as_str()), (422, "idempotency_key_reused"));
    node.clock.advance(LEASE);
}

#[tokio::test]
async fn killed_before_the_messages_are_durable() {
    let dir = TempDir::new().unwrap();
    let node = killed(dir.path(), Stop::BeforePublish).await;
    assert_eq!(node.depth("pool.default").await, 0);
    refused_until_the_lease_ends(&node).await;
    let again = node.post_with_key("k", &two()).await;
    assert_eq!((again.status, again.header(REPLAYED)), (202, ""), "{again:?}");
    assert_eq!(node.depth("pool.default").await, 3);
    assert_eq!(node.post_with_key("k", &two()).await.body, again.body);
    assert_eq!(node.depth("pool.default").await, 3);
}

#[tokio::test]
async fn killed_after_the_messages_are_durable() {
    let dir = TempDir::new().unwrap();
    let node = killed(dir.path(), Stop::AfterPublish).await;
    refused_until_the_lease_ends(&node).await;
    let again = node.post_with_key("k", &two()).await;
    assert_eq!(again.status, 202, "{again:?}");
    let queued = node.consume("pool.default").await;
    let mut queued: Vec<_> = queued.iter().map(|message| message.id.to_string()).collect();
    let mut told = message_ids(&again);
    queued.sort();
    told.sort();
    assert_eq!(queued, told, "the ids that were durable are those that are told");
}

#[tokio::test]
async fn killed_and_delivered_before_the_repetition() {
    // The record of the submission is still in the queue, or in the store.
    for is_logged in [false, true] {
        let dir = TempDir::new().unwrap();
        let node = killed(dir.path(), Stop::AfterPublish).await;
        let delivered = node.consume("pool.default").await;
        if is_logged {
            node.log().await;
        }
        node.clock.advance(LEASE);
        let again = node.post_with_key("k", &two()).await;
        assert_eq!(again.status, 202, "{again:?}");
        let mut delivered: Vec<_> = delivered.iter().map(|d| d.id.to_string()).collect();
        let mut told = message_ids(&again);
        delivered.sort();
        told.sort();
        assert_eq!(delivered, told);
        assert_eq!(node.depth("pool.default").await, 0, "nothing is sent twice");
        assert_eq!(node.post_with_key("k", &two()).await.body, again.body);
    }
}

#[tokio::test]
async fn a_repetition_is_read_as_of_the_first_time() {
    let dir = TempDir::new().unwrap();
    let mut body = mail();
    let start = Settings::default().time.as_millis() / 1000;
    body["schedule"] = json!(start + 60);
    body["expires_at"] = json!(start + 120);
    let stop = Settings { stop: Stop::AfterPublish, ..Settings::default() };
    let node = Node::start(dir.path(), stop).await;
    let mut client = Client::connect(node.address).await;
    let headers = [JSON, ("Idempotency-Key", "k")];
    client.send(request("POST", "/v1/submissions", &headers, body.to_string().as_bytes())).await;
    node.broker.stopped.notified().await;
    node.kill().await;
    // An hour later its times have passed; it was accepted all the same.
    let time = Timestamp::from_millis((start + 3600) * 1000);
    let node = Node::start(dir.path(), Settings { time, ..Settings::default() }).await;
    let again = node.post_with_key("k", &body).await;
    assert_eq!(again.status, 202, "{again:?}");
    assert_eq!(node.depth("pool.default").await, 1);
}

#[tokio::test]
async fn of_two_at_once_one_is_told_to_wait() {
    let slow = fake_broker::Answer::Slow(Duration::from_millis(300));
    let server = Server::start_with(ApiConfig::default(), [slow]).await;
    let body = mail().to_string();
    let headers = [JSON, ("Idempotency-Key", "k")];
    let post = || server.ask("POST", "/v1/submissions", &headers, body.as_bytes());
    let (one, two) = tokio::join!(post(), post());
    let (taken, refused) = if one.status == 202 { (one, two) } else { (two, one) };
    assert_eq!(taken.status, 202, "{taken:?}");
    // On a machine that is busy the second may come when all is done.
    if refused.status == 202 {
        assert_eq!(refused.body, taken.body);
    } else {
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (409, "idempotency_key_in_flight")
        );
        assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|after| after > 0));
    }
    assert_eq!(post().await.body, taken.body);
    assert_eq!(server.broker.batches().len(), 1);
}

#[tokio::test]
async fn a_request_that_takes_longer_than_its_lease_keeps_it() {
    let slow = fake_broker::Answer::Slow(Duration::from_secs(5));
    let config = ApiConfig { key_lease: Duration::from_secs(3), ..ApiConfig::default() };
    let server = Server::start_slow(config, slow).await;
    let body = mail().to_string();
    let headers = [JSON, ("Idempotency-Key", "k")];
    let post = || server.ask("POST", "/v1/submissions", &headers, body.as_bytes());
    let repeat = async {
        while server.nothing_was_published() {
            sleep(Duration::from_millis(1)).await;
        }
        // Beyond the end of the lease as it was first.
        sleep(Duration::from_millis(3500)).await;
        post().await
    };
    let (first, again) = tokio::join!(post(), repeat);
    assert_eq!((first.status, again.status), (202, 409), "{first:?} {again:?}");
    assert_eq!(post().await.body, first.body);
    assert_eq!(server.broker.batches().len(), 1);
}

#[tokio::test]
async fn who_does_not_wait_finds_the_answer_later() {
    let slow = fake_broker::Answer::Slow(Duration::from_millis(200));
    let server = Server::start_with(ApiConfig::default(), [slow]).await;
    let body = mail().to_string();
    let headers = [JSON, ("Idempotency-Key", "k")];
    let mut client = Client::connect(server.address).await;
    client.send(request("POST", "/v1/submissions", &headers, body.as_bytes())).await;
    while server.nothing_was_published() {
        sleep(Duration::from_millis(1)).await;
    }
    drop(client);
    let mut again = server.ask("POST", "/v1/submissions", &headers, body.as_bytes()).await;
    while again.status == 409 {
        sleep(Duration::from_millis(10)).await;
        again = server.ask("POST", "/v1/submissions", &headers, body.as_bytes()).await;
    }
    assert_eq!((again.status, again.header(REPLAYED)), (202, "true"), "{again:?}");
    assert_eq!(server.broker.batches().len(), 1);
}

#[tokio::test]
async fn a_key_belongs_to_its_token() {
    let dir = TempDir::new().unwrap();
    let token = |name, secret| Token::new(name, Secret::new(secret), None, None);
    let auth = Auth::Tokens(vec![token("shop", "s3cret"), token("other", "0ther")]);
    let api = ApiConfig { auth, ..ApiConfig::default() };
    let node = Node::start(dir.path(), Settings { api, ..Settings::default() }).await;
    let post = async |token: &str, body: &Value| {
        let bearer = format!("Bearer {token}");
        let headers = [JSON, ("Idempotency-Key", "k"), ("Authorization", bearer.as_str())];
        node.ask("POST", "/v1/submissions", &headers, body.to_string().as_bytes()).await
    };
    let first = post("s3cret", &mail()).await;
    let second = post("0ther", &two()).await;
    assert_eq!((first.status, second.status), (202, 202));
    assert_ne!(first.body, second.body);
    assert_eq!(post("s3cret", &mail()).await.body, first.body);
    assert_eq!(post("0ther", &two()).await.body, second.body);
    assert_eq!(post("0ther", &mail()).await.status, 422);
    assert_eq!(node.depth("pool.default").await, 4);
}

#[tokio::test]
async fn what_was_refused_can_be_mended_and_sent_with_the_same_key() {
    let dir = TempDir::new().unwrap();
    let node = Node::start(dir.path(), Settings::default()).await;
    let bad = json!({"from": "a@example.com", "to": "nonsense", "text": ""});
    for _ in 0..2 {
        let refused = node.post_with_key("k", &bad).await;
        assert_eq!((refused.status, refused.problem().as_str()), (422, "invalid_submission"));
    }
    assert_eq!(node.post_with_key("k", &mail()).await.status, 202);
    assert_eq!(node.post_with_key("k", &bad).await.problem(), "idempotency_key_reused");
}

#[tokio::test]
async fn after_a_broker_that_failed_the_same_ids_are_tried() {
    let failed = fake_broker::Answer::Failed(BrokerError::Link("cut".into()));
    let server = Server::start_with(ApiConfig::default(), [failed]).await;
    let body = mail().to_string();
    let headers = [JSON, ("Idempotency-Key", "k")];
    let post = || server.ask("POST", "/v1/submissions", &headers, body.as_bytes());
    assert_eq!(post().await.status, 503);
    // At once: the lease was ended.
    assert_eq!(post().await.status, 202);
    let batches = server.broker.batches();
    let ids = |batch: usize| batches[batch].iter().map(|p| p.id).collect::<Vec<_>>();
    assert_eq!((batches.len(), ids(0)), (2, ids(1)));
}

#[tokio::test]
async fn a_large_answer_is_made_again() {
    let dir = TempDir::new().unwrap();
    let node = Node::start(dir.path(), Settings::default()).await;
    let mut body = mail();
    body["bcc"] = (0..990).map(|n| format!("r{n}@example.net")).collect();
    let first = node.post_with_key("k", &body).await;
    assert!(first.status == 202 && first.body.len() > 64 << 10, "{}", first.body.len());
    // Whether its messages are still there or not.
    for _ in 0..2 {
        let again = node.post_with_key("k", &body).await;
        assert_eq!((again.status, again.header(REPLAYED)), (202, "true"));
        assert!(again.body == first.body, "the answer differs");
        node.consume("pool.default").await;
    }
    assert_eq!(node.depth("pool.default").await, 0);
}

#[tokio::test]
async fn keys_that_cannot_be_used() {
    let server = Server::start(ApiConfig::default()).await;
    let body = mail().to_string();
    let long = "x".repeat(257);
    for keys in [&[""][..], &[&long], &["a b"], &["ü"], &["a", "b"]] {
        let mut headers = vec![JSON];
        headers.extend(keys.iter().map(|key| ("Idempotency-Key", *key)));
        let answer = server.ask("POST", "/v1/submissions", &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "idempotency_key_invalid"));
    }
    assert!(server.nothing_was_published());
    let headers = [JSON, ("Idempotency-Key", &long[1..])];
    assert_eq!(server.ask("POST", "/v1/submissions", &headers, body.as_bytes()).await.status, 202);
}
