//! A message that the submitter has built: checked, and made fit to send.
//!
//! What is kept is kept byte for byte, so that a signature over it stays
//! good (RFC 6376). Removed are the fields that must not be sent: Bcc and
//! Resent-Bcc (RFC 5322 sections 3.6.3 and 3.6.6) and Return-Path, which the
//! last host writes (RFC 5321 section 4.4). Added are a Date and a Message-ID
//! where they are missing (RFC 5322 section 3.6). Received fields are kept:
//! loops are found by counting them.
//!
//! Line ends: all CRLF, or all LF, which become CRLF. A mixture, and a bare
//! CR, are refused: hosts do not agree on where such a line ends, by which a
//! second message has been smuggled into a first. A field name that is not
//! exact (`Bcc :`) is refused too, because some readers take it for the field.

use memchr::memchr;
use posthaste_model::Timestamp;

use crate::{Content, Mailbox, MailboxError, field, header::is_header_name};

/// Longest line in bytes, its end apart (RFC 5322 section 2.1.1).
const MAX_LINE: usize = 998;
/// Largest header in bytes.
pub const MAX_RAW_HEADER_BYTES: usize = 256 << 10;
/// Most header fields.
pub const MAX_RAW_FIELDS: usize = 1000;
/// What is kept of the subject for the log.
const MAX_SUBJECT: usize = 998;

/// Fields that a message has once at most (RFC 5322 section 3.6, RFC 2045).
const ONCE: [&str; 13] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "subject",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
];
const REMOVED: [&str; 3] = ["bcc", "resent-bcc", "return-path"];

/// Why a message is refused. Completes the words "the message …". Lines are
/// counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// CR without LF, or LF without CR in a message that has CRLF elsewhere.
    #[error("mixes line ends at line {0}: all of them must be CRLF, or all LF")]
    LineEnd(usize),
    /// RFC 5322 section 2.2 leaves no place for it.
    #[error("holds a NUL at line {0}")]
    Nul(usize),
    /// Over 998 bytes.
    #[error("has more than {MAX_LINE} bytes at line {0}")]
    LineTooLong(usize),
    /// Neither `name: value` nor a continuation.
    #[error("has something other than a header field at line {0}; an empty line ends the header")]
    Field(usize),
    /// RFC 6532 allows UTF-8, and nothing else over ASCII.
    #[error("has a header field that is neither ASCII nor UTF-8 at line {0}")]
    Encoding(usize),
    /// Over [`MAX_RAW_HEADER_BYTES`] or [`MAX_RAW_FIELDS`].
    #[error("has a header of more than {MAX_RAW_FIELDS} fields or {MAX_RAW_HEADER_BYTES} bytes")]
    HeaderTooLong,
    /// No From.
    #[error("has no From field")]
    NoFrom,
    /// A field that may be there once.
    #[error("has more than one {0} field")]
    Repeated(&'static str),
    /// From is not exactly one mailbox.
    #[error("has a From field that {0}; it must be exactly one address")]
    From(MailboxError),
    /// Sender is not one mailbox (RFC 5322 section 3.6.2).
    #[error("has a Sender field that {0}")]
    Sender(MailboxError),
}

/// A message in which nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The one author.
    pub from: Mailbox,
    /// Who sent it for the author, where that is said.
    pub sender: Option<Mailbox>,
    /// The subject as it stands, unfolded, for the log.
    pub subject: String,
    bytes: Vec<u8>,
    has_date: bool,
    has_message_id: bool,
    eight_bit: bool,
    smtputf8: bool,
}

/// Reads a message.
///
/// # Errors
/// It cannot be sent as it was meant.
pub fn read_raw(bytes: &[u8]) -> Result<Raw, RawError> {
    let lines = Lines { rest: bytes, number: 0, crlf: memchr(b'\r', bytes).is_some() };
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 32 + 64);
    let mut header = Header::default();
    let mut in_header = true;
    for line in lines {
        let (number, line) = line?;
        if in_header && line.is_empty() {
            in_header = false;
            header.end(&mut out)?;
        }
        if in_header {
            header.line(number, line, &mut out)?;
        } else {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    if in_header {
        header.end(&mut out)?;
        out.extend_from_slice(b"\r\n");
    }
    header.finish(out)
}

impl Raw {
    /// The bytes that all recipients share. `message_id` (without brackets)
    /// and `date` are used where the message has none.
    #[must_use]
    pub fn content(&self, message_id: &str, date: Timestamp) -> Content {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 200);
        if !self.has_date {
            bytes.extend_from_slice(format!("Date: {}\r\n", field::date_text(date)).as_bytes());
        }
        if !self.has_message_id {
            bytes.extend_from_slice(field::message_id_field(message_id).as_bytes());
        }
        bytes.extend_from_slice(&self.bytes);
        Content { bytes, eight_bit: self.eight_bit, smtputf8: self.smtputf8 }
    }
}

/// The lines with their numbers, without their ends; each is checked.
struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
    crlf: bool,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Result<(usize, &'a [u8]), RawError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        self.number += 1;
        let end = memchr(b'\n', self.rest);
        let (line, rest) = match end {
            Some(at) => (&self.rest[..at], &self.rest[at + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        Some(self.check(line, end.is_some()).map(|line| (self.number, line)))
    }
}

impl Lines<'_> {
    fn check<'a>(&self, line: &'a [u8], is_ended: bool) -> Result<&'a [u8], RawError> {
        let line = match line.strip_suffix(b"\r") {
            Some(line) if is_ended => line,
            // A CR at the very end, or a line end without one among others.
            Some(_) => return Err(RawError::LineEnd(self.number)),
            None if is_ended && self.crlf => return Err(RawError::LineEnd(self.number)),
            None => line,
        };
        if memchr(b'\r', line).is_some() {
            return Err(RawError::LineEnd(self.number));
        }
        if memchr(0, line).is_some() {
            return Err(RawError::Nul(self.number));
        }
        if line.len() > MAX_LINE { Err(RawError::LineTooLong(self.number)) } else { Ok(line) }
    }
}

/// What is learnt of the header while it is read field by field.
#[derive(Default)]
struct Header {
    /// The field that is being read, with its line ends.
    field: Vec<u8>,
    /// The line where it began.
    number: usize,
    bytes: usize,
    fields: usize,
    seen: [bool; ONCE.len()],
    from: Option<Mailbox>,
    sender: Option<Mailbox>,
    subject: String,
    eight_bit: bool,
}

impl Header {
    fn line(&mut self, number: usize, line: &[u8], out: &mut Vec<u8>) -> Result<(), RawError> {
        self.bytes += line.len() + 2;
        let is_continuation = matches!(line.first(), Some(b' ' | b'\t'));
        if !is_continuation {
            self.end(out)?;
            self.fields += 1;
            self.number = number;
        } else if self.field.is_empty() || line.trim_ascii().is_empty() {
            // A line of white space looks like the end of the header to some.
            return Err(RawError::Field(number));
        }
        if self.bytes > MAX_RAW_HEADER_BYTES || self.fields > MAX_RAW_FIELDS {
            return Err(RawError::HeaderTooLong);
        }
        self.field.extend_from_slice(line);
        self.field.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Ends the field that was read: checks it, and keeps it if it may be sent.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), RawError> {
        if self.field.is_empty() {
            return Ok(());
        }
        let field = std::mem::take(&mut self.field);
        let text = std::str::from_utf8(&field).map_err(|_| RawError::Encoding(self.number))?;
        let (name, value) = text.split_once(':').ok_or(RawError::Field(self.number))?;
        if !is_header_name(name) {
            return Err(RawError::Field(self.number));
        }
        self.learn(name, value)?;
        if !REMOVED.iter().any(|removed| name.eq_ignore_ascii_case(removed)) {
            self.eight_bit |= !text.is_ascii();
            out.extend_from_slice(&field);
        }
        Ok(())
    }

    fn learn(&mut self, name: &str, value: &str) -> Result<(), RawError> {
        let Some(index) = ONCE.iter().position(|once| name.eq_ignore_ascii_case(once)) else {
            return Ok(());
        };
        if std::mem::replace(&mut self.seen[index], true) {
            return Err(RawError::Repeated(ONCE[index]));
        }
        match ONCE[index] {
            "from" => self.from = Some(unfolded(value).parse().map_err(RawError::From)?),
            "sender" => self.sender = Some(unfolded(value).parse().map_err(RawError::Sender)?),
            "subject" => {
                self.subject = unfolded(value);
                self.subject.truncate(self.subject.floor_char_boundary(MAX_SUBJECT));
            }
            _ => {}
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        ONCE.iter().zip(self.seen).any(|(once, seen)| *once == name && seen)
    }

    fn finish(self, bytes: Vec<u8>) -> Result<Raw, RawError> {
        let (has_date, has_message_id) = (self.has("date"), self.has("message-id"));
        Ok(Raw {
            from: self.from.ok_or(RawError::NoFrom)?,
            sender: self.sender,
            subject: self.subject,
            has_date,
            has_message_id,
            eight_bit: !bytes.is_ascii(),
            smtputf8: self.eight_bit,
            bytes,
        })
    }
}

/// On one line, a tab as a space.
fn unfolded(value: &str) -> String {
    value.replace("\r\n", "").replace('\t', " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(raw: &str) -> String {
        let content = read_raw(raw.as_bytes()).unwrap().content("1@mta", Timestamp::default());
        String::from_utf8(content.bytes).unwrap()
    }

    #[test]
    fn kept_byte_for_byte_but_for_what_must_not_be_sent() {
        let given = "DKIM-Signature: v=1;\r\n\tb=x \r\nReceived: by a; now\r\nFROM:A\r\n <a@example.com>\r\n\
             Bcc: x@example.net,\r\n y@example.net\r\nDate: now\r\nMessage-ID: <2@x>\r\n\
             Return-Path: <q@example.net>\r\nResent-bcc: z@example.net\r\nBCC:\r\nX: 1\r\nX: 2\r\n\r\nBcc: in the body\r\n.\r\n";
        let expected = "DKIM-Signature: v=1;\r\n\tb=x \r\nReceived: by a; now\r\nFROM:A\r\n <a@example.com>\r\n\
             Date: now\r\nMessage-ID: <2@x>\r\nX: 1\r\nX: 2\r\n\r\nBcc: in the body\r\n.\r\n";
        assert_eq!(sent(given), expected);
        assert_eq!(sent(&given.replace("\r\n", "\n")), expected);
    }

    #[test]
    fn what_is_missing_is_added() {
        let added = "Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <1@mta>\r\n";
        for (given, expected) in [
            ("From: a@example.com", "From: a@example.com\r\n\r\n"),
            ("From: a@example.com\n", "From: a@example.com\r\n\r\n"),
            ("From: a@example.com\n\n", "From: a@example.com\r\n\r\n"),
            ("From: a@example.com\r\n\r\nno end", "From: a@example.com\r\n\r\nno end\r\n"),
        ] {
            assert_eq!(sent(given), format!("{added}{expected}"), "{given:?}");
        }
    }

    #[test]
    fn what_is_learnt() {
        let raw = "Subject: =?utf-8?Q?=C3=A4?=\r\n b\r\nSender: S\r\n\t<s@example.org>\r\n\
             From: =?utf-8?Q?J=C3=B6rg?= <j@B\u{fc}cher.example>\r\n\r\n";
        let read = read_raw(raw.as_bytes()).unwrap();
        assert_eq!(read.from.address.as_str(), "j@xn--bcher-kva.example");
        assert_eq!(read.sender.unwrap().address.as_str(), "s@example.org");
        assert_eq!(read.subject, "=?utf-8?Q?=C3=A4?= b");
    }

    #[test]
    fn bytes_over_ascii() {
        for (raw, eight_bit, smtputf8) in [
            (&b"From: a@example.com\n\nx"[..], false, false),
            (b"From: a@example.com\n\n\xff", true, false),
            ("From: a@example.com\nX: ä\n\nx".as_bytes(), true, true),
            ("From: jörg@example.com\n\n".as_bytes(), true, true),
            // What is removed does not count.
            ("From: a@example.com\nBcc: ä@example.com\n\n".as_bytes(), false, false),
        ] {
            let content = read_raw(raw).unwrap().content("1@mta", Timestamp::default());
            assert_eq!((content.eight_bit, content.smtputf8), (eight_bit, smtputf8), "{raw:?}");
        }
    }

    #[test]
    fn refused() {
        use RawError as E;
        let long = format!("From: a@example.com\n\n{}", "x".repeat(999));
        let fields = format!("From: a@example.com\n{}", "X: y\n".repeat(MAX_RAW_FIELDS));
        let header =
            format!("From: a@example.com\n{}", format!("X: {}\n", "y".repeat(900)).repeat(300));
        let table: [(&[u8], RawError); 30] = [
            (b"", E::NoFrom),
            (b"\r\n", E::NoFrom),
            (b"\r\nFrom: a@example.com", E::NoFrom),
            (b"To: a@example.com\r\n\r\n", E::NoFrom),
            (b"From: a@example.com\r\n\r\na\nb", E::LineEnd(3)),
            (b"From: a@example.com\nX: y\r\n\r\n", E::LineEnd(1)),
            (b"From: a@example.com\r\n\r\na\rb\r\n", E::LineEnd(3)),
            (b"From: a@example.com\n\na\rb\n", E::LineEnd(1)),
            (b"From: a@example.com\r\n\r\na\r", E::LineEnd(3)),
            (b"From: a@example.com\r\n\r\n.\n\r\nMAIL FROM:<x>\r\n", E::LineEnd(3)),
            (b"From: a@example.com\r", E::LineEnd(1)),
            (b"From: a@example.com\n\na\0b", E::Nul(3)),
            (b"From: a@example.com\nX: \0\n", E::Nul(2)),
            (long.as_bytes(), E::LineTooLong(3)),
            (fields.as_bytes(), E::HeaderTooLong),
            (header.as_bytes(), E::HeaderTooLong),
            (b"From a@example.com Tue Nov 24\nFrom: a@example.com\n", E::Field(1)),
            (b" X: y\nFrom: a@example.com\n", E::Field(1)),
            (b"From: a@example.com\nnonsense\n\n", E::Field(2)),
            (b"From: a@example.com\nBcc : x@example.net\n", E::Field(2)),
            (b"From: a@example.com\n: x\n", E::Field(2)),
            (b"From: a@example.com\nX: y\n \t\nBcc: z@example.net\n", E::Field(3)),
            (b"From: a@example.com\nX: \xff\n", E::Encoding(2)),
            (b"From: a@example.com\nX\xc3\xa4: y\n", E::Field(2)),
            (b"From: a@example.com\nfrom: b@example.com\n", E::Repeated("from")),
            (b"From: a@example.com\nSubject: a\nSUBJECT: b\n", E::Repeated("subject")),
            (b"From: a@example.com, b@example.com\n", E::From(MailboxError::List)),
            (b"From: Friends: a@example.com;\n", E::From(MailboxError::Group)),
            (b"From:\n", E::From(MailboxError::Empty)),
            (
                b"From: a@example.com\nSender: b@example.com, c@example.com\n",
                E::Sender(MailboxError::List),
            ),
        ];
        for (raw, error) in table {
            assert_eq!(
                read_raw(raw),
                Err(error),
                "{:?}",
                String::from_utf8_lossy(&raw[..raw.len().min(80)])
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_keeps_the_rules_of_the_wire(
            parts in proptest::collection::vec(prop_oneof![
                Just("From: a@example.com".to_owned()), Just("\r\n".to_owned()), Just("\n".to_owned()),
                Just("Bcc: hidden@example.net".to_owned()), Just(" ".to_owned()), Just("\r".to_owned()),
                "[a-zA-Z: \\t]{0,20}", "\\PC{0,10}",
            ], 0..20),
        ) {
            let given = parts.concat();
            if let Ok(read) = read_raw(given.as_bytes()) {
                let bytes = read.content("1@mta", Timestamp::default()).bytes;
                let text = String::from_utf8(bytes).unwrap();
                prop_assert!(text.ends_with("\r\n"));
                for line in text.strip_suffix("\r\n").unwrap().split("\r\n") {
                    prop_assert!(!line.contains(['\r', '\n', '\0']) && line.len() <= 998);
                }
                let header = text.split("\r\n\r\n").next().unwrap().to_lowercase();
                prop_assert!(!header.contains("\r\nbcc"), "{}", header);
                // What was read is read again as the same.
                let again = read_raw(text.as_bytes()).unwrap();
                prop_assert_eq!(again.content("2@mta", Timestamp::default()).bytes, text.into_bytes());
            }
        }
    }
}
