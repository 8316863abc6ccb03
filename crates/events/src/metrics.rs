//! What the loggers of a process count.
//!
//! When to worry: `logger_store_failures` rising means that no evidence is
//! written and the log queues grow; `logger_settle_failures` that what is
//! written cannot be acknowledged; `logger_quarantined` that somebody publishes
//! what no logger can read; `logger_append_seconds` near the linger that the
//! disk is the bottleneck. `logger_events_repeated` and `logger_stale` rise a
//! little after each lost link or process, no more.

use std::time::Duration;

use parking_lot::Mutex;
use posthaste_model::{Disposition, LogEvent};
use posthaste_store::StoreError;
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

/// What an event was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventLabels {
    /// `submission`, or see [`posthaste_model::EventKind`].
    pub kind: &'static str,
    /// See [`Disposition`]; a submission is `queued`.
    pub disposition: &'static str,
}

/// The metrics of all loggers of a process.
#[derive(Debug)]
pub struct Metrics {
    /// Events that are durable in the store, with those that were before.
    pub events: Family<EventLabels, Counter>,
    /// Of these, those that were there before.
    pub repeated: Counter,
    /// Transactions, about.
    pub batches: Counter,
    /// How long an append took that worked.
    pub append_seconds: Histogram,
    /// Appends that failed.
    pub store_failures: Counter,
    /// 1 when the last append worked, 0 when it failed.
    pub store_up: Gauge,
    /// Acknowledgements that failed.
    pub settle_failures: Counter,
    /// Acknowledgements that came too late: the message comes again.
    pub stale: Counter,
    /// Messages that could not be read.
    pub quarantined: Counter,
    last_error: Mutex<Option<String>>,
}

impl Metrics {
    /// Makes them known to `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            events: Family::default(),
            repeated: Counter::default(),
            batches: Counter::default(),
            append_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            store_failures: Counter::default(),
            store_up: Gauge::default(),
            settle_failures: Counter::default(),
            stale: Counter::default(),
            quarantined: Counter::default(),
            last_error: Mutex::new(None),
        };
        metrics.store_up.set(1);
        let m = &metrics;
        registry.register("logger_events", "Events durable in the store", m.events.clone());
        registry.register(
            "logger_events_repeated",
            "Events that were in the store already",
            m.repeated.clone(),
        );
        registry.register("logger_batches", "Batches written", m.batches.clone());
        registry.register(
            "logger_append_seconds",
            "Duration of a write into the store",
            m.append_seconds.clone(),
        );
        registry.register(
            "logger_store_failures",
            "Writes into the store that failed",
            m.store_failures.clone(),
        );
        registry.register(
            "logger_store_up",
            "Whether the last write into the store worked",
            m.store_up.clone(),
        );
        registry.register(
            "logger_settle_failures",
            "Acknowledgements of log batches that failed",
            m.settle_failures.clone(),
        );
        registry.register(
            "logger_stale",
            "Acknowledgements of log batches that came too late",
            m.stale.clone(),
        );
        registry.register(
            "logger_quarantined",
            "Log batches that could not be read",
            m.quarantined.clone(),
        );
        metrics
    }

    /// Why the last append failed; `None` when it worked.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// `events` are durable, of which `new` were not there before.
    pub(crate) fn appended(&self, events: &[LogEvent], new: u64, took: Duration) {
        for event in events {
            self.events.get_or_create(&labels(event)).inc();
        }
        let all = u64::try_from(events.len()).unwrap_or(u64::MAX);
        self.repeated.inc_by(all.saturating_sub(new));
        self.batches.inc();
        self.append_seconds.observe(took.as_secs_f64());
        self.store_up.set(1);
        *self.last_error.lock() = None;
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        self.store_failures.inc();
        self.store_up.set(0);
        *self.last_error.lock() = Some(error.to_string());
    }
}

const fn labels(event: &LogEvent) -> EventLabels {
    match event {
        LogEvent::Attempt(event) => {
            EventLabels { kind: event.kind.as_str(), disposition: event.disposition.as_str() }
        }
        LogEvent::Submission(_) => {
            EventLabels { kind: "submission", disposition: Disposition::Queued.as_str() }
        }
    }
}
