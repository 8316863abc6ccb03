//! One content, one message a recipient.
//!
//! The content is built and compressed once. What differs between recipients
//! stands in the fields of each head: the trace field, and To and Cc. A BCC
//! recipient's fields name that recipient alone, so that the copy reads as if
//! it were sent to that address only; nobody else's fields name it.

use std::time::Duration;

use bytes::Bytes;
use posthaste_broker::{Body, BrokerError, FlowKey, Publish, QueueName, SharedBody};
use posthaste_mail::{
    AttachmentError, BuildError, Content, Draft, address_field, build, compress, received_field,
};
use posthaste_model::{
    LogBatch, LogEvent, MessageHead, MessageId, RECORD_VERSION, RecipientKind, SUBMISSION_LOGS,
    SubmissionEvent, SubmissionId, SubmittedMessage, Timestamp, pool_queue,
};

use crate::{
    config::IntakeConfig,
    errors::{Errors, Refusals, code},
    intake::Accepted,
    options::Ids,
    principal::{Principal, Source},
    validate::{Checked, Recipient, header_code, header_pointer},
};

/// A submission that is ready for the broker.
pub(crate) struct Expanded {
    /// Its messages and its submission log: durable together.
    pub(crate) publishes: Vec<Publish>,
    pub(crate) accepted: Accepted,
    /// Bytes that go to the broker; a shared body counts once.
    pub(crate) bytes: usize,
    /// Bytes of the To and Cc fields of all heads.
    pub(crate) address_bytes: usize,
}

/// What is the same for all submissions of a request.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a IntakeConfig,
    pub(crate) principal: &'a Principal,
    pub(crate) source: Source,
    pub(crate) now: Timestamp,
    /// How long the request has been worked on.
    pub(crate) elapsed: &'a dyn Fn() -> Duration,
    /// How many bytes of To and Cc fields may still be added.
    pub(crate) address_bytes: usize,
    /// Of the item that is expanded.
    pub(crate) ids: Ids,
}

/// What could not be expanded.
pub(crate) enum ExpandError {
    /// For the submitter.
    Refused(Refusals),
    /// Ours.
    Internal(String),
}

impl From<BrokerError> for ExpandError {
    fn from(error: BrokerError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// Expands one submission.
pub(crate) fn expand(checked: &Checked, context: &Context<'_>) -> Result<Expanded, ExpandError> {
    let submission_id = context.ids.submission();
    let content = build_content(checked, submission_id, context)?;
    let fields = Fields::new(checked, context)?;
    let config = context.config;
    let compressed = compress::compress(config.codec, &content.bytes, config.level)
        .map_err(|error| ExpandError::Internal(error.to_string()))?;
    let bytes = Bytes::from(compressed);
    let mut total = bytes.len();
    let body = match checked.recipients.as_slice() {
        [_] => Body::Inline(bytes),
        _ => Body::Shared(SharedBody { id: submission_id.into(), bytes }),
    };

    let queue = QueueName::new(&pool_queue(&checked.pool))?;
    let mut publishes = Vec::with_capacity(checked.recipients.len() + 1);
    let mut messages = Vec::with_capacity(checked.recipients.len());
    let mut head = head(checked, submission_id, &content, context)?;
    let mut address_bytes = 0;
    for (place, recipient) in checked.recipients.iter().enumerate() {
        let message_id = context.ids.message(place);
        let address = &recipient.mailbox.address;
        head.message_id = message_id;
        head.recipient = address.clone();
        address_bytes += fields.write(recipient, message_id, context, &mut head.fields);
        head.smtputf8 = content.smtputf8
            || !head.fields.is_ascii()
            || address.needs_smtputf8()
            || checked.return_path.needs_smtputf8();
        let encoded = Bytes::from(head.encode());
        total += encoded.len();
        publishes.push(Publish {
            queue: queue.clone(),
            id: message_id.into(),
            priority: checked.priority,
            due: checked.due,
            flow_key: FlowKey::new(address.domain().as_str()),
            head: encoded,
            body: body.clone(),
        });
        messages.push(SubmittedMessage {
            message_id,
            recipient: address.clone(),
            kind: recipient.kind,
        });
    }
    let log = submission_log(checked, submission_id, &messages, content.bytes.len(), context)?;
    total += body_len(&log);
    publishes.push(log);
    let accepted = Accepted { submission_id, messages };
    Ok(Expanded { publishes, accepted, bytes: total, address_bytes })
}

fn body_len(publish: &Publish) -> usize {
    match &publish.body {
        Body::Inline(bytes) => bytes.len(),
        Body::Shared(shared) => shared.bytes.len(),
        Body::Kept(_) => 0,
    }
}

fn build_content(
    checked: &Checked,
    submission_id: SubmissionId,
    context: &Context<'_>,
) -> Result<Content, ExpandError> {
    let request = &checked.request;
    let message_id = format!("{submission_id}@{}", context.config.hostname);
    let draft = Draft {
        from: &checked.from,
        reply_to: &request.reply_to,
        subject: request.subject.as_deref().unwrap_or_default(),
        text: request.text.as_deref(),
        html: request.html.as_deref(),
        attachments: &request.attachments,
        headers: &request.headers,
        message_id: &message_id,
        date: context.now,
    };
    let content = build(&draft).map_err(|error| build_refused(&error, &request.headers))?;
    let (size, max) = (content.bytes.len(), context.config.limits.content_bytes);
    if size > max {
        let mut too_large = Errors::default();
        let detail = format_args!("the message has {size} bytes, allowed are {max}");
        too_large.add("", code::CONTENT_TOO_LARGE, detail);
        return Err(ExpandError::Refused(Refusals { too_large, ..Refusals::default() }));
    }
    Ok(content)
}

/// Puts what the builder refused where the submitter can find it.
fn build_refused(error: &BuildError, headers: &[(String, String)]) -> ExpandError {
    let mut invalid = Errors::default();
    match error {
        BuildError::From(error) => invalid.add("/from", code::ADDRESS_INVALID, error),
        BuildError::ReplyTo { index, error } => {
            invalid.add(format_args!("/reply_to/{index}"), code::ADDRESS_INVALID, error);
        }
        BuildError::Subject(error) => invalid.add("/subject", code::HEADER_INVALID, error),
        BuildError::Text(error) => invalid.add("/text", code::CONTROL_CHARACTER, error),
        BuildError::Html(error) => invalid.add("/html", code::CONTROL_CHARACTER, error),
        BuildError::Header { index, error } => {
            invalid.add(header_pointer(headers, *index), header_code(error), error);
        }
        BuildError::Attachment { index, error } => {
            let part = match error {
                AttachmentError::Filename => "filename",
                AttachmentError::ContentType(_) => "content_type",
                AttachmentError::ContentId => "content_id",
                AttachmentError::NotSevenBit => "content",
            };
            let pointer = format_args!("/attachments/{index}/{part}");
            invalid.add(pointer, code::ATTACHMENT_INVALID, error);
        }
        // The only part of it that is not ours is the configured host name.
        BuildError::MessageId => return ExpandError::Internal(error.to_string()),
    }
    ExpandError::Refused(Refusals { invalid, ..Refusals::default() })
}

/// The To and Cc fields that the visible recipients see.
struct Fields {
    visible: String,
}

impl Fields {
    fn new(checked: &Checked, context: &Context<'_>) -> Result<Self, ExpandError> {
        let request = &checked.request;
        let mut visible = address_field("To", &request.to);
        visible.push_str(&address_field("Cc", &request.cc));
        let copies = checked.recipients.iter().filter(|r| r.kind != RecipientKind::Bcc).count();
        // A quarter of what a head may have: JSON doubles CR, LF, quotes and
        // backslashes, and the rest of the head needs room too.
        if visible.len() > Publish::MAX_HEAD / 4
            || visible.len().saturating_mul(copies) > context.address_bytes
        {
            let mut too_large = Errors::default();
            let detail = format_args!(
                "each of {copies} recipients would see {} bytes of addresses, which is too much; \
                 use bcc or several submissions",
                visible.len()
            );
            too_large.add("/to", code::ADDRESSES_TOO_LARGE, detail);
            return Err(ExpandError::Refused(Refusals { too_large, ..Refusals::default() }));
        }
        Ok(Self { visible })
    }

    /// Writes the fields of one recipient; returns the bytes of the addresses.
    fn write(
        &self,
        recipient: &Recipient,
        message_id: MessageId,
        context: &Context<'_>,
        fields: &mut String,
    ) -> usize {
        let by = &context.config.hostname;
        *fields = received_field(by, "HTTP", &message_id.to_string(), context.now);
        let trace = fields.len();
        match recipient.kind {
            RecipientKind::To | RecipientKind::Cc => fields.push_str(&self.visible),
            RecipientKind::Bcc => {
                fields.push_str(&address_field("To", std::slice::from_ref(&recipient.mailbox)));
            }
        }
        fields.len() - trace
    }
}

/// The head of all messages; what is of one recipient is put in for each.
fn head(
    checked: &Checked,
    submission_id: SubmissionId,
    content: &Content,
    context: &Context<'_>,
) -> Result<MessageHead, ExpandError> {
    let first = checked
        .recipients
        .first()
        .ok_or_else(|| ExpandError::Internal("a submission without recipients".to_owned()))?;
    Ok(MessageHead {
        v: RECORD_VERSION,
        submission_id,
        message_id: MessageId::from_bytes([0; 16]),
        return_path: Some(checked.return_path.clone()),
        recipient: first.mailbox.address.clone(),
        sender_domain: checked.from.address.domain().clone(),
        pool: checked.pool.clone(),
        priority: checked.priority,
        tags: checked.request.tags.clone(),
        accepted_at: context.now,
        attempts: 0,
        first_attempt_at: None,
        expires_at: checked.request.expires_at,
        smtputf8: content.smtputf8,
        eight_bit: content.eight_bit,
        codec: context.config.codec,
        content_size: size(content.bytes.len()),
        fields: String::new(),
    })
}

fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The record of the submission (UC11), for the loggers.
fn submission_log(
    checked: &Checked,
    submission_id: SubmissionId,
    messages: &[SubmittedMessage],
    content_bytes: usize,
    context: &Context<'_>,
) -> Result<Publish, ExpandError> {
    let event = SubmissionEvent {
        submission_id,
        time: context.now,
        interface: context.source.interface.to_owned(),
        length_us: u32::try_from((context.elapsed)().as_micros()).unwrap_or(u32::MAX),
        source_address: context.source.address.to_string(),
        token: context.principal.token.clone(),
        sender: checked.from.address.clone(),
        subject: checked.request.subject.clone().unwrap_or_default(),
        tags: checked.request.tags.clone(),
        pool: checked.pool.clone(),
        priority: checked.priority,
        size: size(content_bytes),
        due_at: checked.due,
        messages: messages.to_vec(),
    };
    Ok(Publish {
        queue: QueueName::new(SUBMISSION_LOGS)?,
        id: submission_id.into(),
        priority: checked.priority,
        due: None,
        flow_key: FlowKey::default(),
        head: Bytes::from_static(b"{}"),
        body: Body::Inline(LogBatch(vec![LogEvent::Submission(event)]).encode().into()),
    })
}
