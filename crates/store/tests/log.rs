//! What is appended can be read, once, whatever the order and the repetition.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may, as the test")]

mod support;

use std::{os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use posthaste_model::{
    Disposition::{Deferred, Delivered, Queued, Undeliverable},
    LogBatch, LogEvent, MessageId, SubmissionId,
};
use posthaste_store::{Period, Store, StoreError};
use sqlx::Connection;
use support::{at, attempt, count, delivered, files, open, submission};
use tempfile::tempdir;

const FILE: &str = "logs-2026-11.db";

/// As JSON: the events hold raw JSON, which cannot be compared.
fn json(events: Vec<LogEvent>) -> String {
    String::from_utf8(LogBatch(events).encode()).unwrap()
}

#[tokio::test]
async fn every_column_reads_back() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), Period::Monthly).await;
    let time = at("2026-11-24T10:00:00Z");
    for n in 0..6 {
        let disposition = [Deferred, Delivered, Undeliverable][usize::try_from(n % 3).unwrap()];
        let submitted = submission(time, n, 3);
        let tried = attempt(&submitted, 1, at("2026-11-24T10:00:01Z"), n, disposition);
        let events =
            vec![LogEvent::Submission(submitted.clone()), LogEvent::Attempt(tried.clone())];
        assert_eq!(store.append(&events).await.unwrap(), 2);

        let view = store.submission(submitted.submission_id).await.unwrap().unwrap();
        assert_eq!(view.submission, submitted);
        let dispositions: Vec<_> = view.messages.iter().map(|it| it.disposition).collect();
        assert_eq!(dispositions, [Queued, disposition, Queued]);
        let wanted = json(vec![LogEvent::Attempt(tried)]);
        assert_eq!(json(vec![LogEvent::Attempt(view.messages[1].attempts[0].clone())]), wanted);

        let message_id = submitted.messages[1].message_id;
        let (submission_id, view) = store.message(message_id).await.unwrap().unwrap();
        assert_eq!(submission_id, submitted.submission_id);
        assert_eq!(view.message, submitted.messages[1]);
        assert_eq!(json(vec![LogEvent::Attempt(view.attempts[0].clone())]), wanted);
        assert_eq!(view.attempts.len(), 1);
    }
    assert_eq!(count(dir.path(), FILE, "SELECT count(*) FROM clients").await, 2);
}

#[tokio::test]
async fn what_is_not_there() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), Period::Monthly).await;
    assert_eq!(store.append(&[]).await.unwrap(), 0);
    assert!(files(dir.path()).is_empty());
    let submitted = submission(at("2026-11-24T10:00:00Z"), 1, 1);
    let tried = attempt(&submitted, 0, submitted.time, 2, Delivered);
    assert_eq!(store.append(&[LogEvent::Attempt(tried)]).await.unwrap(), 1);
    // The attempt overtook its submission.
    assert!(store.submission(submitted.submission_id).await.unwrap().is_none());
    assert!(store.message(submitted.messages[0].message_id).await.unwrap().is_none());
    store.append(&[LogEvent::Submission(submitted.clone())]).await.unwrap();
    let view = store.submission(submitted.submission_id).await.unwrap().unwrap();
    assert_eq!(view.messages[0].disposition, Delivered);
    assert!(store.submission(SubmissionId::new()).await.unwrap().is_none());
    assert!(store.message(MessageId::from_bytes([0; 16])).await.unwrap().is_none());
}

#[tokio::test]
async fn a_repeated_event_is_written_once() {
    let dir = tempdir().unwrap();
    let events = delivered(at("2026-11-24T10:00:00Z"), 150);
    {
        let store = open(dir.path(), Period::Monthly).await;
        assert_eq!(store.append(&events[..200]).await.unwrap(), 200);
        assert_eq!(store.append(&events[..200]).await.unwrap(), 0);
        assert_eq!(store.append(&events[100..]).await.unwrap(), 100);
        let twice = [&events[..10], &events[..10]].concat();
        assert_eq!(store.append(&twice).await.unwrap(), 0);
        // Dropped without a close, as when the process is killed.
    }
    let store = open(dir.path(), Period::Monthly).await;
    assert_eq!(store.append(&events).await.unwrap(), 0);
    store.close().await.unwrap();
    assert_eq!(count(dir.path(), FILE, "SELECT count(*) FROM events").await, 150);
    assert_eq!(count(dir.path(), FILE, "SELECT count(*) FROM submissions").await, 150);
    assert_eq!(count(dir.path(), FILE, "SELECT count(*) FROM messages").await, 150);
}

#[tokio::test]
async fn the_latest_event_decides_in_whatever_order_they_come() {
    let submitted = submission(at("2026-11-30T23:59:00Z"), 1, 2);
    let first = attempt(&submitted, 0, at("2026-11-30T23:59:30Z"), 10, Deferred);
    let second = attempt(&submitted, 0, at("2026-12-01T00:10:00Z"), 11, Delivered);
    // What a bounce will be: later, in a later period.
    let late = attempt(&submitted, 0, at("2027-02-01T00:00:00Z"), 12, Undeliverable);
    // In the same millisecond the id decides.
    let tie = attempt(&submitted, 0, at("2027-02-01T00:00:00Z"), 13, Delivered);
    let other = attempt(&submitted, 1, at("2026-12-05T00:00:00Z"), 14, Undeliverable);
    let all = [first, second, late, tie, other].map(LogEvent::Attempt);
    for (order, wanted) in [
        (vec![], Queued),
        (vec![0], Deferred),
        (vec![1, 0], Delivered),
        (vec![2, 0, 1], Undeliverable),
        (vec![3, 2, 4, 1, 0], Delivered),
        (vec![0, 4, 1, 2, 3], Delivered),
    ] {
        let dir = tempdir().unwrap();
        let store = open(dir.path(), Period::Monthly).await;
        for i in &order {
            store.append(&all[*i..=*i]).await.unwrap();
        }
        store.append(&[LogEvent::Submission(submitted.clone())]).await.unwrap();
        let view = store.submission(submitted.submission_id).await.unwrap().unwrap();
        assert_eq!(view.messages[0].disposition, wanted, "{order:?}");
        let other = if order.contains(&4) { Undeliverable } else { Queued };
        assert_eq!(view.messages[1].disposition, other, "{order:?}");
        let times: Vec<_> = view.messages[0].attempts.iter().map(|it| it.time).collect();
        assert!(times.is_sorted(), "{order:?}");
        assert_eq!(times.len(), order.iter().filter(|i| **i != 4).count());
        let (_, message) = store.message(submitted.messages[0].message_id).await.unwrap().unwrap();
        assert_eq!(message.disposition, wanted, "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_from_several_tasks_at_once() {
    let dir = tempdir().unwrap();
    let store = Arc::new(open(dir.path(), Period::Daily).await);
    // The batches overlap by half, and span two days.
    let events = Arc::new(delivered(at("2026-11-24T23:59:59.800Z"), 400));
    let tasks: Vec<_> = (0..7)
        .map(|i| {
            let (store, events) = (Arc::clone(&store), Arc::clone(&events));
            tokio::spawn(
                async move { store.append(&events[i * 100..i * 100 + 200]).await.unwrap() },
            )
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += task.await.unwrap();
    }
    assert_eq!(new, 800);
    assert_eq!(files(dir.path()), ["logs-2026-11-24.db", "logs-2026-11-25.db"]);
}

#[tokio::test]
async fn an_append_that_is_given_up_leaves_nothing_half_done() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), Period::Monthly).await;
    let events = delivered(at("2026-11-24T10:00:00Z"), 100);
    for micros in [0, 50, 200, 500, 1000, 2000, 3000] {
        // However far it came.
        if tokio::time::timeout(Duration::from_micros(micros), store.append(&events)).await.is_ok()
        {
            break;
        }
    }
    store.append(&events).await.unwrap();
    assert_eq!(store.append(&events).await.unwrap(), 0);
    for event in &events {
        let LogEvent::Submission(submitted) = event else { continue };
        let view = store.submission(submitted.submission_id).await.unwrap().unwrap();
        assert_eq!(view.messages[0].disposition, Delivered);
    }
}

#[tokio::test]
async fn reading_does_not_wait_for_writing() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), Period::Monthly).await;
    let submitted = submission(at("2026-11-24T10:00:00Z"), 1, 1);
    store.append(&[LogEvent::Submission(submitted.clone())]).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join(FILE));
    let mut writing = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let mut transaction = writing.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("DELETE FROM submissions").execute(&mut *transaction).await.unwrap();
    let view = store.submission(submitted.submission_id).await.unwrap();
    assert_eq!(view.unwrap().submission, submitted);
    transaction.rollback().await.unwrap();
}

#[tokio::test]
async fn ten_thousand_messages() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), Period::Monthly).await;
    let events = delivered(at("2026-11-24T10:00:00Z"), 10_000);
    for batch in events.chunks(500) {
        assert_eq!(store.append(batch).await.unwrap(), 500);
    }
    let LogEvent::Submission(last) = &events[19_998] else { panic!("not a submission") };
    let view = store.submission(last.submission_id).await.unwrap().unwrap();
    assert_eq!(view.messages[0].attempts.len(), 1);
}

#[tokio::test]
async fn files_are_the_owners_alone() {
    let dir = tempdir().unwrap();
    let inner = dir.path().join("a/logs");
    let store = open(&inner, Period::Monthly).await;
    store.append(&delivered(at("2026-11-24T10:00:00Z"), 1)).await.unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inner), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(&inner.join(format!("{FILE}{suffix}"))), 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn closing_folds_the_log_and_ends_all_use() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), Period::Monthly).await;
    let events = delivered(at("2026-11-24T10:00:00Z"), 10);
    store.append(&events).await.unwrap();
    let LogEvent::Submission(submitted) = &events[0] else { panic!("not a submission") };
    assert!(store.submission(submitted.submission_id).await.unwrap().is_some());
    store.close().await.unwrap();
    store.close().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(matches!(store.append(&events).await, Err(StoreError::Closed)));
    let read = store.submission(submitted.submission_id).await;
    assert!(matches!(read, Err(StoreError::Closed)));
    let store: Store = open(dir.path(), Period::Monthly).await;
    assert!(store.submission(submitted.submission_id).await.unwrap().is_some());
}
