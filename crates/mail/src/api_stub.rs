//! stub, being written
#![allow(missing_docs, clippy::all, reason = "stub")]
use bytes::Bytes;
use posthaste_model::{EmailAddress, Timestamp, AddressError};
use serde_json::value::RawValue;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox { pub name: Option<String>, pub address: EmailAddress }
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    #[error("{0}")]
    Address(#[from] AddressError),
    #[error("malformed")]
    Malformed,
}
impl Mailbox {
    pub fn new(name: Option<String>, address: EmailAddress) -> Result<Self, MailboxError> { Ok(Self { name, address }) }
}
impl std::str::FromStr for Mailbox {
    type Err = MailboxError;
    fn from_str(s: &str) -> Result<Self, MailboxError> { Ok(Self { name: None, address: s.parse()? }) }
}
impl std::fmt::Display for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{}", self.address) }
}
pub struct Content { pub bytes: Vec<u8>, pub eight_bit: bool, pub smtputf8: bool }
#[derive(Debug, Clone)]
pub struct Attachment { pub filename: Option<String>, pub content_type: String, pub content: Bytes, pub content_id: Option<String> }
pub struct Draft<'a> {
    pub from: &'a Mailbox, pub reply_to: &'a [Mailbox], pub subject: &'a str,
    pub text: Option<&'a str>, pub html: Option<&'a str>, pub attachments: &'a [Attachment],
    pub headers: &'a [(String, String)], pub message_id: &'a str, pub date: Timestamp,
}
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("From: display name")] From(String),
    #[error("Reply-To")] ReplyTo { index: usize, reason: String },
    #[error("subject")] Subject(String),
    #[error("header")] Header { index: usize, reason: String },
    #[error("attachment")] Attachment { index: usize, part: AttachmentPart, reason: String },
    #[error("message id")] MessageId(String),
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachmentPart { Filename, ContentType, ContentId }
pub fn build(_draft: &Draft<'_>) -> Result<Content, BuildError> { Ok(Content { bytes: Vec::new(), eight_bit: false, smtputf8: false }) }
pub fn address_field(_name: &str, _mailboxes: &[Mailbox]) -> String { String::new() }
pub fn received_field(_by: &str, _with: &str, _id: &str, _date: Timestamp) -> String { String::new() }
pub fn header_json(_fields: &str, _content: &[u8], _max: usize) -> Box<RawValue> { RawValue::from_string("[]".into()).unwrap_or_default() }
pub fn count_received(_fields: &str, _content: &[u8]) -> usize { 0 }
pub fn check_header_name(_name: &str) -> Result<(), String> { Ok(()) }
pub fn check_header_value(_value: &str) -> Result<(), String> { Ok(()) }
pub fn is_reserved_header(_name: &str) -> bool { false }
