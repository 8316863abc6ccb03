//! How an attempt ended, and why.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a message stands. Derived from its events: the latest one decides,
/// nothing is overwritten (UC6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// Accepted durably; no attempt has ended yet.
    Queued,
    /// The recipient's server took responsibility for it (RFC 5321 section 6.1).
    Delivered,
    /// An attempt failed in a way that may pass; there will be another.
    Deferred,
    /// There will be no further attempt.
    Undeliverable,
}

impl Disposition {
    /// As in JSON, SQL, metrics and the console.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Undeliverable => "undeliverable",
        }
    }

    /// Whether no further attempt follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Undeliverable)
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// Why an attempt ended as it did: one word for each cause, the same
        /// in JSON, SQL, metrics and the docs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the docs.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As in JSON, SQL, metrics and the docs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

reasons! {
    /// The remote server replied 2yz to the end of the data.
    Accepted = "accepted",
    /// The remote server replied 4yz.
    RemoteTemporary = "remote_temporary",
    /// The remote server replied 5yz.
    RemotePermanent = "remote_permanent",
    /// No connection to any host of the route.
    Unreachable = "unreachable",
    /// The connection was lost before the final reply.
    ConnectionLost = "connection_lost",
    /// The remote server did not reply in time.
    Timeout = "timeout",
    /// The remote server said something that is not SMTP.
    ProtocolError = "protocol_error",
    /// TLS is required for this destination and could not be had.
    TlsFailed = "tls_failed",
    /// The name servers did not answer.
    DnsTemporary = "dns_temporary",
    /// The domain has neither MX nor address.
    NoRoute = "no_route",
    /// The domain says that it takes no mail (RFC 7505).
    NullMx = "null_mx",
    /// Every host of the route is an address that policy refuses.
    DestinationRefused = "destination_refused",
    /// The message came back to us, or would.
    Loop = "loop",
    /// No host of the route can take an international address (RFC 6531).
    Smtputf8Unsupported = "smtputf8_unsupported",
    /// Larger than every host of the route allows (RFC 1870).
    TooLarge = "too_large",
    /// The last allowed attempt failed for a temporary cause.
    AttemptsExhausted = "attempts_exhausted",
    /// The time limit that the submitter or the operator set has passed.
    Expired = "expired",
    /// The process ended in mid-attempt; whether the remote server took the
    /// message is unknown (RFC 1047). It does not count as an attempt.
    Interrupted = "interrupted",
    /// The record could not be read; it lies in the quarantine queue.
    Unreadable = "unreadable",
    /// An operator stopped it.
    Stopped = "stopped",
    /// An operator paused it.
    Paused = "paused",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is neither a disposition nor a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not known")]
pub struct UnknownWord(String);

impl FromStr for Reason {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.iter().find(|reason| reason.as_str() == text);
        found.copied().ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

impl FromStr for Disposition {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Queued, Self::Delivered, Self::Deferred, Self::Undeliverable];
        let found = all.into_iter().find(|disposition| disposition.as_str() == text);
        found.ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// An enhanced status code, `class.subject.detail` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnhancedCode {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedCode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |part: &str| -> Option<u16> {
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        };
        let mut parts = text.split('.');
        let code = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(class @ ("2" | "4" | "5")), Some(subject), Some(detail), None) => {
                match (class.parse(), part(subject), part(detail)) {
                    (Ok(class), Some(subject), Some(detail)) => {
                        Some(Self { class, subject, detail })
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        code.ok_or_else(|| UnknownWord(text.chars().take(32).collect()))
    }
}

impl TryFrom<String> for EnhancedCode {
    type Error = UnknownWord;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EnhancedCode> for String {
    fn from(code: EnhancedCode) -> Self {
        code.to_string()
    }
}

/// What a server replied (RFC 5321 section 4.2), its lines joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmtpReply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// The enhanced status code, where the server gave one (RFC 2034).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enhanced: Option<EnhancedCode>,
    /// The text without codes; the lines of a long reply joined by `\n`.
    pub text: String,
}

impl fmt::Display for SmtpReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse::<Reason>(), Ok(*reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        assert!("nonsense".parse::<Reason>().is_err());
        assert_eq!("deferred".parse::<Disposition>(), Ok(Disposition::Deferred));
    }

    #[test]
    fn enhanced_codes() {
        assert_eq!("5.7.26".parse::<EnhancedCode>().unwrap().to_string(), "5.7.26");
        for bad in ["", "5.7", "3.1.1", "5.1.1.1", "5.1111.1", "5..1", "5.+1.1", "a.b.c"] {
            assert!(bad.parse::<EnhancedCode>().is_err(), "{bad}");
        }
    }
}
