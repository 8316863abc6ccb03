//! How an SMTP session or transaction fails: where, and in what way.
//!
//! A [`Failure`] says what happened and leaves the judgement (temporary or
//! permanent, whose fault) to the caller. It is made so that an operator who
//! reads its text knows what the remote server did.

use std::fmt;

use posthaste_model::SmtpReply;

/// The step of a session at which something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The TCP connection.
    Connect,
    /// The server's first reply.
    Greeting,
    /// EHLO, or HELO in its place.
    Ehlo,
    /// STARTTLS and the handshake after it.
    StartTls,
    /// MAIL FROM.
    MailFrom,
    /// RCPT TO.
    RcptTo,
    /// DATA and the content, up to but without the final dot.
    Data,
    /// From the final dot to the reply to it.
    DataEnd,
    /// RSET.
    Reset,
    /// QUIT.
    Quit,
}

impl Stage {
    /// As in logs and texts: what the client had sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::MailFrom => "MAIL FROM",
            Self::RcptTo => "RCPT TO",
            Self::Data => "DATA",
            Self::DataEnd => "end of data",
            Self::Reset => "RSET",
            Self::Quit => "QUIT",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a message or a policy needs and the server does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// TLS is required (RFC 3207).
    StartTls,
    /// An address or a header field is international (RFC 6531).
    Smtputf8,
    /// The message is larger than the server's limit (RFC 1870).
    Size {
        /// The limit in bytes.
        limit: u64,
    },
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartTls => f.write_str("the server does not offer STARTTLS, which is required"),
            Self::Smtputf8 => {
                f.write_str("the server does not offer SMTPUTF8, which the message needs")
            }
            Self::Size { limit } => {
                write!(f, "the message is larger than the server's limit of {limit} bytes")
            }
        }
    }
}

/// In what way a stage failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureKind {
    /// The server said no: 4yz or 5yz.
    Reply(SmtpReply),
    /// No connection; the text is the system's.
    Connect(String),
    /// The connection ended before the reply.
    Closed,
    /// No reply within the time of the stage.
    Timeout,
    /// What the server said is not SMTP, or not in order.
    Protocol(String),
    /// The TLS handshake, or TLS later on, failed.
    Tls(String),
    /// Something that is needed is not offered. Nothing was sent for it.
    Unsupported(Requirement),
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => write!(f, "the server replied {reply}"),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Closed => f.write_str("the connection was lost before the reply"),
            Self::Timeout => f.write_str("no reply in time"),
            Self::Protocol(what) => write!(f, "not SMTP: {what}"),
            Self::Tls(error) => write!(f, "TLS failed: {error}"),
            Self::Unsupported(requirement) => requirement.fmt(f),
        }
    }
}

/// Why a session could not be opened, or a transaction was not completed.
///
/// The session is dead after it, except after `Reply` at MAIL FROM, RCPT TO,
/// DATA or end of data with another code than 421, and after `Unsupported`
/// from a transaction; [`crate::Session::is_usable`] tells.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {kind}")]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// How.
    pub kind: FailureKind,
}

impl Failure {
    /// A failure.
    #[must_use]
    pub const fn new(stage: Stage, kind: FailureKind) -> Self {
        Self { stage, kind }
    }

    /// The server's refusal, where that is what happened.
    #[must_use]
    pub const fn reply(&self) -> Option<&SmtpReply> {
        match &self.kind {
            FailureKind::Reply(reply) => Some(reply),
            _ => None,
        }
    }

    /// Whether the server may have taken the message: the final dot was sent
    /// and no reply to it was understood (RFC 1047).
    #[must_use]
    pub const fn is_outcome_unknown(&self) -> bool {
        matches!(self.stage, Stage::DataEnd) && self.reply().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_for_operators() {
        let reply = SmtpReply { code: 550, enhanced: "5.1.1".parse().ok(), text: "unknown".into() };
        let size = Requirement::Size { limit: 10 };
        for (stage, kind, text) in [
            (
                Stage::RcptTo,
                FailureKind::Reply(reply),
                "RCPT TO: the server replied 550 5.1.1 unknown",
            ),
            (
                Stage::DataEnd,
                FailureKind::Closed,
                "end of data: the connection was lost before the reply",
            ),
            (
                Stage::MailFrom,
                FailureKind::Unsupported(size),
                "MAIL FROM: the message is larger than the server's limit of 10 bytes",
            ),
        ] {
            assert_eq!(Failure::new(stage, kind).to_string(), text);
        }
    }

    #[test]
    fn only_silence_after_the_dot_is_unknown() {
        let reply = SmtpReply { code: 451, enhanced: None, text: String::new() };
        assert!(Failure::new(Stage::DataEnd, FailureKind::Closed).is_outcome_unknown());
        assert!(Failure::new(Stage::DataEnd, FailureKind::Timeout).is_outcome_unknown());
        assert!(!Failure::new(Stage::DataEnd, FailureKind::Reply(reply)).is_outcome_unknown());
        assert!(!Failure::new(Stage::Data, FailureKind::Closed).is_outcome_unknown());
    }
}
