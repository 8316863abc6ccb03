//! Shutdowns, crashes, and what the journal makes of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use posthaste_delivery::journal::{Final, Next, Start};
use posthaste_delivery::{Journal, journal};
use posthaste_model::{AttemptId, Clock, Disposition, MessageHead, Reason, SystemClock, Timestamp};
use posthaste_trial::sink::{Action, Rule, RuleStage};

use crate::stage::{Stage, delay, files_in, one_host, until};

fn started(head: &MessageHead) -> Start {
    Start {
        attempt_id: AttemptId::new(),
        message_id: head.message_id,
        submission_id: head.submission_id,
        recipient: head.recipient.clone(),
        pool: head.pool.clone(),
        smtp_client: "before".into(),
        number: head.attempts + 1,
        time: SystemClock.now(),
    }
}

/// What a process wrote that was killed before it settled.
fn ended(start: &Start, next: Next) -> Final {
    let event = serde_json::json!({"attempt": {
        "attempt_id": start.attempt_id,
        "message_id": start.message_id,
        "submission_id": start.submission_id,
        "kind": "attempt",
        "disposition": if next == Next::Acknowledge { "delivered" } else { "deferred" },
        "reason": if next == Next::Acknowledge { "accepted" } else { "timeout" },
        "started_at": start.time,
        "time": start.time,
        "length_ms": 1,
        "attempt": start.number,
        "recipient": start.recipient,
        "pool": start.pool,
        "smtp_client": start.smtp_client,
        "headers": [],
        "client": {},
    }});
    Final {
        attempt_id: start.attempt_id,
        message_id: start.message_id,
        number: start.number,
        time: start.time,
        event: format!("{event}\n").into(),
        next,
    }
}

#[tokio::test]
async fn what_the_journal_knows_to_be_delivered_is_not_delivered_again() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let sink = stage.sink("127.0.0.1", vec![]).await;
    let head = stage.head("b@a.test");
    let id = stage.send_head(&head).await;
    let start = started(&head);
    {
        let (journal, _) = Journal::open(&stage.journal_dir()).unwrap();
        journal.start(&start).unwrap();
        journal.finish(&ended(&start, Next::Acknowledge)).unwrap();
    }
    let running = stage.start();
    let event = stage.event_of(id).await;
    assert_eq!((event.attempt_id, event.disposition), (start.attempt_id, Disposition::Delivered));
    stage.stop(running).await;
    assert_eq!(stage.depth().await.total(), 0);
    assert_eq!(sink.sink.stats().connections, 0);
    let left = journal::read(&stage.journal_dir()).unwrap();
    assert!(left.iter().all(|attempt| attempt.is_settled), "{left:?}");
}

#[tokio::test]
async fn a_deferral_in_the_journal_is_settled_as_it_was_meant() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    let head = stage.head("b@a.test");
    let id = stage.send_head(&head).await;
    let start = started(&head);
    let due = SystemClock.now().plus(Duration::from_millis(400));
    let next = MessageHead { attempts: 1, first_attempt_at: Some(start.time), ..head };
    {
        let (journal, _) = Journal::open(&stage.journal_dir()).unwrap();
        let next = Next::Defer { due, head: next.encode().into() };
        journal.finish(&ended(&start, next)).unwrap();
    }
    let running = stage.start();
    assert!(sink.next().await.time >= due);
    let events = stage.events_of(id, 2).await;
    assert_eq!((events[0].attempt_id, events[0].attempt), (start.attempt_id, 1));
    assert_eq!((events[1].disposition, events[1].attempt), (Disposition::Delivered, 2));
    stage.stop(running).await;
    assert_eq!(sink.accepted(), 1);
}

#[tokio::test]
async fn an_interrupted_attempt_is_logged_and_made_again() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    let head = stage.head("b@a.test");
    let id = stage.send_head(&head).await;
    let start = started(&head);
    {
        let (journal, _) = Journal::open(&stage.journal_dir()).unwrap();
        journal.start(&start).unwrap();
    }
    for _ in 0..2 {
        let running = stage.start();
        let events = stage.events_of(id, 2).await;
        assert_eq!(events[0].attempt_id, start.attempt_id);
        assert_eq!(
            (events[0].disposition, events[0].reason, events[0].attempt),
            (Disposition::Deferred, Reason::Interrupted, 0)
        );
        assert_eq!((events[1].disposition, events[1].attempt), (Disposition::Delivered, 1));
        stage.stop(running).await;
        // Nor is it reported at the next start.
        assert_eq!(stage.events().len(), 2);
    }
    sink.next().await;
    assert_eq!(sink.accepted(), 1);
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_loses_nothing() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![delay(RuleStage::EndOfData, 100)]).await;
    stage.config.domain_concurrency = 3;
    let running = stage.start();
    let mut ids = vec![];
    for n in 0..30 {
        ids.push(stage.send(&format!("{n}@a.test")).await);
    }
    sink.next().await;
    stage.stop(running).await;
    let depth = stage.depth().await;
    assert_eq!(depth.unacknowledged, 0);
    assert_eq!(depth.total() + sink.accepted(), 30);
    assert!(depth.total() > 0, "the drain did not stop");

    let running = stage.start();
    let events = stage.events_until(|events| events.len() >= 30).await;
    stage.stop(running).await;
    assert!(events.iter().all(|event| event.disposition == Disposition::Delivered));
    let mut delivered: Vec<_> = events.iter().map(|event| event.message_id).collect();
    delivered.sort();
    assert_eq!(delivered, ids);
    assert_eq!(sink.accepted(), 30);
    assert_eq!(stage.depth().await.total(), 0);
}

#[tokio::test]
async fn a_drain_has_a_bound_and_what_it_cuts_off_is_interrupted() {
    for same_process in [false, true] {
        let mut stage = Stage::new(one_host("a.test")).await;
        let silent = Rule::new(RuleStage::EndOfData, Action::Silence);
        let sink = stage.sink("127.0.0.1", vec![silent]).await;
        stage.config.drain_timeout = Duration::from_millis(100);
        let running = stage.start();
        let id = stage.send("b@a.test").await;
        until(async || sink.sink.stats().open == 1).await;
        if same_process {
            running.stop().await;
        } else {
            stage.stop(running).await;
        }
        assert_eq!(stage.depth().await.total(), 1);

        sink.sink.stop().await;
        let mut sink = stage.sink("127.0.0.1", vec![]).await;
        let running = stage.start();
        sink.next().await;
        let events = stage.events_of(id, 2).await;
        assert_eq!((events[0].reason, events[0].attempt), (Reason::Interrupted, 0));
        assert_eq!((events[1].disposition, events[1].attempt), (Disposition::Delivered, 1));
        stage.stop(running).await;
    }
}

#[tokio::test]
async fn the_age_limit_counts_from_the_first_attempt() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let sink = stage.sink("127.0.0.1", vec![]).await;
    stage.config.max_age = Some(Duration::from_secs(60));
    let running = stage.start();
    let mut old = stage.head("old@a.test");
    old.attempts = 1;
    old.first_attempt_at = Some(Timestamp::from_millis(SystemClock.now().as_millis() - 61_000));
    let id = stage.send_head(&old).await;
    let event = stage.event_of(id).await;
    assert_eq!((event.reason, event.attempt), (Reason::Expired, 0));
    // Accepted long ago, never attempted.
    let waited = stage.send("new@a.test").await;
    assert_eq!(stage.event_of(waited).await.disposition, Disposition::Delivered);
    stage.stop(running).await;
    assert_eq!(sink.accepted(), 1);
    assert!(files_in(&stage.journal_dir()) <= 3);
}

#[tokio::test]
async fn what_another_client_of_the_process_attempts_waits() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    let running = stage.start();
    let journal = stage.journal.clone().unwrap();
    let head = stage.head("first@a.test");
    let start = started(&head);
    journal.start(&start).unwrap();
    stage.send_head(&head).await;
    stage.send("second@a.test").await;
    assert_eq!(sink.next().await.recipients, ["second@a.test"]);
    journal.abandon(start);
    assert_eq!(sink.next().await.recipients, ["first@a.test"]);
    drop(journal);
    stage.stop(running).await;
}

/// A clock that panics once, at the call that it is told to.
struct Panicking(AtomicU32);

impl Clock for Panicking {
    fn now(&self) -> Timestamp {
        assert!(self.0.fetch_sub(1, Ordering::SeqCst) != 1, "as the test asks");
        SystemClock.now()
    }
}

#[tokio::test]
async fn a_fault_of_the_program_costs_an_attempt_and_no_message() {
    // Before the attempt has begun, and after the server has the message.
    for (call, accepted) in [(1, 1), (2, 2)] {
        let mut stage = Stage::new(one_host("a.test")).await;
        let sink = stage.sink("127.0.0.1", vec![]).await;
        stage.clock = Arc::new(Panicking(AtomicU32::new(call)));
        let running = stage.start();
        let id = stage.send("b@a.test").await;
        let events = stage.events_of(id, 2).await;
        let ends: Vec<_> = events.iter().map(|e| (e.disposition, e.reason, e.attempt)).collect();
        assert_eq!(
            ends,
            [
                (Disposition::Deferred, Reason::Interrupted, 1),
                (Disposition::Delivered, Reason::Accepted, 2)
            ]
        );
        assert_eq!(stage.journal.as_ref().unwrap().interrupted(), []);
        stage.stop(running).await;
        assert_eq!((stage.depth().await.total(), sink.accepted()), (0, accepted));
    }
}
