//! Settings of one API listener, and what it works with.

use std::{sync::Arc, time::Duration};

use posthaste_broker::Broker;
use posthaste_intake::Intake;
use posthaste_model::Clock;
use posthaste_store::{Control, Store};
use prometheus_client::registry::Registry;

use crate::{admission::Admission, auth::Auth, metrics::ApiMetrics};

/// Settings of one listener, each with the value it has when nobody sets it.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Who may ask: [`Auth::Open`].
    pub auth: Auth,
    /// Whether a proxy stands in front, whose `X-Forwarded-For` names the
    /// client: no.
    pub behind_proxy: bool,
    /// Largest body in bytes: 32 MiB.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being worked on: 256 MiB.
    pub inflight_bytes: usize,
    /// How long a request waits for room among them: 5 s.
    pub inflight_wait: Duration,
    /// Bound on the head of a request, and on idling between two: 30 s.
    pub header_timeout: Duration,
    /// Bound on a body: 30 s, and one more for every 64 KiB of it that came.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer: 30 s.
    pub write_timeout: Duration,
    /// Connections at once; more wait to be accepted: 1024.
    pub max_connections: usize,
    /// How long a repetition with an idempotency key waits after the process
    /// that worked on it died: 30 s. A third of it is the time between two
    /// renewals.
    pub key_lease: Duration,
    /// How long requests in flight may take at shutdown: 30 s.
    pub drain_timeout: Duration,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            auth: Auth::Open,
            behind_proxy: false,
            body_bytes: 32 << 20,
            inflight_bytes: 256 << 20,
            inflight_wait: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            max_connections: 1024,
            key_lease: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// What the API works with.
#[derive(Clone)]
pub struct ApiState {
    /// Takes submissions.
    pub intake: Intake,
    /// Answers questions about them.
    pub store: Arc<Store>,
    /// Remembers idempotency keys.
    pub control: Arc<Control>,
    /// Says whether there is room for more.
    pub admission: Arc<Admission>,
    /// For its readiness, and for what waits in it.
    pub broker: Arc<dyn Broker>,
    /// Tells which ids are young.
    pub clock: Arc<dyn Clock>,
    /// What `/metrics` shows.
    pub registry: Arc<Registry>,
    /// Our own part of it.
    pub metrics: ApiMetrics,
}
