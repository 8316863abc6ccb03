//! What the API counts, and when to worry.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

/// The API's metrics, shared by all its listeners.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<RouteLabels, Histogram, fn() -> Histogram>,
    refused: Family<CodeLabels, Counter>,
    pub(crate) submissions: Counter,
    pub(crate) messages: Counter,
    pub(crate) bytes: Counter,
    pub(crate) inflight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) disk_free: Gauge,
    pub(crate) refusing: Gauge,
}

/// From 100 µs to 52 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 3.0, 13))
}

impl ApiMetrics {
    /// Makes them known to the registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(durations),
            refused: Family::default(),
            submissions: Counter::default(),
            messages: Counter::default(),
            bytes: Counter::default(),
            inflight: Gauge::default(),
            connections: Gauge::default(),
            queued: Gauge::default(),
            disk_free: Gauge::default(),
            refusing: Gauge::default(),
        };
        registry.register(
            "api_requests",
            "Requests answered, by route and status; worry when 5xx rise",
            metrics.requests.clone(),
        );
        registry.register(
            "api_request_duration_seconds",
            "From the head of a request to its answer; worry when the 99th percentile of submissions leaves that of the disk",
            metrics.duration.clone(),
        );
        registry.register(
            "api_refused",
            "Errors told to clients, by code; worry when one that was rare is not",
            metrics.refused.clone(),
        );
        registry.register(
            "api_submissions_accepted",
            "Submissions answered with 202",
            metrics.submissions.clone(),
        );
        registry.register(
            "api_messages_accepted",
            "Messages of these, one a recipient",
            metrics.messages.clone(),
        );
        registry.register("api_body_bytes", "Bytes of bodies received", metrics.bytes.clone());
        registry.register(
            "api_requests_in_flight",
            "Requests being worked on; worry when it only grows",
            metrics.inflight.clone(),
        );
        registry.register(
            "api_connections",
            "Open connections; worry when it stays at the configured maximum",
            metrics.connections.clone(),
        );
        metrics.register_admission(registry);
        metrics
    }

    fn register_admission(&self, registry: &mut Registry) {
        registry.register(
            "queue_messages",
            "Messages in all queues together, at most a second old; worry when it comes near limits.queue_messages",
            self.queued.clone(),
        );
        registry.register(
            "disk_free_bytes",
            "Room on the disk of the queue; worry when it comes near limits.disk_reserve",
            self.disk_free.clone(),
        );
        registry.register(
            "api_refusing",
            "1 while submissions are refused because the queue or the disk is full; worry at once",
            self.refusing.clone(),
        );
    }

    pub(crate) fn answered(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.duration.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, codes: impl Iterator<Item = &'static str>) {
        for code in codes {
            self.refused.get_or_create(&CodeLabels { code }).inc();
        }
    }
}

/// Counts one while it lives.
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
