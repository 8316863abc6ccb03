//! One request, a mail of its own for each recipient.

use posthaste_broker::Body;
use posthaste_intake::IntakeError;
use serde_json::{Value, json};

use crate::{
    acceptance::{content, head, intake, log, messages, published, submit, wire},
    fake_broker::FakeBroker,
};

fn newsletter(change: &Value) -> Value {
    let mut body = json!({
        "from": "A <a@example.com>", "subject": "Dear {{name}}",
        "to": [
            {"email": "ann@example.net", "name": "Ann", "substitutions": {"name": "Ann & <b>"}},
            {"email": "bob@example.net", "substitutions": {"name": "Jörg", "points": 7}},
            "carl@example.net",
        ],
        "substitutions": {"name": "customer", "points": "none"},
        "text": "the same for all", "html": "<p>the same</p>",
        "headers": {"X-Points": "{{points}}", "X-Same": "1"},
    });
    for (field, value) in change.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_body_that_is_the_same_is_stored_once() {
    let batch = published(&newsletter(&json!({}))).await;
    let all = messages(&batch);
    assert_eq!(all.len(), 3);
    let bodies: Vec<_> = all
        .iter()
        .map(|publish| match &publish.body {
            Body::Shared(shared) => (shared.id, shared.bytes.clone()),
            _ => panic!("not shared"),
        })
        .collect();
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
    for (publish, (to, subject, points)) in all.iter().zip([
        ("To: \"Ann\" <ann@example.net>", "Subject: Dear Ann & <b>\r\n", "X-Points: none\r\n"),
        ("To: <bob@example.net>", "Subject: =?utf-8?", "X-Points: 7\r\n"),
        ("To: <carl@example.net>", "Subject: Dear customer\r\n", "X-Points: none\r\n"),
    ]) {
        let wire = wire(publish);
        let id = head(publish).message_id;
        let own_id = format!("Message-ID: <{id}@mta.example.com>\r\n");
        for wanted in [to, subject, points, "X-Same: 1\r\n", &own_id, "the same for all"] {
            assert_eq!(wire.matches(wanted).count(), 1, "{wanted:?} in {wire}");
        }
        for field in ["\r\nTo: ", "\r\nSubject: ", "\r\nMessage-ID: ", "\r\nDate: ", "\r\nFrom: "] {
            assert_eq!(wire.matches(field).count(), 1, "{field:?} in {wire}");
        }
        assert!(!wire.contains("{{") && !wire.contains("\r\nCc"), "{wire}");
        let own = head(publish).recipient;
        for other in ["ann@", "bob@", "carl@"] {
            assert_eq!(wire.contains(other), own.as_str().starts_with(other), "{wire}");
        }
    }
    let event = log(batch.last().unwrap());
    assert_eq!((event.subject.as_str(), event.messages.len()), ("Dear {{name}}", 3));
}

#[tokio::test]
async fn a_body_that_differs_is_built_for_each() {
    let body = newsletter(&json!({
        "text": "Dear {{ name }},", "html": "<p title=\"{{name}}\">{{name}}</p>{{{name}}}",
        "attachments": [{"filename": "a.txt", "content": "aGVsbG8="}],
    }));
    let batch = published(&body).await;
    for (publish, (text, html)) in messages(&batch).into_iter().zip([
        ("Dear Ann & <b>,", "title=\"Ann &amp; &lt;b&gt;\">Ann &amp; &lt;b&gt;</p>Ann & <b>"),
        ("Dear J", "</p>J"),
        ("Dear customer,", "<p title=\"customer\">customer</p>customer"),
    ]) {
        assert!(matches!(publish.body, Body::Inline(_)));
        // Quoted-printable writes '=' and folds.
        let wire = wire(publish).replace("=\r\n", "").replace("=3D", "=");
        for wanted in [text, html, "filename=\"a.txt\"", "\r\nTo: ", "\r\nSubject: "] {
            assert_eq!(wire.matches(wanted).count(), 1, "{wanted:?} in {wire}");
        }
        let own_id = format!("\r\nMessage-ID: <{}@mta.example.com>\r\n", head(publish).message_id);
        assert!(crate::acceptance::wire(publish).contains(&own_id), "{wire}");
    }
}

#[tokio::test]
async fn without_substitutions_braces_are_text() {
    let mut body = newsletter(&json!({"to": ["ann@example.net"], "text": "{{name}} {{"}));
    body.as_object_mut().unwrap().remove("substitutions");
    let batch = published(&body).await;
    let wire = wire(messages(&batch)[0]);
    assert!(wire.contains("Subject: Dear {{name}}\r\n") && wire.contains("{{name}} {{"), "{wire}");
}

#[tokio::test]
async fn substitutions_for_all_are_enough() {
    // Also with a list that shows how nobody sees the others.
    let body =
        newsletter(&json!({"to": ["ann@example.net", "bob@example.net", "ann@example.net"]}));
    let batch = published(&body).await;
    let all = messages(&batch);
    assert_eq!(all.len(), 2, "the same address is one message");
    assert!(all.iter().all(|publish| wire(publish).contains("Subject: Dear customer\r\n")));
    assert!(!wire(all[0]).contains("bob@"));
}

#[tokio::test]
async fn values_are_not_templates() {
    let body = newsletter(&json!({
        "to": [{"email": "ann@example.net", "substitutions": {"name": "{{points}} {{"}}],
        "text": "{{name}}",
    }));
    let batch = published(&body).await;
    let wire = wire(messages(&batch)[0]);
    assert!(wire.contains("Subject: Dear {{points}} {{\r\n"), "{wire}");
    assert!(wire.contains("\r\n\r\n{{points}} {{\r\n"), "{wire}");
}

#[tokio::test]
async fn a_thousand_recipients_are_one_request() {
    let to: Vec<_> = (0..1000)
        .map(|n| json!({"email": format!("r{n}@example.net"), "substitutions": {"name": format!("R{n}")}}))
        .collect();
    let html = format!("<p>Dear {{{{name}}}}</p>{}", "<p>news of the week</p>".repeat(1000));
    for (body, is_shared) in [
        (newsletter(&json!({"to": to})), true),
        (newsletter(&json!({"to": to, "html": html})), false),
    ] {
        let batch = published(&body).await;
        let all = messages(&batch);
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|p| matches!(p.body, Body::Shared(_)) == is_shared));
        assert!(wire(all[999]).contains("Subject: Dear R999\r\n"));
        if !is_shared {
            let html = String::from_utf8(content(all[999])).unwrap();
            assert!(html.contains("<p>Dear R999</p>"));
        }
    }
}

#[tokio::test]
async fn contents_of_single_recipients_are_bounded() {
    let to: Vec<_> = (0..20).map(|n| format!("r{n}@example.net")).collect();
    let text = format!("{{{{name}}}}{}", "x".repeat(10_000));
    let body = newsletter(&json!({"to": to, "text": text, "html": null}));
    for (limit, is_taken) in [(150_000, false), (300_000, true)] {
        let broker = FakeBroker::new([]);
        let intake = intake(broker.clone(), |config| config.limits.individual_bytes = limit);
        let result = submit(&intake, &body).await;
        if is_taken {
            assert_eq!(result.unwrap().len(), 1);
        } else {
            let error = result.unwrap_err();
            assert!(
                matches!(&error, IntakeError::TooLarge(e) if e[0].code == "content_too_large"),
                "{error}"
            );
            assert!(broker.batches().is_empty());
        }
    }
    // Values make it large, where the templates alone are not.
    let large = "y".repeat(400_000);
    let body =
        newsletter(&json!({"text": "{{name}}", "substitutions": {"name": large, "points": 1},
        "subject": "S", "to": to}));
    let broker = FakeBroker::new([]);
    let limited = intake(broker.clone(), |config| config.limits.individual_bytes = 4_000_000);
    let error = submit(&limited, &body).await.unwrap_err();
    assert!(matches!(error, IntakeError::TooLarge(_)), "{error}");
    // One message above what one may have names its recipient.
    let limited = intake(broker.clone(), |config| config.limits.content_bytes = 300_000);
    let error = submit(&limited, &body).await.unwrap_err();
    assert!(matches!(&error, IntakeError::TooLarge(e) if e[0].pointer == "/to/0"), "{error}");
    assert!(broker.batches().is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_can_begin_a_header_field(
        value in "(\\PC|[\r\n\0\t:]|Bcc: |\\{\\{|=\\?){0,30}", in_body in proptest::bool::ANY,
    ) {
        let mut body = newsletter(&json!({"to": [
            {"email": "ann@example.net", "substitutions": {"name": value, "points": value}},
            "bob@example.net",
        ]}));
        if in_body {
            body["html"] = json!("<p title='{{name}}'>{{points}}</p>");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let broker = FakeBroker::new([]);
        let result = runtime.block_on(submit(&intake(broker.clone(), |_| {}), &body));
        let refused = value.contains(char::is_control);
        proptest::prop_assert_eq!(result.is_err(), refused, "{:?}", value);
        let mut known = ["Received", "To", "Message-ID", "Subject", "X-Points", "Date", "From",
            "MIME-Version", "X-Same", "Content-Type"].map(str::to_owned).to_vec();
        known.sort();
        for publish in broker.batches().iter().flatten().filter(|p| p.queue.as_str() != "submission-logs") {
            let wire = wire(publish);
            let header = wire.split("\r\n\r\n").next().unwrap();
            let mut names: Vec<_> = header
                .split("\r\n")
                .filter(|line| !line.starts_with([' ', '\t']))
                .map(|line| line.split(':').next().unwrap().to_owned())
                .collect();
            names.sort();
            proptest::prop_assert_eq!(&names, &known, "{}", header);
            let html = wire.replace("=\r\n", "").replace("=3D", "=");
            if in_body && value.is_ascii() {
                proptest::prop_assert_eq!(html.matches("<p title='").count(), 1);
                let inner = html.split("<p title='").nth(1).unwrap();
                let title = inner.split('\'').next().unwrap();
                proptest::prop_assert!(inner[title.len()..].starts_with("'>"), "{}", html);
            }
        }
    }
}
