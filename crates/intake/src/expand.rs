//! One content, one message a recipient.
//!
//! The content is built and compressed once. What differs between recipients
//! stands in the fields of each head: the trace field, and To and Cc. A BCC
//! recipient's fields name that recipient alone, so that the copy reads as if
//! it were sent to that address only; nobody else's fields name it. A message
//! that came as `raw` keeps its own To and Cc, and its records hold none.

use std::time::Duration;

use bytes::Bytes;
use posthaste_broker::{Body, BrokerError, FlowKey, Publish, QueueName, SharedBody};
use posthaste_mail::{Content, address_field, received_field};
use posthaste_model::{
    LogBatch, LogEvent, MessageHead, MessageId, RECORD_VERSION, RecipientKind, SUBMISSION_LOGS,
    SubmissionEvent, SubmissionId, SubmittedMessage, Timestamp, pool_queue,
};

use crate::{
    config::IntakeConfig,
    content::{build_shared, compressed, too_large},
    errors::{Errors, Refusals, code},
    individual,
    intake::Accepted,
    options::Ids,
    principal::{Principal, Source},
    validate::{Checked, Recipient},
    verp,
};

/// A submission that is ready for the broker.
pub(crate) struct Expanded {
    /// Its messages and its submission log: durable together.
    pub(crate) publishes: Vec<Publish>,
    pub(crate) accepted: Accepted,
    /// Bytes that go to the broker; a shared body counts once.
    pub(crate) bytes: usize,
    /// Bytes of the header fields in all heads, the trace apart.
    pub(crate) field_bytes: usize,
    /// Bytes of contents that single recipients have.
    pub(crate) own_bytes: usize,
}

/// What is the same for all submissions of a request.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a IntakeConfig,
    pub(crate) principal: &'a Principal,
    pub(crate) source: Source,
    pub(crate) now: Timestamp,
    /// How long the request has been worked on.
    pub(crate) elapsed: &'a dyn Fn() -> Duration,
    /// How many bytes of header fields of single recipients may still be added.
    pub(crate) address_bytes: usize,
    /// How many bytes of contents of single recipients may still be added.
    pub(crate) own_bytes: usize,
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
    let mut records = Records::new(checked, context)?;
    if checked.is_individual {
        individual::expand(checked, &mut records)?;
    } else {
        expand_alike(checked, &mut records)?;
    }
    records.finish()
}

/// All recipients get the same.
fn expand_alike(checked: &Checked, records: &mut Records<'_>) -> Result<(), ExpandError> {
    let context = records.context;
    let content = build_shared(checked, records.submission_id, context)?;
    let visible = visible_fields(checked, context)?;
    let bytes = compressed(&content, context)?;
    records.count_body(bytes.len())?;
    let body = match checked.recipients.as_slice() {
        [_] => Body::Inline(bytes),
        _ => Body::Shared(SharedBody { id: records.submission_id.into(), bytes }),
    };
    for (place, recipient) in checked.recipients.iter().enumerate() {
        let message_id = context.ids.message(place);
        let own;
        let fields = match recipient.kind {
            // It has the fields that its author gave it, for everybody.
            _ if checked.raw.is_some() => "",
            RecipientKind::To | RecipientKind::Cc => &visible,
            RecipientKind::Bcc => {
                own = address_field("To", std::slice::from_ref(&recipient.mailbox));
                &own
            }
        };
        records.add(recipient, message_id, &content, fields, body.clone())?;
    }
    Ok(())
}

/// The To and Cc fields that the visible recipients see.
fn visible_fields(checked: &Checked, context: &Context<'_>) -> Result<String, ExpandError> {
    if checked.raw.is_some() {
        return Ok(String::new());
    }
    let request = &checked.request;
    let to: Vec<_> = request.to.iter().map(|to| to.mailbox.clone()).collect();
    let mut visible = address_field("To", &to);
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
    Ok(visible)
}

/// The records of one submission as they are made, and what they may take.
pub(crate) struct Records<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) submission_id: SubmissionId,
    checked: &'a Checked,
    queue: QueueName,
    /// What all heads have in common.
    head: MessageHead,
    publishes: Vec<Publish>,
    messages: Vec<SubmittedMessage>,
    /// Bytes that go to the broker.
    bytes: usize,
    /// Bytes of compressed bodies among them.
    body_bytes: usize,
    /// Bytes of the fields of single recipients.
    field_bytes: usize,
    /// Bytes of the contents that single recipients have.
    own_bytes: usize,
    /// Of the largest content.
    size: usize,
}

impl<'a> Records<'a> {
    fn new(checked: &'a Checked, context: &'a Context<'a>) -> Result<Self, ExpandError> {
        let submission_id = context.ids.submission();
        Ok(Self {
            context,
            submission_id,
            checked,
            queue: QueueName::new(&pool_queue(&checked.pool))?,
            head: head(checked, submission_id, context)?,
            publishes: Vec::with_capacity(checked.recipients.len() + 1),
            messages: Vec::with_capacity(checked.recipients.len()),
            bytes: 0,
            body_bytes: 0,
            field_bytes: 0,
            own_bytes: 0,
            size: 0,
        })
    }

    /// Counts a compressed body. All records of a submission are one batch,
    /// which is held in memory.
    pub(crate) fn count_body(&mut self, bytes: usize) -> Result<(), ExpandError> {
        self.body_bytes += bytes;
        // One body is bounded by the limit on a message.
        if self.own_bytes > 0 && self.body_bytes > self.context.config.batch_bytes {
            let max = self.context.config.batch_bytes;
            return Err(too_large(
                "",
                format_args!(
                    "the messages of all recipients together have more than {max} bytes, compressed; \
                     use several submissions"
                ),
            ));
        }
        Ok(())
    }

    /// Counts the content of one recipient.
    pub(crate) fn count_own(&mut self, bytes: usize) -> Result<(), ExpandError> {
        self.own_bytes += bytes;
        self.check_own(self.own_bytes, 1)
    }

    /// Checks contents of single recipients against what is left for them.
    pub(crate) fn check_own(&self, bytes: usize, count: usize) -> Result<(), ExpandError> {
        let max = self.context.own_bytes;
        if bytes.saturating_mul(count) <= max {
            return Ok(());
        }
        Err(too_large(
            "",
            format_args!(
                "the messages of all recipients together have more than {max} bytes, because text or \
                 HTML differ between them; use several requests, or links in place of attachments"
            ),
        ))
    }

    /// Adds the message of one recipient; `fields` come behind the trace.
    pub(crate) fn add(
        &mut self,
        recipient: &Recipient,
        message_id: MessageId,
        content: &Content,
        fields: &str,
        body: Body,
    ) -> Result<(), ExpandError> {
        let (checked, context) = (self.checked, self.context);
        let address = &recipient.mailbox.address;
        let head = &mut self.head;
        head.message_id = message_id;
        head.recipient = address.clone();
        let base = &checked.return_path;
        let return_path = if checked.request.verp {
            verp::return_path(base, address, message_id)
        } else {
            base.clone()
        };
        head.fields =
            received_field(&context.config.hostname, "HTTP", &message_id.to_string(), context.now);
        head.fields.push_str(fields);
        head.smtputf8 = content.smtputf8
            || !head.fields.is_ascii()
            || address.needs_smtputf8()
            || return_path.needs_smtputf8();
        head.return_path = Some(return_path);
        head.eight_bit = content.eight_bit;
        head.content_size = size(content.bytes.len());
        let encoded = Bytes::from(head.encode());
        self.field_bytes += fields.len();
        if encoded.len() > Publish::MAX_HEAD || self.field_bytes > context.address_bytes {
            let detail =
                "the header fields of single recipients are too large; use several requests";
            return Err(too_large("", detail));
        }
        self.size = self.size.max(content.bytes.len());
        self.bytes += encoded.len();
        self.publishes.push(Publish {
            queue: self.queue.clone(),
            id: message_id.into(),
            priority: checked.priority,
            due: checked.due,
            flow_key: FlowKey::new(address.domain().as_str()),
            head: encoded,
            body,
        });
        self.messages.push(SubmittedMessage {
            message_id,
            recipient: address.clone(),
            kind: recipient.kind,
        });
        Ok(())
    }

    fn finish(mut self) -> Result<Expanded, ExpandError> {
        let log = submission_log(
            self.checked,
            self.submission_id,
            &self.messages,
            self.size,
            self.context,
        )?;
        let log_bytes = match &log.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Shared(_) | Body::Kept(_) => 0,
        };
        self.publishes.push(log);
        Ok(Expanded {
            publishes: self.publishes,
            accepted: Accepted { submission_id: self.submission_id, messages: self.messages },
            bytes: self.bytes + self.body_bytes + log_bytes,
            field_bytes: self.field_bytes,
            own_bytes: self.own_bytes,
        })
    }
}

/// The head of all messages; what is of one recipient is put in for each.
fn head(
    checked: &Checked,
    submission_id: SubmissionId,
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
        smtputf8: false,
        eight_bit: false,
        codec: context.config.codec,
        content_size: 0,
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
        subject: checked.subject().to_owned(),
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
