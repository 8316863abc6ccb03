//! Every class of error is an RFC 9457 problem, and leaves nothing behind.

use posthaste_api::{ApiConfig, Auth};
use posthaste_broker::{BrokerError, LinkState};
use serde_json::json;

use crate::{
    client::{Client, request},
    fake_broker::Answer,
    server::{Server, mail},
};

#[tokio::test]
async fn wrong_fields_are_named_by_pointer() {
    let server = Server::start(ApiConfig::default()).await;
    let mut bad = mail();
    bad["to"] = json!(["b@example.net", "nonsense"]);
    bad["priority"] = json!(77);
    bad["headers"] = json!({"X-A": "a\r\nBcc: x@example.net"});
    let answer = server.post(bad.to_string()).await;
    assert_eq!((answer.status, answer.problem().as_str()), (422, "invalid_submission"));
    let mut errors = answer.errors();
    errors.sort();
    let expected = [
        ("/headers/X-A", "control_character"),
        ("/priority", "out_of_range"),
        ("/to/1", "address_invalid"),
    ];
    assert_eq!(errors, expected.map(|(p, c)| (p.to_owned(), c.to_owned())));

    let answer = server.post(json!([mail(), mail(), bad]).to_string()).await;
    assert_eq!(answer.status, 422);
    assert!(answer.errors().contains(&("/2/to/1".to_owned(), "address_invalid".to_owned())));
    assert!(server.nothing_was_published());
}

#[tokio::test]
async fn what_is_not_json_is_a_bad_request_with_its_place() {
    let server = Server::start(ApiConfig::default()).await;
    let deep = "[".repeat(100_000);
    for body in [
        &b""[..],
        b"{",
        b"{\"from\": \"a@example.com\",\n oops}",
        b"{\"from\": \"\xff\"}",
        b"{} {}",
        b"from=a%40example.com",
        deep.as_bytes(),
    ] {
        let answer = server.post(body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "json_syntax"));
        assert!(answer.body.contains("at line "), "{answer:?}");
    }
    let answer = server.post(b"{\"from\": \"a@example.com\",\n oops}").await;
    assert!(answer.body.contains("at line 2 column 2"), "{answer:?}");
    let twice =
        r#"{"from": "a@example.com", "from": "b@example.com", "to": "c@example.net", "text": ""}"#;
    let answer = server.post(twice).await;
    assert_eq!(answer.errors(), [("/from".to_owned(), "duplicate_field".to_owned())]);
    assert!(server.nothing_was_published());
}

/// Method, path, headers; status and code of the answer.
type Case = (&'static str, &'static str, Vec<(&'static str, &'static str)>, u16, &'static str);

#[tokio::test]
async fn paths_methods_and_media_types() {
    let server = Server::start(ApiConfig::default()).await;
    let json = ("Content-Type", "application/json");
    let body = mail().to_string();
    let cases: Vec<Case> = vec![
        ("GET", "/", vec![], 404, "not_found"),
        ("GET", "/v2/submissions", vec![], 404, "not_found"),
        ("POST", "/v1/submissions/", vec![json], 404, "not_found"),
        ("GET", "/v1/submissions", vec![], 405, "method_not_allowed"),
        ("PUT", "/v1/submissions", vec![json], 405, "method_not_allowed"),
        ("DELETE", "/healthz", vec![], 405, "method_not_allowed"),
        ("BREW", "/v1/submissions", vec![], 405, "method_not_allowed"),
        ("POST", "/v1/submissions", vec![], 415, "unsupported_media_type"),
        (
            "POST",
            "/v1/submissions",
            vec![("Content-Type", "text/plain")],
            415,
            "unsupported_media_type",
        ),
        (
            "POST",
            "/v1/submissions",
            vec![("Content-Type", "application/jsonx")],
            415,
            "unsupported_media_type",
        ),
        ("POST", "/v1/submissions", vec![("Content-Type", "")], 415, "unsupported_media_type"),
        (
            "POST",
            "/v1/submissions",
            vec![json, ("Content-Encoding", "br")],
            415,
            "unsupported_encoding",
        ),
        ("POST", "/v1/submissions?dry_run=1", vec![json], 400, "unknown_parameter"),
        ("POST", "/v1/submissions?mode", vec![json], 400, "unknown_parameter"),
        ("POST", "/v1/submissions?mode=lenient", vec![json], 400, "parameter_invalid"),
        ("POST", "/v1/submissions?mode=strict&mode=strict", vec![json], 400, "parameter_invalid"),
    ];
    for (method, path, headers, status, code) in cases {
        let answer = server.ask(method, path, &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{method} {path}");
        if status == 405 {
            assert!(!answer.header("allow").is_empty(), "{method} {path}: {answer:?}");
        }
    }
    assert!(server.nothing_was_published());
    let headers = [("content-type", "Application/JSON; charset=utf-8")];
    assert_eq!(server.ask("POST", "/v1/submissions", &headers, body.as_bytes()).await.status, 202);
}

#[tokio::test]
async fn a_broker_that_does_not_confirm_is_503() {
    for answer in [
        Answer::Failed(BrokerError::Full("/secret/path".into())),
        Answer::Failed(BrokerError::Link("10.0.0.7:61613 refused".into())),
        Answer::RejectedAt(0),
        Answer::Hangs,
    ] {
        let server = Server::start_with(ApiConfig::default(), [answer]).await;
        let answer = server.post(mail().to_string()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|after| after > 0));
        assert!(!answer.body.contains("secret") && !answer.body.contains("10.0.0.7"), "{answer:?}");
        // The next one finds the broker well again.
        assert_eq!(server.post(mail().to_string()).await.status, 202);
    }
}

#[tokio::test]
async fn behind_a_proxy_the_client_is_whom_the_proxy_names() {
    let config = ApiConfig { behind_proxy: true, auth: Auth::Open, ..ApiConfig::default() };
    let server = Server::start(config).await;
    let post = async |forwarded: &str| {
        let headers = [("Content-Type", "application/json"), ("X-Forwarded-For", forwarded)];
        server.ask("POST", "/v1/submissions", &headers, mail().to_string().as_bytes()).await
    };
    // What the client itself put in front does not count.
    for forwarded in ["192.0.2.9", "127.0.0.1, 192.0.2.9", "127.0.0.1, 192.0.2.9:99", "unknown", ""]
    {
        let answer = post(forwarded).await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, "loopback_only"));
    }
    for forwarded in ["192.0.2.9, 127.0.0.1", "[::1]:99"] {
        assert_eq!(post(forwarded).await.status, 202, "{forwarded}");
    }
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let server = Server::start(ApiConfig::default()).await;
    assert_eq!(server.get("/healthz").await.json(), json!({"status": "alive"}));
    assert_eq!(server.get("/readyz").await.json(), json!({"status": "ready"}));
    server.broker.set_link(LinkState::Down("10.0.0.7 refused".into()));
    let answer = server.get("/readyz").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "not_ready"));
    assert_eq!(answer.errors(), [(String::new(), "broker".to_owned())]);
    assert!(!answer.body.contains("10.0.0.7"));
    server.broker.set_link(LinkState::Up);
    assert_eq!(server.get("/readyz").await.status, 200);
    server.post(mail().to_string()).await;
    server.log().await;
    server.store.close().await.unwrap();
    assert_eq!(server.get("/readyz").await.errors(), [(String::new(), "store".to_owned())]);

    server.post("{}").await;
    server.get("/etc/passwd").await;
    let metrics = server.get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        "api_requests_total{route=\"/v1/submissions\",status=\"202\"} 1",
        "api_requests_total{route=\"/v1/submissions\",status=\"422\"} 1",
        "api_requests_total{route=\"other\",status=\"404\"} 1",
        "api_submissions_accepted_total 1",
        "api_messages_accepted_total 1",
        "api_refused_total{code=\"required\"} 3",
        "api_request_duration_seconds_count{route=\"/v1/submissions\"} 2",
        "api_requests_in_flight 1",
        "# EOF",
    ] {
        assert!(metrics.body.contains(line), "{line} in {}", metrics.body);
    }
    assert!(!metrics.body.contains("passwd"));
}

#[tokio::test]
async fn one_connection_takes_many_requests() {
    let server = Server::start(ApiConfig::default()).await;
    let mut client = Client::connect(server.address).await;
    let headers = [("Content-Type", "application/json")];
    for _ in 0..3 {
        client.send(request("POST", "/v1/submissions", &headers, b"{}")).await;
        assert_eq!(client.answer().await.unwrap().status, 422);
        let body = mail().to_string();
        client.send(request("POST", "/v1/submissions", &headers, body.as_bytes())).await;
        assert_eq!(client.answer().await.unwrap().status, 202);
    }
}
