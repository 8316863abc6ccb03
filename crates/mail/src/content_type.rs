//! The content type of an attachment (RFC 2045 section 5.1), checked and
//! written anew, so that nothing but its own grammar gets into the header.

use std::str::FromStr;

/// Longest content type with its parameters, in bytes.
const MAX_LEN: usize = 255;

/// Why a text is not a content type. Completes the words "the content type …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentTypeError {
    /// Over 255 bytes.
    #[error("has more than {MAX_LEN} bytes")]
    TooLong,
    /// Not `type/subtype`.
    #[error("is not of the form type/subtype")]
    Malformed,
    /// A parameter that is not `name=value`.
    #[error("has a parameter that is not of the form name=value or name=\"value\"")]
    Parameter,
    /// multipart/*: its parts would not be read.
    #[error("may not be multipart: give each part as an attachment of its own")]
    Multipart,
    /// message/partial and message/external-body stand for a content that is
    /// elsewhere.
    #[error("may be neither message/partial nor message/external-body")]
    Reference,
}

/// A checked content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType {
    /// Type and subtype with a slash, in lower case.
    essence: String,
    parameters: Vec<(String, String)>,
}

impl ContentType {
    /// Type and subtype with a slash, in lower case.
    #[must_use]
    pub fn essence(&self) -> &str {
        &self.essence
    }

    /// message/*: no transfer encoding may be applied (RFC 2046 section 5.2).
    pub(crate) fn is_message(&self) -> bool {
        self.essence.starts_with("message/")
    }

    /// The value of the header field, not folded.
    pub(crate) fn to_field(&self) -> String {
        let mut field = self.essence.clone();
        for (name, value) in &self.parameters {
            field.push_str("; ");
            field.push_str(name);
            field.push('=');
            if !value.is_empty() && value.bytes().all(is_token) {
                field.push_str(value);
            } else {
                field.push('"');
                for c in value.chars() {
                    if matches!(c, '"' | '\\') {
                        field.push('\\');
                    }
                    field.push(c);
                }
                field.push('"');
            }
        }
        field
    }
}

impl FromStr for ContentType {
    type Err = ContentTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_LEN {
            return Err(ContentTypeError::TooLong);
        }
        let (essence, rest) = text.split_once(';').map_or((text, None), |(e, r)| (e, Some(r)));
        let essence = essence.trim().to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/').ok_or(ContentTypeError::Malformed)?;
        if !is_token_text(kind) || !is_token_text(subtype) {
            return Err(ContentTypeError::Malformed);
        }
        if kind == "multipart" {
            return Err(ContentTypeError::Multipart);
        }
        if matches!(essence.as_str(), "message/partial" | "message/external-body") {
            return Err(ContentTypeError::Reference);
        }
        let parameters = rest.map_or(Ok(Vec::new()), parse_parameters)?;
        Ok(Self { essence, parameters })
    }
}

fn parse_parameters(text: &str) -> Result<Vec<(String, String)>, ContentTypeError> {
    let mut parameters = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(ContentTypeError::Parameter)?;
        let name = name.trim();
        if !is_token_text(name) {
            return Err(ContentTypeError::Parameter);
        }
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => parse_quoted(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                let value = after[..end].trim_end();
                if !is_token_text(value) {
                    return Err(ContentTypeError::Parameter);
                }
                (value.to_owned(), &after[end..])
            }
        };
        parameters.push((name.to_ascii_lowercase(), value));
        rest = after.trim_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(';').ok_or(ContentTypeError::Parameter)?.trim_start();
        }
    }
    Ok(parameters)
}

/// The value of a quoted string, its opening quote being read, and what
/// follows it.
fn parse_quoted(text: &str) -> Result<(String, &str), ContentTypeError> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        let c = match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => chars.next().ok_or(ContentTypeError::Parameter)?.1,
            c => c,
        };
        if !matches!(c, ' '..='~') {
            return Err(ContentTypeError::Parameter);
        }
        value.push(c);
    }
    Err(ContentTypeError::Parameter)
}

fn is_token_text(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token)
}

/// RFC 2045 section 5.1: printable ASCII without `tspecials`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepted() {
        for (given, field) in [
            ("text/plain", "text/plain"),
            ("Application/PDF", "application/pdf"),
            (" image/svg+xml ", "image/svg+xml"),
            (
                "text/calendar; method=REQUEST;charset = \"utf-8\"",
                "text/calendar; method=REQUEST; charset=utf-8",
            ),
            ("a/b; n=\"x \\\" y\"", "a/b; n=\"x \\\" y\""),
            ("a/b;", "a/b"),
            ("a/b; n=\"\"", "a/b; n=\"\""),
            ("message/rfc822", "message/rfc822"),
        ] {
            assert_eq!(given.parse::<ContentType>().unwrap().to_field(), field);
        }
    }

    #[test]
    fn refused() {
        use ContentTypeError as E;
        for (given, error) in [
            ("", E::Malformed),
            ("text", E::Malformed),
            ("text/", E::Malformed),
            ("text/plain/x", E::Malformed),
            ("text /plain", E::Malformed),
            ("text/plain\r\nX: y", E::Malformed),
            ("text/plain; x", E::Parameter),
            ("text/plain; x=\"y", E::Parameter),
            ("text/plain; x=\"y\" z", E::Parameter),
            ("text/plain; x=\"\r\nX: y\"", E::Parameter),
            ("text/plain; x=ä", E::Parameter),
            ("multipart/mixed; boundary=x", E::Multipart),
            ("Message/Partial", E::Reference),
            (&format!("text/{}", "x".repeat(251)), E::TooLong),
        ] {
            assert_eq!(given.parse::<ContentType>(), Err(error), "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "[a-z]{1,5}/[a-z]{1,5}(; ?[a-z]{1,3}=(\"[ -!#-~]{0,9}\"|[a-z]{1,3})){0,3}|\\PC{0,30}") {
            if let Ok(read) = text.parse::<ContentType>() {
                let field = read.to_field();
                prop_assert!(field.bytes().all(|b| matches!(b, b' '..=b'~')));
                if field.len() <= MAX_LEN {
                    prop_assert_eq!(field.parse::<ContentType>(), Ok(read));
                }
            }
        }
    }
}
