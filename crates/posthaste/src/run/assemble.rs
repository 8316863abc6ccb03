//! Puts the parts together, starts the roles, and stops them in order.
//!
//! Stopping: first the API and the SMTP clients (no new work comes in, what is
//! in flight is settled), then the loggers (they write what was settled), then
//! the queue and the store are closed. Whatever a bound cuts short is on disk
//! and goes on at the next start.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use posthaste_api::{Admission, ApiConfig, ApiMetrics, ApiState, Auth, Secret, Token};
use posthaste_broker::{
    Broker,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_delivery::{Journal, Shared};
use posthaste_dns::Resolver;
use posthaste_events::{LoggerConfig, run_delivery_logger};
use posthaste_intake::Intake;
use posthaste_model::{Clock, SystemClock};
use posthaste_smtp::TlsClient;
use posthaste_store::{Control, Store};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::convert;
use crate::{
    config::{ApiSection, Config, TokenSection},
    supervise::{RoleMetrics, supervise},
};

/// Beyond the drain bound of the roles: for what they do after it.
const GRACE: Duration = Duration::from_secs(5);

/// The running roles of one process.
pub struct Posthaste {
    /// API and SMTP clients.
    front: Group,
    /// Delivery loggers.
    loggers: Group,
    broker: Arc<dyn Broker>,
    store: Arc<Store>,
    control: Arc<Control>,
    api_addresses: Vec<SocketAddr>,
    drain: Duration,
}

/// Roles that stop together.
#[derive(Debug, Default)]
struct Group {
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Group {
    /// Asks to stop and waits; says who did not within the bound.
    async fn stop(mut self, within: Duration, who: &str) {
        self.shutdown.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(within, drained).await.is_err() {
            warn!("{who} did not stop within {within:?} and are cut; nothing accepted is lost");
        }
    }
}

impl Posthaste {
    /// Starts everything that the configuration names. When it returns the
    /// API answers.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        private_dir(&config.data_dir)?;
        // Listeners first: an address in use is the commonest mistake, and is
        // then said before anything is touched.
        let listeners = config.api.iter().map(|api| bind(api.listen));
        let listeners: Vec<_> = listeners.collect::<anyhow::Result<_>>()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let broker = open_queue(&config, Arc::clone(&clock)).await?;
        let store = Store::open(convert::store(&config)).await;
        let store = Arc::new(store.context("failed to open the logs")?);
        let control = Control::open(config.data_dir.join("control")).await;
        let control = Arc::new(control.context("failed to open the control data")?);

        let mut registry = Registry::default();
        let root = registry.sub_registry_with_prefix("posthaste");
        let roles = RoleMetrics::register(root);
        let logger_metrics = Arc::new(posthaste_events::Metrics::register(root));
        let api_metrics = ApiMetrics::register(root);
        let delivery_metrics = posthaste_delivery::Metrics::register(root);
        let registry = Arc::new(registry);

        let mut front = Group::default();
        let mut loggers = Group::default();
        for (index, section) in config.delivery_logger.iter().enumerate() {
            let logger = LoggerConfig {
                batch_events: section.batch_events,
                linger: section.linger.0,
                clock: Arc::clone(&clock),
            };
            let (broker, store) = (Arc::clone(&broker), Arc::clone(&store));
            let (metrics, shutdown) = (Arc::clone(&logger_metrics), loggers.shutdown.clone());
            let name = format!("logger-{}", index + 1);
            let start = move || {
                let (broker, store) = (Arc::clone(&broker), Arc::clone(&store));
                run_delivery_logger(
                    logger.clone(),
                    broker,
                    store,
                    metrics.clone(),
                    shutdown.clone(),
                )
            };
            let stop = loggers.shutdown.clone();
            loggers.tasks.spawn(supervise("delivery-logger", name, roles.clone(), stop, start));
        }

        if !config.smtp_client.is_empty() {
            let shared = shared(&config, &broker, &clock, delivery_metrics)?;
            for section in &config.smtp_client {
                let client = convert::smtp_client(section, &config);
                let (shared, shutdown) = (Arc::clone(&shared), front.shutdown.clone());
                let start = move || {
                    posthaste_delivery::run(client.clone(), Arc::clone(&shared), shutdown.clone())
                };
                let (name, stop) = (section.name.clone(), front.shutdown.clone());
                front.tasks.spawn(supervise("smtp-client", name, roles.clone(), stop, start));
            }
        }

        let intake =
            Intake::new(Arc::clone(&broker), Arc::clone(&clock), convert::intake(&config)?);
        let admission = Arc::new(Admission::new(
            convert::admission(&config),
            Arc::clone(&broker),
            api_metrics.clone(),
        ));
        let state = ApiState {
            intake,
            store: Arc::clone(&store),
            control: Arc::clone(&control),
            admission,
            broker: Arc::clone(&broker),
            clock,
            registry,
            metrics: api_metrics,
        };
        let auth = auth(&config.token)?;
        let mut api_addresses = Vec::new();
        for (section, listener) in config.api.iter().zip(listeners) {
            let address = listener.local_addr().context("failed to read a listener's address")?;
            api_addresses.push(address);
            info!("API on http://{address}");
            let api = api_config(&config, section, auth.clone())?;
            let (state, shutdown) = (state.clone(), front.shutdown.clone());
            let start = move || {
                // The socket stays open between two runs: clients wait instead
                // of being refused.
                let listener = listener.try_clone();
                let (api, state, shutdown) = (api.clone(), state.clone(), shutdown.clone());
                async move {
                    let listener = tokio::net::TcpListener::from_std(listener?)?;
                    posthaste_api::run(api, listener, state, shutdown).await?;
                    anyhow::Ok(())
                }
            };
            let stop = front.shutdown.clone();
            front.tasks.spawn(supervise("api", address.to_string(), roles.clone(), stop, start));
        }
        Ok(Self {
            front,
            loggers,
            broker,
            store,
            control,
            api_addresses,
            drain: config.drain_timeout.0,
        })
    }

    /// Where the API listens.
    pub fn api_addresses(&self) -> &[SocketAddr] {
        &self.api_addresses
    }

    /// Drains and closes everything.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.front.stop(self.drain + GRACE, "the API or an SMTP client").await;
        self.loggers.stop(self.drain + GRACE, "the delivery loggers").await;
        let queue = self.broker.close(GRACE).await.context("failed to close the queue");
        let control = self.control.close().await.context("failed to close the control data");
        let store = self.store.close().await.context("failed to close the logs");
        // Each is closed, whatever became of the others.
        queue.and(control).and(store)
    }
}

/// Makes a directory that only its owner can read; says so when it can be
/// read by others.
fn private_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let failed = || format!("failed to make data_dir {}", dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(failed)?;
    let mode = std::fs::metadata(dir).with_context(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let dir = dir.display();
        warn!(%dir, "data_dir can be read by others on this machine: chmod 700 it");
    }
    Ok(())
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("failed to listen on {address} (api.listen)"))?;
    listener.set_nonblocking(true).context("failed to set up a listener")?;
    Ok(listener)
}

/// Opens the queue; reading a large one takes a while, so not on the runtime.
async fn open_queue(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Broker>> {
    let mut embedded = EmbeddedConfig::new(config.data_dir.join("queue"));
    embedded.segment_bytes = config.queue.segment_size.0;
    embedded.cache_bytes = usize::try_from(config.queue.cache_size.0)?;
    let opened = tokio::task::spawn_blocking(move || EmbeddedQueue::open(embedded, clock)).await;
    let queue = opened?.context("failed to open the queue")?;
    Ok(queue)
}

/// What the SMTP clients of this process share.
fn shared(
    config: &Config,
    broker: &Arc<dyn Broker>,
    clock: &Arc<dyn Clock>,
    metrics: posthaste_delivery::Metrics,
) -> anyhow::Result<Arc<Shared>> {
    let dir = config.data_dir.join("journal");
    let (journal, recovered) = Journal::open(&dir).context("failed to open the journal")?;
    info!(
        unsettled = recovered.outcomes,
        interrupted = recovered.interrupted,
        "the journal was read"
    );
    let resolver = Resolver::new(convert::resolver(config)).context("failed to set up DNS")?;
    let tls = TlsClient::new()?;
    Ok(Arc::new(Shared::new(
        Arc::clone(broker),
        resolver,
        tls,
        Arc::new(journal),
        Arc::clone(clock),
        metrics,
    )))
}

fn auth(tokens: &[TokenSection]) -> anyhow::Result<Auth> {
    if tokens.is_empty() {
        return Ok(Auth::Open);
    }
    let token = |section: &TokenSection| {
        let pools = (!section.pools.is_empty()).then(|| section.pools.clone());
        let secret = Secret::new(section.secret.expose());
        Ok(Token::new(&section.name, secret, convert::token_patterns(section)?, pools))
    };
    tokens.iter().map(token).collect::<anyhow::Result<_>>().map(Auth::Tokens)
}

fn api_config(config: &Config, section: &ApiSection, auth: Auth) -> anyhow::Result<ApiConfig> {
    Ok(ApiConfig {
        auth,
        behind_proxy: section.behind_proxy,
        body_bytes: usize::try_from(config.limits.request_size.0)?,
        header_timeout: section.read_timeout.0,
        body_timeout: section.read_timeout.0,
        max_connections: section.max_connections,
        drain_timeout: config.drain_timeout.0,
        ..ApiConfig::default()
    })
}
