//! The connections that read a period's file.

use std::{path::PathBuf, str::FromStr, time::Duration};

use posthaste_model::{
    AttemptEvent, AttemptId, EventKind, MessageId, RecipientKind, SmtpReply, SubmissionEvent,
    SubmissionId, SubmittedMessage, Timestamp, TlsInfo,
};
use serde_json::value::RawValue;
use sqlx::{
    Row, SqlitePool,
    error::BoxDynError,
    sqlite::{SqlitePoolOptions, SqliteRow},
};

use super::schema;
use crate::StoreError;

/// Connections of one file.
const MAX_CONNECTIONS: u32 = 3;

/// How long a read waits for one of them.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads one file. What it finds is what was committed when the read began.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    pool: SqlitePool,
}

impl Reader {
    pub(super) fn new(path: PathBuf) -> Self {
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(schema::read_options(&path));
        Self { path, pool }
    }

    /// The version of the file's schema; 0 when nothing is in it.
    pub(super) async fn version(&self) -> Result<i64, StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| self.failed(&error))?;
        schema::version(&self.path, &mut connection).await
    }

    /// Waits for who reads, lets go.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// A submission, when its row is in this file.
    pub(crate) async fn submission(
        &self,
        id: SubmissionId,
    ) -> Result<Option<SubmissionEvent>, StoreError> {
        let row = sqlx::query("SELECT * FROM submissions WHERE submission_id = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed(&error))?;
        let Some(row) = row else { return Ok(None) };
        let rows =
            sqlx::query("SELECT * FROM messages WHERE submission_id = ? ORDER BY message_id")
                .bind(id.as_bytes().as_slice())
                .fetch_all(&self.pool)
                .await
                .map_err(|error| self.failed(&error))?;
        let messages = rows.iter().map(message).collect::<Result<_, _>>();
        messages
            .and_then(|messages| submission(&row, messages))
            .map(Some)
            .map_err(|error| self.damaged(&error))
    }

    /// A message and its submission, when its row is in this file.
    pub(crate) async fn message(
        &self,
        id: MessageId,
    ) -> Result<Option<(SubmissionId, SubmittedMessage)>, StoreError> {
        sqlx::query("SELECT * FROM messages WHERE message_id = ?")
            .bind(id.as_bytes().as_slice())
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed(&error))?
            .map(|row| {
                Ok((SubmissionId::from_bytes(bytes(&row, "submission_id")?), message(&row)?))
            })
            .transpose()
            .map_err(|error: BoxDynError| self.damaged(&error))
    }

    /// The attempts in this file of a submission, or of one of its messages;
    /// in no order.
    pub(crate) async fn attempts(
        &self,
        id: SubmissionId,
        message: Option<MessageId>,
    ) -> Result<Vec<AttemptEvent>, StoreError> {
        let message = message.as_ref().map(|id| id.as_bytes().as_slice());
        let rows = sqlx::query(
            "SELECT * FROM events JOIN clients USING (client_id)
             WHERE submission_id = ? AND (? IS NULL OR message_id = ?)",
        )
        .bind(id.as_bytes().as_slice())
        .bind(message)
        .bind(message)
        .fetch_all(&self.pool)
        .await
        .map_err(|error| self.failed(&error))?;
        rows.iter().map(attempt).collect::<Result<_, _>>().map_err(|error| self.damaged(&error))
    }

    fn failed(&self, error: &sqlx::Error) -> StoreError {
        StoreError::sqlite(&self.path, error)
    }

    fn damaged(&self, error: &BoxDynError) -> StoreError {
        StoreError::NotADatabase { path: self.path.clone(), detail: error.to_string() }
    }
}

fn attempt(row: &SqliteRow) -> Result<AttemptEvent, BoxDynError> {
    let kind: &str = row.try_get("kind")?;
    let reply = match row.try_get::<Option<u16>, _>("smtp_code")? {
        Some(code) => {
            let enhanced: Option<&str> = row.try_get("enhanced_code")?;
            Some(SmtpReply {
                code,
                enhanced: enhanced.map(str::parse).transpose()?,
                text: row.try_get("smtp_text")?,
            })
        }
        None => None,
    };
    let tls = match row.try_get("tls_version")? {
        Some(version) => Some(TlsInfo { version, cipher: row.try_get("tls_cipher")? }),
        None => None,
    };
    Ok(AttemptEvent {
        attempt_id: AttemptId::from_bytes(bytes(row, "event_id")?),
        message_id: MessageId::from_bytes(bytes(row, "message_id")?),
        submission_id: SubmissionId::from_bytes(bytes(row, "submission_id")?),
        kind: one_of(&[EventKind::Attempt], EventKind::as_str, kind)?,
        disposition: parsed(row, "disposition")?,
        reason: parsed(row, "reason")?,
        detail: row.try_get("detail")?,
        started_at: Timestamp::from_millis(row.try_get("started_at")?),
        time: Timestamp::from_millis(row.try_get("time")?),
        length_ms: row.try_get("length_ms")?,
        attempt: row.try_get("attempt")?,
        reply,
        recipient: parsed(row, "recipient")?,
        pool: parsed(row, "pool")?,
        smtp_client: row.try_get("smtp_client")?,
        remote_host: row.try_get("remote_host")?,
        remote_address: row.try_get("remote_address")?,
        tls,
        next_attempt_at: row
            .try_get::<Option<i64>, _>("next_attempt_at")?
            .map(Timestamp::from_millis),
        headers: RawValue::from_string(row.try_get("headers")?)?,
        client: RawValue::from_string(row.try_get("client")?)?,
    })
}

fn submission(
    row: &SqliteRow,
    messages: Vec<SubmittedMessage>,
) -> Result<SubmissionEvent, BoxDynError> {
    Ok(SubmissionEvent {
        submission_id: SubmissionId::from_bytes(bytes(row, "submission_id")?),
        time: Timestamp::from_millis(row.try_get("time")?),
        interface: row.try_get("interface")?,
        length_us: row.try_get("length_us")?,
        source_address: row.try_get("source_address")?,
        token: row.try_get("token")?,
        sender: parsed(row, "sender")?,
        subject: row.try_get("subject")?,
        tags: serde_json::from_str(row.try_get("tags")?)?,
        pool: parsed(row, "pool")?,
        priority: row.try_get("priority")?,
        size: row.try_get("size")?,
        due_at: row.try_get::<Option<i64>, _>("due_at")?.map(Timestamp::from_millis),
        messages,
    })
}

fn message(row: &SqliteRow) -> Result<SubmittedMessage, BoxDynError> {
    let kinds = [RecipientKind::To, RecipientKind::Cc, RecipientKind::Bcc];
    Ok(SubmittedMessage {
        message_id: MessageId::from_bytes(bytes(row, "message_id")?),
        recipient: parsed(row, "recipient")?,
        kind: one_of(&kinds, RecipientKind::as_str, row.try_get("kind")?)?,
    })
}

fn bytes(row: &SqliteRow, column: &str) -> Result<[u8; 16], BoxDynError> {
    Ok(row.try_get::<&[u8], _>(column)?.try_into()?)
}

fn parsed<T: FromStr<Err: Into<BoxDynError>>>(
    row: &SqliteRow,
    column: &str,
) -> Result<T, BoxDynError> {
    row.try_get::<&str, _>(column)?.parse().map_err(Into::into)
}

fn one_of<T: Copy>(
    all: &[T],
    as_str: impl Fn(T) -> &'static str,
    text: &str,
) -> Result<T, BoxDynError> {
    let found = all.iter().copied().find(|one| as_str(*one) == text);
    found.ok_or_else(|| format!("{text:?} is not known").into())
}
