//! Name servers for trials.

use std::net::SocketAddr;

use anyhow::{Result, bail};

/// stub
#[derive(Debug)]
pub struct TestDns;
impl TestDns {
    /// stub
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        unreachable!()
    }
}

/// A name server that gives each of `domains` the one MX `mx.test`, which is
/// 127.0.0.1.
///
/// # Errors
/// When it does not start.
pub async fn all_to_loopback(domains: &[&str]) -> Result<TestDns> {
    bail!("{domains:?}")
}
