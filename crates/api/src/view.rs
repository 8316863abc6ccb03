//! Submissions, messages and attempts as JSON. Times are RFC 3339.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use posthaste_intake::Accepted;
use posthaste_model::{
    AttemptEvent, AttemptId, Disposition, EmailAddress, EventKind, MessageId, PoolName, Reason,
    RecipientKind, SmtpReply, SubmissionEvent, SubmissionId, SubmittedMessage, Tag, Timestamp,
    TlsInfo,
};
use posthaste_store::{MessageView, SubmissionView};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::problem::Problem;

/// A value as JSON.
pub(crate) fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    // Our own types with text keys: writing them to memory cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}

/// JSON as an answer.
pub(crate) fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A value as an answer.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    json_response(status, json_bytes(value))
}

/// The answer to a permissive request.
#[derive(Serialize)]
pub(crate) struct ResultsBody<'a> {
    pub(crate) results: &'a [ItemBody],
}

/// What became of one item of it.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum ItemBody {
    Accepted { status: u16, id: SubmissionId, messages: Vec<OwnedRecipient> },
    Refused(Problem),
}

/// As [`RecipientBody`], for as long as it takes.
#[derive(Serialize)]
pub(crate) struct OwnedRecipient {
    id: MessageId,
    recipient: EmailAddress,
    kind: RecipientKind,
}

impl ItemBody {
    pub(crate) fn accepted(accepted: Accepted) -> Self {
        let owned = |message: SubmittedMessage| OwnedRecipient {
            id: message.message_id,
            recipient: message.recipient,
            kind: message.kind,
        };
        Self::Accepted {
            status: StatusCode::ACCEPTED.as_u16(),
            id: accepted.submission_id,
            messages: accepted.messages.into_iter().map(owned).collect(),
        }
    }
}

/// What 202 says of one submission.
#[derive(Serialize)]
pub(crate) struct AcceptedBody<'a> {
    id: SubmissionId,
    messages: Vec<RecipientBody<'a>>,
}

#[derive(Serialize)]
struct RecipientBody<'a> {
    id: MessageId,
    recipient: &'a EmailAddress,
    kind: RecipientKind,
}

impl<'a> AcceptedBody<'a> {
    pub(crate) fn new(accepted: &'a Accepted) -> Self {
        let messages = accepted.messages.iter().map(RecipientBody::new).collect();
        Self { id: accepted.submission_id, messages }
    }
}

impl<'a> RecipientBody<'a> {
    const fn new(message: &'a SubmittedMessage) -> Self {
        Self { id: message.message_id, recipient: &message.recipient, kind: message.kind }
    }
}

/// A submission with all that is known of it.
#[derive(Serialize)]
pub(crate) struct SubmissionBody<'a> {
    id: SubmissionId,
    time: Rfc3339,
    interface: &'a str,
    length_us: u32,
    source_address: &'a str,
    token: Option<&'a str>,
    sender: &'a EmailAddress,
    subject: &'a str,
    tags: &'a [Tag],
    pool: &'a PoolName,
    priority: u8,
    size: u32,
    due_at: Option<Rfc3339>,
    messages: Vec<MessageBody<'a>>,
}

impl<'a> SubmissionBody<'a> {
    pub(crate) fn new(view: &'a SubmissionView) -> Self {
        let SubmissionEvent {
            submission_id,
            time,
            interface,
            length_us,
            source_address,
            token,
            sender,
            subject,
            tags,
            pool,
            priority,
            size,
            due_at,
            messages: _,
        } = &view.submission;
        Self {
            id: *submission_id,
            time: Rfc3339(*time),
            interface,
            length_us: *length_us,
            source_address,
            token: token.as_deref(),
            sender,
            subject,
            tags,
            pool,
            priority: *priority,
            size: *size,
            due_at: due_at.map(Rfc3339),
            messages: view.messages.iter().map(|message| MessageBody::new(None, message)).collect(),
        }
    }
}

/// A message with every attempt, oldest first.
#[derive(Serialize)]
pub(crate) struct MessageBody<'a> {
    id: MessageId,
    #[serde(skip_serializing_if = "Option::is_none")]
    submission_id: Option<SubmissionId>,
    recipient: &'a EmailAddress,
    kind: RecipientKind,
    disposition: Disposition,
    attempts: Vec<AttemptBody<'a>>,
}

impl<'a> MessageBody<'a> {
    pub(crate) fn new(submission_id: Option<SubmissionId>, view: &'a MessageView) -> Self {
        Self {
            id: view.message.message_id,
            submission_id,
            recipient: &view.message.recipient,
            kind: view.message.kind,
            disposition: view.disposition,
            attempts: view.attempts.iter().map(AttemptBody::new).collect(),
        }
    }
}

/// One attempt: the whole row of evidence.
#[derive(Serialize)]
struct AttemptBody<'a> {
    id: AttemptId,
    event: EventKind,
    disposition: Disposition,
    reason: Reason,
    detail: Option<&'a str>,
    started_at: Rfc3339,
    time: Rfc3339,
    length_ms: u32,
    attempt: u32,
    reply: Option<&'a SmtpReply>,
    pool: &'a PoolName,
    smtp_client: &'a str,
    remote_host: Option<&'a str>,
    remote_address: Option<&'a str>,
    tls: Option<&'a TlsInfo>,
    next_attempt_at: Option<Rfc3339>,
    headers: &'a RawValue,
    client: &'a RawValue,
}

impl<'a> AttemptBody<'a> {
    fn new(event: &'a AttemptEvent) -> Self {
        Self {
            id: event.attempt_id,
            event: event.kind,
            disposition: event.disposition,
            reason: event.reason,
            detail: event.detail.as_deref(),
            started_at: Rfc3339(event.started_at),
            time: Rfc3339(event.time),
            length_ms: event.length_ms,
            attempt: event.attempt,
            reply: event.reply.as_ref(),
            pool: &event.pool,
            smtp_client: &event.smtp_client,
            remote_host: event.remote_host.as_deref(),
            remote_address: event.remote_address.as_deref(),
            tls: event.tls.as_ref(),
            next_attempt_at: event.next_attempt_at.map(Rfc3339),
            headers: &event.headers,
            client: &event.client,
        }
    }
}

/// A time as a text.
struct Rfc3339(Timestamp);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
