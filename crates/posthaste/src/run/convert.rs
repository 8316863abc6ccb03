//! From the sections of the configuration to what each crate asks for.

use std::collections::HashSet;

use anyhow::Context as _;
use posthaste_api::AdmissionConfig;
use posthaste_broker::Credit;
use posthaste_delivery::{RetrySchedule, SmtpClientConfig};
use posthaste_dns::{AddressPolicy, ResolverConfig};
use posthaste_intake::{DomainPattern, IntakeConfig, Limits, Pools, UnknownPool};
use posthaste_smtp::{Timeouts, TlsMode};
use posthaste_store::{Period, StoreConfig};

use crate::config::{Config, LogPeriod, SmtpClientSection, TlsChoice, TokenSection};

pub fn store(config: &Config) -> StoreConfig {
    StoreConfig {
        dir: config.data_dir.join("logs"),
        period: match config.logs.period {
            LogPeriod::Daily => Period::Daily,
            LogPeriod::Weekly => Period::Weekly,
            LogPeriod::Monthly => Period::Monthly,
            LogPeriod::Yearly => Period::Yearly,
        },
        retention: (config.logs.retention > 0).then_some(config.logs.retention),
    }
}

pub fn resolver(config: &Config) -> ResolverConfig {
    let section = &config.resolver;
    ResolverConfig {
        servers: section.servers.clone(),
        timeout: section.timeout.0,
        min_ttl: section.min_ttl.0,
        max_ttl: section.max_ttl.0,
        failure_ttl: section.failure_ttl.0,
        cache_size: section.cache_entries,
        addresses: AddressPolicy {
            allow_private: section.allow_private_destinations,
            own_addresses: section.own_addresses.clone(),
            ipv6: section.ipv6,
        },
    }
}

pub fn intake(config: &Config) -> anyhow::Result<IntakeConfig> {
    let section = &config.limits;
    let mut intake = IntakeConfig::new(config.hostname.clone());
    intake.limits = Limits {
        submissions: section.submissions,
        recipients: section.recipients,
        content_bytes: usize::try_from(section.content_size.0).context("limits.content_size")?,
        headers: section.headers,
        attachments: section.attachments,
        tags: section.tags,
        ..Limits::default()
    };
    intake.codec = config.queue.codec;
    let mut known: HashSet<_> = config.pools.declared.iter().cloned().collect();
    known.extend(config.smtp_client.iter().map(|client| client.pool.clone()));
    let unknown = if config.pools.create { UnknownPool::Create } else { UnknownPool::Refuse };
    intake.pools = Pools { known, unknown };
    Ok(intake)
}

/// When submissions are refused for want of room.
pub fn admission(config: &Config) -> AdmissionConfig {
    AdmissionConfig {
        queue_messages: config.limits.queue_messages,
        disk_reserve: config.limits.disk_reserve.0,
        disk: Some(config.data_dir.join("queue")),
    }
}

/// The sender domains that a token names; `None` is any.
pub fn token_patterns(token: &TokenSection) -> anyhow::Result<Option<Vec<DomainPattern>>> {
    if token.sender_domains.is_empty() {
        return Ok(None);
    }
    let patterns = token.sender_domains.iter().map(|text| {
        text.parse().with_context(|| format!("token {}: sender_domains {text:?}", token.name))
    });
    patterns.collect::<anyhow::Result<_>>().map(Some)
}

pub fn smtp_client(section: &SmtpClientSection, config: &Config) -> SmtpClientConfig {
    let domain_limits =
        section.domains.iter().map(|(domain, policy)| (domain.clone(), policy.concurrency));
    SmtpClientConfig {
        host_name: config.hostname.clone(),
        source_v4: section.source_v4,
        source_v6: section.source_v6,
        total_concurrency: section.concurrency,
        domain_concurrency: section.domain_concurrency,
        domain_limits: domain_limits.collect(),
        window: Credit { messages: section.window_messages, bytes: section.window_size.0 },
        messages_per_connection: section.messages_per_connection,
        session_idle: section.idle_timeout.0,
        session_lifetime: section.connection_lifetime.0,
        tls: match section.tls {
            TlsChoice::Off => TlsMode::Off,
            TlsChoice::Opportunistic => TlsMode::Opportunistic,
            TlsChoice::Require => TlsMode::Require,
            TlsChoice::Verify => TlsMode::Verify,
        },
        timeouts: timeouts(section),
        attempt_timeout: section.attempt_timeout.0,
        port: section.port,
        smart_host: section.smart_host.clone(),
        retry: RetrySchedule {
            delays: section.retry.delays.iter().map(|delay| delay.0).collect(),
            jitter: section.retry.jitter,
            max_attempts: section.retry.max_attempts,
            no_route_attempts: section.retry.no_route_attempts,
        },
        max_age: section.max_age.map(|age| age.0),
        max_hops: section.max_hops,
        drain_timeout: config.drain_timeout.0,
        ..SmtpClientConfig::new(&section.name, section.pool.clone(), &section.ehlo_name)
    }
}

fn timeouts(section: &SmtpClientSection) -> Timeouts {
    let section = &section.timeouts;
    Timeouts {
        connect: section.connect.0,
        greeting: section.greeting.0,
        ehlo: section.ehlo.0,
        starttls: section.starttls.0,
        mail: section.mail.0,
        rcpt: section.rcpt.0,
        data: section.data.0,
        data_block: section.data_block.0,
        data_end: section.data_end.0,
        ..Timeouts::default()
    }
}
