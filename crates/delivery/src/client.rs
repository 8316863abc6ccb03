//! What the owner and the workers of one SMTP client have in common: its
//! configuration, what the process shares, and what is computed once.

use std::sync::Arc;

use posthaste_broker::{BrokerError, QueueName};
use posthaste_dns::{Route, RouteError};
use posthaste_model::{DELIVERY_LOGS, Domain, QUARANTINE, pool_queue};
use posthaste_smtp::{SessionOptions, TlsMode};
use serde_json::value::RawValue;

use crate::{Shared, SmtpClientConfig, metrics::ClientMetrics};

pub(crate) struct Client {
    pub config: SmtpClientConfig,
    pub shared: Arc<Shared>,
    pub metrics: ClientMetrics,
    /// Queue of its pool.
    pub queue: QueueName,
    pub delivery_logs: QueueName,
    pub quarantine: QueueName,
    /// The SMTP client's data for the evidence.
    pub data: Box<RawValue>,
    with_tls: SessionOptions,
    in_clear: SessionOptions,
}

impl Client {
    pub fn new(config: SmtpClientConfig, shared: Arc<Shared>) -> Result<Self, BrokerError> {
        Ok(Self {
            metrics: shared.metrics.of(&config.name.as_str().into()),
            queue: QueueName::new(&pool_queue(&config.pool))?,
            delivery_logs: QueueName::new(DELIVERY_LOGS)?,
            quarantine: QueueName::new(QUARANTINE)?,
            data: data(&config),
            with_tls: config.session_options(config.tls),
            in_clear: config.session_options(TlsMode::Off),
            config,
            shared,
        })
    }

    pub fn session_options(&self, tls: TlsMode) -> &SessionOptions {
        if tls == TlsMode::Off { &self.in_clear } else { &self.with_tls }
    }

    pub async fn route(&self, domain: &Domain) -> Result<Arc<Route>, RouteError> {
        match &self.config.smart_host {
            Some(name) => self.shared.resolver.host(name).await,
            None => self.shared.resolver.route(domain).await,
        }
    }
}

/// The configuration as far as it tells how an attempt was made (UC6). It is
/// in every event: short, and without what only the schedule needs.
fn data(config: &SmtpClientConfig) -> Box<RawValue> {
    let tls = match config.tls {
        TlsMode::Off => "off",
        TlsMode::Opportunistic => "opportunistic",
        TlsMode::Require => "require",
        TlsMode::Verify => "verify",
    };
    let data = serde_json::json!({
        "name": config.name,
        "pool": config.pool,
        "ehlo_name": config.ehlo_name,
        "source_v4": config.source_v4,
        "source_v6": config.source_v6,
        "smart_host": config.smart_host,
        "port": config.port,
        "tls": tls,
        "concurrency": config.total_concurrency,
        "domain_concurrency": config.domain_concurrency,
        "max_attempts": config.retry.max_attempts,
        "host_name": config.host_name,
        "version": env!("CARGO_PKG_VERSION"),
    });
    serde_json::value::to_raw_value(&data).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use posthaste_model::PoolName;

    use super::*;

    #[test]
    fn the_evidence_tells_the_configuration() {
        let config = SmtpClientConfig::new("c1", PoolName::default(), "mta.example");
        let data: serde_json::Value = serde_json::from_str(data(&config).get()).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let expected = serde_json::json!({
            "name": "c1", "pool": "default", "ehlo_name": "mta.example",
            "host_name": "mta.example", "source_v4": null, "source_v6": null,
            "smart_host": null, "port": 25, "tls": "opportunistic", "concurrency": 100,
            "domain_concurrency": 20, "max_attempts": 20, "version": version,
        });
        assert_eq!(data, expected);
    }
}
