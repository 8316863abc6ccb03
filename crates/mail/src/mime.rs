//! The body: parts, their encodings and their nesting (RFC 2045, RFC 2046).
//!
//! Text and HTML are alternatives, inline parts are related to the HTML
//! (RFC 2387), attachments are mixed behind them:
//!
//! ```text
//! mixed(alternative(text, related(html, inline…)), attachment…)
//! ```
//!
//! A level that would have one part is left out. Bodies are encoded by
//! mail-builder, texts as what is shortest of 7bit, quoted-printable and
//! base64. Some things are done here because it does them otherwise: a lone
//! CR is a line end and not a character; an attachment is base64 always,
//! because a text in another encoding may lose its line ends; boundaries are
//! derived from the Message-ID and cannot occur in a part; file names are not
//! folded ([`crate::disposition`]).

use std::borrow::Cow;

use mail_builder::{
    headers::{content_type::ContentType as Field, raw::Raw},
    mime::{BodyPart, MimePart},
};
use memchr::{memchr, memchr_iter, memmem};

use crate::{
    Attachment, AttachmentError, BuildError, ContentType, Draft, TextError,
    disposition::disposition,
};

const MAX_LINE: usize = 998;

/// The whole body of a draft with its header fields.
pub(crate) fn body<'a>(draft: &Draft<'a>) -> Result<MimePart<'a>, BuildError> {
    let text = draft.text.map(|text| text_part("text/plain", text).map_err(BuildError::Text));
    let html = draft.html.map(|html| text_part("text/html", html).map_err(BuildError::Html));
    let (text, html) = (text.transpose()?, html.transpose()?);

    let (mut inline, mut attached) = (Vec::new(), Vec::new());
    for (index, attachment) in draft.attachments.iter().enumerate() {
        let part = file_part(attachment, is_inline(attachment, draft))
            .map_err(|error| BuildError::Attachment { index, error })?;
        if is_inline(attachment, draft) {
            inline.push(part);
        } else {
            attached.push(part);
        }
    }

    let boundary = Boundary::new(draft);
    let html = html.map(|html| related(&boundary, html, inline));
    let shown = match (text, html) {
        (Some(text), Some(html)) => multipart(&boundary, 2, "alternative", vec![text, html]),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => MimePart::new("text/plain", ""),
    };
    if attached.is_empty() {
        return Ok(shown);
    }
    let mut parts = Vec::with_capacity(attached.len() + 1);
    // A message of attachments alone needs no empty text in front.
    if draft.text.is_some() || draft.html.is_some() {
        parts.push(shown);
    }
    parts.append(&mut attached);
    Ok(multipart(&boundary, 1, "mixed", parts))
}

fn text_part<'a>(content_type: &'static str, text: &'a str) -> Result<MimePart<'a>, TextError> {
    if memchr(0, text.as_bytes()).is_some() {
        return Err(TextError::Nul);
    }
    Ok(MimePart::new(content_type, BodyPart::Text(unix_lines(text))))
}

/// With LF as the only line end, which the encoder turns into CRLF. Borrowed
/// when there is no CR.
fn unix_lines(text: &str) -> Cow<'_, str> {
    if memchr(b'\r', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
}

fn related<'a>(
    boundary: &Boundary,
    html: MimePart<'a>,
    mut inline: Vec<MimePart<'a>>,
) -> MimePart<'a> {
    if inline.is_empty() {
        return html;
    }
    inline.insert(0, html);
    multipart(boundary, 3, "related", inline)
}

fn multipart<'a>(
    boundary: &Boundary,
    level: u8,
    subtype: &str,
    parts: Vec<MimePart<'a>>,
) -> MimePart<'a> {
    let mut content_type = Field::new(format!("multipart/{subtype}"));
    if subtype == "related" {
        // RFC 2387 section 3.1: the type of the root, which is the first.
        content_type = content_type.attribute("type", "text/html");
    }
    MimePart::new(content_type.attribute("boundary", boundary.level(level)), parts)
}

/// Without HTML nothing refers to an inline part: it is a file as others are.
const fn is_inline(attachment: &Attachment, draft: &Draft<'_>) -> bool {
    attachment.content_id.is_some() && draft.html.is_some()
}

fn file_part(attachment: &Attachment, inline: bool) -> Result<MimePart<'_>, AttachmentError> {
    let content_type: ContentType =
        attachment.content_type.parse().map_err(AttachmentError::ContentType)?;
    let bytes: &[u8] = &attachment.content;
    let content = if content_type.is_message() {
        Cow::Owned(seven_bit(bytes)?)
    } else {
        Cow::Borrowed(bytes)
    };
    // As a raw field: with a parsed one a text would not become base64.
    let mut part = MimePart::raw(BodyPart::Binary(content))
        .header("Content-Type", Raw::new(content_type.to_field()));
    if content_type.is_message() {
        part = part.transfer_encoding("7bit");
    }
    let kind = if inline { "inline" } else { "attachment" };
    let disposition = disposition(kind, attachment.filename.as_deref());
    part = part.header("Content-Disposition", Raw::new(disposition));
    if let Some(id) = &attachment.content_id {
        part = part.header("Content-ID", Raw::new(format!("<{id}>")));
    }
    Ok(part)
}

/// A message that is sent within this one, with its line ends made CRLF.
fn seven_bit(bytes: &[u8]) -> Result<Vec<u8>, AttachmentError> {
    let text = std::str::from_utf8(bytes).map_err(|_| AttachmentError::NotSevenBit)?;
    let text = unix_lines(text);
    let fits = text.is_ascii()
        && memchr(0, text.as_bytes()).is_none()
        && text.split('\n').all(|line| line.len() <= MAX_LINE);
    if !fits {
        return Err(AttachmentError::NotSevenBit);
    }
    let mut lines = Vec::with_capacity(text.len() + memchr_iter(b'\n', text.as_bytes()).count());
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n') {
            Some(line) => {
                lines.extend_from_slice(line.as_bytes());
                lines.extend_from_slice(b"\r\n");
            }
            None => lines.extend_from_slice(line.as_bytes()),
        }
    }
    Ok(lines)
}

/// The common start of a message's boundaries.
struct Boundary(String);

impl Boundary {
    /// `=_` cannot occur in quoted-printable or base64 (RFC 2045 section
    /// 6.7). A part that stays as it is could hold anything: the start is
    /// changed until none of them holds it.
    fn new(draft: &Draft<'_>) -> Self {
        let mut salt = 0_u64;
        loop {
            let start = format!("=_{:016x}_", fnv1a(draft.message_id.as_bytes(), salt));
            if !occurs(draft, start.as_bytes()) {
                return Self(start);
            }
            salt = salt.wrapping_add(1);
        }
    }

    fn level(&self, level: u8) -> String {
        format!("{}{level}", self.0)
    }
}

fn occurs(draft: &Draft<'_>, start: &[u8]) -> bool {
    let within = |bytes: &[u8]| memmem::find(bytes, start).is_some();
    draft.text.is_some_and(|text| within(text.as_bytes()))
        || draft.html.is_some_and(|html| within(html.as_bytes()))
        || draft.attachments.iter().any(|attachment| {
            let is_message = attachment
                .content_type
                .trim_start()
                .get(..7)
                .is_some_and(|start| start.eq_ignore_ascii_case("message"));
            is_message && within(&attachment.content)
        })
}

/// A hash that stays the same in every version of the program.
fn fnv1a(bytes: &[u8], salt: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes
        .iter()
        .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
