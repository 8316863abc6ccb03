//! Events as rows: one statement writes many, and the same few statements are
//! prepared once.

use std::sync::{Arc, LazyLock};

use posthaste_model::{AttemptEvent, SubmissionEvent, SubmissionId, SubmittedMessage};
use sqlx::{
    Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type, error::BoxDynError,
    sqlite::SqliteArguments,
};

/// Rows of one statement. Few sizes, so that each statement is prepared once;
/// above 64 nothing is gained.
const SIZES: [usize; 3] = [64, 8, 1];

/// Inserts into one table, skipping what is there.
pub(super) struct Insert {
    columns: usize,
    /// In the order of [`SIZES`].
    statements: [Arc<str>; SIZES.len()],
}

pub(super) static EVENTS: LazyLock<Insert> = LazyLock::new(|| {
    Insert::into(
        "events",
        &[
            "submission_id",
            "event_id",
            "message_id",
            "kind",
            "disposition",
            "reason",
            "detail",
            "started_at",
            "time",
            "length_ms",
            "attempt",
            "smtp_code",
            "enhanced_code",
            "smtp_text",
            "recipient",
            "recipient_domain",
            "pool",
            "smtp_client",
            "remote_host",
            "remote_address",
            "tls_version",
            "tls_cipher",
            "next_attempt_at",
            "client_id",
            "headers",
        ],
    )
});

pub(super) static SUBMISSIONS: LazyLock<Insert> = LazyLock::new(|| {
    Insert::into(
        "submissions",
        &[
            "submission_id",
            "time",
            "interface",
            "length_us",
            "source_address",
            "token",
            "sender",
            "sender_domain",
            "subject",
            "tags",
            "pool",
            "priority",
            "size",
            "due_at",
        ],
    )
});

pub(super) static MESSAGES: LazyLock<Insert> = LazyLock::new(|| {
    Insert::into("messages", &["submission_id", "message_id", "recipient", "kind"])
});

impl Insert {
    fn into(table: &str, columns: &[&str]) -> Self {
        let row = format!("({})", vec!["?"; columns.len()].join(", "));
        let names = columns.join(", ");
        let statements = SIZES.map(|size| {
            let rows = vec![row.as_str(); size].join(", ");
            format!("INSERT INTO {table} ({names}) VALUES {rows} ON CONFLICT DO NOTHING").into()
        });
        Self { columns: columns.len(), statements }
    }

    /// Writes rows; returns how many were not there before.
    pub(super) async fn insert<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&mut Binder, &T) -> Result<(), BoxDynError>,
    ) -> Result<u64, sqlx::Error> {
        let mut new = 0;
        let mut rest = rows;
        for (size, statement) in SIZES.into_iter().zip(&self.statements) {
            while let Some((chunk, later)) = rest.split_at_checked(size) {
                let mut binder = Binder(SqliteArguments::default());
                binder.0.reserve(size * self.columns, 0);
                for row in chunk {
                    bind(&mut binder, row).map_err(sqlx::Error::Encode)?;
                }
                let sql = AssertSqlSafe(Arc::clone(statement));
                new += sqlx::query_with(sql, binder.0)
                    .execute(&mut *connection)
                    .await?
                    .rows_affected();
                rest = later;
            }
        }
        Ok(new)
    }
}

/// Binds the values of rows, in the order of the columns.
pub(super) struct Binder(SqliteArguments);

impl Binder {
    fn value<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(
        &mut self,
        value: T,
    ) -> Result<&mut Self, BoxDynError> {
        self.0.add(value)?;
        Ok(self)
    }

    fn id(&mut self, id: &[u8; 16]) -> Result<&mut Self, BoxDynError> {
        self.value(id.as_slice())
    }

    fn text(&mut self, text: &str) -> Result<&mut Self, BoxDynError> {
        // One allocation, where a `&str` takes two.
        self.value(Arc::<str>::from(text))
    }

    fn maybe_text(&mut self, text: Option<&str>) -> Result<&mut Self, BoxDynError> {
        self.value(text.map(Arc::<str>::from))
    }
}

/// One row of `events`, with the number of its client data.
pub(super) fn attempt(
    row: &mut Binder,
    (event, client_id): &(&AttemptEvent, i64),
) -> Result<(), BoxDynError> {
    let reply = event.reply.as_ref();
    let enhanced = reply.and_then(|reply| reply.enhanced).map(|code| code.to_string());
    let tls = event.tls.as_ref();
    row.id(event.submission_id.as_bytes())?
        .id(event.attempt_id.as_bytes())?
        .id(event.message_id.as_bytes())?
        .text(event.kind.as_str())?
        .text(event.disposition.as_str())?
        .text(event.reason.as_str())?
        .maybe_text(event.detail.as_deref())?
        .value(event.started_at.as_millis())?
        .value(event.time.as_millis())?
        .value(event.length_ms)?
        .value(event.attempt)?
        .value(reply.map(|reply| reply.code))?
        .value(enhanced)?
        .maybe_text(reply.map(|reply| &*reply.text))?
        .text(event.recipient.as_str())?
        .text(event.recipient.domain().as_str())?
        .text(event.pool.as_str())?
        .text(&event.smtp_client)?
        .maybe_text(event.remote_host.as_deref())?
        .maybe_text(event.remote_address.as_deref())?
        .maybe_text(tls.map(|tls| &*tls.version))?
        .maybe_text(tls.map(|tls| &*tls.cipher))?
        .value(event.next_attempt_at.map(|time| time.as_millis()))?
        .value(*client_id)?
        .text(event.headers.get())?;
    Ok(())
}

/// One row of `submissions`.
pub(super) fn submission(row: &mut Binder, event: &&SubmissionEvent) -> Result<(), BoxDynError> {
    row.id(event.submission_id.as_bytes())?
        .value(event.time.as_millis())?
        .text(&event.interface)?
        .value(event.length_us)?
        .text(&event.source_address)?
        .maybe_text(event.token.as_deref())?
        .text(event.sender.as_str())?
        .text(event.sender.domain().as_str())?
        .text(&event.subject)?
        .value(serde_json::to_string(&event.tags)?)?
        .text(event.pool.as_str())?
        .value(event.priority)?
        .value(event.size)?
        .value(event.due_at.map(|time| time.as_millis()))?;
    Ok(())
}

/// One row of `messages`.
pub(super) fn message(
    row: &mut Binder,
    (submission_id, message): &(SubmissionId, &SubmittedMessage),
) -> Result<(), BoxDynError> {
    row.id(submission_id.as_bytes())?
        .id(message.message_id.as_bytes())?
        .text(message.recipient.as_str())?
        .text(message.kind.as_str())?;
    Ok(())
}
