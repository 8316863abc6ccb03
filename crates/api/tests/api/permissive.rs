//! A list of which each item is accepted or refused for itself.

use posthaste_api::ApiConfig;
use posthaste_broker::BrokerError;
use serde_json::{Value, json};

use crate::{
    client::Answer,
    fake_broker,
    server::{Server, mail},
};

async fn post(server: &Server, body: &Value) -> Answer {
    let headers = [("Content-Type", "application/json")];
    let path = "/v1/submissions?mode=permissive";
    server.ask("POST", path, &headers, body.to_string().as_bytes()).await
}

fn bad() -> Value {
    json!({"from": "a@example.com", "to": ["b@example.net", "nonsense"], "text": ""})
}

#[tokio::test]
async fn each_item_has_its_result() {
    let server = Server::start(ApiConfig::default()).await;
    let answer = post(&server, &json!([mail(), bad(), 5, mail()])).await;
    assert_eq!((answer.status, answer.header("content-type")), (202, "application/json"));
    let json = answer.json();
    let results = json["results"].as_array().unwrap();
    let statuses: Vec<_> = results.iter().map(|one| one["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 422, 422, 202]);
    assert!(results[0]["id"].is_string() && results[0]["messages"][0]["id"].is_string());
    assert_ne!(results[0]["id"], results[3]["id"]);
    assert_eq!(results[1]["code"], "invalid_submission");
    assert_eq!(results[1]["errors"][0]["pointer"], "/1/to/1");
    assert_eq!(
        results[2]["errors"][0],
        json!({"pointer": "/2", "code": "type_mismatch",
        "detail": results[2]["errors"][0]["detail"]})
    );
    // Two submissions: a message and a log each.
    assert_eq!(server.broker.batches().concat().len(), 4);
    let metrics = server.get("/metrics").await.body;
    for line in
        ["api_submissions_accepted_total 2", "api_refused_total{code=\"address_invalid\"} 1"]
    {
        assert!(metrics.contains(line), "{line}");
    }
}

#[tokio::test]
async fn one_submission_has_a_result_too() {
    let server = Server::start(ApiConfig::default()).await;
    let answer = post(&server, &mail()).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["results"][0]["status"], 202);
    let answer = post(&server, &bad()).await;
    assert_eq!((answer.status, answer.problem().as_str()), (422, "nothing_accepted"));
    assert_eq!(answer.json()["results"][0]["errors"][0]["pointer"], "/to/1");
}

#[tokio::test]
async fn nothing_accepted_is_a_problem_with_results() {
    let server = Server::start(ApiConfig::default()).await;
    let answer = post(&server, &json!([bad(), bad()])).await;
    assert_eq!((answer.status, answer.problem().as_str()), (422, "nothing_accepted"));
    assert_eq!(answer.json()["results"].as_array().unwrap().len(), 2);
    // What is wrong with the request itself is said as ever.
    for (body, status, code) in [
        (json!([]), 422, "invalid_submission"),
        (json!("x"), 422, "invalid_submission"),
        (json!(vec![mail(); 1001]), 422, "invalid_submission"),
    ] {
        let answer = post(&server, &body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, code));
    }
    assert!(server.nothing_was_published());
}

#[tokio::test]
async fn a_broker_that_fails_refuses_all() {
    let failed = fake_broker::Answer::Failed(BrokerError::Link("cut".into()));
    let server = Server::start_with(ApiConfig::default(), [failed]).await;
    let answer = post(&server, &json!([mail(), bad()])).await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "unavailable"));
}
