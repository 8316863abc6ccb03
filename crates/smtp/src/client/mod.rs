//! Client session.
use std::net::SocketAddr;

use posthaste_model::{SmtpReply, TlsInfo};

use crate::{Capabilities, Failure, FailureKind, SessionOptions, Stage, TlsClient};

/// One message to one recipient, as it goes over the wire.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// Reverse path; `None` is the null path `<>`.
    pub return_path: Option<&'a str>,
    /// Forward path.
    pub recipient: &'a str,
    /// Whether an address or a header field needs SMTPUTF8.
    pub smtputf8: bool,
    /// Whether the content has bytes over 127.
    pub eight_bit: bool,
    /// The message in order, not dot-stuffed.
    pub parts: &'a [&'a [u8]],
}

/// A session.
pub struct Session {}

impl Session {
    /// Opens a session.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn connect(
        _host: &str,
        _address: SocketAddr,
        _options: &SessionOptions,
        _tls: &TlsClient,
    ) -> Result<Self, Failure> {
        Err(Failure::new(Stage::Connect, FailureKind::Closed))
    }
    /// Name in the greeting.
    #[must_use]
    pub fn greeting_host(&self) -> &str {
        ""
    }
    /// Capabilities.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        unimplemented!()
    }
    /// TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        None
    }
    /// Remote address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        unimplemented!()
    }
    /// Whether usable.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        false
    }
    /// Runs one transaction.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn transact(&mut self, _t: &Transaction<'_>) -> Result<SmtpReply, Failure> {
        Err(Failure::new(Stage::Connect, FailureKind::Closed))
    }
    /// Ends it.
    pub async fn quit(self) {}
}
