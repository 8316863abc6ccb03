//! Connections: accepted up to a bound, served, drained.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    body::Inflight,
    config::{ApiConfig, ApiState},
    metrics::Counted,
    router::{App, Peer, router},
    stream::BoundedWrites,
};

/// Largest head of a request in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Pause after the system refused a connection (out of file descriptors):
/// without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the API ended. Completes "the API failed: ".
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The listener is not usable.
    #[error("the listener cannot be used: {0}")]
    Listener(#[source] std::io::Error),
    /// Requests were still running when the time was up.
    #[error("{0} connections were cut at the end of the drain timeout")]
    DrainTimeout(usize),
}

/// Serves until `shutdown` is cancelled, then finishes the requests in flight.
///
/// # Errors
/// When the listener is not usable, or requests had to be cut at the end.
pub async fn run(
    config: ApiConfig,
    listener: TcpListener,
    state: ApiState,
    shutdown: CancellationToken,
) -> Result<(), ApiError> {
    let address = listener.local_addr().map_err(ApiError::Listener)?;
    tracing::info!(%address, "the API listens");
    let drain_timeout = config.drain_timeout;
    let slots = Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let app = Arc::new(App {
        inflight: Inflight::new(&config),
        config,
        state,
        draining: shutdown.clone(),
    });
    let router = router(Arc::clone(&app));
    let mut connections = JoinSet::new();
    while let Some((stream, peer, slot)) = accept(&listener, &slots, &shutdown).await {
        reap(&mut connections);
        connections.spawn(serve(stream, peer, slot, router.clone(), Arc::clone(&app)));
    }
    drop(listener);
    drain(connections, drain_timeout).await
}

/// The next connection, when there is a slot for it; `None` at shutdown.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let next = async {
        // The semaphore is never closed.
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer, slot)),
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        accepted = next => accepted,
    }
}

/// Takes note of connections that have ended.
fn reap(connections: &mut JoinSet<()>) {
    while let Some(result) = connections.try_join_next() {
        if let Err(error) = result {
            tracing::error!(%error, "a connection's task failed");
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    slot: OwnedSemaphorePermit,
    router: Router,
    app: Arc<App>,
) {
    let counted = Counted::new(&app.state.metrics.connections);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "failed to set TCP_NODELAY");
    }
    let stream = BoundedWrites::new(stream, app.config.write_timeout);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer.ip()));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.config.header_timeout)
        .max_header_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = app.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        // The peer left or was slow: nothing that an operator could mend.
        tracing::debug!(%error, %peer, "a connection ended early");
    }
    drop((counted, slot));
}

/// Waits for the requests in flight, then cuts what is left.
async fn drain(mut connections: JoinSet<()>, within: Duration) -> Result<(), ApiError> {
    let finish = async {
        while let Some(result) = connections.join_next().await {
            if let Err(error) = result {
                tracing::error!(%error, "a connection's task failed");
            }
        }
    };
    if timeout(within, finish).await.is_ok() {
        return Ok(());
    }
    let left = connections.len();
    connections.shutdown().await;
    Err(ApiError::DrainTimeout(left))
}
