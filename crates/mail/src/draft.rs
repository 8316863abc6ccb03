//! From a draft to the content that all recipients of a submission share.
//!
//! The header fields come in one order: Date, From, Reply-To, Subject,
//! Message-ID, MIME-Version, the submitter's own, those of the body. Each
//! line of a draft that cannot be written as it was meant is an error that
//! names its place, so that the submitter learns of it before anything is
//! accepted. The same draft gives the same bytes.

use bytes::Bytes;
use posthaste_model::Timestamp;

use crate::{
    ContentTypeError, HeaderError, Mailbox, MailboxError, field,
    header::{self, check_header_value},
    mime,
};

/// Longest file name of an attachment in bytes.
pub const MAX_FILENAME_LEN: usize = 255;
/// Longest Content-ID in bytes, without its brackets.
const MAX_CONTENT_ID_LEN: usize = 200;
/// Longest Message-ID in bytes, without its brackets.
const MAX_MESSAGE_ID_LEN: usize = 250;

/// What a message is built from.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The author.
    pub from: &'a Mailbox,
    /// Where answers go; none is allowed.
    pub reply_to: &'a [Mailbox],
    /// One line. What is not ASCII is encoded; encoded-words that it already
    /// holds are passed on.
    pub subject: &'a str,
    /// The plain text, any line ends.
    pub text: Option<&'a str>,
    /// The HTML, any line ends.
    pub html: Option<&'a str>,
    /// In this order; those with a Content-ID go beside the HTML.
    pub attachments: &'a [Attachment],
    /// Further header fields, name and value, in this order.
    pub headers: &'a [(String, String)],
    /// Without its brackets.
    pub message_id: &'a str,
    /// The Date field.
    pub date: Timestamp,
}

/// A file that goes with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// As the recipient sees it.
    pub filename: Option<String>,
    /// `type/subtype`, with parameters if need be.
    pub content_type: String,
    /// The bytes, not encoded.
    pub content: Bytes,
    /// Present: an inline part that the HTML names with `cid:` (RFC 2392);
    /// without brackets.
    pub content_id: Option<String>,
}

/// The shared part of a message: header fields but To, Cc and Received, an
/// empty line, the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Lines ended by CRLF, the last one too.
    pub bytes: Vec<u8>,
    /// Whether there are bytes over 127 (8BITMIME, RFC 6152). What [`build`]
    /// makes has them in the header only, with `smtputf8`.
    pub eight_bit: bool,
    /// Whether header fields hold UTF-8, because an address needs it
    /// (RFC 6532).
    pub smtputf8: bool,
}

/// Why a message cannot be built: which part of the draft, and what about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The author.
    #[error("the From mailbox {0}")]
    From(MailboxError),
    /// One of the Reply-To mailboxes.
    #[error("the Reply-To mailbox {index} {error}")]
    ReplyTo {
        /// Its place, from 0.
        index: usize,
        /// What about it.
        error: MailboxError,
    },
    /// The subject.
    #[error("the subject {0}")]
    Subject(HeaderError),
    /// The plain text.
    #[error("the text {0}")]
    Text(TextError),
    /// The HTML.
    #[error("the HTML {0}")]
    Html(TextError),
    /// One of the further header fields.
    #[error("the header field {index} {error}")]
    Header {
        /// Its place, from 0.
        index: usize,
        /// What about it.
        error: HeaderError,
    },
    /// One of the attachments.
    #[error("the attachment {index} {error}")]
    Attachment {
        /// Its place, from 0.
        index: usize,
        /// What about it.
        error: AttachmentError,
    },
    /// The Message-ID, which is the caller's own.
    #[error("the Message-ID is not of the form left@right")]
    MessageId,
}

/// Why a text is refused as a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// RFC 5322 section 2.2 leaves no place for it.
    #[error("may not hold the character NUL")]
    Nul,
}

/// Why an attachment is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachmentError {
    /// Its file name: empty, too long, or a control character.
    #[error(
        "has a file name that is empty, longer than {MAX_FILENAME_LEN} bytes, or holds a control character"
    )]
    Filename,
    /// Its content type.
    #[error("has a content type that {0}")]
    ContentType(ContentTypeError),
    /// Its Content-ID.
    #[error(
        "has a Content-ID that is empty, too long, or holds other than printable ASCII without brackets, quotes and spaces"
    )]
    ContentId,
    /// message/*: may not be encoded (RFC 2046 section 5.2.1), so it must be
    /// fit to send as it is.
    #[error(
        "is a message with characters over ASCII, a NUL or a line of more than 998 bytes: send it as application/octet-stream"
    )]
    NotSevenBit,
}

/// Header fields that differ between the recipients of one content. They are
/// left out of it, and stand in front of it for each recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Varying {
    /// The Subject; that of the draft is not looked at.
    pub subject: bool,
    /// The Message-ID; that of the draft names the boundaries alone.
    pub message_id: bool,
}

/// Builds the shared part of a message.
///
/// # Errors
/// Something of the draft cannot be written as it was meant.
pub fn build(draft: &Draft<'_>) -> Result<Content, BuildError> {
    build_varying(draft, Varying::default())
}

/// Builds the shared part of messages whose header fields differ.
///
/// # Errors
/// Something of the draft cannot be written as it was meant.
pub fn build_varying(draft: &Draft<'_>, varying: Varying) -> Result<Content, BuildError> {
    check(draft, varying)?;
    let body = mime::body(draft)?;
    let mut bytes = Vec::with_capacity(estimate(draft));
    write_header(&mut bytes, draft, varying);
    body.write_part(&mut bytes);
    if !bytes.ends_with(b"\r\n") {
        bytes.extend_from_slice(b"\r\n");
    }
    let eight_bit = !bytes.is_ascii();
    // All bodies are 7-bit: what is left is an address in the header.
    Ok(Content { bytes, eight_bit, smtputf8: eight_bit })
}

fn check(draft: &Draft<'_>, varying: Varying) -> Result<(), BuildError> {
    draft.from.check().map_err(BuildError::From)?;
    for (index, mailbox) in draft.reply_to.iter().enumerate() {
        mailbox.check().map_err(|error| BuildError::ReplyTo { index, error })?;
    }
    match check_header_value(draft.subject) {
        // The subject has no structure: a long word is encoded.
        Ok(()) | Err(HeaderError::Unfoldable) => {}
        Err(_) if varying.subject => {}
        Err(error) => return Err(BuildError::Subject(error)),
    }
    header::check_fields(draft.headers)
        .map_err(|(index, error)| BuildError::Header { index, error })?;
    let id = draft.message_id;
    let (left, right) = id.split_once('@').ok_or(BuildError::MessageId)?;
    if id.len() > MAX_MESSAGE_ID_LEN || !is_id(left) || !is_id(right) || right.contains('@') {
        return Err(BuildError::MessageId);
    }
    for (index, attachment) in draft.attachments.iter().enumerate() {
        check_names(attachment).map_err(|error| BuildError::Attachment { index, error })?;
    }
    Ok(())
}

fn check_names(attachment: &Attachment) -> Result<(), AttachmentError> {
    if let Some(name) = &attachment.filename {
        let fits = (1..=MAX_FILENAME_LEN).contains(&name.len());
        if !fits || name.contains(char::is_control) {
            return Err(AttachmentError::Filename);
        }
    }
    match &attachment.content_id {
        Some(id) if id.len() > MAX_CONTENT_ID_LEN || !is_id(id) => Err(AttachmentError::ContentId),
        _ => Ok(()),
    }
}

/// Fit to stand between the brackets of a msg-id (RFC 5322 section 3.6.4),
/// a little wider: clients make Content-IDs without an `@`.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"<>()[]\\\",;:".contains(&b))
}

fn write_header(out: &mut Vec<u8>, draft: &Draft<'_>, varying: Varying) {
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(field::date_text(draft.date).as_bytes());
    out.extend_from_slice(b"\r\n");
    field::write_addresses(out, "From", std::slice::from_ref(draft.from));
    if !draft.reply_to.is_empty() {
        field::write_addresses(out, "Reply-To", draft.reply_to);
    }
    if !varying.subject {
        field::write_unstructured(out, "Subject", draft.subject, true);
    }
    if !varying.message_id {
        out.extend_from_slice(field::message_id_field(draft.message_id).as_bytes());
    }
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    for (name, value) in draft.headers {
        field::write_header_field(out, name, value);
    }
}

fn estimate(draft: &Draft<'_>) -> usize {
    let text = draft.text.map_or(0, str::len) + draft.html.map_or(0, str::len);
    let files: usize = draft.attachments.iter().map(|a| a.content.len() / 3 * 4 + 512).sum();
    let fields: usize = draft.headers.iter().map(|(n, v)| n.len() + v.len() + 8).sum();
    // Quoted-printable adds a little, base64 a third and its line ends.
    1024 + text + text / 8 + files + files / 32 + fields + draft.subject.len() * 2
}
