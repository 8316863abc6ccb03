//! The one connection that writes to a period's file.
//!
//! It is opened by the first append, and after any failure anew, so that
//! nothing that it remembers (the ids of SMTP clients' data, statements) can
//! outlive a transaction that was rolled back.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use posthaste_model::LogEvent;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::Mutex;

use super::{rows, schema};
use crate::StoreError;

/// Data of SMTP clients whose ids are remembered. There is one for each SMTP
/// client of the installation, and one more after each change.
const MAX_CLIENTS: usize = 256;

/// Writes to one file; appends take turns.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    connected: Mutex<Option<Connected>>,
}

/// An open file.
#[derive(Debug)]
struct Connected {
    connection: SqliteConnection,
    clients: HashMap<Box<str>, i64>,
}

impl Writer {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, connected: Mutex::new(None) }
    }

    /// Writes events in one transaction; returns how many were new.
    pub(crate) async fn append(&self, events: &[&LogEvent]) -> Result<u64, StoreError> {
        let mut slot = self.connected.lock().await;
        // Taken out for the time being: after an error or a cancellation the
        // slot is empty and the file is opened anew.
        let mut connected = match slot.take() {
            Some(connected) => connected,
            None => Connected::open(&self.path).await?,
        };
        let new = connected
            .append(events)
            .await
            .map_err(|error| StoreError::sqlite(&self.path, &error))?;
        *slot = Some(connected);
        Ok(new)
    }

    /// Brings the file up to date.
    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let mut slot = self.connected.lock().await;
        if slot.is_none() {
            *slot = Some(Connected::open(&self.path).await?);
        }
        Ok(())
    }

    /// Waits for an append under way, folds the log into the main file, lets
    /// go.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let mut slot = self.connected.lock().await;
        close(&self.path, slot.take()).await
    }

    /// Removes the file.
    pub(super) async fn remove(&self) -> Result<(), StoreError> {
        let mut slot = self.connected.lock().await;
        if let Err(error) = close(&self.path, slot.take()).await {
            tracing::warn!(%error, "an expired period of the log was not closed in order");
        }
        // The main file last: as long as it is there the rest is found again.
        for suffix in ["-wal", "-shm", ""] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            match tokio::fs::remove_file(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::file("remove", Path::new(&path), error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

async fn close(path: &Path, connected: Option<Connected>) -> Result<(), StoreError> {
    let Some(Connected { mut connection, .. }) = connected else { return Ok(()) };
    // Busy means that another process still reads: then it, or the next
    // opening, does it.
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
        .execute(&mut connection)
        .await
        .map_err(|error| StoreError::sqlite(path, &error))?;
    connection.close().await.map_err(|error| StoreError::sqlite(path, &error))
}

impl Connected {
    async fn open(path: &Path) -> Result<Self, StoreError> {
        create(path).await.map_err(|source| StoreError::file("make", path, source))?;
        let mut connection = SqliteConnection::connect_with(&schema::write_options(path))
            .await
            .map_err(|error| StoreError::sqlite(path, &error))?;
        schema::migrate(path, &mut connection).await?;
        Ok(Self { connection, clients: HashMap::new() })
    }

    async fn append(&mut self, events: &[&LogEvent]) -> Result<u64, sqlx::Error> {
        // At once for writing: a transaction that reads first and then cannot
        // write would fail without waiting.
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut attempts = Vec::new();
        let mut submissions = Vec::new();
        for event in events {
            match event {
                LogEvent::Attempt(event) => {
                    let client = client_id(&mut transaction, &mut self.clients, event.client.get());
                    attempts.push((event, client.await?));
                }
                LogEvent::Submission(event) => submissions.push(event),
            }
        }
        let messages: Vec<_> = submissions
            .iter()
            .flat_map(|event| event.messages.iter().map(|message| (event.submission_id, message)))
            .collect();
        let mut new = rows::EVENTS.insert(&mut transaction, &attempts, rows::attempt).await?;
        new += rows::SUBMISSIONS.insert(&mut transaction, &submissions, rows::submission).await?;
        rows::MESSAGES.insert(&mut transaction, &messages, rows::message).await?;
        transaction.commit().await?;
        Ok(new)
    }
}

/// The number that stands for the data of an SMTP client in this file.
async fn client_id(
    connection: &mut SqliteConnection,
    known: &mut HashMap<Box<str>, i64>,
    client: &str,
) -> Result<i64, sqlx::Error> {
    if let Some(id) = known.get(client) {
        return Ok(*id);
    }
    sqlx::query("INSERT INTO clients (client) VALUES (?) ON CONFLICT DO NOTHING")
        .bind(client)
        .execute(&mut *connection)
        .await?;
    let id = sqlx::query_scalar("SELECT client_id FROM clients WHERE client = ?")
        .bind(client)
        .fetch_one(&mut *connection)
        .await?;
    if known.len() >= MAX_CLIENTS {
        known.clear();
    }
    known.insert(client.into(), id);
    Ok(id)
}

/// Makes the file readable by its owner alone, before `SQLite` would make it
/// readable by all; its companions inherit that.
pub(crate) async fn create(path: &Path) -> io::Result<()> {
    let created =
        tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await;
    match created {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use posthaste_model::{PoolName, SubmissionEvent, SubmissionId, Timestamp};

    use super::*;

    fn events(count: usize) -> Vec<LogEvent> {
        let event = || {
            LogEvent::Submission(SubmissionEvent {
                submission_id: SubmissionId::new(),
                time: Timestamp::from_millis(1),
                interface: "http".into(),
                length_us: 1,
                source_address: "127.0.0.1".into(),
                token: None,
                sender: "a@example.com".parse().unwrap(),
                subject: "x".repeat(500),
                tags: Vec::new(),
                pool: PoolName::default(),
                priority: 5,
                size: 1,
                due_at: None,
                messages: Vec::new(),
            })
        };
        (0..count).map(|_| event()).collect()
    }

    /// Limits the writer in the way that a full disk, or another process, does.
    async fn limit(writer: &Writer, pragma: &'static str) {
        let mut slot = writer.connected.lock().await;
        let connection = &mut slot.as_mut().unwrap().connection;
        sqlx::raw_sql(pragma).execute(connection).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_takes_nothing_of_the_batch() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::new(dir.path().join("logs-1970.db"));
        let events = events(1000);
        let events: Vec<_> = events.iter().collect();
        assert_eq!(writer.append(&events[..10]).await.unwrap(), 10);
        limit(&writer, "PRAGMA max_page_count = 20").await;
        let error = writer.append(&events).await.unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("logs-1970.db: the disk is full; make room"), "{text}");
        // Opened anew, without the limit: all but the first ten are new.
        assert_eq!(writer.append(&events).await.unwrap(), 990);
    }

    #[tokio::test]
    async fn a_file_that_another_program_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs-1970.db");
        let writer = Writer::new(path.clone());
        let events = events(2);
        assert_eq!(writer.append(&[&events[0]]).await.unwrap(), 1);
        limit(&writer, "PRAGMA busy_timeout = 0").await;
        let mut other =
            SqliteConnection::connect_with(&schema::write_options(&path)).await.unwrap();
        let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let error = writer.append(&[&events[1]]).await.unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }), "{error}");
        held.rollback().await.unwrap();
        assert_eq!(writer.append(&[&events[1]]).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_file_that_may_only_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Writer::new(dir.path().join("logs-1970.db"));
        let events = events(2);
        assert_eq!(writer.append(&[&events[0]]).await.unwrap(), 1);
        limit(&writer, "PRAGMA query_only = 1").await;
        let error = writer.append(&[&events[1]]).await.unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        assert!(error.to_string().contains("make it and its directory writable"), "{error}");
    }
}
