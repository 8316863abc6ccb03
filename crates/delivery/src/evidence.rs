//! From what an attempt found to its record: the event for the delivery log
//! (UC6), the entry of the journal and the outcome to be settled.

use bytes::Bytes;
use posthaste_mail::header_json;
use posthaste_model::{
    AttemptEvent, Disposition, EventKind, LogBatch, LogEvent, MessageHead, Reason, SmtpReply,
    Timestamp, TlsInfo,
};
use serde_json::value::RawValue;

use crate::{
    client::Client,
    job::{After, Job, Outcome},
    journal,
    retry::{self, Next},
};

/// Most bytes of header fields that go into the record.
const MAX_HEADERS: usize = 32 << 10;
/// Most characters of a reply or a detail that go into the record.
const MAX_TEXT: usize = 4096;

/// How an attempt ended, before the retry schedule had its say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Delivered,
    Defer(Reason),
    Fail(Reason),
}

/// The server that an attempt dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub host: String,
    pub address: String,
    pub tls: Option<TlsInfo>,
}

/// All that an attempt found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub end: End,
    pub reply: Option<SmtpReply>,
    pub detail: Option<String>,
    pub remote: Option<Remote>,
}

impl Finding {
    pub fn new(end: End, detail: impl Into<String>) -> Self {
        Self { end, reply: None, detail: Some(detail.into()), remote: None }
    }
}

/// What an attempt means for its message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Conclusion {
    disposition: Disposition,
    reason: Reason,
    detail: Option<String>,
    next_attempt_at: Option<Timestamp>,
}

fn conclude(
    client: &Client,
    head: &MessageHead,
    number: u32,
    finding: &Finding,
    times: (Timestamp, Timestamp),
    rng: &mut fastrand::Rng,
) -> Conclusion {
    let (started_at, now) = times;
    let detail = finding.detail.as_deref().map(shorten);
    let end = |disposition, reason| Conclusion {
        disposition,
        reason,
        detail: detail.clone(),
        next_attempt_at: None,
    };
    let reason = match finding.end {
        End::Delivered => return end(Disposition::Delivered, Reason::Accepted),
        End::Fail(reason) => return end(Disposition::Undeliverable, reason),
        End::Defer(reason) => reason,
    };
    let first = head.first_attempt_at.or(Some(started_at));
    let limit = retry::limit(head.expires_at, first, client.config.max_age);
    let last = match client.config.retry.next(number, reason, now, limit, rng) {
        Next::Attempt(due) => {
            return Conclusion { next_attempt_at: Some(due), ..end(Disposition::Deferred, reason) };
        }
        Next::Exhausted => Reason::AttemptsExhausted,
        Next::Expired => Reason::Expired,
    };
    let cause = match &detail {
        Some(detail) => format!("the last attempt: {reason}: {detail}"),
        None => format!("the last attempt: {reason}"),
    };
    Conclusion { detail: Some(cause), ..end(Disposition::Undeliverable, last) }
}

/// Makes the record of an attempt and the outcome that settles it.
pub(crate) fn record(
    client: &Client,
    job: &Job,
    content: &[u8],
    finding: Finding,
    rng: &mut fastrand::Rng,
) -> (journal::Final, Outcome) {
    let now = client.shared.clock.now();
    let started_at = started_at(job, now);
    let number = job.number();
    let conclusion = conclude(client, &job.head, number, &finding, (started_at, now), rng);
    let next = match conclusion.next_attempt_at {
        Some(due) => journal::Next::Defer { due, head: next_head(&job.head, number, started_at) },
        None => journal::Next::Acknowledge,
    };
    let event = event(client, job, number, content, finding, conclusion, now);
    count(client, job, &event);
    let line = Bytes::from(LogBatch(vec![LogEvent::Attempt(event)]).encode());
    let ended = journal::Final {
        attempt_id: job.attempt_id,
        message_id: job.head.message_id,
        number,
        time: now,
        event: line.clone(),
        next: next.clone(),
    };
    let outcome = Outcome {
        journalled: Some(job.attempt_id),
        event: Some(line),
        ..Outcome::new(&job.delivery, next.into())
    };
    (ended, outcome)
}

/// The outcome of a message that is not attempted: its event counts as no
/// attempt.
pub(crate) fn without_attempt(
    client: &Client,
    job: &Job,
    reason: Reason,
    detail: String,
    after: After,
) -> Outcome {
    let now = client.shared.clock.now();
    let finding = Finding::new(End::Fail(reason), detail);
    let conclusion = Conclusion {
        disposition: Disposition::Undeliverable,
        reason,
        detail: finding.detail.clone(),
        next_attempt_at: None,
    };
    let event = event(client, job, 0, b"", finding, conclusion, now);
    count(client, job, &event);
    let line = LogBatch(vec![LogEvent::Attempt(event)]).encode();
    Outcome { event: Some(line.into()), ..Outcome::new(&job.delivery, after) }
}

/// The event of an attempt in whose midst the process ended. Its time is that
/// of its start: what happened to the message since then came later.
pub(crate) fn interrupted(start: &journal::Start, now: Timestamp) -> LogEvent {
    LogEvent::Attempt(AttemptEvent {
        attempt_id: start.attempt_id,
        message_id: start.message_id,
        submission_id: start.submission_id,
        kind: EventKind::Attempt,
        disposition: Disposition::Deferred,
        reason: Reason::Interrupted,
        detail: Some(format!(
            "attempt {} did not come to an end, as was found at {now}; the remote server may have \
             taken the message; it is attempted again",
            start.number
        )),
        started_at: start.time,
        time: start.time,
        length_ms: 0,
        attempt: 0,
        reply: None,
        recipient: start.recipient.clone(),
        pool: start.pool.clone(),
        smtp_client: start.smtp_client.clone(),
        remote_host: None,
        remote_address: None,
        tls: None,
        next_attempt_at: None,
        headers: empty_array(),
        client: serde_json::value::to_raw_value(&serde_json::json!({"name": start.smtp_client}))
            .unwrap_or_default(),
    })
}

/// A JSON array without elements.
fn empty_array() -> Box<RawValue> {
    RawValue::from_string("[]".to_owned()).unwrap_or_default()
}

fn event(
    client: &Client,
    job: &Job,
    attempt: u32,
    content: &[u8],
    finding: Finding,
    conclusion: Conclusion,
    now: Timestamp,
) -> AttemptEvent {
    let head = &job.head;
    let (remote_host, remote_address, tls) = match finding.remote {
        Some(remote) => (Some(remote.host), Some(remote.address), remote.tls),
        None => (None, None, None),
    };
    let reply = finding.reply.map(|mut reply| {
        if reply.text.len() > MAX_TEXT {
            reply.text = shorten(&reply.text);
        }
        reply
    });
    let length = job.handed_over().elapsed().as_millis();
    AttemptEvent {
        attempt_id: job.attempt_id,
        message_id: head.message_id,
        submission_id: head.submission_id,
        kind: EventKind::Attempt,
        disposition: conclusion.disposition,
        reason: conclusion.reason,
        detail: conclusion.detail,
        started_at: started_at(job, now),
        time: now,
        length_ms: u32::try_from(length).unwrap_or(u32::MAX),
        attempt,
        reply,
        recipient: head.recipient.clone(),
        pool: head.pool.clone(),
        smtp_client: client.config.name.clone(),
        remote_host,
        remote_address,
        tls,
        next_attempt_at: conclusion.next_attempt_at,
        headers: header_json(&head.fields, content, MAX_HEADERS),
        client: client.data.clone(),
    }
}

fn count(client: &Client, job: &Job, event: &AttemptEvent) {
    let (disposition, reason) = (event.disposition.as_str(), event.reason.as_str());
    client.metrics.attempt(disposition, reason);
    client.metrics.attempt_seconds.observe(job.handed_over().elapsed().as_secs_f64());
    if event.disposition == Disposition::Delivered {
        tracing::debug!(message_id = %event.message_id, recipient = %event.recipient, "delivered");
    } else {
        tracing::info!(
            message_id = %event.message_id,
            recipient = %event.recipient,
            disposition,
            reason,
            detail = event.detail.as_deref(),
            reply = event.reply.as_ref().map(tracing::field::display),
            "not delivered"
        );
    }
}

/// When the broker handed the message over, on the wall clock.
fn started_at(job: &Job, now: Timestamp) -> Timestamp {
    let elapsed = i64::try_from(job.handed_over().elapsed().as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(elapsed))
}

fn next_head(head: &MessageHead, number: u32, started_at: Timestamp) -> Bytes {
    let next = MessageHead {
        attempts: number,
        first_attempt_at: head.first_attempt_at.or(Some(started_at)),
        ..head.clone()
    };
    next.encode().into()
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// The entry that opens an attempt in the journal.
pub(crate) fn start(client: &Client, job: &Job) -> journal::Start {
    journal::Start {
        attempt_id: job.attempt_id,
        message_id: job.head.message_id,
        submission_id: job.head.submission_id,
        recipient: job.head.recipient.clone(),
        pool: job.head.pool.clone(),
        smtp_client: client.config.name.clone(),
        number: job.number(),
        time: client.shared.clock.now(),
    }
}

/// Whether no attempt may begin any more.
pub(crate) fn is_expired(client: &Client, head: &MessageHead) -> bool {
    let limit = retry::limit(head.expires_at, head.first_attempt_at, client.config.max_age);
    limit.is_some_and(|limit| client.shared.clock.now() > limit)
}
