//! Every wait and every size has a bound; the end is orderly.

use std::time::Duration;

use posthaste_api::{ApiConfig, ApiError};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    client::{Client, request},
    fake_broker::Answer,
    server::{Server, mail},
};

const HEAD: &str =
    "POST /v1/submissions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

fn short(milliseconds: u64) -> ApiConfig {
    let bound = Duration::from_millis(milliseconds);
    ApiConfig {
        header_timeout: bound,
        body_timeout: bound,
        write_timeout: bound,
        inflight_wait: bound,
        drain_timeout: bound,
        ..ApiConfig::default()
    }
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_read() {
    let server = Server::start(ApiConfig { body_bytes: 1000, ..ApiConfig::default() }).await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("{HEAD}Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n")).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
    assert!(client.is_closed().await);

    // One that does not say its length is refused when it is too large.
    let mut client = Client::connect(server.address).await;
    client.send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n")).await;
    client.send(format!("3e9\r\n{}\r\n", " ".repeat(1001))).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
    assert!(server.nothing_was_published());
}

#[tokio::test]
async fn a_chunked_body_is_taken() {
    let server = Server::start(ApiConfig::default()).await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n")).await;
    let body = mail().to_string();
    let (first, second) = body.split_at(20);
    for part in [first, second] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len())).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().status, 202);
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let server = Server::start(short(150)).await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("{HEAD}Content-Length: 100\r\n\r\n{{")).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.problem().as_str()), (408, "body_timeout"));
    assert!(client.is_closed().await);
    assert!(server.nothing_was_published());
}

#[tokio::test]
async fn a_trickle_does_not_buy_time() {
    let server = Server::start(short(800)).await;
    let mut client = Client::connect(server.address).await;
    client.send(format!("{HEAD}Content-Length: 100\r\n\r\n")).await;
    let started = Instant::now();
    for _ in 0..8 {
        client.send(" ").await;
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.answer().await.unwrap().status, 408);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let server = Server::start(short(150)).await;
    for sent in ["", "POST /v1/subm"] {
        let mut client = Client::connect(server.address).await;
        client.send(sent).await;
        assert!(timeout(Duration::from_secs(5), client.answer()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_cut() {
    let config =
        ApiConfig { max_connections: 1, header_timeout: Duration::from_secs(60), ..short(300) };
    let server = Server::start(config).await;
    let mut body = mail();
    body["bcc"] = (0..900).map(|n| format!("r{n}@example.net")).collect();
    let body = body.to_string();
    let mut client = Client::connect(server.address).await;
    // Some 100 KB each, until all buffers are full and the server has to wait.
    let headers = [("Content-Type", "application/json")];
    let post = request("POST", "/v1/submissions", &headers, body.as_bytes());
    let flood = async { while client.try_send(&post).await {} };
    timeout(Duration::from_secs(20), flood).await.unwrap();
    // The one slot is free again.
    let answer = timeout(Duration::from_secs(10), server.get("/healthz")).await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_body_that_ends_early_leaves_nothing_behind() {
    let server = Server::start(ApiConfig::default()).await;
    let body = mail().to_string();
    let mut client = Client::connect(server.address).await;
    // All of it is there; one byte more was announced.
    client.send(format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len() + 1)).await;
    client.finish().await;
    if let Some(answer) = client.answer().await {
        assert_eq!((answer.status, answer.problem().as_str()), (400, "body_incomplete"));
    }
    // The server still works, and took nothing.
    assert_eq!(server.get("/healthz").await.status, 200);
    assert!(server.nothing_was_published());
}

#[tokio::test]
async fn what_is_not_http_is_answered_by_closing() {
    let server = Server::start(ApiConfig::default()).await;
    let mut large = Client::connect(server.address).await;
    large.send(request("GET", "/healthz", &[("X", &"x".repeat(40_000))], b"")).await;
    assert_eq!(large.answer().await.map(|answer| answer.status), Some(431));
    let mut smtp = Client::connect(server.address).await;
    smtp.send("EHLO localhost\r\nMAIL FROM:<>\r\n\r\n").await;
    assert_eq!(smtp.answer().await.map(|answer| answer.status), Some(400));
}

#[tokio::test]
async fn connections_above_the_bound_wait_for_a_slot() {
    let config = ApiConfig { max_connections: 1, ..ApiConfig::default() };
    let server = Server::start(config).await;
    let mut first = Client::connect(server.address).await;
    first.send(request("GET", "/healthz", &[], b"")).await;
    assert_eq!(first.answer().await.unwrap().status, 200);
    let mut second = Client::connect(server.address).await;
    second.send(request("GET", "/healthz", &[], b"")).await;
    let early = timeout(Duration::from_millis(100), second.answer()).await;
    assert!(early.is_err(), "the second was served beside the first");
    drop(first);
    let mut third = Client::connect(server.address).await;
    third.send(request("GET", "/healthz", &[("Connection", "close")], b"")).await;
    drop(second);
    let answer = timeout(Duration::from_secs(5), third.answer()).await.unwrap();
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn bodies_above_the_bound_in_all_are_told_to_come_later() {
    let config = ApiConfig { body_bytes: 100_000, inflight_bytes: 100_000, ..short(150) };
    let config = ApiConfig { body_timeout: Duration::from_secs(30), ..config };
    let server = Server::start(config).await;
    let mut first = Client::connect(server.address).await;
    first.send(format!("{HEAD}Content-Length: 100000\r\n\r\n")).await;
    // The first has its room once the server has read its head: until then
    // the second is served.
    let busy = async {
        loop {
            let answer = server.post(" ".repeat(90_000)).await;
            if answer.status == 503 {
                return answer;
            }
            assert_eq!(answer.status, 400);
        }
    };
    let answer = timeout(Duration::from_secs(10), busy).await.unwrap();
    assert_eq!(answer.problem(), "unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    first.send(" ".repeat(100_000)).await;
    assert_eq!(first.answer().await.unwrap().status, 400);
    assert_eq!(server.post(mail().to_string()).await.status, 202);
}

#[tokio::test]
async fn requests_in_flight_are_finished_at_shutdown() {
    let slow = Answer::Slow(Duration::from_millis(200));
    let server = Server::start_with(ApiConfig::default(), [slow]).await;
    let mut busy = Client::connect(server.address).await;
    let body = mail().to_string();
    let headers = [("Content-Type", "application/json")];
    busy.send(request("POST", "/v1/submissions", &headers, body.as_bytes())).await;
    let mut idle = Client::connect(server.address).await;
    idle.send(request("GET", "/healthz", &[], b"")).await;
    assert_eq!(idle.answer().await.unwrap().status, 200);
    while server.nothing_was_published() {
        tokio::task::yield_now().await;
    }
    server.shutdown.cancel();
    assert_eq!(busy.answer().await.unwrap().status, 202);
    assert!(busy.is_closed().await);
    assert!(idle.is_closed().await);
    assert!(server.running.await.unwrap().is_ok());
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_finish_is_cut() {
    let server = Server::start_with(short(100), [Answer::Slow(Duration::from_secs(60))]).await;
    let mut busy = Client::connect(server.address).await;
    let body = mail().to_string();
    let headers = [("Content-Type", "application/json")];
    // Longer than the drain, shorter than the broker's bound of this server.
    busy.send(request("POST", "/v1/submissions", &headers, body.as_bytes())).await;
    while server.nothing_was_published() {
        tokio::task::yield_now().await;
    }
    server.shutdown.cancel();
    assert!(matches!(server.running.await.unwrap(), Err(ApiError::DrainTimeout(1))));
    assert!(busy.answer().await.is_none());
}
