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

fn data(config: &SmtpClientConfig) -> Box<RawValue> {
    let data = serde_json::json!({
        "name": config.name,
        "pool": config.pool,
        "ehlo_name": config.ehlo_name,
        "source_v4": config.source_v4,
        "source_v6": config.source_v6,
        "smart_host": config.smart_host,
        "host_name": config.host_name,
        "version": env!("CARGO_PKG_VERSION"),
    });
    serde_json::value::to_raw_value(&data).unwrap_or_default()
}
