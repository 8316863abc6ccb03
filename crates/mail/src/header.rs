//! Which header fields a submitter may add, and what their values may hold.
//!
//! A name is `ftext` (RFC 5322 section 3.6.8), a value one line. Fields that
//! the program writes itself are reserved: a second one would make the
//! message malformed (RFC 5322 section 3.6) or forge a trace.

/// Longest name of a header field in bytes.
pub const MAX_HEADER_NAME_LEN: usize = 100;
/// Longest value of a header field in bytes.
pub const MAX_HEADER_VALUE_LEN: usize = 8192;
/// Longest stretch without a place to fold: white space and the word behind
/// it. With the longest name in front it stays under the 998 of RFC 5322
/// section 2.1.1.
const MAX_UNFOLDABLE: usize = 880;

/// Fields of our own, in lower case; those by prefix are apart.
const RESERVED: [&str; 14] = [
    "from",
    "to",
    "cc",
    "bcc",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "received",
    "return-path",
    "dkim-signature",
    "authentication-results",
    "delivered-to",
];
const RESERVED_PREFIXES: [&str; 3] = ["content-", "resent-", "arc-"];

/// Structured fields: an encoded-word has no place in them (RFC 2047
/// section 5), so their values are ASCII. At most one of each of the first
/// three (RFC 5322 section 3.6).
const ONCE: [&str; 3] = ["sender", "in-reply-to", "references"];
const ASCII_ONLY: [&str; 3] = ["in-reply-to", "references", "auto-submitted"];

/// Why a header field is refused. Completes the words "the header field …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a name: `ftext` is printable ASCII without colon and space.
    #[error("has a name that is empty or holds other than printable ASCII without ':'")]
    Name,
    /// Name over [`MAX_HEADER_NAME_LEN`].
    #[error("has a name of more than {MAX_HEADER_NAME_LEN} bytes")]
    NameTooLong,
    /// See [`is_reserved_header`].
    #[error("is written by the server itself and may not be given")]
    Reserved,
    /// CR, LF, NUL or another control character: header injection.
    #[error("may not hold the control character {0:?}")]
    Control(char),
    /// Value over [`MAX_HEADER_VALUE_LEN`].
    #[error("has a value of more than {MAX_HEADER_VALUE_LEN} bytes")]
    ValueTooLong,
    /// A word that makes a line of more than 998 bytes.
    #[error("has more than {MAX_UNFOLDABLE} bytes without a single space to fold at")]
    Unfoldable,
    /// A structured field with characters over ASCII.
    #[error("may hold ASCII only")]
    NotAscii,
    /// A field that a message has once.
    #[error("may be given once only")]
    Repeated,
    /// Sender: not a mailbox (RFC 5322 section 3.6.2).
    #[error("must be one mailbox, and that {0}")]
    Sender(crate::MailboxError),
}

/// Whether the server writes this field itself, so that a submitter may not.
#[must_use]
pub fn is_reserved_header(name: &str) -> bool {
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
        || RESERVED_PREFIXES.iter().any(|prefix| has_prefix(name, prefix))
}

/// Checks the name of a field that a submitter adds.
///
/// # Errors
/// It is not a field name, or it is reserved.
pub fn check_header_name(name: &str) -> Result<(), HeaderError> {
    if name.len() > MAX_HEADER_NAME_LEN {
        return Err(HeaderError::NameTooLong);
    }
    if !is_header_name(name) {
        return Err(HeaderError::Name);
    }
    if is_reserved_header(name) { Err(HeaderError::Reserved) } else { Ok(()) }
}

/// `ftext` (RFC 5322 section 3.6.8).
pub(crate) fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// Checks a value that any field could take: one line that can be folded.
///
/// # Errors
/// A control character but the tab, too long, or not foldable.
pub fn check_header_value(value: &str) -> Result<(), HeaderError> {
    if value.len() > MAX_HEADER_VALUE_LEN {
        return Err(HeaderError::ValueTooLong);
    }
    if let Some(found) = value.chars().find(|c| *c != '\t' && c.is_control()) {
        return Err(HeaderError::Control(found));
    }
    // Not ASCII: becomes encoded-words, which fold anywhere.
    if value.is_ascii() && longest_unfoldable(value) > MAX_UNFOLDABLE {
        return Err(HeaderError::Unfoldable);
    }
    Ok(())
}

/// Checks all fields of a submission together: each by itself, and which may
/// be there once only.
///
/// # Errors
/// The place of the first that is refused, and why.
pub fn check_fields(fields: &[(String, String)]) -> Result<(), (usize, HeaderError)> {
    for (index, (name, value)) in fields.iter().enumerate() {
        check_header_name(name)
            .and_then(|()| check_header_value(value))
            .and_then(|()| check_structured(name, value))
            .map_err(|error| (index, error))?;
        let once = ONCE.iter().any(|once| name.eq_ignore_ascii_case(once));
        if once && fields[..index].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err((index, HeaderError::Repeated));
        }
    }
    Ok(())
}

fn check_structured(name: &str, value: &str) -> Result<(), HeaderError> {
    if name.eq_ignore_ascii_case("Sender") {
        return match value.parse::<crate::Mailbox>() {
            Ok(_) => Ok(()),
            Err(error) => Err(HeaderError::Sender(error)),
        };
    }
    // RFC 2369, RFC 2919 and RFC 8058: URLs in angle brackets.
    let structured =
        has_prefix(name, "list-") || ASCII_ONLY.iter().any(|one| name.eq_ignore_ascii_case(one));
    if structured && !value.is_ascii() { Err(HeaderError::NotAscii) } else { Ok(()) }
}

/// The longest run of white space with the word behind it: folding happens
/// in front of it.
fn longest_unfoldable(value: &str) -> usize {
    let (mut longest, mut run, mut in_word) = (0, 0, false);
    for byte in value.bytes() {
        let white = matches!(byte, b' ' | b'\t');
        if white && in_word {
            run = 0;
        }
        in_word = !white;
        run += 1;
        longest = longest.max(run);
    }
    longest
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in [
            "X-Any",
            "List-Unsubscribe",
            "list-unsubscribe-post",
            "Sender",
            "References",
            "In-Reply-To",
            "X",
            "Contents",
            "Precedence",
            "!#$%&'*+-^_`|~",
        ] {
            assert_eq!(check_header_name(name), Ok(()), "{name}");
        }
        for name in [
            "From",
            "to",
            "CC",
            "Bcc",
            "Reply-To",
            "Subject",
            "DATE",
            "Message-Id",
            "MIME-Version",
            "Content-Type",
            "content-x",
            "Received",
            "Return-Path",
            "DKIM-Signature",
            "ARC-Seal",
            "Resent-Bcc",
        ] {
            assert!(is_reserved_header(name), "{name}");
            assert_eq!(check_header_name(name), Err(HeaderError::Reserved), "{name}");
        }
        for name in ["", "X Any", "X:Any", "X-Any:", "X\r\n", "X\0", "X-Ä", "\u{7f}"] {
            assert_eq!(check_header_name(name), Err(HeaderError::Name), "{name:?}");
        }
        let long = "x".repeat(MAX_HEADER_NAME_LEN + 1);
        assert_eq!(check_header_name(&long), Err(HeaderError::NameTooLong));
    }

    #[test]
    fn values() {
        for value in ["", "plain", "tab\tinside", "Größe", &"word ".repeat(1000)] {
            assert_eq!(check_header_value(value), Ok(()), "{value:?}");
        }
        for (value, error) in [
            ("a\r\nBcc: b@example.com", HeaderError::Control('\r')),
            ("a\nb", HeaderError::Control('\n')),
            ("a\0", HeaderError::Control('\0')),
            ("a\u{85}b", HeaderError::Control('\u{85}')),
            (&"x".repeat(881), HeaderError::Unfoldable),
            (&format!("{} x", "x".repeat(881)), HeaderError::Unfoldable),
            (&" ".repeat(881), HeaderError::Unfoldable),
            (&"ä".repeat(4097), HeaderError::ValueTooLong),
        ] {
            assert_eq!(check_header_value(value), Err(error), "{value:?}");
        }
    }

    #[test]
    fn fields_together() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        for (fields, refused) in [
            (vec![field("X-A", "1"), field("X-A", "2")], None),
            (vec![field("Sender", "S <s@example.com>")], None),
            (
                vec![field("References", "<a@b>"), field("references", "<c@d>")],
                Some((1, HeaderError::Repeated)),
            ),
            (
                vec![field("X-A", "ü"), field("List-Unsubscribe", "<https://ü.example>")],
                Some((1, HeaderError::NotAscii)),
            ),
            (
                vec![field("Sender", "a@example.com, b@example.com")],
                Some((0, HeaderError::Sender(crate::MailboxError::List))),
            ),
        ] {
            assert_eq!(check_fields(&fields).err(), refused);
        }
    }
}
