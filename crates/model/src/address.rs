//! E-mail addresses as SMTP carries them (RFC 5321 section 4.1.2, RFC 6531).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest local part in bytes (RFC 5321 section 4.5.3.1.1).
pub const MAX_LOCAL_LEN: usize = 64;
/// Longest address in bytes: a path of 256 less its brackets
/// (RFC 5321 section 4.5.3.1.3).
pub const MAX_ADDRESS_LEN: usize = 254;
const MAX_DOMAIN_LEN: usize = 253;

/// Why a text is not an address that mail can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`.
    #[error("has no '@'")]
    NoAt,
    /// Nothing before the `@`.
    #[error("has nothing before the '@'")]
    EmptyLocal,
    /// Local part over [`MAX_LOCAL_LEN`] bytes.
    #[error("has more than 64 bytes before the '@'")]
    LocalTooLong,
    /// The whole address over [`MAX_ADDRESS_LEN`] bytes.
    #[error("has more than 254 bytes")]
    TooLong,
    /// A character that the local part may not hold.
    #[error("may not hold {0:?} before the '@'")]
    LocalCharacter(char),
    /// A dot at either end, or two in a row.
    #[error("has a misplaced dot before the '@'")]
    LocalDot,
    /// A quoted local part that is not well formed.
    #[error("has a quoted part that is not closed or not whole")]
    LocalQuote,
    /// The domain is not a host name, nor an international one.
    #[error("has the invalid domain {0:?}")]
    Domain(String),
    /// `user@[192.0.2.1]`: not a destination that MX can name.
    #[error("has an address literal instead of a domain")]
    Literal,
}

/// A domain in its ASCII form, lower case, without a trailing dot. An
/// international name is kept as its A-labels (IDNA 2008, UTS 46).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Box<str>);

impl Domain {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || AddressError::Domain(text.chars().take(80).collect());
        if text.starts_with('[') {
            return Err(AddressError::Literal);
        }
        let name = if is_plain(text) {
            text.to_owned()
        } else {
            idna::domain_to_ascii_strict(text).map_err(|_| invalid())?
        };
        let valid = name.len() <= MAX_DOMAIN_LEN
            && name.split('.').all(is_label)
            // A name of digits alone would be read as an address.
            && !name.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
        if valid { Ok(Self(name.into())) } else { Err(invalid()) }
    }
}

/// Already in the form that IDNA would give: nothing to convert.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
        && !text.contains("xn--")
}

/// Letters, digits and hyphens (RFC 1123 section 2.1). An underscore is refused:
/// no mail host is named with one.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

impl TryFrom<String> for Domain {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0.into()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mailbox without a display name. The local part is kept as given
/// (its case matters to its host), the domain in ASCII.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EmailAddress {
    text: Box<str>,
    at: u16,
    domain: Domain,
}

impl EmailAddress {
    /// The whole address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the last `@`.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.text[..usize::from(self.at)]
    }

    /// The domain.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether the address needs SMTPUTF8 at the next hop (RFC 6531).
    #[must_use]
    pub fn needs_smtputf8(&self) -> bool {
        !self.text.is_ascii()
    }
}

impl FromStr for EmailAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::NoAt)?;
        check_local(local)?;
        let domain: Domain = domain.parse()?;
        let text = format!("{local}@{domain}");
        if text.len() > MAX_ADDRESS_LEN {
            return Err(AddressError::TooLong);
        }
        let at = u16::try_from(local.len()).map_err(|_| AddressError::LocalTooLong)?;
        Ok(Self { text: text.into(), at, domain })
    }
}

fn check_local(local: &str) -> Result<(), AddressError> {
    if local.is_empty() {
        return Err(AddressError::EmptyLocal);
    }
    if local.len() > MAX_LOCAL_LEN {
        return Err(AddressError::LocalTooLong);
    }
    if let Some(quoted) = local.strip_prefix('"') {
        return check_quoted(quoted);
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return Err(AddressError::LocalDot);
    }
    match local.chars().find(|c| *c != '.' && !is_atext(*c)) {
        Some(found) => Err(AddressError::LocalCharacter(found)),
        None => Ok(()),
    }
}

/// Quoted-string without its opening quote (RFC 5321 section 4.1.2).
fn check_quoted(quoted: &str) -> Result<(), AddressError> {
    let inner = quoted.strip_suffix('"').ok_or(AddressError::LocalQuote)?;
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let content = match c {
            '"' => return Err(AddressError::LocalQuote),
            '\\' => chars.next().ok_or(AddressError::LocalQuote)?,
            other => other,
        };
        if content.is_control() {
            return Err(AddressError::LocalCharacter(content));
        }
    }
    Ok(())
}

/// RFC 5322 section 3.2.3, widened by RFC 6531 section 3.3.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}

impl TryFrom<String> for EmailAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EmailAddress> for String {
    fn from(address: EmailAddress) -> Self {
        address.text.into()
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepted() {
        for (given, kept) in [
            ("a@example.com", "a@example.com"),
            ("First.Last+tag@Example.COM", "First.Last+tag@example.com"),
            ("o'brien@example.co.uk", "o'brien@example.co.uk"),
            ("\"a b\"@example.com", "\"a b\"@example.com"),
            ("\"a\\\"@b\"@example.com", "\"a\\\"@b\"@example.com"),
            ("jörg@example.com", "jörg@example.com"),
            ("a@bücher.example", "a@xn--bcher-kva.example"),
            ("a@localhost", "a@localhost"),
        ] {
            assert_eq!(given.parse::<EmailAddress>().map(String::from), Ok(kept.to_owned()));
        }
    }

    #[test]
    fn refused() {
        let long_local = format!("{}@example.com", "x".repeat(65));
        let long_label = format!("a@{}.com", "x".repeat(64));
        let long = format!("{}@{}.com", "x".repeat(64), "y.".repeat(95));
        for given in [
            "",
            "a",
            "@example.com",
            "a@",
            "a@b@",
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "a b@example.com",
            "a\r\n@example.com",
            "a@exa\r\nmple.com",
            "a@ex ample.com",
            "a\0@example.com",
            "a@example..com",
            "a@-example.com",
            "a@example-.com",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "\"a@example.com",
            "\"a\"b\"@example.com",
            "\"a\\\"@example.com",
            "\"a\r\nb\"@example.com",
            "<a@example.com>",
            "a@exa_mple.com",
            "a\u{85}b@example.com",
            "a\u{2028}b@example.com",
            "a@xn--.example",
            &long_local,
            &long_label,
            &long,
        ] {
            assert!(given.parse::<EmailAddress>().is_err(), "{given:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_one_line_and_reads_back(text in "\\PC{0,40}@\\PC{0,40}") {
            if let Ok(address) = text.parse::<EmailAddress>() {
                prop_assert!(!address.as_str().contains(['\r', '\n', '\0']));
                prop_assert_eq!(address.as_str().parse::<EmailAddress>(), Ok(address));
            }
        }
    }
}
