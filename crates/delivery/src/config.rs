//! What one SMTP client is told.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use posthaste_broker::Credit;
use posthaste_model::{Domain, PoolName};
use posthaste_smtp::{SessionOptions, Timeouts, TlsMode};

use crate::{RetrySchedule, schedule::Limits};

/// One SMTP client (UC8): a delivery instance with its pool, its face to the
/// outside and its limits. Counts of 0 count as 1.
#[derive(Debug, Clone)]
pub struct SmtpClientConfig {
    /// Its name in the configuration, in evidence and in metrics.
    pub name: String,
    /// Whose messages it delivers.
    pub pool: PoolName,
    /// Name to greet with (RFC 5321 section 4.1.1.1).
    pub ehlo_name: String,
    /// Name of this machine, for the evidence.
    pub host_name: String,
    /// Local address for IPv4; `None`: the system's choice.
    pub source_v4: Option<Ipv4Addr>,
    /// Local address for IPv6; `None`: the system's choice.
    pub source_v6: Option<Ipv6Addr>,
    /// Attempts at once in all, and so sessions.
    pub total_concurrency: u32,
    /// Attempts at once to each domain that has no limit of its own.
    pub domain_concurrency: u32,
    /// Attempts at once to single domains (UC9).
    pub domain_limits: HashMap<Domain, u32>,
    /// How much is taken from the queue and not yet settled.
    pub window: Credit,
    /// Transactions of one session.
    pub messages_per_connection: u32,
    /// How long a session waits for its next transaction.
    pub session_idle: Duration,
    /// How old a session may be when a transaction starts.
    pub session_lifetime: Duration,
    /// TLS.
    pub tls: TlsMode,
    /// Time limits of the stages of a session.
    pub timeouts: Timeouts,
    /// Bound on a whole attempt with all the hosts it tries. What is running
    /// then is cut off and the message deferred.
    pub attempt_timeout: Duration,
    /// Port of the remote servers.
    pub port: u16,
    /// Where everything goes, instead of to the hosts that MX names.
    pub smart_host: Option<String>,
    /// When to try again.
    pub retry: RetrySchedule,
    /// No attempt begins later than this after the first one.
    pub max_age: Option<Duration>,
    /// Most Received fields of a message (RFC 5321 section 6.3).
    pub max_hops: usize,
    /// How long a shutdown waits for transactions and settlements.
    pub drain_timeout: Duration,
}

impl SmtpClientConfig {
    /// A client with the default values.
    #[must_use]
    pub fn new(name: &str, pool: PoolName, ehlo_name: &str) -> Self {
        Self {
            name: name.to_owned(),
            pool,
            ehlo_name: ehlo_name.to_owned(),
            host_name: ehlo_name.to_owned(),
            source_v4: None,
            source_v6: None,
            total_concurrency: 100,
            domain_concurrency: 20,
            domain_limits: HashMap::new(),
            window: Credit { messages: 500, bytes: 64 << 20 },
            messages_per_connection: 100,
            session_idle: Duration::from_secs(10),
            session_lifetime: Duration::from_secs(300),
            tls: TlsMode::Opportunistic,
            timeouts: Timeouts::default(),
            attempt_timeout: Duration::from_secs(1800),
            port: 25,
            smart_host: None,
            retry: RetrySchedule::default(),
            max_age: None,
            max_hops: 25,
            drain_timeout: Duration::from_secs(30),
        }
    }

    /// Whether a server that greets with this name is ourselves. A smart host
    /// is the operator's choice and may bear the name of this machine; there
    /// the Received fields alone end a loop.
    pub(crate) fn is_own_name(&self, name: &str) -> bool {
        self.smart_host.is_none() && name.eq_ignore_ascii_case(&self.ehlo_name)
    }

    /// Whether an address may be connected to: with a source address of one
    /// family alone, the other would go out from an address that nobody chose,
    /// whose name and SPF record are not those of the sender.
    pub(crate) fn may_use(&self, remote: IpAddr) -> bool {
        match (self.source_v4, self.source_v6) {
            (Some(_), None) => remote.is_ipv4(),
            (None, Some(_)) => remote.is_ipv6(),
            _ => true,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            total: self.total_concurrency,
            domain: self.domain_concurrency,
            domains: self.domain_limits.clone(),
        }
    }

    /// How much of one flow may be handed over: what its slots need, as much
    /// again that waits, and what is being settled; never the whole window.
    pub(crate) fn flow_messages(&self) -> u32 {
        let own = self.domain_limits.values().copied();
        let largest = own.chain([self.domain_concurrency]).max().unwrap_or(1);
        let wanted = largest.min(self.total_concurrency).saturating_mul(2).saturating_add(64);
        wanted.min((self.window.messages / 2).max(1))
    }

    pub(crate) fn session_options(&self, tls: TlsMode) -> SessionOptions {
        SessionOptions {
            ehlo_name: self.ehlo_name.clone(),
            tls,
            timeouts: self.timeouts.clone(),
            source_v4: self.source_v4,
            source_v6: self.source_v6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_address_of_one_family_excludes_the_other() {
        let base = SmtpClientConfig::new("c", PoolName::default(), "mta.example");
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        for (source_v4, source_v6, uses_v4, uses_v6) in [
            (None, None, true, true),
            (Some(v4), None, true, false),
            (None, Some(v6), false, true),
            (Some(v4), Some(v6), true, true),
        ] {
            let config = SmtpClientConfig { source_v4, source_v6, ..base.clone() };
            assert_eq!((config.may_use(v4.into()), config.may_use(v6.into())), (uses_v4, uses_v6));
        }
    }

    #[test]
    fn a_smart_host_may_bear_our_name() {
        let base = SmtpClientConfig::new("c", PoolName::default(), "mta.example");
        assert!(base.is_own_name("MTA.example"));
        let smart = SmtpClientConfig { smart_host: Some("mta.example".into()), ..base };
        assert!(!smart.is_own_name("mta.example"));
    }

    #[test]
    fn one_flow_cannot_fill_the_window() {
        let base = SmtpClientConfig::new("c", PoolName::default(), "mta.example");
        let own = |limit| [("d.example".parse().unwrap(), limit)].into();
        let window = |messages| Credit { messages, bytes: 1 };
        for (config, expected) in [
            (base.clone(), 104),
            (SmtpClientConfig { domain_limits: own(50), ..base.clone() }, 164),
            (SmtpClientConfig { domain_limits: own(5000), ..base.clone() }, 250),
            (SmtpClientConfig { window: window(10), ..base.clone() }, 5),
            (SmtpClientConfig { window: window(1), ..base }, 1),
        ] {
            assert_eq!(config.flow_messages(), expected);
        }
    }
}
