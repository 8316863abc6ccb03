//! The records of a submission as they are made, and the bounds on them.

use bytes::Bytes;
use posthaste_broker::{Body, FlowKey, Publish, QueueName, SharedBody};
use posthaste_mail::{Content, received_field};
use posthaste_model::{
    LogBatch, LogEvent, MessageHead, MessageId, RECORD_VERSION, SUBMISSION_LOGS, SubmissionEvent,
    SubmissionId, SubmittedMessage, pool_queue,
};

use crate::{
    content::too_large,
    expand::{Context, ExpandError, Expanded},
    intake::Accepted,
    validate::{Checked, Recipient},
    verp,
};

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
    pub(crate) fn new(checked: &'a Checked, context: &'a Context<'a>) -> Result<Self, ExpandError> {
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

    /// The body that all recipients have.
    pub(crate) fn common_body(&self, bytes: Bytes) -> Body {
        match self.checked.recipients.as_slice() {
            [_] => Body::Inline(bytes),
            _ => Body::Shared(SharedBody { id: self.submission_id.into(), bytes }),
        }
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

    pub(crate) fn finish(mut self) -> Result<Expanded, ExpandError> {
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
