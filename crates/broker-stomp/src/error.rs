//! What goes wrong between this client and a broker.
//!
//! A [`LinkError`] ends a connection, with one exception: what is refused
//! before anything is sent ([`LinkError::Invalid`]). It is cheap to clone, since
//! everything that waits on a connection gets the same cause.

use std::{sync::Arc, time::Duration};

use crate::codec::{DecodeError, EncodeError};

/// Why there is no connection, or no longer. Completes "the link to the broker failed: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No connection could be made.
    #[error("{node} cannot be reached: {detail}")]
    Connect {
        /// Host and port.
        node: Arc<str>,
        /// What the system said.
        detail: Arc<str>,
    },
    /// TLS failed.
    #[error("TLS with {node} failed: {detail}")]
    Tls {
        /// Host and port.
        node: Arc<str>,
        /// What went wrong.
        detail: Arc<str>,
    },
    /// Something did not come in time.
    #[error("no {what} within {} s", within.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        within: Duration,
    },
    /// Nothing came for two heart-beats.
    #[error("the broker has been silent for {} s", .0.as_secs_f32())]
    Silent(Duration),
    /// The broker closed the connection.
    #[error("the broker closed the connection")]
    ClosedByPeer,
    /// Reading or writing failed.
    #[error("the connection broke: {0}")]
    Io(Arc<str>),
    /// What came is not STOMP 1.2.
    #[error("the broker sent {0}")]
    Decode(#[from] DecodeError),
    /// A frame that does not belong where it came, or lacks a header.
    #[error("the broker sent {0}")]
    Protocol(Arc<str>),
    /// An ERROR that belongs to no receipt.
    #[error("the broker reports: {0}")]
    Server(Arc<str>),
    /// The broker is not what is needed: what to change.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// What was to be sent is against the protocol or a bound; nothing was sent.
    #[error("{0}")]
    Invalid(Arc<str>),
    /// It was closed by this side.
    #[error("it is closed")]
    Closed,
}

impl LinkError {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into().into())
    }

    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::Protocol(text.into().into())
    }

    /// Whether trying again is of no use before somebody changes something.
    #[must_use]
    pub const fn needs_change(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Invalid(_))
    }
}

impl From<std::io::Error> for LinkError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string().into())
    }
}

impl From<EncodeError> for LinkError {
    fn from(error: EncodeError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// What the broker's answer to CONNECT shows to be wrong, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The broker speaks an older STOMP.
    #[error("the broker speaks STOMP {0}, 1.2 is needed: use the port of its STOMP 1.2 acceptor")]
    Version(Arc<str>),
    /// The answer to CONNECT was an ERROR.
    #[error(
        "the broker refused the connection: {0}. Check login and passcode, and the role of this user in the broker"
    )]
    Refused(Arc<str>),
    /// RabbitMQ.
    #[error("this is RabbitMQ ({0}): its STOMP plugin lacks what is needed, use its AMQP port")]
    RabbitMq(Arc<str>),
    /// A broker that is not known.
    #[error(
        "the broker is {0:?}, known are ActiveMQ Artemis and Classic: set the dialect if it is one of them"
    )]
    UnknownServer(Arc<str>),
    /// The acceptor hides what it is.
    #[error(
        "the broker does not say what it is: set the dialect, or take disableStompServerHeader out of Artemis' acceptor"
    )]
    HiddenServer,
    /// Older than what was tested.
    #[error(
        "the broker is {found}, the oldest one tested is {floor}: upgrade it, or allow untested versions"
    )]
    TooOld {
        /// As the broker says.
        found: Arc<str>,
        /// At least this.
        floor: &'static str,
    },
    /// The dialect that is set is not what the broker says it is.
    #[error("the dialect is set to {set}, but the broker is {found:?}: take the setting out")]
    OtherDialect {
        /// As configured.
        set: &'static str,
        /// As the broker says.
        found: Arc<str>,
    },
    /// The broker will not send heart-beats.
    #[error(
        "the broker sends no heart-beats, so that a dead connection would not be noticed: enable them on its STOMP acceptor"
    )]
    NoHeartBeat,
    /// It sends them too seldom.
    #[error("the broker sends a heart-beat only every {} s, at most {} s are useful: lower it on its STOMP acceptor", found.as_secs_f32(), most.as_secs_f32())]
    SlowHeartBeat {
        /// What was negotiated.
        found: Duration,
        /// The most that is taken.
        most: Duration,
    },
}
