//! What a period's file looks like, and how it is opened.
//!
//! `PRAGMA user_version` counts the migrations that a file has seen. A file
//! with a higher number than this program knows is refused.
//!
//! Ids are 16 bytes, times are milliseconds since 1970 in UTC. The keys of all
//! tables begin with time-ordered ids, so inserts go to the end.

use std::{path::Path, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::StoreError;

/// One step each, in order; never changed once released.
const MIGRATIONS: &[&str] = &[
    // The unique key of `events` both recognises a repeated event and finds
    // those of a submission: a further index would cost as much as the row. The
    // rows lie apart from the key because they are long: a late event touches
    // a small page of keys, not a page of old rows.
    "CREATE TABLE events (
        submission_id BLOB NOT NULL,
        event_id BLOB NOT NULL,
        message_id BLOB NOT NULL,
        kind TEXT NOT NULL,
        disposition TEXT NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT,
        started_at INTEGER NOT NULL,
        time INTEGER NOT NULL,
        length_ms INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        smtp_code INTEGER,
        enhanced_code TEXT,
        smtp_text TEXT,
        recipient TEXT NOT NULL,
        recipient_domain TEXT NOT NULL,
        pool TEXT NOT NULL,
        smtp_client TEXT NOT NULL,
        remote_host TEXT,
        remote_address TEXT,
        tls_version TEXT,
        tls_cipher TEXT,
        next_attempt_at INTEGER,
        client_id INTEGER NOT NULL,
        headers TEXT NOT NULL,
        UNIQUE (submission_id, event_id)
    );
    -- The data of an SMTP client is the same in nearly all its events.
    CREATE TABLE clients (
        client_id INTEGER PRIMARY KEY,
        client TEXT NOT NULL UNIQUE
    );
    CREATE TABLE submissions (
        submission_id BLOB NOT NULL PRIMARY KEY,
        time INTEGER NOT NULL,
        interface TEXT NOT NULL,
        length_us INTEGER NOT NULL,
        source_address TEXT NOT NULL,
        token TEXT,
        sender TEXT NOT NULL,
        sender_domain TEXT NOT NULL,
        subject TEXT NOT NULL,
        tags TEXT NOT NULL,
        pool TEXT NOT NULL,
        priority INTEGER NOT NULL,
        size INTEGER NOT NULL,
        due_at INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE messages (
        submission_id BLOB NOT NULL,
        message_id BLOB NOT NULL,
        recipient TEXT NOT NULL,
        kind TEXT NOT NULL,
        PRIMARY KEY (submission_id, message_id)
    ) WITHOUT ROWID;
    CREATE INDEX messages_by_id ON messages (message_id);",
];

/// The newest version that this program knows.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// How long a connection waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// For the connection that writes. A commit is durable when it returns: in WAL
/// mode only `FULL` syncs the log at each commit.
pub(super) fn write_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .page_size(8192)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(32)
        .pragma("cache_size", "-16000")
        .pragma("temp_store", "memory")
        // 16 MiB; the log is cut back to 64 MiB after a burst.
        .pragma("wal_autocheckpoint", "2048")
        .pragma("journal_size_limit", "67108864")
        .disable_statement_logging()
}

/// For the connections that read.
pub(super) fn read_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .foreign_keys(false)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(16)
        .pragma("cache_size", "-4000")
        .disable_statement_logging()
}

/// The version of a file; refuses a newer one.
pub(super) async fn version(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<i64, StoreError> {
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(connection)
        .await
        .map_err(|error| StoreError::sqlite(path, &error))?;
    if found > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    Ok(found)
}

/// Brings a file up to date, all steps or none.
pub(super) async fn migrate(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<(), StoreError> {
    if version(path, connection).await? == VERSION {
        return Ok(());
    }
    let failed = |error: sqlx::Error| StoreError::sqlite(path, &error);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    // Another process may have been faster.
    let seen = version(path, &mut transaction).await?;
    for step in MIGRATIONS.iter().skip(usize::try_from(seen).unwrap_or(0)) {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(failed)?;
    }
    let set_version = AssertSqlSafe(format!("PRAGMA user_version = {VERSION}"));
    sqlx::raw_sql(set_version).execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
