//! The one session that a worker keeps between transactions, and its bounds.

use std::sync::Arc;

use posthaste_smtp::Session;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::{client::Client, evidence::Remote};

/// An open session.
pub(crate) struct Kept {
    pub session: Session,
    /// Transactions that it served.
    pub used: u32,
    pub host: Box<str>,
    site: Arc<str>,
    opened: Instant,
    _counted: Counted,
}

/// Counts a session while it lives.
struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Kept {
    pub fn new(session: Session, host: &str, site: Arc<str>, client: &Client) -> Self {
        client.metrics.sessions_opened.inc();
        client.metrics.sessions_open.inc();
        let counted = Counted(client.metrics.sessions_open.clone());
        Self {
            session,
            used: 0,
            host: host.into(),
            site,
            opened: Instant::now(),
            _counted: counted,
        }
    }

    pub fn remote(&self) -> Remote {
        Remote {
            host: self.host.to_string(),
            address: self.session.address().to_string(),
            tls: self.session.tls().cloned(),
        }
    }

    fn can_serve(&self, client: &Client) -> bool {
        self.used < client.config.messages_per_connection.max(1)
            && self.opened.elapsed() < client.config.session_lifetime
            && self.session.is_usable()
    }

    /// Ends it without waiting: QUIT has a time limit of its own.
    pub fn leave(self) {
        tokio::spawn(self.quit());
    }

    async fn quit(self) {
        let Self { session, _counted, .. } = self;
        session.quit().await;
    }
}

/// Where a worker keeps its session.
#[derive(Default)]
pub(crate) struct SessionSlot(Option<Kept>);

impl SessionSlot {
    /// The site of the session that is here.
    pub fn site(&self) -> Option<Arc<str>> {
        self.0.as_ref().map(|kept| kept.site.clone())
    }

    /// Takes the session for a transaction with `site`; one that cannot serve
    /// it is ended.
    pub fn take_for(&mut self, site: &str, client: &Client) -> Option<Kept> {
        let kept = self.0.take()?;
        if *kept.site == *site && kept.can_serve(client) {
            return Some(kept);
        }
        kept.leave();
        None
    }

    /// Keeps a session for the next transaction, or ends it when it has done
    /// enough.
    pub fn put(&mut self, kept: Kept, client: &Client) {
        if let Some(other) = self.0.take() {
            other.leave();
        }
        if kept.can_serve(client) {
            self.0 = Some(kept);
        } else {
            kept.leave();
        }
    }

    /// Ends the session, if one is here.
    pub async fn close(&mut self) {
        if let Some(kept) = self.0.take() {
            kept.quit().await;
        }
    }
}
