//! Makes stores and events for the tests.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may, as the test")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::Path;

use posthaste_model::{
    AttemptEvent, AttemptId, Disposition, EventKind, LogEvent, MessageId, PoolName, Reason,
    RecipientKind, SmtpReply, SubmissionEvent, SubmissionId, SubmittedMessage, Timestamp, TlsInfo,
};
use posthaste_store::{Period, Store, StoreConfig, StoreError};
use serde_json::value::RawValue;

pub async fn open(dir: &Path, period: Period) -> Store {
    try_open(dir, period).await.unwrap()
}

pub async fn try_open(dir: &Path, period: Period) -> Result<Store, StoreError> {
    Store::open(StoreConfig { dir: dir.to_owned(), period, retention: None }).await
}

pub fn at(text: &str) -> Timestamp {
    Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

/// An id of version 7 made at `time`; `n` tells those of one time apart.
pub fn id_at(time: Timestamp, n: u64) -> [u8; 16] {
    let millis = u64::try_from(time.as_millis()).unwrap();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6] = 0x70;
    bytes[8..].copy_from_slice(&(0x8000_0000_0000_0000 | n).to_be_bytes());
    bytes
}

pub fn submission(time: Timestamp, n: u64, recipients: usize) -> SubmissionEvent {
    let kinds = [RecipientKind::To, RecipientKind::Cc, RecipientKind::Bcc];
    let messages = (0..recipients).map(|i| SubmittedMessage {
        message_id: MessageId::from_bytes(id_at(time, n * 1000 + i as u64)),
        recipient: format!("r{i}@example.net").parse().unwrap(),
        kind: kinds[i % 3],
    });
    SubmissionEvent {
        submission_id: SubmissionId::from_bytes(id_at(time, n)),
        time,
        interface: "http".into(),
        length_us: 83,
        source_address: "2001:db8::1".into(),
        token: (n % 2 == 1).then(|| "shop".into()),
        sender: "jörg@example.com".parse().unwrap(),
        subject: "O'Reilly; \"quoted\"\n\0".into(),
        tags: vec!["news-2026.w47:é".parse().unwrap(), "b".parse().unwrap()],
        pool: PoolName::default(),
        priority: 5,
        size: u32::MAX,
        due_at: n.is_multiple_of(2).then(|| Timestamp::from_millis(7)),
        messages: messages.collect(),
    }
}

pub fn attempt(
    submission: &SubmissionEvent,
    message: usize,
    time: Timestamp,
    n: u64,
    disposition: Disposition,
) -> AttemptEvent {
    let message = &submission.messages[message];
    AttemptEvent {
        attempt_id: AttemptId::from_bytes(id_at(time, n)),
        message_id: message.message_id,
        submission_id: submission.submission_id,
        kind: EventKind::Attempt,
        disposition,
        reason: Reason::RemoteTemporary,
        detail: n.is_multiple_of(2).then(|| "a detail".into()),
        started_at: Timestamp::from_millis(time.as_millis() - 20),
        time,
        length_ms: 20,
        attempt: 1,
        reply: (!n.is_multiple_of(3)).then(|| SmtpReply {
            code: 450,
            enhanced: (n % 3 == 1).then(|| "4.2.1".parse().unwrap()),
            text: "busy\ntry later".into(),
        }),
        recipient: message.recipient.clone(),
        pool: submission.pool.clone(),
        smtp_client: "client-1".into(),
        remote_host: Some("mx1.example.net".into()),
        remote_address: Some("192.0.2.1:25".into()),
        tls: (n % 2 == 1).then(|| TlsInfo {
            version: "TLSv1.3".into(),
            cipher: "TLS13_AES_256_GCM_SHA384".into(),
        }),
        next_attempt_at: (disposition == Disposition::Deferred)
            .then(|| Timestamp::from_millis(time.as_millis() + 300_000)),
        headers: RawValue::from_string(r#"[["To","r@example.net"],["Subject","é"]]"#.into())
            .unwrap(),
        client: RawValue::from_string(format!(r#"{{"name":"client-1","revision":{}}}"#, n % 2))
            .unwrap(),
    }
}

/// `count` submissions of one message, each with an attempt that delivered it.
pub fn delivered(start: Timestamp, count: u64) -> Vec<LogEvent> {
    (0..count)
        .flat_map(|n| {
            let time = Timestamp::from_millis(start.as_millis() + i64::try_from(n).unwrap());
            let submission = submission(time, n, 1);
            let attempt = attempt(&submission, 0, time, n, Disposition::Delivered);
            [LogEvent::Submission(submission), LogEvent::Attempt(attempt)]
        })
        .collect()
}

/// Names of the databases in `dir`, sorted.
pub fn files(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".db"));
    names.sort();
    names
}

/// One number out of one file.
pub async fn count(dir: &Path, file: &str, sql: &'static str) -> i64 {
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(file));
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let count = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    count
}
