//! A mailbox: an address with or without a display name.
//!
//! Reads the `mailbox` of RFC 5322 section 3.4 in the forms that people
//! write: `a@b`, `<a@b>`, `Name <a@b>`, `"Name, quoted" <a@b>`. Lists,
//! groups, comments and routes are refused with an error of their own,
//! because each field of a submission says how many mailboxes it takes.

use std::{fmt, str::FromStr};

use posthaste_model::{AddressError, EmailAddress};

use crate::field;

/// Longest display name in bytes.
pub const MAX_NAME_LEN: usize = 256;
/// Longest text that is read as a mailbox, in bytes: a name with every
/// character escaped, and an address.
pub const MAX_MAILBOX_LEN: usize = 1024;

/// Why a text is not one mailbox. Completes the words "the mailbox …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// No text.
    #[error("is empty")]
    Empty,
    /// Over [`MAX_MAILBOX_LEN`].
    #[error("has more than {MAX_MAILBOX_LEN} bytes")]
    TooLong,
    /// Display name over [`MAX_NAME_LEN`].
    #[error("has a display name of more than {MAX_NAME_LEN} bytes")]
    NameTooLong,
    /// CR, LF, NUL, a tab or another control character: header injection.
    #[error("may not hold the control character {0:?}")]
    Control(char),
    /// More than one address, or a name with a comma and without quotes.
    #[error("names more than one address, or has a display name whose comma is not in quotes")]
    List,
    /// `Group: a@b, c@d;` (RFC 5322 section 3.4).
    #[error("is a group, or has a display name whose colon or semicolon is not in quotes")]
    Group,
    /// A character that a display name holds in quotes only.
    #[error("has {0:?} in its display name, which must be in double quotes then")]
    NameCharacter(char),
    /// A `"` without its partner.
    #[error("has a double quote that is not closed")]
    Quote,
    /// `<` without `>`, or text behind it.
    #[error("has a '<' without a '>' at its end")]
    Bracket,
    /// The address itself.
    #[error("{0}")]
    Address(#[from] AddressError),
}

/// An address with or without a display name. Shown as one header field
/// would show it: the name in quotes, or as encoded-words (RFC 2047).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    /// Display name as a person reads it, neither quoted nor encoded.
    pub name: Option<String>,
    /// The address.
    pub address: EmailAddress,
}

impl Mailbox {
    /// A mailbox whose name is checked; an empty name is none.
    ///
    /// # Errors
    /// The name is too long or has a control character.
    pub fn new(name: Option<String>, address: EmailAddress) -> Result<Self, MailboxError> {
        let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let mailbox = Self { name, address };
        mailbox.check()?;
        Ok(mailbox)
    }

    /// The fields are public: whoever writes a header checks again.
    pub(crate) fn check(&self) -> Result<(), MailboxError> {
        let Some(name) = &self.name else { return Ok(()) };
        if name.len() > MAX_NAME_LEN {
            return Err(MailboxError::NameTooLong);
        }
        refuse_control(name)
    }
}

impl From<EmailAddress> for Mailbox {
    fn from(address: EmailAddress) -> Self {
        Self { name: None, address }
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&field::mailbox_text(self))
    }
}

impl FromStr for Mailbox {
    type Err = MailboxError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_MAILBOX_LEN {
            return Err(MailboxError::TooLong);
        }
        refuse_control(text)?;
        let text = text.trim();
        if text.is_empty() {
            return Err(MailboxError::Empty);
        }
        match find_unquoted(text, '<') {
            Some(at) => {
                let name = parse_phrase(&text[..at])?;
                let spec = text[at + 1..].strip_suffix('>').ok_or(MailboxError::Bracket)?;
                if find_unquoted(spec, '>').is_some() {
                    return Err(MailboxError::List);
                }
                Self::new(Some(name), spec.trim().parse()?)
            }
            None => Self::new(None, parse_bare(text)?),
        }
    }
}

fn refuse_control(text: &str) -> Result<(), MailboxError> {
    match text.chars().find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        Some(found) => Err(MailboxError::Control(found)),
        None => Ok(()),
    }
}

/// Where `wanted` stands outside of quoted strings.
fn find_unquoted(text: &str, wanted: char) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        } else if c == wanted && !quoted {
            return Some(at);
        }
    }
    None
}

/// An address without brackets. Its errors name the usual mistakes first.
fn parse_bare(text: &str) -> Result<EmailAddress, MailboxError> {
    text.parse().map_err(|error| {
        if find_unquoted(text, ',').is_some() {
            MailboxError::List
        } else if find_unquoted(text, ';').is_some() {
            MailboxError::Group
        } else {
            MailboxError::Address(error)
        }
    })
}

/// RFC 5322 section 3.2.5: words, quoted or not, here with the dots of
/// `obs-phrase` and with characters over ASCII (RFC 6532 section 3.2).
fn parse_phrase(text: &str) -> Result<String, MailboxError> {
    let mut name = String::with_capacity(text.len());
    let mut chars = text.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => parse_quoted(&mut chars, &mut name)?,
            ',' => return Err(MailboxError::List),
            ':' | ';' => return Err(MailboxError::Group),
            '(' | ')' | '[' | ']' | '\\' | '@' | '>' => {
                return Err(MailboxError::NameCharacter(c));
            }
            c if c.is_whitespace() => {
                if !name.ends_with(' ') {
                    name.push(' ');
                }
            }
            c => name.push(c),
        }
    }
    Ok(name)
}

/// The rest of a quoted string, its opening quote being read.
fn parse_quoted(chars: &mut std::str::Chars<'_>, into: &mut String) -> Result<(), MailboxError> {
    loop {
        match chars.next().ok_or(MailboxError::Quote)? {
            '"' => return Ok(()),
            '\\' => into.push(chars.next().ok_or(MailboxError::Quote)?),
            c => into.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<(Option<String>, String), MailboxError> {
        text.parse::<Mailbox>().map(|m| (m.name, m.address.to_string()))
    }

    #[test]
    fn accepted() {
        for (text, name, address) in [
            ("a@example.com", None, "a@example.com"),
            ("<a@example.com>", None, "a@example.com"),
            (" A <a@example.com> ", Some("A"), "a@example.com"),
            ("J. R.  Hartley <a@example.com>", Some("J. R. Hartley"), "a@example.com"),
            ("Jörg Ω<j@bücher.example>", Some("Jörg Ω"), "j@xn--bcher-kva.example"),
            ("\"Doe, Jane\" <a@example.com>", Some("Doe, Jane"), "a@example.com"),
            ("\"a \\\"b\\\" \\\\ <c>\" <a@example.com>", Some("a \"b\" \\ <c>"), "a@example.com"),
            ("\"x\" y <a@example.com>", Some("x y"), "a@example.com"),
            ("\"\" <a@example.com>", None, "a@example.com"),
            ("\"odd local\"@example.com", None, "\"odd local\"@example.com"),
            ("N <\"a>b\"@example.com>", Some("N"), "\"a>b\"@example.com"),
            ("\"a,b\"@example.com", None, "\"a,b\"@example.com"),
        ] {
            assert_eq!(parsed(text), Ok((name.map(str::to_owned), address.to_owned())), "{text}");
        }
    }

    #[test]
    fn refused() {
        use MailboxError as E;
        for (text, error) in [
            ("", E::Empty),
            ("  ", E::Empty),
            ("a@example.com\r\nBcc: b@example.com", E::Control('\r')),
            ("A\n <a@example.com>", E::Control('\n')),
            ("A\0 <a@example.com>", E::Control('\0')),
            ("A\u{2028} <a@example.com>", E::Control('\u{2028}')),
            ("a@example.com, b@example.com", E::List),
            ("A <a@example.com>, B <b@example.com>", E::List),
            ("Doe, Jane <a@example.com>", E::List),
            ("Friends: a@example.com;", E::Group),
            ("Friends: A <a@example.com>;", E::Group),
            ("A (work) <a@example.com>", E::NameCharacter('(')),
            ("a@example.com <a@example.com>", E::NameCharacter('@')),
            ("\"A <a@example.com>", E::Address(AddressError::LocalQuote)),
            ("A <a@example.com", E::Bracket),
            ("A <a@example.com> B", E::Bracket),
            ("A <>", E::Address(AddressError::NoAt)),
            ("A", E::Address(AddressError::NoAt)),
        ] {
            assert_eq!(parsed(text), Err(error), "{text:?}");
        }
        let long_name = format!("{} <a@example.com>", "x".repeat(MAX_NAME_LEN + 1));
        assert_eq!(parsed(&long_name), Err(E::NameTooLong));
        assert_eq!(parsed(&"x".repeat(MAX_MAILBOX_LEN + 1)), Err(E::TooLong));
    }

    #[test]
    fn shown_as_in_a_header() {
        for (text, shown) in [
            ("a@example.com", "<a@example.com>"),
            ("A B <a@example.com>", "\"A B\" <a@example.com>"),
            ("\"Doe, \\\"J\\\"\" <a@example.com>", "\"Doe, \\\"J\\\"\" <a@example.com>"),
            ("Jörg <a@example.com>", "=?utf-8?B?SsO2cmc=?= <a@example.com>"),
        ] {
            assert_eq!(text.parse::<Mailbox>().unwrap().to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_is_one_line(text in "\\PC{0,60}|[ -~]{0,40}<?a@b.example>?[ -~]{0,5}") {
            if let Ok(mailbox) = text.parse::<Mailbox>() {
                let shown = mailbox.to_string();
                prop_assert!(!shown.contains(['\r', '\n', '\0']));
            }
        }

        #[test]
        fn a_quoted_name_reads_back(name in "[ -~]{1,60}") {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let mailbox: Mailbox = format!("\"{quoted}\" <a@example.com>").parse().unwrap();
            prop_assert_eq!(mailbox.name.unwrap_or_default(), name.trim());
        }
    }
}
