//! Every kind of bad input, as a table: what is given, and the pointer and
//! the code of what is answered. Nothing of it leaves anything behind.

use std::{net::Ipv4Addr, sync::Arc};

use crate::fake_broker::FakeBroker;
use posthaste_intake::{
    FieldError, Intake, IntakeConfig, IntakeError, Limits, Principal, Request, Source, UnknownPool,
    code,
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

fn without(field: &str) -> Value {
    let mut request = good();
    request.as_object_mut().unwrap().remove(field);
    request
}

fn attachment(field: &str, value: Value) -> Value {
    let mut one = json!({"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"});
    one[field] = value;
    with("attachments", json!([one]))
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
async fn one_thing_wrong_is_one_error_with_its_pointer() {
    let long = |n: usize| "x".repeat(n);
    let text = |body: &str| body.to_owned();
    let cases: Vec<(Value, String, &str)> = vec![
        // Shape.
        (json!(5), text(""), code::TYPE_MISMATCH),
        (json!(null), text(""), code::TYPE_MISMATCH),
        (json!("x"), text(""), code::TYPE_MISMATCH),
        (json!([]), text(""), code::REQUIRED),
        (json!([good(), 7]), text("/1"), code::TYPE_MISMATCH),
        (json!([good(), null]), text("/1"), code::TYPE_MISMATCH),
        (json!([without("text")]), text("/0"), code::REQUIRED),
        (json!([good(), good(), good(), good()]), text(""), code::TOO_MANY),
        (with("subjct", json!("x")), text("/subjct"), code::UNKNOWN_FIELD),
        (with("a/b~c", json!({"deep": [1]})), text("/a~1b~0c"), code::UNKNOWN_FIELD),
        (with("subject", json!(5)), text("/subject"), code::TYPE_MISMATCH),
        (with("text", json!(["x"])), text("/text"), code::TYPE_MISMATCH),
        (with("text", json!({"x": 1})), text("/text"), code::TYPE_MISMATCH),
        (with("html", json!(true)), text("/html"), code::TYPE_MISMATCH),
        // Addresses.
        (without("from"), text("/from"), code::REQUIRED),
        (with("from", json!(null)), text("/from"), code::REQUIRED),
        (with("from", json!([])), text("/from"), code::TYPE_MISMATCH),
        (
            with("from", json!(["a@example.com", "b@example.com"])),
            text("/from"),
            code::TYPE_MISMATCH,
        ),
        (with("from", json!("a@example.com, b@example.com")), text("/from"), code::ADDRESS_INVALID),
        (with("from", json!("nonsense")), text("/from"), code::ADDRESS_INVALID),
        (with("from", json!("")), text("/from"), code::ADDRESS_INVALID),
        (with("from", json!({"name": "A"})), text("/from/email"), code::REQUIRED),
        (with("from", json!({"email": "x"})), text("/from/email"), code::ADDRESS_INVALID),
        (with("from", json!({"email": 1})), text("/from/email"), code::TYPE_MISMATCH),
        (
            with("from", json!({"email": "a@example.com", "nme": "A"})),
            text("/from/nme"),
            code::UNKNOWN_FIELD,
        ),
        (
            with("from", json!({"email": "a@example.com", "name": 5})),
            text("/from/name"),
            code::TYPE_MISMATCH,
        ),
        (without("to"), text("/to"), code::REQUIRED),
        (with("to", json!([])), text("/to"), code::REQUIRED),
        (with("to", json!("b@")), text("/to"), code::ADDRESS_INVALID),
        (with("to", json!(["b@example.net", "b"])), text("/to/1"), code::ADDRESS_INVALID),
        (
            with("to", json!(["b@example.net", {"email": "b"}])),
            text("/to/1/email"),
            code::ADDRESS_INVALID,
        ),
        (with("to", json!([null])), text("/to/0"), code::TYPE_MISMATCH),
        (with("to", json!([["b@example.net"]])), text("/to/0"), code::TYPE_MISMATCH),
        (with("to", json!("b@[127.0.0.1]")), text("/to"), code::ADDRESS_INVALID),
        (with("to", json!("b@127.0.0.1")), text("/to"), code::ADDRESS_INVALID),
        (
            with("to", json!(format!("{}@example.net", long(65)))),
            text("/to"),
            code::ADDRESS_INVALID,
        ),
        (with("to", json!(format!("b@{}.net", long(64)))), text("/to"), code::ADDRESS_INVALID),
        (
            with("to", json!(["1@a.net", "2@a.net", "3@a.net", "4@a.net"])),
            text("/to"),
            code::TOO_MANY,
        ),
        (with("bcc", json!(["1@a.net", "2@a.net", "3@a.net"])), text("/to"), code::TOO_MANY),
        (with("return_path", json!("")), text("/return_path"), code::ADDRESS_INVALID),
        (with("return_path", json!("<>")), text("/return_path"), code::ADDRESS_INVALID),
        (with("reply_to", json!("A <a@b")), text("/reply_to"), code::ADDRESS_INVALID),
        // Content.
        (without("text"), text(""), code::REQUIRED),
        (with("text", json!("a\0b")), text("/text"), code::CONTROL_CHARACTER),
        (with("html", json!("a\0b")), text("/html"), code::CONTROL_CHARACTER),
        (with("subject", json!(long(999))), text("/subject"), code::TOO_LONG),
        (with("text", json!(long(20_001))), text(""), code::CONTENT_TOO_LARGE),
        // Header fields.
        (with("headers", json!(["X"])), text("/headers"), code::TYPE_MISMATCH),
        (with("headers", json!({"X-A": 5})), text("/headers/X-A"), code::TYPE_MISMATCH),
        (with("headers", json!({"X-A": null})), text("/headers/X-A"), code::TYPE_MISMATCH),
        (with("headers", json!({"X-A": ["ok", 5]})), text("/headers/X-A/1"), code::TYPE_MISMATCH),
        (
            with("headers", json!({"X-A": ["ok", "a\nb"]})),
            text("/headers/X-A/1"),
            code::CONTROL_CHARACTER,
        ),
        (
            with("headers", json!({"X-A": "x", "x-a": "y"})),
            text("/headers/x-a"),
            code::DUPLICATE_FIELD,
        ),
        (with("headers", json!({"X A": "x"})), text("/headers/X A"), code::HEADER_INVALID),
        (with("headers", json!({"": "x"})), text("/headers/"), code::HEADER_INVALID),
        (with("headers", json!({"X:": "x"})), text("/headers/X:"), code::HEADER_INVALID),
        (with("headers", json!({"X-Ü": "x"})), text("/headers/X-Ü"), code::HEADER_INVALID),
        (
            with("headers", json!({"bcc": "c@example.net"})),
            text("/headers/bcc"),
            code::HEADER_RESERVED,
        ),
        (
            with("headers", json!({"Message-ID": "<x@y>"})),
            text("/headers/Message-ID"),
            code::HEADER_RESERVED,
        ),
        (
            with("headers", json!({"Content-Type": "x/y"})),
            text("/headers/Content-Type"),
            code::HEADER_RESERVED,
        ),
        (with("headers", json!({"X-A": long(70_000)})), text("/headers"), code::TOO_LONG),
        // Attachments.
        (with("attachments", json!({})), text("/attachments"), code::TYPE_MISMATCH),
        (with("attachments", json!([5])), text("/attachments/0"), code::TYPE_MISMATCH),
        (with("attachments", json!([{}])), text("/attachments/0/content"), code::REQUIRED),
        (
            attachment("content", json!("aGVsbG8")),
            text("/attachments/0/content"),
            code::BASE64_INVALID,
        ),
        (
            attachment("content", json!("aGVs\nbG8=")),
            text("/attachments/0/content"),
            code::BASE64_INVALID,
        ),
        (
            attachment("content", json!("aGVsbG8= ")),
            text("/attachments/0/content"),
            code::BASE64_INVALID,
        ),
        (
            attachment("content", json!("-_-_")),
            text("/attachments/0/content"),
            code::BASE64_INVALID,
        ),
        (
            attachment("content", json!("aGVsbG9=")),
            text("/attachments/0/content"),
            code::BASE64_INVALID,
        ),
        (attachment("content", json!(5)), text("/attachments/0/content"), code::TYPE_MISMATCH),
        (
            attachment("content_type", json!("text")),
            text("/attachments/0/content_type"),
            code::ATTACHMENT_INVALID,
        ),
        (
            attachment("content_type", json!("text/plain\r\nX: y")),
            text("/attachments/0/content_type"),
            code::ATTACHMENT_INVALID,
        ),
        (
            attachment("filename", json!("")),
            text("/attachments/0/filename"),
            code::ATTACHMENT_INVALID,
        ),
        (
            attachment("filename", json!("a\r\nb")),
            text("/attachments/0/filename"),
            code::ATTACHMENT_INVALID,
        ),
        (
            attachment("filename", json!(long(300))),
            text("/attachments/0/filename"),
            code::ATTACHMENT_INVALID,
        ),
        (
            attachment("content_id", json!("a>\r\nX: y")),
            text("/attachments/0/content_id"),
            code::ATTACHMENT_INVALID,
        ),
        (attachment("data", json!("")), text("/attachments/0/data"), code::UNKNOWN_FIELD),
        // Options.
        (with("tags", json!("w47")), text("/tags"), code::TYPE_MISMATCH),
        (with("tags", json!(["ok", "two words"])), text("/tags/1"), code::TAG_INVALID),
        (with("tags", json!(["ok", ""])), text("/tags/1"), code::TAG_INVALID),
        (with("tags", json!(vec!["t"; 33])), text("/tags"), code::TOO_MANY),
        (with("pool", json!("a.b")), text("/pool"), code::POOL_INVALID),
        (with("pool", json!("gone")), text("/pool"), code::POOL_UNKNOWN),
        (with("pool", json!("other")), text("/pool"), code::POOL_NOT_ALLOWED),
        (with("priority", json!(10)), text("/priority"), code::OUT_OF_RANGE),
        (with("priority", json!(-1)), text("/priority"), code::OUT_OF_RANGE),
        (with("priority", json!(1.5)), text("/priority"), code::TYPE_MISMATCH),
        (with("priority", json!("5")), text("/priority"), code::TYPE_MISMATCH),
        (with("priority", json!(u64::MAX)), text("/priority"), code::OUT_OF_RANGE),
        (with("priority", json!(1e300)), text("/priority"), code::TYPE_MISMATCH),
        (with("delay", json!(-1)), text("/delay"), code::OUT_OF_RANGE),
        (with("delay", json!(30 * 86_400 + 1)), text("/delay"), code::OUT_OF_RANGE),
        (with("schedule", json!("tomorrow")), text("/schedule"), code::TIME_INVALID),
        (with("schedule", json!("2026-11-25T00:00:00")), text("/schedule"), code::TIME_INVALID),
        (
            with("schedule", json!("2026-11-25T00:00:00Z[UTC]")),
            text("/schedule"),
            code::TIME_INVALID,
        ),
        (with("schedule", json!("2026-13-25T00:00:00Z")), text("/schedule"), code::TIME_INVALID),
        (with("schedule", json!(i64::MAX)), text("/schedule"), code::OUT_OF_RANGE),
        (with("schedule", json!(NOW - 301)), text("/schedule"), code::SCHEDULE_IN_PAST),
        (with("schedule", json!(0)), text("/schedule"), code::SCHEDULE_IN_PAST),
        (with("schedule", json!(NOW + 367 * 86_400)), text("/schedule"), code::SCHEDULE_TOO_FAR),
        (with("schedule", json!(NOW * 100)), text("/schedule"), code::SCHEDULE_TOO_FAR),
        (with("expires_at", json!(NOW)), text("/expires_at"), code::EXPIRES_IN_PAST),
        (
            with("expires_at", json!("2020-01-01T00:00:00Z")),
            text("/expires_at"),
            code::EXPIRES_IN_PAST,
        ),
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
    ];
    assert!(cases.len() > 90);
    for (body, pointer, code) in cases {
        refused(&body.to_string(), &pointer, code).await;
    }
}

#[tokio::test]
async fn what_serde_json_cannot_write() {
    let base = good().to_string();
    let open = base.strip_suffix('}').unwrap();
    refused(&format!("{open}, \"text\": \"again\"}}"), "/text", code::DUPLICATE_FIELD).await;
    refused(
        &format!("{open}, \"headers\": {{\"X-A\": \"1\", \"X-A\": \"2\"}}}}"),
        "/headers/X-A",
        code::DUPLICATE_FIELD,
    )
    .await;
    let twice = r#"{"from": {"email": "a@example.com", "email": "b@example.com"}, "to": "b@example.net", "text": ""}"#;
    refused(twice, "/from/email", code::DUPLICATE_FIELD).await;
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

#[tokio::test]
async fn at_most_fifty_errors() {
    let mut body = good();
    for n in 0..500 {
        body[format!("unknown{n}")] = json!(1);
    }
    let (result, _) = submit(&body.to_string()).await;
    assert_eq!(errors(&result.unwrap_err()).len(), posthaste_intake::MAX_ERRORS);
}

#[tokio::test]
async fn line_breaks_can_be_put_into_no_field_of_one_line() {
    for evil in
        ["x\r\nBcc: evil@example.net", "x\nBcc: evil@example.net", "x\rBcc: y", "x\0", "x\u{85}y"]
    {
        for (body, below) in [
            (with("subject", json!(evil)), "/subject"),
            (with("from", json!({"email": "a@example.com", "name": evil})), "/from"),
            (with("from", json!(format!("{evil} <a@example.com>"))), "/from"),
            (with("to", json!([{"email": "b@example.net", "name": evil}])), "/to"),
            (with("cc", json!([format!("\"{evil}\" <b@example.net>")])), "/cc"),
            (with("to", json!(format!("b@example.net{evil}"))), "/to"),
            (with("bcc", json!(format!("{evil}@example.net"))), "/bcc"),
            (with("reply_to", json!({"email": "b@example.net", "name": evil})), "/reply_to"),
            (with("return_path", json!(format!("a{evil}@example.com"))), "/return_path"),
            (with("headers", json!({"X-A": evil})), "/headers"),
            (with("headers", json!({(evil): "x"})), "/headers"),
            (attachment("filename", json!(evil)), "/attachments"),
            (attachment("content_type", json!(format!("text/{evil}"))), "/attachments"),
            (attachment("content_id", json!(evil)), "/attachments"),
            (with("tags", json!([evil])), "/tags"),
            (with("pool", json!(evil)), "/pool"),
        ] {
            let (result, batches) = submit(&body.to_string()).await;
            let error = result.expect_err(&body.to_string());
            let found = errors(&error);
            assert!(!found.is_empty() && batches == 0, "{body}");
            assert!(found.iter().all(|e| e.pointer.starts_with(below)), "{body}: {error}");
        }
    }
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
