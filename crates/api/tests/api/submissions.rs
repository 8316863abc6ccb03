//! Submitting, and asking what became of it.

use std::{sync::Arc, time::Duration};

use posthaste_api::{ApiConfig, Auth, Secret, Token};
use posthaste_model::{
    AttemptEvent, AttemptId, Clock, Disposition, EventKind, LogEvent, MessageId, Reason, SmtpReply,
    SubmissionId, SystemClock, Timestamp, TlsInfo,
};
use serde_json::{Value, json, value::RawValue};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::server::{Server, mail};

#[tokio::test]
async fn one_submission_is_answered_with_its_ids() {
    let server = Server::start(ApiConfig::default()).await;
    let mut body = mail();
    body["cc"] = json!("c@example.net");
    body["bcc"] = json!(["d@example.net"]);
    let answer = server.post(body.to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/json");
    let json = answer.json();
    let id: SubmissionId = json["id"].as_str().unwrap().parse().unwrap();
    let messages = json["messages"].as_array().unwrap();
    let kinds: Vec<_> = messages.iter().map(|m| (&m["recipient"], &m["kind"])).collect();
    let expected = [
        (&json!("b@example.net"), &json!("to")),
        (&json!("c@example.net"), &json!("cc")),
        (&json!("d@example.net"), &json!("bcc")),
    ];
    assert_eq!(kinds, expected);
    let published: Vec<_> = server.broker.batches()[0].iter().map(|p| p.id).collect();
    let told: Vec<Uuid> =
        messages.iter().map(|m| m["id"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!(published[..3], told);
    assert_eq!(published[3], Uuid::from(id));
}

#[tokio::test]
async fn a_list_is_answered_with_a_list() {
    let server = Server::start(ApiConfig::default()).await;
    let answer = server.post(json!([mail(), mail()]).to_string()).await;
    assert_eq!((answer.status, answer.json().as_array().unwrap().len()), (202, 2));
    let answer = server.post(json!([mail()]).to_string()).await;
    assert_eq!((answer.status, answer.json().as_array().unwrap().len()), (202, 1));
    assert_eq!(server.broker.batches().len(), 2);
}

#[tokio::test]
async fn a_large_submission_is_taken() {
    let server = Server::start(ApiConfig::default()).await;
    let mut body = mail();
    body["attachments"] = json!([{"filename": "a.bin", "content": "AAAA".repeat(1 << 20)}]);
    let answer = server.post(body.to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
}

pub fn attempt(submission: &Value, disposition: Disposition, time: Timestamp) -> LogEvent {
    let id = |value: &Value| value.as_str().unwrap().parse::<Uuid>().unwrap();
    LogEvent::Attempt(AttemptEvent {
        attempt_id: AttemptId::new(),
        message_id: MessageId::from(id(&submission["messages"][0]["id"])),
        submission_id: SubmissionId::from(id(&submission["id"])),
        kind: EventKind::Attempt,
        disposition,
        reason: Reason::RemoteTemporary,
        detail: None,
        started_at: time,
        time,
        length_ms: 12,
        attempt: 1,
        reply: Some(SmtpReply {
            code: 450,
            enhanced: "4.2.1".parse().ok(),
            text: "busy".to_owned(),
        }),
        recipient: "b@example.net".parse().unwrap(),
        pool: "default".parse().unwrap(),
        smtp_client: "c1".to_owned(),
        remote_host: Some("mx.example.net".to_owned()),
        remote_address: Some("192.0.2.1:25".to_owned()),
        tls: Some(TlsInfo { version: "TLSv1.3".to_owned(), cipher: "X".to_owned() }),
        next_attempt_at: Some(time.plus(Duration::from_secs(300))),
        headers: RawValue::from_string("[[\"To\",\"b\"]]".to_owned()).unwrap(),
        client: RawValue::from_string("{\"ehlo\":\"x\"}".to_owned()).unwrap(),
    })
}

#[tokio::test]
async fn the_life_of_a_message_can_be_read() {
    let server = Server::start(ApiConfig::default()).await;
    let submission = server.post(mail().to_string()).await.json();
    server.log().await;
    let now = SystemClock.now();
    let path = format!("/v1/submissions/{}", submission["id"].as_str().unwrap());

    let seen = server.get(&path).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    let seen = seen.json();
    assert_eq!(seen["messages"][0]["disposition"], "queued");
    assert_eq!(seen["messages"][0]["attempts"], json!([]));
    for (field, value) in [
        ("sender", json!("a@example.com")),
        ("subject", json!("S")),
        ("interface", json!("http")),
        ("source_address", json!("127.0.0.1")),
        ("pool", json!("default")),
        ("priority", json!(5)),
        ("tags", json!([])),
        ("token", Value::Null),
        ("due_at", Value::Null),
    ] {
        assert_eq!(seen[field], value, "{field}");
    }

    server
        .append(&[
            attempt(&submission, Disposition::Deferred, now),
            attempt(&submission, Disposition::Delivered, now.plus(Duration::from_secs(1))),
        ])
        .await;
    let seen = server.get(&path).await.json();
    let message = &seen["messages"][0];
    assert_eq!(message["disposition"], "delivered");
    let first = &message["attempts"][0];
    assert_eq!(first["disposition"], "deferred");
    assert_eq!(first["time"], now.to_string());
    assert_eq!(first["next_attempt_at"], now.plus(Duration::from_secs(300)).to_string());
    assert_eq!(first["reply"], json!({"code": 450, "enhanced": "4.2.1", "text": "busy"}));
    assert_eq!(first["tls"]["version"], "TLSv1.3");
    assert_eq!(first["headers"], json!([["To", "b"]]));
    assert_eq!(first["client"], json!({"ehlo": "x"}));
    for (field, value) in [
        ("reason", json!("remote_temporary")),
        ("length_ms", json!(12)),
        ("attempt", json!(1)),
        ("remote_host", json!("mx.example.net")),
        ("remote_address", json!("192.0.2.1:25")),
        ("smtp_client", json!("c1")),
        ("pool", json!("default")),
        ("event", json!("attempt")),
    ] {
        assert_eq!(first[field], value, "{field}");
    }

    let id = message["id"].as_str().unwrap();
    let alone = server.get(&format!("/v1/messages/{id}")).await;
    assert_eq!(alone.status, 200, "{alone:?}");
    let alone = alone.json();
    assert_eq!(alone["submission_id"], submission["id"]);
    assert_eq!(alone["attempts"], message["attempts"]);
    assert_eq!(alone["disposition"], "delivered");
}

#[tokio::test]
async fn a_young_id_is_waited_for() {
    let server = Arc::new(Server::start(ApiConfig::default()).await);
    // On a machine that is busy the store may take longer than the API waits:
    // then this round has shown nothing, and another one follows.
    for _ in 0..20 {
        let submission = server.post(mail().to_string()).await.json();
        let path = format!("/v1/submissions/{}", submission["id"].as_str().unwrap());
        let started = Instant::now();
        let asking = tokio::spawn({
            let server = Arc::clone(&server);
            async move { server.get(&path).await }
        });
        // The question is under way before the answer is there.
        sleep(Duration::from_millis(60)).await;
        let was_asked_first = !asking.is_finished();
        server.log().await;
        if started.elapsed() < Duration::from_millis(500) {
            assert!(was_asked_first);
            assert_eq!(asking.await.unwrap().status, 200);
            return;
        }
    }
    panic!("the store never wrote within half a second");
}

#[tokio::test]
async fn an_id_that_nobody_accepted_is_not_found() {
    let server = Server::start(ApiConfig::default()).await;
    for path in ["/v1/submissions", "/v1/messages"] {
        let started = Instant::now();
        let young = server.get(&format!("{path}/{}", SubmissionId::new())).await;
        assert_eq!((young.status, young.problem().as_str()), (404, "not_found"));
        assert_eq!(young.header("retry-after"), "1");
        assert!(started.elapsed() >= Duration::from_secs(1), "it was looked for in vain");
        assert!(young.body.contains("not yet indexed"), "{young:?}");

        for old in [
            "01928c5e-7d3a-7b2c-9f10-3c6f6f0a1b2c",
            "f8e1c9d0-0000-4000-8000-000000000000",
            "nonsense",
            "%ff",
            "..%2f..%2fetc",
        ] {
            let answer = server.get(&format!("{path}/{old}")).await;
            assert_eq!((answer.status, answer.problem().as_str()), (404, "not_found"), "{old}");
            assert_eq!(answer.header("retry-after"), "");
        }
    }
}

fn tokens() -> ApiConfig {
    let domains = |names: &[&str]| Some(names.iter().map(|d| d.parse().unwrap()).collect());
    let auth = Auth::Tokens(vec![
        Token::new(
            "shop",
            Secret::new("s3cret"),
            domains(&["example.com"]),
            Some(vec!["default".parse().unwrap()]),
        ),
        Token::new("other", Secret::new("0ther"), domains(&["example.org"]), None),
        Token::new("all", Secret::new("a11"), None, None),
    ]);
    ApiConfig { auth, ..ApiConfig::default() }
}

#[tokio::test]
async fn a_token_is_needed_where_tokens_are_configured() {
    let server = Server::start(tokens()).await;
    let id = SubmissionId::new();
    for (method, path) in [
        ("POST", "/v1/submissions".to_owned()),
        ("GET", format!("/v1/submissions/{id}")),
        ("GET", format!("/v1/messages/{id}")),
    ] {
        for header in ["", "Bearer wrong", "Basic czNjcmV0", "Bearer"] {
            let headers = [("Authorization", header), ("Content-Type", "application/json")];
            let answer = server.ask(method, &path, &headers, b"").await;
            assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthorized"));
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
        }
    }
    assert!(server.nothing_was_published());
}

#[tokio::test]
async fn a_token_sends_for_its_domains_and_pools_alone() {
    let server = Server::start(tokens()).await;
    let post = async |token: &str, body: Value| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        server.ask("POST", "/v1/submissions", &headers, body.to_string().as_bytes()).await
    };
    assert_eq!(post("s3cret", mail()).await.status, 202);
    let mut pooled = mail();
    pooled["pool"] = json!("bulk");
    let refused = [
        ("0ther", mail(), "/from", "sender_not_allowed"),
        ("s3cret", pooled.clone(), "/pool", "pool_not_allowed"),
    ];
    for (token, body, pointer, code) in refused {
        let answer = post(token, json!([body])).await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, "not_allowed"));
        assert_eq!(answer.errors(), [(format!("/0{pointer}"), code.to_owned())]);
    }
    assert_eq!(post("a11", pooled).await.status, 202);
    assert_eq!(server.broker.batches().len(), 2);
}

#[tokio::test]
async fn a_token_sees_what_it_could_have_sent() {
    let server = Server::start(tokens()).await;
    let ask = async |token: &str, method: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        server.ask(method, path, &headers, body.as_bytes()).await
    };
    let submission = ask("s3cret", "POST", "/v1/submissions", &mail().to_string()).await.json();
    server.log().await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for path in [
        format!("/v1/submissions/{}", text(&submission["id"])),
        format!("/v1/messages/{}", text(&submission["messages"][0]["id"])),
    ] {
        for (token, status) in [("s3cret", 200), ("a11", 200), ("0ther", 404)] {
            let answer = ask(token, "GET", &path, "").await;
            assert_eq!(answer.status, status, "{token} {path}");
        }
    }
}
