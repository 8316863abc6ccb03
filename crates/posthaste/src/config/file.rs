//! The sections of the configuration file and their defaults. What each key
//! means is written in `config/posthaste.toml`, which a test holds equal to
//! the defaults here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use posthaste_model::{Codec, Domain, PoolName};
use serde::Deserialize;

use super::units::{Secret, Size, Span};

const fn secs(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub data_dir: PathBuf,
    pub hostname: String,
    pub drain_timeout: Span,
    pub log: LogSection,
    pub queue: QueueSection,
    pub logs: LogsSection,
    pub resolver: ResolverSection,
    pub limits: LimitsSection,
    pub pools: PoolsSection,
    pub token: Vec<TokenSection>,
    pub api: Vec<ApiSection>,
    pub smtp_client: Vec<SmtpClientSection>,
    pub delivery_logger: Vec<DeliveryLoggerSection>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "var/posthaste".into(),
            hostname: String::new(),
            drain_timeout: secs(30),
            log: LogSection::default(),
            queue: QueueSection::default(),
            logs: LogsSection::default(),
            resolver: ResolverSection::default(),
            limits: LimitsSection::default(),
            pools: PoolsSection::default(),
            token: Vec::new(),
            api: Vec::new(),
            smtp_client: Vec::new(),
            delivery_logger: Vec::new(),
        }
    }
}

impl Config {
    /// Fills in what the machine knows, and the roles where none is named.
    pub fn complete(&mut self) {
        if self.hostname.is_empty() {
            self.hostname = system_hostname();
        }
        if self.api.is_empty() && self.smtp_client.is_empty() && self.delivery_logger.is_empty() {
            self.api.push(ApiSection::default());
            self.smtp_client.push(SmtpClientSection::default());
            self.delivery_logger.push(DeliveryLoggerSection::default());
        }
        for (index, client) in self.smtp_client.iter_mut().enumerate() {
            if client.name.is_empty() {
                client.name = format!("client-{}", index + 1);
            }
            if client.ehlo_name.is_empty() {
                client.ehlo_name.clone_from(&self.hostname);
            }
        }
    }
}

fn system_hostname() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().to_ascii_lowercase();
    if name.parse::<Domain>().is_ok() { name } else { "localhost".into() }
}

/// What the process says about itself on standard error.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    pub level: String,
    pub format: LogFormat,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// The embedded queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSection {
    pub segment_size: Size,
    pub cache_size: Size,
    pub codec: Codec,
}

impl Default for QueueSection {
    fn default() -> Self {
        Self { segment_size: Size(64 << 20), cache_size: Size(16 << 20), codec: Codec::Zstd }
    }
}

/// The evidence.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogsSection {
    pub period: LogPeriod,
    pub retention: u32,
}

impl Default for LogsSection {
    fn default() -> Self {
        Self { period: LogPeriod::Monthly, retention: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogPeriod {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// DNS and what addresses mail may go to.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolverSection {
    pub servers: Vec<SocketAddr>,
    pub timeout: Span,
    pub min_ttl: Span,
    pub max_ttl: Span,
    pub failure_ttl: Span,
    pub cache_entries: usize,
    pub allow_private_destinations: bool,
    pub own_addresses: Vec<IpAddr>,
    pub ipv6: bool,
}

impl Default for ResolverSection {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: secs(5),
            min_ttl: secs(60),
            max_ttl: secs(86_400),
            failure_ttl: secs(5),
            cache_entries: 100_000,
            allow_private_destinations: false,
            own_addresses: Vec::new(),
            ipv6: true,
        }
    }
}

/// Limits on what a submitter may ask for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    pub request_size: Size,
    pub content_size: Size,
    pub submissions: usize,
    pub recipients: usize,
    pub attachments: usize,
    pub headers: usize,
    pub tags: usize,
    pub queue_messages: u64,
    pub disk_reserve: Size,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            request_size: Size(32 << 20),
            content_size: Size(25 << 20),
            submissions: 1000,
            recipients: 1000,
            attachments: 100,
            headers: 100,
            tags: 32,
            queue_messages: 5_000_000,
            disk_reserve: Size(1 << 30),
        }
    }
}

/// Which pools there are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolsSection {
    pub declared: Vec<PoolName>,
    pub create: bool,
}

impl Default for PoolsSection {
    fn default() -> Self {
        Self { declared: Vec::new(), create: true }
    }
}

/// One who may submit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSection {
    pub name: String,
    pub secret: Secret,
    #[serde(default)]
    pub sender_domains: Vec<String>,
    #[serde(default)]
    pub pools: Vec<PoolName>,
}

/// One listener of the REST API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiSection {
    pub listen: SocketAddr,
    pub behind_proxy: bool,
    pub max_connections: usize,
    pub read_timeout: Span,
}

impl Default for ApiSection {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8025),
            behind_proxy: false,
            max_connections: 1024,
            read_timeout: secs(30),
        }
    }
}

/// One SMTP client.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmtpClientSection {
    pub name: String,
    pub pool: PoolName,
    pub ehlo_name: String,
    pub source_v4: Option<Ipv4Addr>,
    pub source_v6: Option<Ipv6Addr>,
    pub port: u16,
    pub smart_host: Option<String>,
    pub tls: TlsChoice,
    pub concurrency: u32,
    pub domain_concurrency: u32,
    pub domains: BTreeMap<Domain, DomainSection>,
    pub messages_per_connection: u32,
    pub idle_timeout: Span,
    pub connection_lifetime: Span,
    pub attempt_timeout: Span,
    pub window_messages: u32,
    pub window_size: Size,
    pub max_hops: usize,
    pub max_age: Option<Span>,
    pub retry: RetrySection,
    pub timeouts: TimeoutsSection,
}

impl Default for SmtpClientSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            pool: PoolName::default(),
            ehlo_name: String::new(),
            source_v4: None,
            source_v6: None,
            port: 25,
            smart_host: None,
            tls: TlsChoice::Opportunistic,
            concurrency: 100,
            domain_concurrency: 20,
            domains: BTreeMap::new(),
            messages_per_connection: 100,
            idle_timeout: secs(10),
            connection_lifetime: secs(300),
            attempt_timeout: secs(1800),
            window_messages: 500,
            window_size: Size(64 << 20),
            max_hops: 25,
            max_age: None,
            retry: RetrySection::default(),
            timeouts: TimeoutsSection::default(),
        }
    }
}

/// What differs for one recipient domain (UC9).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainSection {
    pub concurrency: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsChoice {
    Off,
    Opportunistic,
    Require,
    Verify,
}

/// When a deferred message is tried again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySection {
    pub delays: Vec<Span>,
    pub jitter: f64,
    pub max_attempts: u32,
    pub no_route_attempts: u32,
}

impl Default for RetrySection {
    fn default() -> Self {
        let minutes = [5, 10, 20, 40, 60, 120, 240];
        Self {
            delays: minutes.iter().map(|minutes| secs(minutes * 60)).collect(),
            jitter: 0.1,
            max_attempts: 20,
            no_route_attempts: 3,
        }
    }
}

impl RetrySection {
    /// Other delays, without a file.
    pub fn set_delays(&mut self, delays: &[std::time::Duration]) {
        self.delays = delays.iter().map(|delay| Span(*delay)).collect();
    }
}

/// How long a remote server may take (RFC 5321 section 4.5.3.2).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsSection {
    pub connect: Span,
    pub greeting: Span,
    pub ehlo: Span,
    pub starttls: Span,
    pub mail: Span,
    pub rcpt: Span,
    pub data: Span,
    pub data_block: Span,
    pub data_end: Span,
}

impl Default for TimeoutsSection {
    fn default() -> Self {
        Self {
            connect: secs(30),
            greeting: secs(300),
            ehlo: secs(300),
            starttls: secs(120),
            mail: secs(300),
            rcpt: secs(300),
            data: secs(120),
            data_block: secs(180),
            data_end: secs(600),
        }
    }
}

/// One delivery logger.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryLoggerSection {
    pub batch_events: usize,
    pub linger: Span,
}

impl Default for DeliveryLoggerSection {
    fn default() -> Self {
        Self { batch_events: 500, linger: Span(std::time::Duration::from_millis(50)) }
    }
}
