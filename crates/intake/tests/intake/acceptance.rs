//! What is published for a submission, and when it counts as accepted.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use crate::fake_broker::{Answer, FakeBroker};
use posthaste_broker::{Body, BrokerError, Publish};
use posthaste_intake::{
    Accepted, Intake, IntakeConfig, IntakeError, Limits, Principal, Request, Source,
};
use posthaste_mail::compress::decompress;
use posthaste_model::{
    LogBatch, LogEvent, ManualClock, MessageHead, RecipientKind, SubmissionEvent, Timestamp,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_795_536_000_000);

pub(crate) fn intake(broker: Arc<FakeBroker>, change: impl FnOnce(&mut IntakeConfig)) -> Intake {
    let mut config = IntakeConfig::new("mta.example.com");
    change(&mut config);
    Intake::new(broker, Arc::new(ManualClock::at(NOW)), config)
}

pub(crate) async fn submit(intake: &Intake, body: &Value) -> Result<Vec<Accepted>, IntakeError> {
    let request = Request::from_json(body.to_string().as_bytes(), &Limits::default()).unwrap();
    let source = Source { interface: "http", address: Ipv4Addr::LOCALHOST.into() };
    intake.submit(request, &Principal::default(), &source, Instant::now()).await
}

/// Accepts and returns what was published.
pub(crate) async fn published(body: &Value) -> Vec<Publish> {
    let broker = FakeBroker::new([]);
    submit(&intake(broker.clone(), |_| {}), body).await.unwrap();
    let mut batches = broker.batches();
    assert_eq!(batches.len(), 1, "one request is one batch");
    batches.remove(0)
}

fn mail(recipients: &Value) -> Value {
    let mut body = json!({"from": "A <a@example.com>", "subject": "S", "text": "hello"});
    for (field, value) in recipients.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

pub(crate) fn head(publish: &Publish) -> MessageHead {
    MessageHead::decode(&publish.head).unwrap()
}

pub(crate) fn content(publish: &Publish) -> Vec<u8> {
    let head = head(publish);
    let bytes = match &publish.body {
        Body::Inline(bytes) => bytes,
        Body::Shared(shared) => &shared.bytes,
        Body::Kept(_) => panic!("a kept body"),
    };
    let content = decompress(head.codec, bytes, head.content_size as usize).unwrap();
    assert_eq!(content.len(), head.content_size as usize);
    content
}

/// The wire message that a recipient gets.
pub(crate) fn wire(publish: &Publish) -> String {
    let mut bytes = head(publish).fields.into_bytes();
    bytes.extend(content(publish));
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn log(publish: &Publish) -> SubmissionEvent {
    let Body::Inline(bytes) = &publish.body else { panic!("a log that is shared") };
    let mut events = LogBatch::decode(bytes).unwrap().0;
    match (events.pop(), events.len()) {
        (Some(LogEvent::Submission(event)), 0) => event,
        _ => panic!("not one submission"),
    }
}

pub(crate) fn messages(batch: &[Publish]) -> Vec<&Publish> {
    batch.iter().filter(|publish| publish.queue.as_str().starts_with("pool.")).collect()
}

#[tokio::test]
async fn one_recipient_is_one_message_and_one_log() {
    let batch = published(&json!({
        "from": {"email": "a@example.com", "name": "A"}, "to": "B <b@Example.NET>", "subject": "S",
        "text": "hello", "tags": ["w47"], "pool": "bulk", "priority": 9,
        "return_path": "bounces@example.com", "expires_at": "2026-11-25T16:00:00+00:00",
        "headers": {"X-Any": "1"}, "reply_to": "r@example.com",
    }))
    .await;
    let [message, logged] = batch.as_slice() else { panic!("{}", batch.len()) };
    assert_eq!(message.queue.as_str(), "pool.bulk");
    assert_eq!((message.priority, message.due), (9, None));
    assert_eq!(message.flow_key.as_str(), "example.net");
    assert!(matches!(message.body, Body::Inline(_)));
    let head = head(message);
    assert_eq!(message.id, Uuid::from(head.message_id));
    assert_eq!(head.return_path.as_ref().unwrap().as_str(), "bounces@example.com");
    assert_eq!(head.recipient.as_str(), "b@example.net");
    assert_eq!(head.sender_domain.as_str(), "example.com");
    assert_eq!(head.expires_at, Some(NOW.plus(Duration::from_secs(86_400))));
    assert_eq!((head.accepted_at, head.attempts), (NOW, 0));
    assert!(!head.smtputf8 && !head.eight_bit);
    assert!(head.fields.starts_with("Received: by mta.example.com"), "{}", head.fields);
    assert!(head.fields.contains(&head.message_id.to_string()));

    let wire = wire(message);
    for field in [
        "\r\nTo: ",
        "\r\nFrom: ",
        "\r\nSubject: S\r\n",
        "\r\nX-Any: 1\r\n",
        "\r\nReply-To: ",
        "\r\nDate: Tue, 24 Nov 2026 16:00:00 +0000\r\n",
        &format!("\r\nMessage-ID: <{}@mta.example.com>\r\n", head.submission_id),
    ] {
        assert!(wire.contains(field), "{field:?} in {wire}");
    }
    assert!(wire.ends_with("hello\r\n"));

    assert_eq!(logged.queue.as_str(), "submission-logs");
    let event = log(logged);
    assert_eq!(event.submission_id, head.submission_id);
    assert_eq!(event.messages.len(), 1);
    assert_eq!(event.messages[0].message_id, head.message_id);
    assert_eq!((event.interface.as_str(), event.source_address.as_str()), ("http", "127.0.0.1"));
    assert_eq!((event.time, event.priority, event.pool.as_str()), (NOW, 9, "bulk"));
    assert_eq!(event.size, head.content_size);
    assert_eq!(event.tags, head.tags);
}

#[tokio::test]
async fn to_and_cc_are_seen_by_both_and_bcc_by_nobody() {
    let batch = published(&mail(&json!({
        "to": ["t1@example.net", "T Two <t2@example.net>"], "cc": "c@example.net",
        "bcc": ["h1@hidden.example", "H Two <h2@hidden.example>"],
    })))
    .await;
    let messages = messages(&batch);
    assert_eq!(messages.len(), 5);
    let ids: Vec<_> = messages
        .iter()
        .map(|publish| match &publish.body {
            Body::Shared(shared) => shared.id,
            _ => panic!("several recipients share one body"),
        })
        .collect();
    assert!(ids.iter().all(|id| *id == Uuid::from(head(messages[0]).submission_id)));
    for publish in &messages[..3] {
        let wire = wire(publish);
        for seen in ["t1@example.net", "t2@example.net", "Cc: <c@example.net>"] {
            assert!(wire.contains(seen), "{wire}");
        }
        assert!(!wire.contains("hidden"), "{wire}");
    }
    for (publish, (own, other)) in messages[3..].iter().zip([("h1", "h2"), ("h2", "h1")]) {
        let wire = wire(publish);
        assert!(wire.contains(&format!("{own}@hidden.example")), "{wire}");
        assert!(!wire.contains(&format!("{other}@")), "{wire}");
        assert!(!wire.contains("example.net"), "{wire}");
        assert!(!wire.contains("\r\nCc:"), "{wire}");
    }
    assert!(wire(messages[4]).contains("H Two"));
}

#[tokio::test]
async fn an_address_named_twice_is_one_message() {
    let batch = published(&mail(&json!({
        "to": ["x@example.net", "X <x@EXAMPLE.net>"], "cc": ["x@example.net", "y@example.net"],
        "bcc": ["y@example.net", "Y@example.net"],
    })))
    .await;
    let event = log(batch.last().unwrap());
    let found: Vec<_> = event.messages.iter().map(|m| (m.recipient.as_str(), m.kind)).collect();
    let expected = [
        ("x@example.net", RecipientKind::To),
        ("y@example.net", RecipientKind::Cc),
        ("Y@example.net", RecipientKind::Bcc),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn when_it_is_due() {
    let second = |s: i64| Timestamp::from_millis(NOW.as_millis() + s * 1000);
    let unix = |s: i64| json!(second(s).as_millis() / 1000);
    for (options, due) in [
        (json!({}), None),
        (json!({"delay": 0}), None),
        (json!({"delay": 60}), Some(second(60))),
        (json!({"delay": 60.0}), Some(second(60))),
        (json!({"delay": null, "schedule": unix(90)}), Some(second(90))),
        (
            json!({"schedule": "2026-11-24T17:01:00.500+01:00"}),
            Some(NOW.plus(Duration::from_millis(60_500))),
        ),
        // With both the schedule is ignored, whatever it says (UC2).
        (json!({"delay": 5, "schedule": unix(900)}), Some(second(5))),
        (json!({"delay": 0, "schedule": unix(-9000)}), None),
        // Slightly past is now.
        (json!({"schedule": unix(0)}), None),
        (json!({"schedule": unix(-300)}), None),
        (json!({"schedule": unix(366 * 86_400)}), Some(second(366 * 86_400))),
    ] {
        let mut body = mail(&json!({"to": "b@example.net"}));
        for (field, value) in options.as_object().unwrap() {
            body[field] = value.clone();
        }
        let batch = published(&body).await;
        assert_eq!(batch[0].due, due, "{options}");
        assert_eq!(batch[1].due, None, "the log does not wait");
        assert_eq!(log(&batch[1]).due_at, due);
        assert_eq!(batch[0].priority, 5, "the default");
    }
}

#[tokio::test]
async fn an_expiry_before_the_due_time_is_refused() {
    let broker = FakeBroker::new([]);
    let mut body = mail(&json!({"to": "b@example.net", "delay": 3600}));
    body["expires_at"] = json!(NOW.as_millis() / 1000 + 3600);
    let error = submit(&intake(broker.clone(), |_| {}), &body).await.unwrap_err();
    assert!(matches!(&error, IntakeError::Invalid(e) if e[0].code == "expires_before_due"));
    body["expires_at"] = json!(NOW.as_millis() / 1000 + 3601);
    submit(&intake(broker, |_| {}), &body).await.unwrap();
}

#[tokio::test]
async fn international_addresses_need_smtputf8_and_domains_do_not() {
    let cases = [
        (json!({"to": "jörg@example.net"}), true),
        (json!({"to": "j@bücher.example"}), false),
        (json!({"to": "Jörg <j@example.net>"}), false),
        (json!({"to": "j@example.net", "from": "jörg@example.com"}), true),
        (json!({"to": "j@example.net", "return_path": "jörg@example.com"}), true),
        (json!({"to": "j@example.net", "subject": "Jörg", "text": "Jörg"}), false),
    ];
    for (options, smtputf8) in cases {
        let batch = published(&mail(&options)).await;
        assert_eq!(head(&batch[0]).smtputf8, smtputf8, "{options}");
    }
    // A copy whose header shows no such address does not need it.
    let batch = published(&mail(&json!({"to": "jörg@example.net", "bcc": "h@example.net"}))).await;
    assert!(head(&batch[0]).smtputf8 && !head(&batch[1]).smtputf8);
}

#[tokio::test]
async fn a_list_is_one_batch() {
    let one = mail(&json!({"to": ["a@example.net", "b@example.net"]}));
    let batch = published(&json!([one, one, one])).await;
    assert_eq!(batch.len(), 3 * 3);
    let mut ids: Vec<_> = messages(&batch).iter().map(|publish| publish.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn a_submission_is_never_split_between_batches() {
    let broker = FakeBroker::new([]);
    let one = mail(&json!({"to": ["a@example.net", "b@example.net"]}));
    let accepted =
        submit(&intake(broker.clone(), |config| config.batch_bytes = 1), &json!([one, one, one]))
            .await
            .unwrap();
    assert_eq!(accepted.len(), 3);
    let sizes: Vec<_> = broker.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 3]);
}

#[tokio::test]
async fn large_requests_are_built_elsewhere_and_are_the_same() {
    let recipients: Vec<_> = (0..900).map(|n| format!("r{n}@example.net")).collect();
    let mut body = mail(&json!({"bcc": recipients}));
    body["text"] = json!("0123456789 ".repeat(100_000));
    let batch = published(&body).await;
    assert_eq!(batch.len(), 901);
    assert!(content(&batch[899]).len() > 1_000_000);
}

#[tokio::test]
async fn visible_recipients_are_bounded_by_what_each_of_them_sees() {
    let recipients: Vec<_> = (0..900).map(|n| format!("r{n}@example.net")).collect();
    let broker = FakeBroker::new([]);
    let intake = intake(broker.clone(), |config| config.limits.address_bytes = 1 << 20);
    let error = submit(&intake, &mail(&json!({"to": recipients}))).await.unwrap_err();
    assert!(matches!(&error, IntakeError::TooLarge(e) if e[0].code == "addresses_too_large"));
    assert!(broker.batches().is_empty());
    submit(&intake, &mail(&json!({"bcc": recipients}))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn accepted_is_not_said_before_it_is_durable() {
    let broker = FakeBroker::new([Answer::Slow(Duration::from_secs(20))]);
    let started = Instant::now();
    submit(&intake(broker, |_| {}), &mail(&json!({"to": "b@example.net"}))).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_published_again_with_its_id() {
    let broker = FakeBroker::new([Answer::UnknownAt(1), Answer::UnknownAt(0)]);
    let body = mail(&json!({"to": ["a@example.net", "b@example.net"]}));
    submit(&intake(broker.clone(), |_| {}), &body).await.unwrap();
    let batches = broker.batches();
    let ids: Vec<Vec<_>> =
        batches.iter().map(|batch| batch.iter().map(|publish| publish.id).collect()).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[1], [ids[0][1]]);
    assert_eq!(ids[2], ids[1]);
    assert_eq!(batches[2][0].queue, batches[0][1].queue);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_become_durable_is_not_accepted() {
    let table = [
        vec![Answer::UnknownAt(0); 10],
        vec![Answer::RejectedAt(0)],
        vec![Answer::RejectedAt(1)],
        vec![Answer::Hangs],
        vec![Answer::UnknownAt(1), Answer::Failed(BrokerError::Closed)],
        vec![Answer::Failed(BrokerError::Full("disk".into()))],
        vec![Answer::Failed(BrokerError::Storage("secret path".into()))],
        vec![Answer::Failed(BrokerError::Link("refused".into()))],
        vec![Answer::Failed(BrokerError::Invalid("bad".into()))],
    ];
    for answers in table {
        let broker = FakeBroker::new(answers.clone());
        let body = mail(&json!({"to": "b@example.net"}));
        let error = submit(&intake(broker.clone(), |_| {}), &body).await.unwrap_err();
        let IntakeError::Unavailable { detail, retry_after } = error else {
            panic!("{answers:?}: {error}")
        };
        assert!(retry_after > Duration::ZERO);
        assert!(!detail.contains("secret"), "{detail}");
        assert!(broker.batches().len() <= 4, "the tries are bounded");
    }
}

#[tokio::test]
async fn a_later_batch_that_fails_fails_the_request() {
    let broker = FakeBroker::new([Answer::Durable, Answer::Failed(BrokerError::Closed)]);
    let one = mail(&json!({"to": "a@example.net"}));
    let intake = intake(broker.clone(), |config| config.batch_bytes = 1);
    let error = submit(&intake, &json!([one, one, one])).await.unwrap_err();
    assert!(matches!(error, IntakeError::Unavailable { .. }));
    assert_eq!(broker.batches().len(), 2);
}

fn any_local() -> impl Strategy<Value = String> {
    "[a-z]{1,6}"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bcc_address_reaches_anybody_else(
        to in proptest::collection::vec(any_local(), 0..4),
        cc in proptest::collection::vec(any_local(), 0..4),
        bcc in proptest::collection::vec((any_local(), "[A-Za-zäö ,\"]{0,12}"), 1..5),
        html in any::<bool>(),
    ) {
        let visible = |names: &[String]| -> Vec<_> {
            names.iter().map(|name| json!(format!("{name}@visible.example"))).collect()
        };
        let hidden: Vec<_> = bcc
            .iter()
            .enumerate()
            .map(|(n, (local, name))| {
                json!({"email": format!("{local}@h{n}.secret.example"), "name": name})
            })
            .collect();
        let mut body = mail(&json!({"to": visible(&to), "cc": visible(&cc), "bcc": hidden}));
        if html {
            body["html"] = json!("<p>hello</p>");
            body["attachments"] = json!([{"filename": "a", "content": "aGVsbG8="}]);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let batch = runtime.block_on(published(&body));
        let messages = messages(&batch);
        prop_assert!(messages.len() > bcc.len() || (to.is_empty() && cc.is_empty()));
        for publish in messages {
            let own = head(publish).recipient;
            // The recipient itself apart, nothing of the head or of the wire
            // message may tell of a hidden domain.
            let seen = format!("{}\n{}", String::from_utf8_lossy(&publish.head), wire(publish));
            let rest = seen.replace(own.as_str(), "");
            prop_assert!(!rest.contains("secret.example"), "{}", rest);
        }
    }
}
