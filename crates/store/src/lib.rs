//! The store: evidence of what was submitted and what became of it, in SQL.
//!
//! An append-only list of events by period. Each period is an `SQLite` file of
//! its own in one directory, so that writers of different periods do not wait
//! for each other and an expired period is dropped as a file.
//!
//! Contract:
//!
//! - [`Store::append`] returns when the events survive a power cut. It is
//!   idempotent by the id of the event: who does not know whether a batch was
//!   written appends it again.
//! - A period's share of a batch is there whole or not at all.
//! - Nothing is ever overwritten. A disposition is derived when it is asked
//!   for, from the latest event, in whatever order the events were written.
//! - Reading never waits for writing.
//!
//! [`Control`] beside it holds what changes, with a contract of its own.
//!
//! Files are readable by their owner alone. At most a few periods are open at
//! once. After an error the store stays usable: the file is opened anew by the
//! next call.

mod control;
mod error;
mod period;
mod sqlite;
mod view;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::Duration,
};

use posthaste_model::{
    AttemptEvent, LogEvent, MessageId, SubmissionEvent, SubmissionId, SubmittedMessage, Timestamp,
};

pub use crate::{
    control::{Claim, ClaimRequest, Claimed, Control, KeptAnswer},
    error::StoreError,
    period::Period,
    view::{MessageView, SubmissionView},
};
use crate::{period::Span, sqlite::Files};

/// The clock may have been set back between the making of an id and the event
/// that bears it, by this much.
const CLOCK_SLACK: Duration = Duration::from_secs(3600);

/// Where and how the store keeps its files.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory; made if need be. All processes that use it run on one
    /// host (`SQLite` shares memory between them).
    pub dir: PathBuf,
    /// What one file holds. After a change the older files are still read.
    pub period: Period,
    /// How many whole past periods are kept beside the current one; `None`:
    /// all.
    pub retention: Option<u32>,
}

/// The log of events. See the crate's documentation for its contract.
#[derive(Debug)]
pub struct Store {
    period: Period,
    retention: Option<u32>,
    files: Files,
}

impl Store {
    /// Opens the store; makes the directory if need be.
    ///
    /// # Errors
    /// When the directory cannot be used, or the newest file in it is not a
    /// database or was made by a newer program.
    pub async fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let files = Files::open(config.dir).await?;
        if let Some(newest) = files.list().await?.last() {
            files.reader(*newest).await?;
        }
        Ok(Self { period: config.period, retention: config.retention, files })
    }

    /// Writes events; returns how many were not there before. See the crate's
    /// documentation.
    ///
    /// # Errors
    /// When some of the events were not written. Events of other periods may
    /// have been; appending all of them again is safe.
    pub async fn append(&self, events: &[LogEvent]) -> Result<u64, StoreError> {
        let mut by_span: BTreeMap<Span, Vec<&LogEvent>> = BTreeMap::new();
        for event in events {
            by_span.entry(Span::containing(self.period, event.time())).or_default().push(event);
        }
        let mut new = 0;
        for (span, events) in by_span {
            new += self.files.writer(span).await?.append(&events).await?;
        }
        Ok(new)
    }

    /// A submission with its messages and their attempts; `None` when its row
    /// is not there (yet: submissions and attempts come by separate queues).
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn submission(&self, id: SubmissionId) -> Result<Option<SubmissionView>, StoreError> {
        let mut submission: Option<SubmissionEvent> = None;
        let mut attempts = Vec::new();
        for span in self.spans_from(id.time()).await? {
            let Some(reader) = self.files.reader(span).await? else { continue };
            if submission.is_none() {
                submission = reader.submission(id).await?;
            }
            attempts.extend(reader.attempts(id, None).await?);
        }
        Ok(submission.map(|submission| view(submission, attempts)))
    }

    /// A message with its attempts, and its submission; `None` as with
    /// [`Self::submission`].
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn message(
        &self,
        id: MessageId,
    ) -> Result<Option<(SubmissionId, MessageView)>, StoreError> {
        let mut found: Option<(SubmissionId, SubmittedMessage)> = None;
        let mut attempts = Vec::new();
        // A submission is logged before its messages can be attempted, or in
        // the same period but for the edge: what comes before it is no attempt
        // of it. An id knows only its own time, so all periods from there on.
        let spans = self.spans_from(id.time()).await?;
        for span in &spans {
            let Some(reader) = self.files.reader(*span).await? else { continue };
            found = reader.message(id).await?;
            if found.is_some() {
                break;
            }
        }
        let Some((submission_id, message)) = found else { return Ok(None) };
        for span in spans {
            let Some(reader) = self.files.reader(span).await? else { continue };
            attempts.extend(reader.attempts(submission_id, Some(id)).await?);
        }
        Ok(Some((submission_id, MessageView::new(message, attempts))))
    }

    /// Drops the files of expired periods whole; never the current one.
    /// Returns what was dropped. Does nothing without a configured retention.
    ///
    /// # Errors
    /// When a file cannot be removed; others may have been.
    pub async fn enforce_retention(&self, now: Timestamp) -> Result<Vec<PathBuf>, StoreError> {
        let Some(kept) = self.retention else { return Ok(Vec::new()) };
        let oldest_kept = Span::containing(self.period, now).earlier(kept).start();
        let mut dropped = Vec::new();
        for span in self.files.list().await? {
            if span.end() <= oldest_kept {
                let path = self.files.remove(span).await?;
                tracing::info!(file = %path.display(), kept, "dropped an expired period of the log");
                dropped.push(path);
            }
        }
        Ok(dropped)
    }

    /// Waits for what is being written, folds it into the main files and lets
    /// go. Every later call fails.
    ///
    /// # Errors
    /// When a file could not be closed in order. Nothing is lost: the next
    /// opening recovers it.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.files.close().await
    }

    /// The periods that can hold something of an id made at `time`, oldest
    /// first; all of them when the id does not tell.
    async fn spans_from(&self, time: Option<Timestamp>) -> Result<Vec<Span>, StoreError> {
        let mut spans = self.files.list().await?;
        if let Some(time) = time {
            spans.retain(|span| time < span.end().plus(CLOCK_SLACK));
        }
        Ok(spans)
    }
}

fn view(submission: SubmissionEvent, attempts: Vec<AttemptEvent>) -> SubmissionView {
    let mut by_message: HashMap<MessageId, Vec<AttemptEvent>> = HashMap::new();
    for attempt in attempts {
        by_message.entry(attempt.message_id).or_default().push(attempt);
    }
    let messages = submission
        .messages
        .iter()
        .map(|message| {
            let attempts = by_message.remove(&message.message_id).unwrap_or_default();
            MessageView::new(message.clone(), attempts)
        })
        .collect();
    SubmissionView { submission, messages }
}
