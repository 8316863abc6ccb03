//! Limits and settings, each with the value that it has when nobody sets it.

use std::{collections::HashSet, time::Duration};

use posthaste_model::{Codec, PoolName};

/// The bounds of one request. Nothing that comes from outside is unbounded.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Submissions of one request: 1000.
    pub submissions: usize,
    /// Recipients of one submission, To, CC and BCC together: 1000.
    pub recipients: usize,
    /// Messages of one request, that is recipients of all its submissions: 10,000.
    pub messages: usize,
    /// Addresses of `reply_to`: 25.
    pub reply_to: usize,
    /// Bytes of one message as it goes over the wire, attachments encoded: 25 MiB.
    pub content_bytes: usize,
    /// Bytes of the subject: 998, a line's length (RFC 5322 section 2.1.1).
    pub subject_bytes: usize,
    /// Header fields of the submitter: 100.
    pub headers: usize,
    /// Their bytes, names and values: 64 KiB.
    pub header_bytes: usize,
    /// Attachments: 100.
    pub attachments: usize,
    /// Tags: 32.
    pub tags: usize,
    /// Longest `delay`: 30 days.
    pub delay: Duration,
    /// How far ahead `schedule` may lie: 366 days.
    pub schedule_ahead: Duration,
    /// How far back `schedule` may lie and still mean "now": 5 minutes, for
    /// clocks that differ and requests that were slow.
    pub schedule_behind: Duration,
    /// Bytes of all copies of the To and Cc fields of one request, and of what
    /// else stands in single recipients' records: 64 MiB. Each record has its
    /// own, so that they grow with the square of the visible recipients.
    pub address_bytes: usize,
    /// Substitutions of one recipient, and of a submission's defaults: 100.
    pub substitutions: usize,
    /// Substitutions of one request, all recipients together: 100,000.
    pub substitution_values: usize,
    /// Bytes of all contents of one request that are of one recipient alone,
    /// because text or HTML differ: 256 MiB.
    pub individual_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            submissions: 1000,
            recipients: 1000,
            messages: 10_000,
            reply_to: 25,
            content_bytes: 25 << 20,
            subject_bytes: 998,
            headers: 100,
            header_bytes: 64 << 10,
            attachments: 100,
            tags: 32,
            delay: DAY.saturating_mul(30),
            schedule_ahead: DAY.saturating_mul(366),
            schedule_behind: Duration::from_secs(300),
            address_bytes: 64 << 20,
            substitutions: 100,
            substitution_values: 100_000,
            individual_bytes: 256 << 20,
        }
    }
}

/// What happens to a submission for a pool that nobody declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownPool {
    /// Its queue is made, and a warning logged: nobody may be consuming it.
    #[default]
    Create,
    /// The submission is refused.
    Refuse,
}

/// The pools that exist. `default` always does.
#[derive(Debug, Clone, Default)]
pub struct Pools {
    /// Declared in the configuration.
    pub known: HashSet<PoolName>,
    /// What happens to others.
    pub unknown: UnknownPool,
}

/// Settings of [`crate::Intake`].
#[derive(Debug, Clone)]
pub struct IntakeConfig {
    /// Our name in Message-ID and Received.
    pub hostname: String,
    /// Bounds.
    pub limits: Limits,
    /// How content is compressed.
    pub codec: Codec,
    /// Level of the codec, where it has levels.
    pub level: i32,
    /// Known pools.
    pub pools: Pools,
    /// Bytes that go to the broker in one batch: 64 MiB. A request with more
    /// goes in several, and is accepted when all are durable.
    pub batch_bytes: usize,
    /// How often an unknown outcome is published again: 3 times.
    pub publish_retries: u32,
    /// Bound on the wait for the broker, all tries together: 30 s.
    pub publish_timeout: Duration,
}

impl IntakeConfig {
    /// The defaults, for a host of this name.
    #[must_use]
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            limits: Limits::default(),
            codec: Codec::default(),
            level: posthaste_mail::compress::DEFAULT_LEVEL,
            pools: Pools::default(),
            batch_bytes: 64 << 20,
            publish_retries: 3,
            publish_timeout: Duration::from_secs(30),
        }
    }
}

impl Pools {
    /// Whether the pool was declared.
    #[must_use]
    pub fn is_known(&self, pool: &PoolName) -> bool {
        pool.as_str() == posthaste_model::DEFAULT_POOL || self.known.contains(pool)
    }
}
