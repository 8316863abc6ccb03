//! Events: what happened to submissions and messages. They are only ever
//! added; a [`Disposition`] is what the latest one of a message says.
//!
//! Events travel through the broker in batches ([`LogBatch`]) to the loggers,
//! which write them into the store idempotently by [`LogEvent::id`].

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    AttemptId, Disposition, EmailAddress, MessageId, PoolName, Reason, SmtpReply, SubmissionId,
    Tag, Timestamp,
};

/// What kind of thing happened to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An attempt to deliver ended.
    Attempt,
}

impl EventKind {
    /// As in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
        }
    }
}

/// The TLS that an attempt used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// IANA name of the cipher suite.
    pub cipher: String,
}

/// The record of one attempt (UC6). Complete by itself: whoever holds this
/// row can say what was done, by whom, to whom and with what answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttemptEvent {
    /// Id of the attempt, and of the event.
    pub attempt_id: AttemptId,
    /// The message.
    pub message_id: MessageId,
    /// Its submission.
    pub submission_id: SubmissionId,
    /// What kind of event.
    pub kind: EventKind,
    /// How it ended.
    pub disposition: Disposition,
    /// Why.
    pub reason: Reason,
    /// What a person should know beyond the reason and the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When the broker handed the message over.
    pub started_at: Timestamp,
    /// When the attempt was completed.
    pub time: Timestamp,
    /// From the hand-over to the completion, in milliseconds.
    pub length_ms: u32,
    /// 1 for the first attempt that counts; 0 for one that does not count.
    pub attempt: u32,
    /// The reply that decided, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<SmtpReply>,
    /// The recipient.
    pub recipient: EmailAddress,
    /// The pool.
    pub pool: PoolName,
    /// Name of the SMTP client in the configuration.
    pub smtp_client: String,
    /// Name of the host that replied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_host: Option<String>,
    /// Its address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_address: Option<String>,
    /// TLS, where it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsInfo>,
    /// When the next attempt is due; with `deferred` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The message's header fields: JSON array of `[name, value]`.
    pub headers: Box<RawValue>,
    /// The SMTP client's data: JSON object.
    pub client: Box<RawValue>,
}

/// How a recipient was named in a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientKind {
    /// In `to`.
    To,
    /// In `cc`.
    Cc,
    /// In `bcc`.
    Bcc,
}

impl RecipientKind {
    /// As in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::To => "to",
            Self::Cc => "cc",
            Self::Bcc => "bcc",
        }
    }
}

/// One message of a submission, as the submission log lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedMessage {
    /// Its id.
    pub message_id: MessageId,
    /// Its recipient.
    pub recipient: EmailAddress,
    /// How the recipient was named.
    pub kind: RecipientKind,
}

/// The record of one accepted submission (UC11).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionEvent {
    /// Its id.
    pub submission_id: SubmissionId,
    /// When it was accepted.
    pub time: Timestamp,
    /// How it came in: `http`.
    pub interface: String,
    /// Duration of the processing before it was handed to the broker, in
    /// microseconds.
    pub length_us: u32,
    /// Address of the submitter.
    pub source_address: String,
    /// Name of the token that was used, where one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Address of the sender.
    pub sender: EmailAddress,
    /// The subject.
    #[serde(default)]
    pub subject: String,
    /// The submitter's labels.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The pool.
    pub pool: PoolName,
    /// The priority.
    pub priority: u8,
    /// Bytes of the content.
    pub size: u32,
    /// Not before this time, where `delay` or `schedule` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<Timestamp>,
    /// One message a recipient.
    pub messages: Vec<SubmittedMessage>,
}

/// Anything that the loggers write.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogEvent {
    /// An event of a message.
    Attempt(AttemptEvent),
    /// A submission was accepted.
    Submission(SubmissionEvent),
}

impl LogEvent {
    /// The id by which a second write of the same event is recognised.
    #[must_use]
    pub const fn id(&self) -> [u8; 16] {
        match self {
            Self::Attempt(event) => *event.attempt_id.as_bytes(),
            Self::Submission(event) => *event.submission_id.as_bytes(),
        }
    }

    /// When it happened: decides the period that it is filed under.
    #[must_use]
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::Attempt(event) => event.time,
            Self::Submission(event) => event.time,
        }
    }
}

/// Why a batch of events could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the batch of log events cannot be read: {0}")]
pub struct EventDecodeError(String);

/// The body of a log message: JSON, one event a line, so that a part that a
/// newer program wrote can be told from a broken one.
#[derive(Debug, Clone, Default)]
pub struct LogBatch(pub Vec<LogEvent>);

impl LogBatch {
    /// The bytes for the broker.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 1024);
        for event in &self.0 {
            // Writing these types to memory cannot fail: see MessageHead::encode.
            if serde_json::to_writer(&mut bytes, event).is_ok() {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// When any line is not an event: the whole batch goes to quarantine, so
    /// that nothing of it is dropped unseen.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventDecodeError> {
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line).map_err(|error| EventDecodeError(error.to_string()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_reads_back() {
        let submission_id = SubmissionId::new();
        let message_id = MessageId::new();
        let recipient: EmailAddress = "b@example.net".parse().unwrap();
        let batch = LogBatch(vec![
            LogEvent::Submission(SubmissionEvent {
                submission_id,
                time: Timestamp::from_millis(1),
                interface: "http".into(),
                length_us: 80,
                source_address: "127.0.0.1".into(),
                token: None,
                sender: "a@example.com".parse().unwrap(),
                subject: "line\nbreak".into(),
                tags: vec![],
                pool: PoolName::default(),
                priority: 5,
                size: 10,
                due_at: None,
                messages: vec![SubmittedMessage {
                    message_id,
                    recipient: recipient.clone(),
                    kind: RecipientKind::Bcc,
                }],
            }),
            LogEvent::Attempt(AttemptEvent {
                attempt_id: AttemptId::new(),
                message_id,
                submission_id,
                kind: EventKind::Attempt,
                disposition: Disposition::Deferred,
                reason: Reason::RemoteTemporary,
                detail: None,
                started_at: Timestamp::from_millis(2),
                time: Timestamp::from_millis(5),
                length_ms: 3,
                attempt: 1,
                reply: Some(SmtpReply {
                    code: 450,
                    enhanced: "4.2.1".parse().ok(),
                    text: "busy\nlater".into(),
                }),
                recipient,
                pool: PoolName::default(),
                smtp_client: "c1".into(),
                remote_host: None,
                remote_address: None,
                tls: None,
                next_attempt_at: Some(Timestamp::from_millis(300_000)),
                headers: RawValue::from_string("[[\"To\",\"b\"]]".into()).unwrap(),
                client: RawValue::from_string("{}".into()).unwrap(),
            }),
        ]);
        let bytes = batch.encode();
        let back = LogBatch::decode(&bytes).unwrap();
        assert_eq!(back.0.len(), 2);
        assert_eq!(back.encode(), bytes);
        assert!(LogBatch::decode(&bytes[..bytes.len() - 5]).is_err());
    }
}
