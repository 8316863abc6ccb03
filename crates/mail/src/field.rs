//! Writing header fields: folded at 78 bytes where a fold is possible
//! (RFC 5322 section 2.1.1), encoded-words for what is not ASCII (RFC 2047).
//!
//! The folding and encoding is mail-builder's. It is used field by field and
//! not as a whole message: it adds a Date and a Message-ID of its own where
//! it misses one, and its boundaries are random. It also writes long ASCII
//! text as encoded-words, which a structured field may not hold, so that
//! [`write_unstructured`] chooses between its two writers.

use mail_builder::headers::{Header, address::Address, raw::Raw, text::Text};
use posthaste_model::Timestamp;

use crate::Mailbox;

/// ASCII with words up to this length is written as it is and folds well.
const MAX_PLAIN_WORD: usize = 64;

/// An address field with all its mailboxes, folded and ended by CRLF; empty
/// when there are none (RFC 5322 section 3.6.3 wants one at least). Domains
/// stand in their ASCII form. A control character in a name, which
/// [`Mailbox::new`] refuses, becomes a space.
#[must_use]
pub fn address_field(name: &str, mailboxes: &[Mailbox]) -> String {
    if mailboxes.is_empty() {
        return String::new();
    }
    let mut field = Vec::with_capacity(mailboxes.len() * 48 + 16);
    write_addresses(&mut field, name, mailboxes);
    into_text(field)
}

/// The trace field (RFC 5321 section 4.4), folded and ended by CRLF. There
/// is no `from` clause: the submitter is not a mail host, and where it sits
/// is nobody's business. A loop is detected by counting these fields, and a
/// sink reads the message's id from them.
#[must_use]
pub fn received_field(by: &str, with: &str, id: &str, date: Timestamp) -> String {
    let (by, with, id) = (atom(by), atom(with), atom(id));
    format!("Received: by {by} (Posthaste)\r\n with {with} id {id};\r\n {}\r\n", date_text(date))
}

/// The Subject, folded and ended by CRLF. The text has passed
/// [`crate::check_header_value`], but that it need not have a place to fold.
#[must_use]
pub fn subject_field(subject: &str) -> String {
    let mut field = Vec::with_capacity(subject.len() * 2 + 16);
    write_unstructured(&mut field, "Subject", subject, true);
    into_text(field)
}

/// A field of the submitter, folded and ended by CRLF. Name and value have
/// passed [`crate::check_fields`].
#[must_use]
pub fn header_field(name: &str, value: &str) -> String {
    let mut field = Vec::with_capacity(name.len() + value.len() * 2 + 8);
    write_header_field(&mut field, name, value);
    into_text(field)
}

/// The Message-ID, given without its brackets.
#[must_use]
pub fn message_id_field(id: &str) -> String {
    format!("Message-ID: <{id}>\r\n")
}

pub(crate) fn write_header_field(out: &mut Vec<u8>, name: &str, value: &str) {
    // The display name of a Sender needs the encoding of an address.
    let sender = name.eq_ignore_ascii_case("Sender").then(|| value.parse::<Mailbox>());
    match sender {
        Some(Ok(sender)) => write_addresses(out, name, std::slice::from_ref(&sender)),
        _ => write_unstructured(out, name, value, false),
    }
}

/// RFC 5322 section 3.3, in UTC.
pub(crate) fn date_text(date: Timestamp) -> String {
    mail_builder::headers::date::Date::new(date.as_millis().div_euclid(1000)).to_rfc822()
}

/// One mailbox on one line.
pub(crate) fn mailbox_text(mailbox: &Mailbox) -> String {
    let mut text = Vec::with_capacity(64);
    address(mailbox).write_header(&mut text, 0);
    into_text(text).replace("\r\n", "")
}

pub(crate) fn write_addresses(out: &mut Vec<u8>, name: &str, mailboxes: &[Mailbox]) {
    write_name(out, name);
    let column = name.len() + 2;
    match mailboxes {
        [one] => address(one).write_header(out, column),
        many => Address::new_list(many.iter().map(address).collect()).write_header(out, column),
    }
}

/// A field without inner structure. The value has passed
/// [`crate::check_header_value`]. White space at its ends is not kept: no
/// reader keeps it, and a folded line must not be white alone. ASCII is
/// written as given, encoded-words in it included, unless a word is too long
/// to fold and `encode` allows what the field's structure may not.
pub(crate) fn write_unstructured(out: &mut Vec<u8>, name: &str, value: &str, encode: bool) {
    write_name(out, name);
    let value = value.trim_matches([' ', '\t']);
    let plain = value.is_ascii() && (!encode || value.split([' ', '\t']).all(is_plain_word));
    if plain {
        Raw::new(value).write_header(out, name.len() + 2);
    } else {
        Text::new(value).write_header(out, name.len() + 2);
    }
}

pub(crate) fn write_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
}

/// Empty where two spaces stand in a row: a fold would keep them, but not
/// every reader does.
fn is_plain_word(word: &str) -> bool {
    (1..=MAX_PLAIN_WORD).contains(&word.len())
}

fn address(mailbox: &Mailbox) -> Address<'_> {
    let name = mailbox.name.as_deref().filter(|name| !name.is_empty()).map(|name| {
        if name.contains(char::is_control) {
            std::borrow::Cow::Owned(name.replace(char::is_control, " "))
        } else {
            std::borrow::Cow::Borrowed(name)
        }
    });
    Address::new_address(name, mailbox.address.as_str())
}

/// Nothing that could end a line or a clause.
fn atom(text: &str) -> String {
    let keep = |c: &char| c.is_ascii_graphic() && !matches!(c, ';' | '(' | ')' | '\\');
    text.chars().filter(keep).take(255).collect()
}

fn into_text(bytes: Vec<u8>) -> String {
    // Made of texts and ASCII: always UTF-8.
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mailbox(text: &str) -> Mailbox {
        text.parse().unwrap()
    }

    #[test]
    fn address_fields() {
        for (mailboxes, field) in [
            (vec![], ""),
            (vec![mailbox("a@example.com")], "To: <a@example.com>\r\n"),
            (
                vec![mailbox("A <a@example.com>"), mailbox("Jörg <j@bücher.example>")],
                "To: \"A\" <a@example.com>, =?utf-8?B?SsO2cmc=?= <j@xn--bcher-kva.example>\r\n",
            ),
        ] {
            assert_eq!(address_field("To", &mailboxes), field);
        }
    }

    #[test]
    fn a_name_cannot_inject() {
        let evil = Mailbox {
            name: Some("A\r\nBcc: b@example.com".into()),
            address: "a@example.com".parse().unwrap(),
        };
        let field = address_field("To", &[evil]);
        assert_eq!(field, "To: \"A  Bcc: b@example.com\" <a@example.com>\r\n");
    }

    #[test]
    fn trace() {
        let date = Timestamp::from_millis(1_764_000_000_123);
        assert_eq!(
            received_field("mx.example.com", "HTTP", "0198-ab", date),
            "Received: by mx.example.com (Posthaste)\r\n with HTTP id 0198-ab;\r\n \
             Mon, 24 Nov 2025 16:00:00 +0000\r\n"
        );
        assert!(received_field("x\r\nTo: y", "H;", "(", date).starts_with("Received: by xTo:y ("));
    }

    #[test]
    fn dates() {
        for (millis, text) in [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (-1, "Wed, 31 Dec 1969 23:59:59 +0000"),
            (951_782_400_000, "Tue, 29 Feb 2000 00:00:00 +0000"),
        ] {
            assert_eq!(date_text(Timestamp::from_millis(millis)), text);
        }
    }

    #[test]
    fn unstructured() {
        let long = "word ".repeat(40);
        let url = format!("<https://example.com/{}>, <mailto:u@example.com>", "x".repeat(100));
        for (value, encode, expected) in [
            ("plain", true, "S: plain\r\n".to_owned()),
            ("  ends  ", true, "S: ends\r\n".to_owned()),
            ("=?utf-8?Q?=C3=A4?= x", true, "S: =?utf-8?Q?=C3=A4?= x\r\n".to_owned()),
            ("Größe", true, "S: =?utf-8?B?R3LDtsOfZQ==?=\r\n".to_owned()),
            (
                &long,
                true,
                format!(
                    "S: {}\r\n {}\r\n {}\r\n",
                    "word ".repeat(15).trim_end(),
                    "word ".repeat(15).trim_end(),
                    "word ".repeat(10).trim_end()
                ),
            ),
            (
                &url,
                false,
                format!(
                    "S: <https://example.com/{}>,\r\n <mailto:u@example.com>\r\n",
                    "x".repeat(100)
                ),
            ),
        ] {
            let mut out = Vec::new();
            write_unstructured(&mut out, "S", value, encode);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn fields_are_lines_that_cannot_inject(
            names in proptest::collection::vec(any::<String>(), 1..6),
        ) {
            let mailboxes: Vec<_> = names
                .into_iter()
                .map(|name| Mailbox { name: Some(name), ..mailbox("a@example.com") })
                .collect();
            let field = address_field("To", &mailboxes);
            prop_assert!(field.is_ascii());
            let lines: Vec<_> = field.strip_suffix("\r\n").unwrap().split("\r\n").collect();
            for (at, line) in lines.iter().enumerate() {
                prop_assert!(!line.contains(['\r', '\n', '\0']));
                prop_assert!(at == 0 || line.starts_with(' '), "{:?}", field);
                prop_assert!(line.len() <= 998);
            }
        }
    }
}
