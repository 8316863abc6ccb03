//! Errors say which file and what to do, and the store goes on after them.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may, as the test")]

mod support;

use std::path::Path;

use posthaste_store::{Period, StoreError};
use support::{at, count, delivered, open, try_open};
use tempfile::tempdir;

const FILE: &str = "logs-2026-11.db";

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let dir = tempdir().unwrap();
    let events = delivered(at("2026-11-24T10:00:00Z"), 2);
    let store = open(dir.path(), Period::Monthly).await;
    store.append(&events[..2]).await.unwrap();
    store.close().await.unwrap();
    // What a newer program would leave.
    set_version(&dir.path().join(FILE), "PRAGMA user_version = 99").await;

    let error = try_open(dir.path(), Period::Monthly).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, known: 1, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(FILE) && text.contains("use the newer program"), "{text}");
    // The newest file alone is looked at when the store is opened.
    let later = delivered(at("2026-12-24T10:00:00Z"), 1);
    set_version(&dir.path().join(FILE), "PRAGMA user_version = 1").await;
    let store = open(dir.path(), Period::Monthly).await;
    store.append(&later).await.unwrap();
    store.close().await.unwrap();
    set_version(&dir.path().join(FILE), "PRAGMA user_version = 99").await;
    let store = open(dir.path(), Period::Monthly).await;
    let error = store.append(&events).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { .. }), "{error}");
    assert_eq!(count(dir.path(), FILE, "SELECT count(*) FROM events").await, 1);
}

async fn set_version(path: &Path, sql: &'static str) {
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let dir = tempdir().unwrap();
    let path = dir.path().join(FILE);
    std::fs::write(&path, "a text that somebody put there".repeat(1000)).unwrap();
    let error = try_open(dir.path(), Period::Monthly).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
    std::fs::remove_file(&path).unwrap();

    let store = open(dir.path(), Period::Monthly).await;
    std::fs::write(&path, "a text that somebody put there".repeat(1000)).unwrap();
    let events = delivered(at("2026-11-24T10:00:00Z"), 2);
    let error = store.append(&events).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
    // It goes on as soon as the file is away.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(store.append(&events).await.unwrap(), 4);
}

#[tokio::test]
async fn an_empty_file_is_one_that_was_being_made() {
    let dir = tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), "").unwrap();
    let store = open(dir.path(), Period::Monthly).await;
    let events = delivered(at("2026-11-24T10:00:00Z"), 1);
    assert_eq!(store.append(&events).await.unwrap(), 2);
}

#[tokio::test]
async fn a_directory_that_cannot_be_used() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    // Below a file, and where nobody may write, whoever runs the test.
    for path in [file.join("logs"), "/proc/posthaste/logs".into()] {
        let error = try_open(&path, Period::Monthly).await.unwrap_err();
        assert!(matches!(error, StoreError::File { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("permissions"), "{text}");
    }
    // It disappears while the store is open, and comes back.
    let logs = dir.path().join("logs");
    let store = open(&logs, Period::Monthly).await;
    std::fs::remove_dir(&logs).unwrap();
    let events = delivered(at("2026-11-24T10:00:00Z"), 1);
    let error = store.append(&events).await.unwrap_err();
    assert!(error.to_string().contains("logs-2026-11.db"), "{error}");
    std::fs::create_dir(&logs).unwrap();
    assert_eq!(store.append(&events).await.unwrap(), 2);
}

#[tokio::test]
async fn after_its_end_every_call_says_so() {
    let dir = tempdir().unwrap();
    let events = delivered(at("2026-11-24T10:00:00Z"), 1);
    let id = posthaste_model::SubmissionId::new();
    // With no file there, and with one.
    for appended in [&events[..0], &events] {
        let store = open(dir.path(), Period::Monthly).await;
        store.append(appended).await.unwrap();
        store.close().await.unwrap();
        let error = store.append(&events).await.unwrap_err();
        assert!(matches!(error, StoreError::Closed), "{error}");
        let error = store.submission(id).await.unwrap_err();
        assert!(matches!(error, StoreError::Closed), "{error}");
        let error = store.message(posthaste_model::MessageId::new()).await.unwrap_err();
        assert!(matches!(error, StoreError::Closed), "{error}");
    }
}

/// A process that was killed while it made the file leaves a journal that has
/// to be rolled back before anybody can read.
#[tokio::test]
async fn what_a_killed_process_left_is_rolled_back() {
    use sqlx::Connection;
    let (made, killed) = (tempdir().unwrap(), tempdir().unwrap());
    let events = delivered(at("2026-11-24T10:00:00Z"), 2);
    let store = open(made.path(), Period::Monthly).await;
    store.append(&events).await.unwrap();
    store.close().await.unwrap();
    let path = made.path().join(FILE);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    // A transaction larger than its cache: pages in the file, journal beside it.
    let spill = "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 1; BEGIN IMMEDIATE;
        CREATE TABLE half (x BLOB);
        INSERT INTO half SELECT randomblob(100000) FROM events, events AS again;
        DELETE FROM events;";
    sqlx::raw_sql(spill).execute(&mut connection).await.unwrap();
    for entry in std::fs::read_dir(made.path()).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, killed.path().join(from.file_name().unwrap())).unwrap();
    }
    assert!(killed.path().join(format!("{FILE}-journal")).exists());

    let store = open(killed.path(), Period::Monthly).await;
    assert_eq!(store.append(&events).await.unwrap(), 0);
    assert_eq!(count(killed.path(), FILE, "SELECT count(*) FROM events").await, 2);
}
