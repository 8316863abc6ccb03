//! The description says what the API does: every route, every field.

use std::collections::BTreeSet;

use posthaste_api::ApiConfig;
use serde_json::{Value, json};

use crate::{
    server::{Server, mail},
    submissions::attempt,
};

async fn description(server: &Server) -> Value {
    let answer = server.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    answer.json()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().cloned().collect()
}

/// The keys of the properties of a schema and of all that it may be.
fn properties(document: &Value, name: &str) -> BTreeSet<String> {
    let schema = &document["components"]["schemas"][name];
    let mut found = BTreeSet::new();
    if schema["properties"].is_object() {
        found.extend(keys(&schema["properties"]));
    }
    for one in schema["anyOf"].as_array().into_iter().flatten() {
        if let Some(reference) = one["$ref"].as_str() {
            found.extend(properties(document, reference.rsplit('/').next().unwrap()));
        } else if one["properties"].is_object() {
            found.extend(keys(&one["properties"]));
        }
    }
    found
}

#[tokio::test]
async fn every_field_of_a_submission_is_described() {
    let server = Server::start(ApiConfig::default()).await;
    let document = description(&server).await;
    // Who names a field that nobody knows is told those that are known.
    for (body, pointer, name) in [
        (json!({"ßß": 1}), "/ßß", "Submission"),
        (json!({"to": [{"ßß": 1}]}), "/to/0/ßß", "Addressee"),
        (json!({"from": {"ßß": 1}}), "/from/ßß", "Mailbox"),
        (json!({"attachments": [{"ßß": 1}]}), "/attachments/0/ßß", "Attachment"),
    ] {
        let answer = server.post(body.to_string()).await.json();
        let errors = answer["errors"].as_array().unwrap();
        let unknown = errors.iter().find(|error| error["pointer"] == pointer).unwrap();
        let known = unknown["detail"].as_str().unwrap().split("known are ").nth(1).unwrap();
        let known: BTreeSet<_> = known.split(", ").map(str::to_owned).collect();
        assert_eq!(properties(&document, name), known, "{name}");
    }
}

/// Checks that a value has the fields of its schema, all and no others.
fn same_fields(document: &Value, name: &str, value: &Value, optional: &[&str]) {
    let mut expected = properties(document, name);
    for field in optional {
        assert!(expected.remove(*field), "{name} has no {field}");
    }
    assert_eq!(keys(value), expected, "{name}");
}

#[tokio::test]
async fn every_field_of_an_answer_is_described() {
    let server = Server::start(ApiConfig::default()).await;
    let document = description(&server).await;
    let accepted = server.post(mail().to_string()).await.json();
    same_fields(&document, "Accepted", &accepted, &[]);
    same_fields(&document, "AcceptedRecipient", &accepted["messages"][0], &[]);
    server.log().await;
    server.append(&[attempt(&accepted, posthaste_model::Disposition::Deferred, now())]).await;
    let path = format!("/v1/submissions/{}", accepted["id"].as_str().unwrap());
    let state = server.get(&path).await.json();
    same_fields(&document, "SubmissionState", &state, &[]);
    let message = &state["messages"][0];
    same_fields(&document, "Message", message, &["submission_id"]);
    let attempt = &message["attempts"][0];
    same_fields(&document, "Attempt", attempt, &[]);
    let schema = &document["components"]["schemas"]["Attempt"]["properties"];
    for field in ["reply", "tls"] {
        assert_eq!(keys(&schema[field]["anyOf"][0]["properties"]), keys(&attempt[field]));
    }
    let path = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    same_fields(&document, "Message", &server.get(&path).await.json(), &[]);
    let pools = server.get("/v1/pools").await.json();
    same_fields(&document, "Pools", &pools, &[]);
    same_fields(&document, "Pool", &pools["pools"][0], &[]);
    let problem = server.post("{}").await.json();
    same_fields(&document, "Problem", &problem, &["results"]);
    same_fields(&document, "FieldError", &problem["errors"][0], &[]);
    let headers = [("Content-Type", "application/json")];
    let body = json!([mail(), {}]).to_string();
    let path = "/v1/submissions?mode=permissive";
    let answer = server.ask("POST", path, &headers, body.as_bytes()).await.json();
    same_fields(&document, "Results", &answer, &[]);
    same_fields(&document, "ItemAccepted", &answer["results"][0], &[]);
    same_fields(&document, "ItemRefused", &answer["results"][1], &[]);
    // Every word that a message can be described with.
    let words = |name: &str| document["components"]["schemas"][name]["enum"].clone();
    let reasons: Vec<_> = posthaste_model::Reason::ALL.iter().map(|r| r.as_str()).collect();
    assert_eq!(words("Reason"), json!(reasons));
}

fn now() -> posthaste_model::Timestamp {
    posthaste_model::Clock::now(&posthaste_model::SystemClock)
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let server = Server::start(ApiConfig::default()).await;
    let document = description(&server).await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut left = vec![&document];
    let mut seen = 0;
    while let Some(value) = left.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    seen += 1;
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                left.extend(fields.values());
            }
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    assert!(seen > 50, "{seen} references");
}

#[tokio::test]
async fn the_reader_needs_no_network() {
    let server = Server::start(ApiConfig::default()).await;
    let page = server.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    for remote in ["http:", "https:", "src=", "//cdn", "@import", "url("] {
        assert!(!page.body.contains(remote), "{remote}");
    }
    assert!(page.body.contains("fetch(\"openapi.json\")"));
}
