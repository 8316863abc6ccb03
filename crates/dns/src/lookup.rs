//! The questions to DNS, apart from the library that asks them: the rules of
//! routing are tested without sockets and with a clock that tests own.

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;

/// One MX record. The root, `.`, is the empty name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mx {
    pub(crate) preference: u16,
    /// Lower case, without a trailing dot.
    pub(crate) host: String,
}

/// Records, one at least, and how long they stay true.
#[derive(Debug, Clone)]
pub(crate) struct Answer<T> {
    pub(crate) records: Vec<T>,
    pub(crate) ttl: Duration,
}

/// Why there are no records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// NXDOMAIN: the name does not exist.
    NoName,
    /// The name exists and has no such records.
    NoData,
    /// No usable answer: what happened, for the operator.
    Failed(String),
}

/// Asks DNS. Names are given without a trailing dot and are absolute. An
/// alias (CNAME) is followed.
#[async_trait]
pub(crate) trait Lookup: Send + Sync + 'static {
    async fn mx(&self, name: &str) -> Result<Answer<Mx>, LookupError>;
    async fn ipv4(&self, name: &str) -> Result<Answer<IpAddr>, LookupError>;
    async fn ipv6(&self, name: &str) -> Result<Answer<IpAddr>, LookupError>;
}
