//! One content, one message a recipient.
//!
//! The content is built and compressed once. What differs between recipients
//! stands in the fields of each head: the trace field, and To and Cc. A BCC
//! recipient's fields name that recipient alone, so that the copy reads as if
//! it were sent to that address only; nobody else's fields name it. A message
//! that came as `raw` keeps its own To and Cc, and its records hold none.

use std::time::Duration;

use posthaste_broker::{BrokerError, Publish};
use posthaste_mail::address_field;
use posthaste_model::{RecipientKind, Timestamp};

use crate::{
    config::IntakeConfig,
    content::{build_shared, compressed},
    errors::{Errors, Refusals, code},
    individual,
    intake::Accepted,
    options::Ids,
    principal::{Principal, Source},
    records::Records,
    validate::Checked,
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
    let body = records.common_body(bytes);
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
