//! Which file an event goes to, which files are open, which are dropped.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may, as the test")]

mod support;

use std::path::Path;

use posthaste_model::{Disposition::Delivered, LogEvent, Timestamp};
use posthaste_store::{Period, Store, StoreConfig};
use support::{at, attempt, files, open, submission};
use tempfile::tempdir;

fn submitted(time: &str) -> LogEvent {
    LogEvent::Submission(submission(at(time), 1, 1))
}

async fn keeping(dir: &Path, period: Period, periods: u32) -> Store {
    let retention = Some(periods);
    Store::open(StoreConfig { dir: dir.to_owned(), period, retention }).await.unwrap()
}

#[tokio::test]
async fn one_append_fills_the_files_of_several_periods() {
    for (period, wanted) in [
        (Period::Daily, vec!["logs-2026-12-31.db", "logs-2027-01-01.db", "logs-2027-01-04.db"]),
        (Period::Weekly, vec!["logs-2026-w53.db", "logs-2027-w01.db"]),
        (Period::Monthly, vec!["logs-2026-12.db", "logs-2027-01.db"]),
        (Period::Yearly, vec!["logs-2026.db", "logs-2027.db"]),
    ] {
        let dir = tempdir().unwrap();
        let store = open(dir.path(), period).await;
        let times = ["2027-01-04T00:00:00Z", "2026-12-31T23:59:59.999Z", "2027-01-01T00:00:00Z"];
        assert_eq!(store.append(&times.map(submitted)).await.unwrap(), 3);
        assert_eq!(files(dir.path()), wanted);
        for time in times {
            let LogEvent::Submission(event) = submitted(time) else { continue };
            let view = store.submission(event.submission_id).await.unwrap().unwrap();
            assert_eq!(view.submission, event);
        }
    }
}

#[tokio::test]
async fn an_id_that_is_older_than_its_period_is_found() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), Period::Daily).await;
    // The id was made before midnight, the submission accepted after it.
    let mut event = submission(at("2026-11-24T23:59:59.999Z"), 1, 1);
    event.time = at("2026-11-25T00:00:00.001Z");
    // The clock was set back between the two.
    let mut back = submission(at("2026-11-25T00:00:10Z"), 2, 1);
    back.time = at("2026-11-24T23:59:50Z");
    for event in [event, back] {
        store.append(&[LogEvent::Submission(event.clone())]).await.unwrap();
        let view = store.submission(event.submission_id).await.unwrap().unwrap();
        assert_eq!(view.submission, event);
        assert!(store.message(event.messages[0].message_id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn few_files_are_open_at_once() {
    let dir = tempdir().unwrap();
    let store = open(dir.path(), Period::Daily).await;
    let event = submission(at("2026-11-01T00:00:00Z"), 1, 1);
    let mut events = vec![LogEvent::Submission(event.clone())];
    for day in 1..=20 {
        let time = at(&format!("2026-11-{day:02}T12:00:00Z"));
        events.push(LogEvent::Attempt(attempt(&event, 0, time, 2, Delivered)));
    }
    assert_eq!(store.append(&events).await.unwrap(), 21);
    assert_eq!(store.append(&events).await.unwrap(), 0);
    let view = store.submission(event.submission_id).await.unwrap().unwrap();
    assert_eq!(view.messages[0].attempts.len(), 20);
    store.enforce_retention(at("2030-01-01T00:00:00Z")).await.unwrap();
    // Four that write and eight that read: twelve files at the most.
    let inside = std::fs::canonicalize(dir.path()).unwrap();
    let open: std::collections::BTreeSet<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.starts_with(&inside) && path.extension().is_some_and(|it| it == "db"))
        .collect();
    assert!((4..=12).contains(&open.len()), "{open:?}");
    assert_eq!(files(dir.path()).len(), 20);
}

#[tokio::test]
async fn retention_drops_whole_expired_files() {
    let dir = tempdir().unwrap();
    let store = keeping(dir.path(), Period::Monthly, 2).await;
    let months = ["2026-08", "2026-09", "2026-10", "2026-11", "2026-12"];
    let events = months.map(|month| submitted(&format!("{month}-30T12:00:00Z")));
    store.append(&events).await.unwrap();
    std::fs::write(dir.path().join("logs-2001.db.copy"), "not ours").unwrap();

    let dropped = store.enforce_retention(at("2026-11-01T00:00:00Z")).await.unwrap();
    assert_eq!(dropped, [dir.path().join("logs-2026-08.db")]);
    assert_eq!(files(dir.path()).len(), 4);
    let dropped = store.enforce_retention(at("2026-11-30T23:59:59Z")).await.unwrap();
    assert!(dropped.is_empty());
    let dropped = store.enforce_retention(at("2026-12-01T00:00:00Z")).await.unwrap();
    assert_eq!(dropped, [dir.path().join("logs-2026-09.db")]);

    // Nothing of the dropped ones is left, and they are gone for readers too.
    let left = std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_str().unwrap().contains("2026-09")));
    let LogEvent::Submission(gone) = &events[1] else { panic!("not a submission") };
    assert!(store.submission(gone.submission_id).await.unwrap().is_none());
    // A late event makes its file anew, whole.
    assert_eq!(store.append(&events[1..2]).await.unwrap(), 1);
    assert!(store.submission(gone.submission_id).await.unwrap().is_some());
    assert!(dir.path().join("logs-2001.db.copy").exists());
}

#[tokio::test]
async fn retention_spares_the_current_period() {
    let dir = tempdir().unwrap();
    let store = keeping(dir.path(), Period::Daily, 0).await;
    store.append(&[submitted("2026-11-24T10:00:00Z")]).await.unwrap();
    store.append(&[submitted("2026-11-25T10:00:00Z")]).await.unwrap();
    store.enforce_retention(at("2026-11-24T23:59:59.999Z")).await.unwrap();
    assert_eq!(files(dir.path()).len(), 2);
    store.enforce_retention(at("2026-11-25T00:00:00Z")).await.unwrap();
    assert_eq!(files(dir.path()), ["logs-2026-11-25.db"]);
    store.enforce_retention(Timestamp::from_millis(i64::MIN)).await.unwrap();
    assert_eq!(files(dir.path()), ["logs-2026-11-25.db"]);
}

#[tokio::test]
async fn files_of_another_rotation_are_still_read_and_dropped() {
    let dir = tempdir().unwrap();
    let daily = open(dir.path(), Period::Daily).await;
    let event = submission(at("2026-10-05T10:00:00Z"), 1, 1);
    daily.append(&[LogEvent::Submission(event.clone())]).await.unwrap();
    daily.close().await.unwrap();

    let monthly = keeping(dir.path(), Period::Monthly, 1).await;
    let late = attempt(&event, 0, at("2026-11-02T10:00:00Z"), 2, Delivered);
    monthly.append(&[LogEvent::Attempt(late)]).await.unwrap();
    let view = monthly.submission(event.submission_id).await.unwrap().unwrap();
    assert_eq!(view.messages[0].disposition, Delivered);
    monthly.enforce_retention(at("2026-11-30T00:00:00Z")).await.unwrap();
    assert_eq!(files(dir.path()), ["logs-2026-10-05.db", "logs-2026-11.db"]);
    monthly.enforce_retention(at("2026-12-01T00:00:00Z")).await.unwrap();
    assert_eq!(files(dir.path()), ["logs-2026-11.db"]);
}
