//! The name server of the trials: all mail goes to this machine.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use posthaste_trial::dns::{TestDns, Zones};

/// The mail exchanger of every domain of a trial.
pub const EXCHANGER: &str = "mx.test";

/// A name server that gives each of `domains` one MX, which is 127.0.0.1, and
/// `nomail.test` a null MX.
///
/// # Errors
/// When it does not start.
pub async fn all_to_loopback(domains: &[&str]) -> Result<TestDns> {
    let mut zones = Zones::new().a(EXCHANGER, Ipv4Addr::LOCALHOST).null_mx("nomail.test");
    for domain in domains {
        zones = zones.mx(domain, 10, EXCHANGER);
    }
    let started = TestDns::start((Ipv4Addr::LOCALHOST, 0).into(), zones).await;
    started.context("the test DNS does not start")
}
