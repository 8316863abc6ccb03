//! The JSON of a submission.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use bytes::Bytes;
use posthaste_mail::{Attachment, Mailbox};
use posthaste_model::{EmailAddress, PoolName, Tag, Timestamp};
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Unexpected};

use crate::{
    addresses::{ReadAddressee, ReadMailbox, ReadSubstitutions},
    config::Limits,
    errors::{Errors, code},
    fields::{Base64, Flag, Headers, Integer, Parsed, ReadAttachment, Seconds, Text, Time},
    json::{At, Fields, List, OneOrList, Path, Read, Seed},
};

/// What is to be sent, to whom and how. As JSON:
///
/// ```json
/// { "from": {"email": "a@example.com", "name": "A"}, "to": ["b@example.net"],
///   "cc": [], "bcc": [], "reply_to": [], "subject": "…", "text": "…", "html": "…",
///   "headers": {"X-Any": "…"},
///   "attachments": [{"filename": "i.pdf", "content": "<base64>",
///                    "content_type": "application/pdf", "content_id": null}],
///   "tags": ["w47"], "pool": "default", "priority": 5, "delay": 60,
///   "schedule": 1764000000, "return_path": "bounces@example.com", "verp": false,
///   "expires_at": "2026-11-25T00:00:00Z" }
/// ```
///
/// With `"raw": "<base64>"` the message is the submitter's own, in place of
/// the fields from `from` to `attachments` but for the recipients. With
/// `"substitutions": {"name": "Ann"}`, in the objects of `to` or for all, each
/// recipient gets a mail of its own.
///
/// An address is `"b@example.net"`, `"B <b@example.net>"` or an object; where a
/// list of them belongs, one may stand alone. `null` is the same as absent.
#[derive(Debug, Clone, Default)]
pub struct SubmissionRequest {
    /// The From field. Required.
    pub from: Option<Mailbox>,
    /// Recipients whom all but BCC recipients see.
    pub to: Vec<Addressee>,
    /// Recipients whom all but BCC recipients see.
    pub cc: Vec<Mailbox>,
    /// Recipients whom nobody sees. Their copy reads as if it were sent to
    /// each of them alone.
    pub bcc: Vec<Mailbox>,
    /// Where answers go.
    pub reply_to: Vec<Mailbox>,
    /// The subject.
    pub subject: Option<String>,
    /// The text part. This or `html` must be there; it may be empty.
    pub text: Option<String>,
    /// The HTML part.
    pub html: Option<String>,
    /// Further header fields, in order.
    pub headers: Vec<(String, String)>,
    /// Attachments, decoded.
    pub attachments: Vec<Attachment>,
    /// Labels.
    pub tags: Vec<Tag>,
    /// The pool; `None`: `default`.
    pub pool: Option<PoolName>,
    /// 0 to 9, higher goes first; `None`: 5 (UC3).
    pub priority: Option<u8>,
    /// How long to wait (UC2).
    pub delay: Option<Duration>,
    /// When to send; ignored when there is a delay (UC2).
    pub schedule: Option<Timestamp>,
    /// Where bounces go; `None`: to the address of `from`.
    pub return_path: Option<EmailAddress>,
    /// After this no attempt begins.
    pub expires_at: Option<Timestamp>,
    /// A message in RFC 5322, decoded, in place of the content's fields.
    pub raw: Option<Bytes>,
    /// Values for those recipients who have none of their own. Present, even
    /// if empty: each recipient gets a mail of its own.
    pub substitutions: Option<Substitutions>,
    /// Whether each recipient gets a return path of its own.
    pub verp: bool,
}

/// A recipient of `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// Name and address.
    pub mailbox: Mailbox,
    /// Values for this recipient. Present, even if empty: each recipient gets
    /// a mail of its own.
    pub substitutions: Option<Substitutions>,
}

impl From<Mailbox> for Addressee {
    fn from(mailbox: Mailbox) -> Self {
        Self { mailbox, substitutions: None }
    }
}

/// What stands for `{{name}}`, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Substitutions(BTreeMap<String, String>);

impl Substitutions {
    /// Sets a value; the former one, if there was.
    pub fn insert(&mut self, name: String, value: String) -> Option<String> {
        self.0.insert(name, value)
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A submission as it was read, with what was wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Item {
    /// What could be read.
    pub submission: SubmissionRequest,
    /// Whether `to` was one address without the brackets of a list: decides
    /// the pointers of errors.
    pub(crate) is_single_to: bool,
    /// What could not, with pointers below the item.
    pub(crate) errors: Errors,
}

/// A whole request: one submission or a list of them.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The submissions.
    pub(crate) items: Vec<Item>,
    /// Whether they came as a list: decides the pointers of errors.
    pub(crate) is_list: bool,
    /// What is wrong with the request itself.
    pub(crate) errors: Errors,
}

/// The text is not JSON. Completes "failed to read the request: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail} at line {line} column {column}")]
pub struct JsonError {
    /// What is wrong.
    pub detail: String,
    /// Counted from 1.
    pub line: usize,
    /// In bytes, counted from 1.
    pub column: usize,
    /// Whether the text ended too early.
    pub is_truncated: bool,
}

impl Request {
    /// One submission.
    #[must_use]
    pub fn one(submission: SubmissionRequest) -> Self {
        let item = Item { submission, ..Item::default() };
        Self { items: vec![item], ..Self::default() }
    }

    /// A list of submissions.
    #[must_use]
    pub fn list(submissions: Vec<SubmissionRequest>) -> Self {
        let items = submissions
            .into_iter()
            .map(|submission| Item { submission, ..Item::default() })
            .collect();
        Self { items, is_list: true, errors: Errors::default() }
    }

    /// Reads a request. What is wrong with single fields is kept in it, and
    /// said by [`crate::Intake::submit`] together with what else is wrong.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn from_json(body: &[u8], limits: &Limits) -> Result<Self, JsonError> {
        let errors = RefCell::default();
        let values = Cell::new(limits.substitution_values);
        let at = At { path: &Path::Root, errors: &errors, limits, values: &values };
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let seed = Seed { read: ReadRequest, at, nullable: false };
        let request = seed
            .deserialize(&mut deserializer)
            .and_then(|request| deserializer.end().map(|()| request))
            .map_err(|error| JsonError::new(&error))?;
        let mut request = request.unwrap_or_default();
        request.errors.extend("", errors.into_inner());
        Ok(request)
    }

    /// Whether the submissions came as a list.
    #[must_use]
    pub const fn is_list(&self) -> bool {
        self.is_list
    }

    /// How many submissions.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no submission.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl JsonError {
    fn new(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        Self {
            detail: text.strip_suffix(&position).unwrap_or(&text).to_owned(),
            line: error.line(),
            column: error.column(),
            is_truncated: error.is_eof(),
        }
    }
}

/// One submission, or a list of them.
struct ReadRequest;

impl<'de> Read<'de> for ReadRequest {
    type Value = Request;
    const EXPECTED: &'static str = "a submission or a list of submissions";

    fn list<A: SeqAccess<'de>>(self, items: A, at: At<'_>) -> Result<Option<Request>, A::Error> {
        let list = List::new(at.limits.submissions, || ReadItem);
        let items = list.list(items, at)?.unwrap_or_default();
        Ok(Some(Request { items, is_list: true, errors: Errors::default() }))
    }

    fn object<A: MapAccess<'de>>(
        self,
        entries: A,
        at: At<'_>,
    ) -> Result<Option<Request>, A::Error> {
        let item = ReadItem.object(entries, at)?.unwrap_or_default();
        Ok(Some(Request { items: vec![item], ..Request::default() }))
    }
}

/// One submission with errors of its own.
struct ReadItem;

impl<'de> Read<'de> for ReadItem {
    type Value = Item;
    const EXPECTED: &'static str = "a submission: an object";

    fn object<A: MapAccess<'de>>(self, entries: A, at: At<'_>) -> Result<Option<Item>, A::Error> {
        let errors = RefCell::default();
        let own = At { path: &Path::Root, errors: &errors, ..at };
        let (submission, is_single_to) = SubmissionRequest::read(entries, own)?;
        Ok(Some(Item { submission, is_single_to, errors: errors.into_inner() }))
    }

    /// Keeps its place in the list, so that the pointers of others are right.
    fn mismatch(self, found: Unexpected<'_>, _at: At<'_>) -> Option<Item> {
        let mut item = Item::default();
        let detail = format_args!("must be {}, not {found}", Self::EXPECTED);
        item.errors.add("", code::TYPE_MISMATCH, detail);
        Some(item)
    }
}

const FIELDS: &[&str] = &[
    "from",
    "to",
    "cc",
    "bcc",
    "reply_to",
    "subject",
    "text",
    "html",
    "headers",
    "attachments",
    "tags",
    "pool",
    "priority",
    "delay",
    "schedule",
    "return_path",
    "expires_at",
    "raw",
    "substitutions",
    "verp",
];

impl SubmissionRequest {
    /// The least that its content has in bytes, attachments in base64.
    pub(crate) fn content_bytes(&self) -> usize {
        let texts = [&self.subject, &self.text, &self.html];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let attachments: usize =
            self.attachments.iter().map(|attachment| attachment.content.len() / 3 * 4).sum();
        texts + attachments + self.raw.as_ref().map_or(0, Bytes::len)
    }

    /// Recipients as given, before those named twice are put together.
    pub(crate) const fn recipient_count(&self) -> usize {
        self.to.len() + self.cc.len() + self.bcc.len()
    }

    /// Reads the fields; also whether `to` is one address without brackets.
    fn read<'de, A: MapAccess<'de>>(entries: A, at: At<'_>) -> Result<(Self, bool), A::Error> {
        let limits = at.limits;
        let mut fields = Fields::new(entries, FIELDS, at);
        let mut read = Self::default();
        let is_list = Cell::new(false);
        while let Some(field) = fields.next()? {
            match field {
                "from" => read.from = fields.value(field, ReadMailbox)?,
                "to" => {
                    let list = List::new(limits.recipients, || ReadAddressee);
                    let list = NotedList { list: OneOrList(list), is_list: &is_list };
                    read.to = fields.value(field, list)?.unwrap_or_default();
                }
                "cc" => read.cc = mailboxes(&mut fields, field, limits.recipients)?,
                "bcc" => read.bcc = mailboxes(&mut fields, field, limits.recipients)?,
                "reply_to" => read.reply_to = mailboxes(&mut fields, field, limits.reply_to)?,
                "subject" => read.subject = fields.value(field, Text)?,
                "text" => read.text = fields.value(field, Text)?,
                "html" => read.html = fields.value(field, Text)?,
                "headers" => read.headers = fields.value(field, Headers)?.unwrap_or_default(),
                "attachments" => {
                    let list = List::new(limits.attachments, || ReadAttachment);
                    read.attachments = fields.value(field, list)?.unwrap_or_default();
                }
                "tags" => {
                    let list = List::new(limits.tags, || Parsed::new(code::TAG_INVALID));
                    read.tags = fields.value(field, list)?.unwrap_or_default();
                }
                "pool" => read.pool = fields.value(field, Parsed::new(code::POOL_INVALID))?,
                "priority" => {
                    let priority = fields.value(field, Integer { min: 0, max: 9 })?;
                    read.priority = priority.and_then(|priority| u8::try_from(priority).ok());
                }
                "delay" => read.delay = fields.value(field, Seconds(limits.delay))?,
                "schedule" => read.schedule = fields.value(field, Time)?,
                "return_path" => {
                    read.return_path = fields.value(field, Parsed::new(code::ADDRESS_INVALID))?;
                }
                "expires_at" => read.expires_at = fields.value(field, Time)?,
                "raw" => read.raw = fields.value(field, Base64)?,
                "substitutions" => read.substitutions = fields.value(field, ReadSubstitutions)?,
                _ => read.verp = fields.value(field, Flag)?.unwrap_or_default(),
            }
        }
        Ok((read, !is_list.get()))
    }
}

/// [`OneOrList`] that tells which of the two it was.
struct NotedList<'a, R, F> {
    list: OneOrList<R, F>,
    is_list: &'a Cell<bool>,
}

impl<'de, R: Read<'de>, F: Fn() -> R> Read<'de> for NotedList<'_, R, F> {
    type Value = Vec<R::Value>;
    const EXPECTED: &'static str = R::EXPECTED;

    fn string(self, text: &str, at: At<'_>) -> Option<Self::Value> {
        self.list.string(text, at)
    }

    fn list<A: SeqAccess<'de>>(
        self,
        items: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        self.is_list.set(true);
        self.list.list(items, at)
    }

    fn object<A: MapAccess<'de>>(
        self,
        entries: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        self.list.object(entries, at)
    }
}

fn mailboxes<'de, A: MapAccess<'de>>(
    fields: &mut Fields<'_, A>,
    field: &'static str,
    max: usize,
) -> Result<Vec<Mailbox>, A::Error> {
    let list = OneOrList(List::new(max, || ReadMailbox));
    Ok(fields.value(field, list)?.unwrap_or_default())
}
