//! How to reach a broker, and the bounds of a connection.

use std::{fmt, time::Duration};

use crate::{codec::Limits, dialect::Dialect, tls::TlsClient};

/// One node of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name or address; with TLS also the name that its certificate must have.
    pub host: String,
    /// Port of its STOMP acceptor.
    pub port: u16,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Who connects.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub login: String,
    /// Its secret.
    pub passcode: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("login", &self.login).finish_non_exhaustive()
    }
}

/// What the broker must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerRequirement {
    /// For an acceptor that hides what it is.
    pub dialect: Option<Dialect>,
    /// Take versions older than those that were tested.
    pub allow_untested: bool,
}

/// The bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionOptions {
    /// From the first packet to CONNECTED.
    pub connect_timeout: Duration,
    /// What is asked for in both directions. The connection is dead after two
    /// of silence.
    pub heart_beat: Duration,
    /// The slowest heart-beat of the broker that is taken.
    pub max_heart_beat: Duration,
    /// After which a message without receipt is unknown, and the connection given up.
    pub receipt_timeout: Duration,
    /// Messages that may be on the way without receipt.
    pub window_messages: usize,
    /// Bytes of them. One message is always allowed.
    pub window_bytes: usize,
    /// Acknowledgements that are written at the latest when there are so many.
    pub ack_batch: usize,
    /// And at the latest after this time.
    pub ack_delay: Duration,
    /// Messages that may be handed over and not acknowledged, all subscriptions
    /// together; a broker that exceeds it keeps to no credit.
    pub max_unacknowledged: usize,
    /// Of one frame.
    pub limits: Limits,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            heart_beat: Duration::from_secs(10),
            max_heart_beat: Duration::from_secs(30),
            receipt_timeout: Duration::from_secs(15),
            window_messages: 1000,
            window_bytes: 16 << 20,
            ack_batch: 64,
            ack_delay: Duration::from_millis(50),
            max_unacknowledged: 200_000,
            limits: Limits::default(),
        }
    }
}

/// How a client reaches its broker.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The nodes, tried in this order; after a loss from the one behind the lost.
    pub nodes: Vec<Node>,
    /// Who connects; `None` where the broker asks for nobody.
    pub login: Option<Login>,
    /// The virtual host; `None`: the node's name.
    pub virtual_host: Option<String>,
    /// `None`: in clear.
    pub tls: Option<TlsClient>,
    /// What the broker must be.
    pub server: ServerRequirement,
    /// The bounds of each connection.
    pub options: ConnectionOptions,
    /// The wait after the first round in which no node could be reached.
    pub backoff_first: Duration,
    /// The longest wait between rounds.
    pub backoff_most: Duration,
}

impl ClientConfig {
    /// In clear, without login, with the usual bounds.
    #[must_use]
    pub fn new(nodes: Vec<Node>) -> Self {
        Self {
            nodes,
            login: None,
            virtual_host: None,
            tls: None,
            server: ServerRequirement::default(),
            options: ConnectionOptions::default(),
            backoff_first: Duration::from_millis(100),
            backoff_most: Duration::from_secs(10),
        }
    }
}
