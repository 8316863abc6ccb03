//! What a client session is told: name, TLS, source addresses, time limits.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// How much TLS a session wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsMode {
    /// Never.
    Off,
    /// When the server offers it, with any certificate (RFC 7435). A failure
    /// of STARTTLS is a failure of the session: the caller connects again with
    /// [`TlsMode::Off`] if its policy allows that.
    #[default]
    Opportunistic,
    /// Always, with any certificate.
    Require,
    /// Always, with a certificate that a known authority has signed for the
    /// name of the host.
    Verify,
}

/// Time limits of the stages. Each is the whole time that a stage may take, not
/// the silence between two bytes: a server that drips does not gain by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the TCP connection stands.
    pub connect: Duration,
    /// Until the greeting is complete.
    pub greeting: Duration,
    /// For EHLO or HELO.
    pub ehlo: Duration,
    /// For STARTTLS, and again for the handshake.
    pub starttls: Duration,
    /// For MAIL FROM, and for RSET.
    pub mail: Duration,
    /// For RCPT TO.
    pub rcpt: Duration,
    /// From DATA to the 354.
    pub data: Duration,
    /// For sending one block (64 KiB at most) of the content.
    pub data_block: Duration,
    /// From the final dot to the reply.
    pub data_end: Duration,
    /// For QUIT: it is politeness, nothing depends on it.
    pub quit: Duration,
}

impl Default for Timeouts {
    /// RFC 5321 section 4.5.3.2, and common practice where it is silent
    /// (connect, STARTTLS, QUIT).
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            connect: Duration::from_secs(30),
            greeting: minutes(5),
            ehlo: minutes(5),
            starttls: minutes(2),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            data_block: minutes(3),
            data_end: minutes(10),
            quit: Duration::from_secs(5),
        }
    }
}

/// What all sessions of one SMTP client have in common.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Name to greet with. The caller vouches that it is a host name or an
    /// address literal.
    pub ehlo_name: String,
    /// TLS.
    pub tls: TlsMode,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Local address for connections to IPv4 addresses; `None`: the system's choice.
    pub source_v4: Option<Ipv4Addr>,
    /// Local address for connections to IPv6 addresses; `None`: the system's choice.
    pub source_v6: Option<Ipv6Addr>,
}

impl SessionOptions {
    /// Options with a name and defaults for the rest.
    #[must_use]
    pub fn new(ehlo_name: impl Into<String>) -> Self {
        Self {
            ehlo_name: ehlo_name.into(),
            tls: TlsMode::default(),
            timeouts: Timeouts::default(),
            source_v4: None,
            source_v6: None,
        }
    }

    /// The local address for a connection to `remote`, of the same family.
    pub(crate) fn source_for(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let source = match remote {
            SocketAddr::V4(_) => IpAddr::V4(self.source_v4?),
            SocketAddr::V6(_) => IpAddr::V6(self.source_v6?),
        };
        Some(SocketAddr::new(source, 0))
    }
}
