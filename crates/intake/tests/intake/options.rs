//! Item by item, and with ids that a repetition has again.

use std::{collections::HashSet, net::Ipv4Addr, time::Duration};

use posthaste_broker::BrokerError;
use posthaste_intake::{
    Derived, Intake, IntakeError, Limits, Mode, Outcome, Principal, Request, Source, SubmitOptions,
};
use posthaste_model::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    acceptance::{NOW, intake},
    fake_broker::{Answer, FakeBroker},
};

async fn submit(
    intake: &Intake,
    body: &Value,
    options: SubmitOptions,
) -> Result<Vec<Outcome>, IntakeError> {
    let request = Request::from_json(body.to_string().as_bytes(), &Limits::default()).unwrap();
    let source = Source { interface: "http", address: Ipv4Addr::LOCALHOST.into() };
    intake.submit_with(request, &Principal::default(), &source, Instant::now(), &options).await
}

const PERMISSIVE: SubmitOptions = SubmitOptions { mode: Mode::Permissive, derived: None };

fn good() -> Value {
    json!({"from": "a@example.com", "to": ["b@example.net", "c@example.net"], "text": "hello"})
}

fn with(field: &str, value: Value) -> Value {
    let mut body = good();
    body[field] = value;
    body
}

fn pointers(outcome: &Outcome) -> Vec<String> {
    match outcome {
        Ok(_) => Vec::new(),
        Err(
            IntakeError::Invalid(errors)
            | IntakeError::Forbidden(errors)
            | IntakeError::TooLarge(errors),
        ) => errors.iter().map(|error| error.pointer.clone()).collect(),
        Err(IntakeError::Unavailable { .. }) => vec!["unavailable".to_owned()],
    }
}

#[tokio::test]
async fn permissive_takes_what_is_good() {
    let broker = FakeBroker::new([]);
    // One error in reading, one in checking, one in building, one in shape.
    let list = json!([
        with("priority", json!(10)),
        good(),
        with("schedule", json!(0)),
        with("attachments", json!([{"content": "", "content_type": "nonsense"}])),
        7,
        with("subject", json!("S")),
    ]);
    let outcomes = submit(&intake(broker.clone(), |_| {}), &list, PERMISSIVE).await.unwrap();
    let found: Vec<_> = outcomes.iter().map(pointers).collect();
    let expected: [&[&str]; 6] =
        [&["/0/priority"], &[], &["/2/schedule"], &["/3/attachments/0/content_type"], &["/4"], &[]];
    assert_eq!(found, expected);
    let batches = broker.batches();
    assert_eq!(batches.len(), 1);
    let ids: Vec<uuid::Uuid> = outcomes
        .iter()
        .flatten()
        .flat_map(|accepted| {
            let log: uuid::Uuid = accepted.submission_id.into();
            accepted.messages.iter().map(|m| m.message_id.into()).chain([log])
        })
        .collect();
    assert_eq!(batches[0].iter().map(|publish| publish.id).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn permissive_with_nothing_good_publishes_nothing() {
    let broker = FakeBroker::new([]);
    let list = json!([with("priority", json!(10)), with("priority", json!(11))]);
    let outcomes = submit(&intake(broker.clone(), |_| {}), &list, PERMISSIVE).await.unwrap();
    assert!(outcomes.iter().all(Result::is_err));
    assert!(broker.batches().is_empty());
}

#[tokio::test]
async fn what_concerns_the_whole_request_is_refused_whole() {
    for body in [json!([]), json!(5), json!(vec![good(); 1001])] {
        let broker = FakeBroker::new([]);
        let error = submit(&intake(broker.clone(), |_| {}), &body, PERMISSIVE).await.unwrap_err();
        assert!(matches!(error, IntakeError::Invalid(_)), "{error}");
        assert!(broker.batches().is_empty());
    }
}

#[tokio::test]
async fn permissive_tells_which_items_the_broker_did_not_take() {
    let list = json!([good(), with("priority", json!(10)), good(), good()]);
    let failure = Answer::Failed(BrokerError::Closed);
    let broker = FakeBroker::new([Answer::Durable, failure.clone()]);
    let single = intake(broker.clone(), |config| config.batch_bytes = 1);
    let outcomes = submit(&single, &list, PERMISSIVE).await.unwrap();
    let found: Vec<_> = outcomes.iter().map(pointers).collect();
    let expected: [&[&str]; 4] = [&[], &["/1/priority"], &["unavailable"], &["unavailable"]];
    assert_eq!(found, expected);
    assert_eq!(broker.batches().len(), 2, "what follows is not tried");

    let broker = FakeBroker::new([failure]);
    let error = submit(&intake(broker, |_| {}), &list, PERMISSIVE).await.unwrap_err();
    assert!(matches!(error, IntakeError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_repetition_has_the_same_ids_and_the_same_bytes() {
    let then = Timestamp::from_millis(NOW.as_millis() - 3_600_000);
    let options = |seed| SubmitOptions {
        mode: Mode::Permissive,
        derived: Some(Derived { seed: [seed; 16], time: then }),
    };
    // Its times have passed at the second try, which is an hour later.
    let unix = then.as_millis() / 1000;
    let list = json!([
        good(),
        with("schedule", json!(unix + 60)),
        with("priority", json!(10)),
        with("expires_at", json!(unix + 60)),
        with("substitutions", json!({"x": "1"})),
        with("delay", json!(60)),
    ]);
    let broker = FakeBroker::new([]);
    let intake = intake(broker.clone(), |_| {});
    let first = submit(&intake, &list, options(1)).await.unwrap();
    let again = submit(&intake, &list, options(1)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(first.iter().filter(|outcome| outcome.is_ok()).count(), 5);
    let batches = broker.batches();
    for (one, two) in batches[0].iter().zip(&batches[1]) {
        assert_eq!((one.id, one.due, &one.queue), (two.id, two.due, &two.queue));
        // The log tells how long the work took, which differs.
        if one.queue.as_str() != "submission-logs" {
            assert_eq!(one.head, two.head);
            assert_eq!(format!("{:?}", one.body), format!("{:?}", two.body));
        }
    }
    assert_eq!(batches[0][3].due, Some(then.plus(Duration::from_secs(60))));
    for accepted in first.iter().flatten() {
        assert_eq!(accepted.submission_id.time(), Some(then));
        assert!(accepted.messages.iter().all(|m| m.message_id.time() == Some(then)));
    }
    let other = submit(&intake, &list, options(2)).await.unwrap();
    assert_ne!(first[0], other[0]);
}

#[tokio::test]
async fn an_item_has_its_ids_whatever_became_of_others() {
    let derived = Some(Derived { seed: [1; 16], time: NOW });
    let options = SubmitOptions { mode: Mode::Permissive, derived };
    let intake = intake(FakeBroker::new([]), |_| {});
    let bad = with("priority", json!(10));
    let one = submit(&intake, &json!([good(), good()]), options).await.unwrap();
    let two = submit(&intake, &json!([bad, good()]), options).await.unwrap();
    assert_eq!(one[1], two[1]);
}

#[tokio::test]
async fn what_is_durable_already_is_accepted_whatever_the_broker_does() {
    let derived = Derived { seed: [1; 16], time: NOW };
    let options = SubmitOptions { mode: Mode::Permissive, derived: Some(derived) };
    let durable = HashSet::from([derived.submission_id(0)]);
    let list = json!([good(), good()]).to_string();
    let broker = FakeBroker::new([Answer::Failed(BrokerError::Closed)]);
    let intake = intake(broker.clone(), |_| {});
    for expected in [[true, false], [true, true]] {
        let request = Request::from_json(list.as_bytes(), &Limits::default()).unwrap();
        let source = Source { interface: "http", address: Ipv4Addr::LOCALHOST.into() };
        let outcomes = intake
            .submit_again(
                request,
                &Principal::default(),
                &source,
                Instant::now(),
                &options,
                &durable,
            )
            .await
            .unwrap();
        assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), expected);
    }
    for batch in broker.batches() {
        let first: uuid::Uuid = derived.submission_id(0).into();
        assert_eq!(batch.len(), 3);
        assert!(batch.iter().all(|publish| publish.id != first));
    }
}
