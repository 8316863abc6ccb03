//! A connection that is made anew along the list of nodes.
//!
//! Contract: [`Client::start`] keeps one connection. When it ends, the nodes
//! are tried in turn, from the one behind the lost; after each round, and after
//! each loss, a wait that doubles with jitter. [`Client::connection`] gives the
//! one that lives; [`Client::link_state`] tells whether there is one, and why not.
//!
//! Invariant: each connection has an epoch that no other one of the same
//! [`Epochs`] had, so that a token of a lost one is never taken for one of the next.
//!
//! On failure it goes on trying, also when the cause needs somebody to change
//! a setting: that may be done in the broker.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use posthaste_broker::LinkState;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    backoff::Backoff,
    config::{ClientConfig, Node},
    connection::Connection,
    error::LinkError,
};

/// Numbers for connections. Clones count on together.
#[derive(Debug, Clone, Default)]
pub struct Epochs(Arc<AtomicU64>);

impl Epochs {
    /// The next one.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Keeps a connection. See the module. Dropping it ends the trying; the
/// connection lives as long as somebody else holds it.
#[derive(Debug)]
pub struct Client {
    link: watch::Receiver<Link>,
    state: watch::Receiver<LinkState>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

#[derive(Debug, Clone)]
enum Link {
    Connecting,
    Up(Connection),
    Down(LinkError),
}

impl Client {
    /// Starts to connect.
    ///
    /// # Errors
    /// [`LinkError::Invalid`] when there is no node.
    pub fn start(config: ClientConfig, epochs: Epochs) -> Result<Self, LinkError> {
        if config.nodes.is_empty() {
            return Err(LinkError::invalid("there is no node of the broker to connect to"));
        }
        let (link_sender, link) = watch::channel(Link::Connecting);
        let connecting = LinkState::Down("not connected yet".to_owned());
        let (state_sender, state) = watch::channel(connecting);
        let stop = CancellationToken::new();
        let keeper = Keeper {
            backoff: Backoff::new(config.backoff_first, config.backoff_most, fastrand::Rng::new()),
            config,
            epochs,
            link: link_sender,
            state: state_sender,
        };
        tokio::spawn(keeper.run(stop.clone()));
        Ok(Self { link, state, _stop_on_drop: stop.clone().drop_guard(), stop })
    }

    /// The connection, once there is one.
    ///
    /// # Errors
    /// The cause of its absence: when that lasts longer than `within`, or at
    /// once when trying again is of no use before a setting is changed.
    pub async fn connection(&self, within: Duration) -> Result<Connection, LinkError> {
        let mut link = self.link.clone();
        let waiting = link.wait_for(|link| match link {
            Link::Up(connection) => connection.cause().is_none(),
            Link::Down(cause) => cause.needs_change() || *cause == LinkError::Closed,
            Link::Connecting => false,
        });
        let found = match timeout(within, waiting).await {
            Ok(Ok(link)) => link.clone(),
            Ok(Err(_)) => Link::Down(LinkError::Closed),
            Err(_) => self.link.borrow().clone(),
        };
        match found {
            Link::Up(connection) => match connection.cause() {
                None => Ok(connection),
                Some(cause) => Err(cause),
            },
            Link::Down(cause) => Err(cause),
            Link::Connecting => Err(LinkError::Timeout { what: "connection", within }),
        }
    }

    /// Follows whether there is a connection.
    #[must_use]
    pub fn link_state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Stops trying and ends the connection in order.
    ///
    /// # Errors
    /// When that is not done in time; it is closed all the same.
    pub async fn close(&self, within: Duration) -> Result<(), LinkError> {
        // Before the keeper lets go of it.
        let link = self.link.borrow().clone();
        self.stop.cancel();
        match link {
            Link::Up(connection) if connection.cause().is_none() => connection.close(within).await,
            _ => Ok(()),
        }
    }
}

struct Keeper {
    config: ClientConfig,
    epochs: Epochs,
    backoff: Backoff,
    link: watch::Sender<Link>,
    state: watch::Sender<LinkState>,
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) {
        // Only trying is interrupted: who stopped closes the connection itself.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
        self.down(&LinkError::Closed);
    }

    async fn keep(&mut self) {
        let mut first = 0;
        loop {
            if let Some((at, connection)) = self.round(first).await {
                first = at + 1;
                let since = Instant::now();
                let cause = self.hold(connection).await;
                self.down(&cause);
                // One that ends as soon as it is made is no success.
                if since.elapsed() >= self.config.backoff_most {
                    self.backoff.reset();
                }
            }
            tokio::time::sleep(self.backoff.wait()).await;
        }
    }

    /// Tries each node once.
    async fn round(&mut self, first: usize) -> Option<(usize, Connection)> {
        let count = self.config.nodes.len();
        for at in (0..count).map(|step| (first + step) % count) {
            let node = self.config.nodes.get(at)?;
            match Connection::open(node, &self.config, self.epochs.next()).await {
                Ok(connection) => {
                    self.up(node, &connection);
                    return Some((at, connection));
                }
                Err(cause) => {
                    tracing::warn!(%node, %cause, "the broker's node cannot be used");
                    self.down(&cause);
                }
            }
        }
        None
    }

    async fn hold(&self, connection: Connection) -> LinkError {
        let cause = connection.ended().await;
        tracing::warn!(%cause, "the link to the broker is lost");
        cause
    }

    fn up(&self, node: &Node, connection: &Connection) {
        let (server, epoch) = (connection.server(), connection.epoch());
        tracing::info!(%node, server, epoch, "connected to the broker");
        self.link.send_replace(Link::Up(connection.clone()));
        self.state.send_replace(LinkState::Up);
    }

    fn down(&self, cause: &LinkError) {
        self.link.send_replace(Link::Down(cause.clone()));
        self.state.send_replace(LinkState::Down(cause.to_string()));
    }
}
