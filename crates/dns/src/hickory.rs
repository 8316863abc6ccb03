//! Asking DNS with hickory-resolver.
//!
//! Its cache is kept small and serves one purpose: many domains share their
//! MX hosts, whose addresses need not be asked for again with each. What is
//! not found it forgets as fast as we do.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig as Servers, ResolverOpts,
    },
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
};

use crate::{
    lookup::{Answer, Lookup, LookupError, Mx},
    resolver::{ResolverConfig, ResolverError},
};

/// Kept answers: addresses of MX hosts above all.
const CACHE_SIZE: u64 = 4096;

pub(crate) struct Hickory {
    resolver: TokioResolver,
    timeout: Duration,
}

impl Hickory {
    pub(crate) fn new(config: &ResolverConfig) -> Result<Self, ResolverError> {
        let mut builder = if config.servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|e| ResolverError::System(e.to_string()))?
        } else {
            let servers = config.servers.iter().map(server).collect();
            TokioResolver::builder_with_config(
                Servers::from_name_servers(servers),
                TokioRuntimeProvider::default(),
            )
        };
        options(builder.options_mut(), config);
        let resolver = builder.build().map_err(|e| ResolverError::Build(e.to_string()))?;
        Ok(Self { resolver, timeout: config.timeout })
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, LookupError> {
        let mut absolute = Name::from_ascii(name)
            .map_err(|error| LookupError::Failed(format!("{name} is no DNS name: {error}")))?;
        absolute.set_fqdn(true);
        // The library bounds each try; this bounds them all, aliases included.
        let asked = tokio::time::timeout(self.timeout, self.resolver.lookup(absolute, kind)).await;
        let found = match asked {
            Ok(answer) => answer.map_err(|error| explain(&error, self.timeout))?,
            Err(_) => return Err(explain(&NetError::Timeout, self.timeout)),
        };
        let records: Vec<T> = found.answers().iter().filter_map(|r| pick(&r.data)).collect();
        if records.is_empty() {
            // An alias that leads nowhere.
            return Err(LookupError::NoData);
        }
        Ok(Answer { records, ttl: found.valid_until().saturating_duration_since(Instant::now()) })
    }
}

#[async_trait]
impl Lookup for Hickory {
    async fn mx(&self, name: &str) -> Result<Answer<Mx>, LookupError> {
        self.ask(name, RecordType::MX, |data| match data {
            RData::MX(mx) => Some(Mx { preference: mx.preference, host: plain_name(&mx.exchange) }),
            _ => None,
        })
        .await
    }

    async fn ipv4(&self, name: &str) -> Result<Answer<IpAddr>, LookupError> {
        self.ask(name, RecordType::A, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        })
        .await
    }

    async fn ipv6(&self, name: &str) -> Result<Answer<IpAddr>, LookupError> {
        self.ask(name, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .await
    }
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

fn options(options: &mut ResolverOpts, config: &ResolverConfig) {
    // Two tries within the bound.
    options.timeout = config.timeout / 2;
    options.attempts = 1;
    options.cache_size = CACHE_SIZE;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(config.max_ttl);
    options.negative_max_ttl = Some(config.failure_ttl);
    // An answer that is cut is asked for again by TCP; what fails otherwise
    // by UDP is worth a try by TCP too (a firewall that drops fragments).
    options.try_tcp_on_error = true;
}

fn plain_name(name: &Name) -> String {
    let mut text = name.to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text.make_ascii_lowercase();
    text
}

fn explain(error: &NetError, timeout: Duration) -> LookupError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => LookupError::NoName,
            _ => LookupError::NoData,
        },
        NetError::Dns(DnsError::ResponseCode(code)) => {
            let code = match code {
                ResponseCode::ServFail => "SERVFAIL".to_owned(),
                ResponseCode::Refused => "REFUSED".to_owned(),
                other => other.to_string(),
            };
            LookupError::Failed(format!("the DNS server answered {code}"))
        }
        NetError::Timeout => {
            LookupError::Failed(format!("no DNS server answered within {timeout:?}"))
        }
        NetError::NoConnections => LookupError::Failed("no DNS server can be reached".into()),
        other => LookupError::Failed(format!("asking DNS failed: {other}")),
    }
}
