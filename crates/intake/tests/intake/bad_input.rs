//! Every kind of bad input, as a table: what is given, and the pointer and
//! the code of what is answered. Nothing of it leaves anything behind.

use std::{net::Ipv4Addr, sync::Arc};

use crate::fake_broker::FakeBroker;
use base64::{Engine, engine::general_purpose::STANDARD};
use posthaste_intake::{
    FieldError, Intake, IntakeConfig, IntakeError, Limits, Principal, Request, Source, UnknownPool,
    bad_input, code,
};
use posthaste_model::{ManualClock, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

/// 2026-11-24T16:00:00Z
const NOW: i64 = 1_795_536_000;

fn good() -> Value {
    json!({"from": "a@example.com", "to": ["b@example.net"], "text": "hello"})
}

/// `good()` with one field set.
fn with(field: &str, value: Value) -> Value {
    let mut request = good();
    request[field] = value;
    request
}

fn raw(text: &str) -> Value {
    json!({"to": "b@example.net", "raw": STANDARD.encode(text)})
}

fn limits() -> Limits {
    Limits {
        recipients: 3,
        submissions: 3,
        messages: 5,
        content_bytes: 20_000,
        ..Limits::default()
    }
}

async fn submit(body: &str) -> (Result<usize, IntakeError>, usize) {
    let broker = FakeBroker::new([]);
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW * 1000)));
    let mut config = IntakeConfig { limits: limits(), ..IntakeConfig::new("mta.example.com") };
    config.pools.unknown = UnknownPool::Refuse;
    let intake = Intake::new(broker.clone(), clock, config);
    let request = Request::from_json(body.as_bytes(), &limits()).expect("JSON");
    let source = Source { interface: "http", address: Ipv4Addr::LOCALHOST.into() };
    let principal = Principal {
        token: Some("t".into()),
        sender_domains: Some(vec!["example.com".parse().unwrap(), "*.x.example".parse().unwrap()]),
        pools: Some(vec!["default".parse().unwrap(), "gone".parse().unwrap()]),
    };
    let result = intake.submit(request, &principal, &source, Instant::now()).await;
    (result.map(|accepted| accepted.len()), broker.batches().len())
}

fn errors(error: &IntakeError) -> &[FieldError] {
    match error {
        IntakeError::Invalid(errors)
        | IntakeError::Forbidden(errors)
        | IntakeError::TooLarge(errors) => errors,
        IntakeError::Unavailable { .. } => &[],
    }
}

async fn refused(body: &str, pointer: &str, code: &str) {
    let (result, batches) = submit(body).await;
    let error = result.expect_err(body);
    let found: Vec<_> = errors(&error).iter().map(|e| (e.pointer.as_str(), e.code)).collect();
    assert_eq!(found, [(pointer, code)], "{body:.200}\n{error}");
    assert_eq!(batches, 0, "left something behind: {body:.200}");
}

#[tokio::test]
async fn the_good_one_is_accepted() {
    assert_eq!(submit(&good().to_string()).await, (Ok(1), 1));
}

#[tokio::test]
async fn limits_pools_and_permissions() {
    let text = |body: &str| body.to_owned();
    let cases: Vec<(Value, String, &str)> = vec![
        // Limits that are not the default.
        (json!([good(), good(), good(), good()]), text(""), code::TOO_MANY),
        (
            with("to", json!(["1@a.net", "2@a.net", "3@a.net", "4@a.net"])),
            text("/to"),
            code::TOO_MANY,
        ),
        (with("bcc", json!(["1@a.net", "2@a.net", "3@a.net"])), text("/to"), code::TOO_MANY),
        (with("text", json!("x".repeat(20_001))), text(""), code::CONTENT_TOO_LARGE),
        (with("pool", json!("gone")), text("/pool"), code::POOL_UNKNOWN),
        (with("pool", json!("other")), text("/pool"), code::POOL_NOT_ALLOWED),
        (json!([good(), with("priority", json!(10))]), text("/1/priority"), code::OUT_OF_RANGE),
        // Permission.
        (with("from", json!("a@example.org")), text("/from"), code::SENDER_NOT_ALLOWED),
        (with("from", json!("a@x.example")), text("/from"), code::SENDER_NOT_ALLOWED),
        (with("from", json!("a@sub.example.com")), text("/from"), code::SENDER_NOT_ALLOWED),
        (
            with("return_path", json!("a@example.org")),
            text("/return_path"),
            code::SENDER_NOT_ALLOWED,
        ),
        (
            with("headers", json!({"sender": "A <a@example.org>"})),
            text("/headers/sender"),
            code::SENDER_NOT_ALLOWED,
        ),
        (raw("From: a@example.org\r\n\r\n"), text("/raw"), code::SENDER_NOT_ALLOWED),
        (
            raw("From: a@example.com\r\nSender: a@example.org\r\n\r\n"),
            text("/raw"),
            code::SENDER_NOT_ALLOWED,
        ),
        (
            raw(&format!("From: a@example.com\r\n\r\n{}", "x\r\n".repeat(7000))),
            text(""),
            code::CONTENT_TOO_LARGE,
        ),
    ];
    for (body, pointer, code) in cases {
        refused(&body.to_string(), &pointer, code).await;
    }
}

#[tokio::test]
async fn later_items_have_pointers_of_their_own() {
    let list = json!([good(), with("priority", json!(10)), with("to", json!(["b"]))]);
    let (result, batches) = submit(&list.to_string()).await;
    let error = result.unwrap_err();
    let pointers: Vec<_> = errors(&error).iter().map(|e| e.pointer.as_str()).collect();
    assert_eq!(pointers, ["/1/priority", "/2/to/0"]);
    assert_eq!(batches, 0, "the good first item was published");
}

#[tokio::test]
async fn one_answer_names_all_that_is_wrong() {
    let body = json!({"from": "x", "to": ["y", "b@example.net", "z"], "tags": ["a b"], "priority": 11,
        "subject": "a\nb", "frm": 1, "schedule": 5, "headers": {"X Y": "z", "Bcc": "q"}});
    let (result, _) = submit(&body.to_string()).await;
    let error = result.unwrap_err();
    let mut pointers: Vec<_> = errors(&error).iter().map(|e| e.pointer.as_str()).collect();
    pointers.sort_unstable();
    let expected = [
        "",
        "/frm",
        "/from",
        "/headers/Bcc",
        "/headers/X Y",
        "/priority",
        "/schedule",
        "/subject",
        "/tags/0",
        "/to/0",
        "/to/2",
    ];
    assert_eq!(pointers, expected);
}

#[tokio::test]
async fn an_unknown_field_names_the_nearest_known_one() {
    for (given, near) in [
        ("subjct", "subject"),
        ("Subject", "subject"),
        ("replyTo", "reply_to"),
        ("attachment", "attachments"),
        ("body_html", "html"),
        ("expiresAt", "expires_at"),
    ] {
        let (result, _) = submit(&with(given, json!("x")).to_string()).await;
        let detail = result.unwrap_err().to_string();
        // What is like nothing gets the list of all.
        assert!(detail.contains(near), "{given}: {detail}");
    }
}

#[test]
fn substitutions_of_a_whole_request_are_bounded() {
    let limits = Limits { substitution_values: 3, ..Limits::default() };
    let recipient =
        |n: usize| json!({"email": format!("r{n}@example.net"), "substitutions": {"a": 1, "b": 2}});
    for (recipients, is_refused) in [(1, false), (2, true)] {
        let one = with("to", (0..recipients).map(recipient).collect());
        // Over items too: one recipient in each.
        let many: Value = (0..recipients).map(|n| with("to", recipient(n))).collect();
        for body in [one, many] {
            let request = Request::from_json(body.to_string().as_bytes(), &limits).unwrap();
            let found = format!("{request:?}").contains("too_many");
            assert_eq!(found, is_refused, "{body}");
        }
    }
}

#[tokio::test]
async fn at_most_fifty_errors() {
    let mut body = good();
    for n in 0..500 {
        body[format!("unknown{n}")] = json!(1);
    }
    let (result, _) = submit(&body.to_string()).await;
    assert_eq!(errors(&result.unwrap_err()).len(), posthaste_intake::MAX_ERRORS);
}

/// What a case gets: status, pointer and code of its one error.
async fn answered(body: &[u8]) -> (u16, Option<String>, String, usize) {
    let broker = FakeBroker::new([]);
    let request = match Request::from_json(body, &Limits::default()) {
        Ok(request) => request,
        Err(error) => {
            assert!(error.line >= 1);
            return (400, None, "json_syntax".to_owned(), 0);
        }
    };
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(NOW * 1000)));
    let intake = Intake::new(broker.clone(), clock, IntakeConfig::new("mta.example.com"));
    let source = Source { interface: "http", address: Ipv4Addr::LOCALHOST.into() };
    let error = match intake.submit(request, &Principal::default(), &source, Instant::now()).await {
        Ok(_) => return (202, None, String::new(), broker.batches().len()),
        Err(error) => error,
    };
    let status = match error {
        IntakeError::Invalid(_) => 422,
        IntakeError::Forbidden(_) => 403,
        IntakeError::TooLarge(_) => 413,
        IntakeError::Unavailable { .. } => 503,
    };
    let found = errors(&error);
    let pointers: Vec<_> = found.iter().map(|e| e.pointer.as_str()).collect();
    let codes: Vec<_> = found.iter().map(|e| e.code).collect();
    (status, Some(pointers.join(", ")), codes.join(", "), broker.batches().len())
}

#[tokio::test]
async fn every_case_of_the_table() {
    let cases = bad_input::cases(Timestamp::from_millis(NOW * 1000));
    let mut wrong = Vec::new();
    for case in &cases {
        let expected = (case.status, case.pointer.clone(), case.code.to_owned(), 0);
        let found = answered(&case.body).await;
        if found != expected {
            wrong.push(format!("{}: {found:?}, expected {expected:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() > 350, "{}", cases.len());
    assert_eq!(answered(bad_input::good().to_string().as_bytes()).await.0, 202);
}

#[test]
fn what_is_not_json_says_where() {
    for (body, line, truncated) in [
        (&b""[..], 1, true),
        (b"{", 1, true),
        (b"{\"from\": \"a@b", 1, true),
        (b"{\n\"from\" 5}", 2, false),
        (b"{} x", 1, false),
        (b"{'from': 1}", 1, false),
        (b"{\"from\": \"\xff\"}", 1, false),
        (b"{\"\xff\": 1}", 1, false),
        (b"{\"subject\": \"\\ud800\"}", 1, false),
        (b"{\"priority\": 01}", 1, false),
        (b"{\"priority\": 1e999}", 1, false),
        (b"\xef\xbb\xbf{}", 1, false),
    ] {
        let error = Request::from_json(body, &Limits::default()).unwrap_err();
        assert_eq!((error.line, error.is_truncated), (line, truncated), "{error}");
    }
}

#[test]
fn deep_nesting_ends_the_reading_and_not_the_process() {
    for open in ["[", "{\"to\":", "{\"x\":", "{\"to\":[["] {
        let body = open.repeat(200_000);
        assert!(Request::from_json(body.as_bytes(), &Limits::default()).is_err());
    }
    // Closed properly it is JSON, and wrong at the field.
    let deep = format!("{{\"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Request::from_json(deep.as_bytes(), &Limits::default()).is_ok());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        // Neither a panic nor an endless loop is an answer.
        let read = Request::from_json(&body, &Limits::default());
        proptest::prop_assert!(read.is_ok() || read.is_err_and(|error| error.line >= 1));
    }
}
