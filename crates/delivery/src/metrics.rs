//! What the SMTP clients of a process count.
//!
//! When to worry: `settle_failures` rising means that outcomes cannot be made
//! durable and delivery is about to stop; `journal_failures` that no attempt
//! is started because the journal cannot be written; `quarantined` that some
//! producer writes records which nobody can read; `waiting` at the window with
//! `in_flight` at the limit that the limits are the bottleneck.

use std::sync::Arc;

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

/// Names the SMTP client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClientLabels {
    /// Its name in the configuration.
    pub smtp_client: Arc<str>,
}

/// Names the SMTP client and how an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    /// Its name in the configuration.
    pub smtp_client: Arc<str>,
    /// See [`posthaste_model::Disposition`].
    pub disposition: &'static str,
    /// See [`posthaste_model::Reason`].
    pub reason: &'static str,
}

type Seconds = Family<ClientLabels, Histogram, fn() -> Histogram>;

/// The metrics of all SMTP clients of a process.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Attempts that ended, by disposition and reason.
    pub attempts: Family<AttemptLabels, Counter>,
    /// Duration of an attempt.
    pub attempt_seconds: Seconds,
    /// Sessions that were opened.
    pub sessions_opened: Family<ClientLabels, Counter>,
    /// Transactions that reused a session.
    pub sessions_reused: Family<ClientLabels, Counter>,
    /// Sessions that are open.
    pub sessions_open: Family<ClientLabels, Gauge>,
    /// Messages that were handed over and wait for a slot.
    pub waiting: Family<ClientLabels, Gauge>,
    /// Attempts that are running.
    pub in_flight: Family<ClientLabels, Gauge>,
    /// Outcomes that are not settled yet.
    pub unsettled: Family<ClientLabels, Gauge>,
    /// Settlements that failed and are repeated.
    pub settle_failures: Family<ClientLabels, Counter>,
    /// Outcomes whose message had gone back to the queue.
    pub stale_tokens: Family<ClientLabels, Counter>,
    /// Outcomes that were taken from the journal instead of a second delivery.
    pub from_journal: Family<ClientLabels, Counter>,
    /// Records that were moved to the quarantine queue.
    pub quarantined: Family<ClientLabels, Counter>,
    /// Domains whose messages are held back at the broker.
    pub blocked_domains: Family<ClientLabels, Gauge>,
    /// Appends to the journal that failed.
    pub journal_failures: Counter,
    /// Bytes of the journal's files.
    pub journal_bytes: Gauge,
}

impl Metrics {
    /// Makes them known to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.5, 15));
        let metrics = Self {
            attempts: Family::default(),
            attempt_seconds: Family::new_with_constructor(seconds),
            sessions_opened: Family::default(),
            sessions_reused: Family::default(),
            sessions_open: Family::default(),
            waiting: Family::default(),
            in_flight: Family::default(),
            unsettled: Family::default(),
            settle_failures: Family::default(),
            stale_tokens: Family::default(),
            from_journal: Family::default(),
            quarantined: Family::default(),
            blocked_domains: Family::default(),
            journal_failures: Counter::default(),
            journal_bytes: Gauge::default(),
        };
        metrics.register_all(registry);
        metrics
    }

    fn register_all(&self, to: &mut Registry) {
        to.register("attempts", "Attempts that ended", self.attempts.clone());
        to.register("attempt_seconds", "Duration of an attempt", self.attempt_seconds.clone());
        to.register("sessions_opened", "Sessions that were opened", self.sessions_opened.clone());
        to.register(
            "sessions_reused",
            "Transactions that reused a session",
            self.sessions_reused.clone(),
        );
        to.register("sessions_open", "Sessions that are open", self.sessions_open.clone());
        to.register("waiting", "Messages that wait for a slot", self.waiting.clone());
        to.register("in_flight", "Attempts that are running", self.in_flight.clone());
        to.register("unsettled", "Outcomes that are not settled yet", self.unsettled.clone());
        to.register(
            "settle_failures",
            "Settlements that failed and are repeated",
            self.settle_failures.clone(),
        );
        to.register(
            "stale_tokens",
            "Outcomes whose message had gone back to the queue",
            self.stale_tokens.clone(),
        );
        to.register(
            "from_journal",
            "Outcomes taken from the journal instead of a second delivery",
            self.from_journal.clone(),
        );
        to.register(
            "quarantined",
            "Records moved to the quarantine queue",
            self.quarantined.clone(),
        );
        to.register(
            "blocked_domains",
            "Domains whose messages are held back at the broker",
            self.blocked_domains.clone(),
        );
        to.register(
            "journal_failures",
            "Appends to the journal that failed",
            self.journal_failures.clone(),
        );
        to.register("journal_bytes", "Bytes of the journal's files", self.journal_bytes.clone());
    }

    pub(crate) fn of(&self, name: &Arc<str>) -> ClientMetrics {
        let client = ClientLabels { smtp_client: name.clone() };
        ClientMetrics {
            name: name.clone(),
            attempts: self.attempts.clone(),
            attempt_seconds: self.attempt_seconds.get_or_create_owned(&client),
            sessions_opened: self.sessions_opened.get_or_create_owned(&client),
            sessions_reused: self.sessions_reused.get_or_create_owned(&client),
            sessions_open: self.sessions_open.get_or_create_owned(&client),
            waiting: self.waiting.get_or_create_owned(&client),
            in_flight: self.in_flight.get_or_create_owned(&client),
            unsettled: self.unsettled.get_or_create_owned(&client),
            settle_failures: self.settle_failures.get_or_create_owned(&client),
            stale_tokens: self.stale_tokens.get_or_create_owned(&client),
            from_journal: self.from_journal.get_or_create_owned(&client),
            quarantined: self.quarantined.get_or_create_owned(&client),
            blocked_domains: self.blocked_domains.get_or_create_owned(&client),
            journal_failures: self.journal_failures.clone(),
            journal_bytes: self.journal_bytes.clone(),
        }
    }
}

/// The metrics of one SMTP client, without looking them up each time.
#[derive(Debug, Clone)]
pub(crate) struct ClientMetrics {
    name: Arc<str>,
    attempts: Family<AttemptLabels, Counter>,
    pub attempt_seconds: Histogram,
    pub sessions_opened: Counter,
    pub sessions_reused: Counter,
    pub sessions_open: Gauge,
    pub waiting: Gauge,
    pub in_flight: Gauge,
    pub unsettled: Gauge,
    pub settle_failures: Counter,
    pub stale_tokens: Counter,
    pub from_journal: Counter,
    pub quarantined: Counter,
    pub blocked_domains: Gauge,
    pub journal_failures: Counter,
    pub journal_bytes: Gauge,
}

impl ClientMetrics {
    pub fn attempt(&self, disposition: &'static str, reason: &'static str) {
        let labels = AttemptLabels { smtp_client: self.name.clone(), disposition, reason };
        self.attempts.get_or_create(&labels).inc();
    }
}
