//! A receiving SMTP server for trials: takes mail as fast as it comes, and
//! fails in the ways that its rules ask for.
//!
//! What is accepted is counted, told to an observer, and written to the accept
//! log before the client hears of it: the log proves what was accepted, however
//! either side ends. Nothing else is kept.
//!
//! Bounded: connections, content, commands (by the server session), time
//! without a sign of life. The observer's channel is the caller's; what it has
//! no room for is counted and dropped.

mod connection;
mod record;
mod rule;
pub mod syntax;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use posthaste_smtp::server::ServerOptions;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    record::{AcceptLog, Counters, count},
    rule::Rules,
};
pub use self::{
    record::{Received, SinkStats},
    rule::{Action, Pattern, Rule, RuleStage},
    syntax::RuleError,
};

/// Time for connections to end when the sink is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What an observer is told of each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// All but the content.
    #[default]
    Summary,
    /// All.
    All,
}

/// How a sink is to be.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Where to listen; port 0 for a free one.
    pub listen: SocketAddr,
    /// What the server calls itself, offers and allows. `starttls` makes the
    /// sink generate a self-signed certificate for its name.
    pub server: ServerOptions,
    /// What to do instead of accepting.
    pub rules: Vec<Rule>,
    /// What the observer is told.
    pub keep: Keep,
    /// Who is told of each message before it is acknowledged.
    pub observer: Option<mpsc::Sender<Received>>,
    /// The accept log, appended to.
    pub log: Option<PathBuf>,
    /// More connections at once are refused with 421.
    pub max_connections: usize,
    /// A connection that is silent for so long is closed.
    pub idle_timeout: Duration,
}

impl SinkConfig {
    /// A sink at `listen` that accepts everything.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            server: ServerOptions::new("sink.test"),
            rules: Vec::new(),
            keep: Keep::default(),
            observer: None,
            log: None,
            max_connections: 10_000,
            idle_timeout: Duration::from_secs(300),
        }
    }
}

/// What all connections of a sink share.
struct Shared {
    options: ServerOptions,
    tls: Option<TlsAcceptor>,
    rules: Rules,
    keep: Keep,
    observer: Option<mpsc::Sender<Received>>,
    log: Option<AcceptLog>,
    idle_timeout: Duration,
    counters: Counters,
}

/// A running sink. It ends with [`Sink::stop`], or when it is dropped.
pub struct Sink {
    address: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    connections: TaskTracker,
    listener: JoinHandle<()>,
}

impl Sink {
    /// Starts a sink on the current runtime. It listens when this returns.
    ///
    /// # Errors
    /// When the address cannot be bound, the accept log not be opened or the
    /// certificate not be made.
    pub async fn start(config: SinkConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let (certificate, tls) = if config.server.starttls {
            let (certificate, acceptor) = self_signed(&config.server.hostname)?;
            (Some(certificate), Some(acceptor))
        } else {
            (None, None)
        };
        let shared = Arc::new(Shared {
            options: config.server,
            tls,
            rules: Rules::new(config.rules),
            keep: config.keep,
            observer: config.observer,
            log: config.log.as_deref().map(AcceptLog::open).transpose()?,
            idle_timeout: config.idle_timeout,
            counters: Counters::default(),
        });
        let shutdown = CancellationToken::new();
        let connections = TaskTracker::new();
        let accepting = accept(
            listener,
            Arc::clone(&shared),
            config.max_connections,
            connections.clone(),
            shutdown.clone(),
        );
        let listener = tokio::spawn(accepting);
        Ok(Self { address, certificate, shared, shutdown, connections, listener })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its certificate, where it offers STARTTLS: for clients that verify.
    #[must_use]
    pub const fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> SinkStats {
        self.shared.counters.snapshot()
    }

    /// Stops listening and closes all connections, whatever they are at.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.connections.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.connections.wait()).await.is_err() {
            tracing::warn!("sink: connections are still open after {STOP_TIMEOUT:?}");
        }
        self.listener.abort();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    max_connections: usize,
    connections: TaskTracker,
    shutdown: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) if connections.len() >= max_connections => {
                count(&shared.counters.connections_refused, 1);
                refuse(&stream);
            }
            Ok((stream, address)) => {
                count(&shared.counters.connections, 1);
                count(&shared.counters.open, 1);
                let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
                connections.spawn(async move {
                    let _open = Open(Arc::clone(&shared));
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%address, %error, "sink: no TCP_NODELAY");
                    }
                    shutdown
                        .run_until_cancelled_owned(connection::serve(shared, stream, address))
                        .await;
                });
            }
            // Out of descriptors, most likely: some will be free in a moment.
            Err(error) => {
                tracing::warn!(%error, "sink: cannot accept connections");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A new connection has room for one line: this does not wait.
fn refuse(stream: &TcpStream) {
    if let Err(error) = stream.try_write(b"421 4.7.0 Too many connections\r\n") {
        tracing::debug!(%error, "sink: a connection was refused without a word");
    }
}

fn self_signed(hostname: &str) -> io::Result<(CertificateDer<'static>, TlsAcceptor)> {
    let made =
        rcgen::generate_simple_self_signed([hostname.to_owned()]).map_err(io::Error::other)?;
    let certificate = made.cert.der().clone();
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .map_err(io::Error::other)?;
    Ok((certificate, TlsAcceptor::from(Arc::new(config))))
}
