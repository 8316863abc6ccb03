//! What the store answers: events put together again.

use posthaste_model::{AttemptEvent, Disposition, SubmissionEvent, SubmittedMessage};

/// A submission with what became of it.
#[derive(Debug, Clone)]
pub struct SubmissionView {
    /// As it was accepted.
    pub submission: SubmissionEvent,
    /// One for each of its messages, in the order of their ids.
    pub messages: Vec<MessageView>,
}

/// A message with what became of it.
#[derive(Debug, Clone)]
pub struct MessageView {
    /// As it was accepted.
    pub message: SubmittedMessage,
    /// What the latest event says; `queued` when there is none.
    pub disposition: Disposition,
    /// Its events, oldest first.
    pub attempts: Vec<AttemptEvent>,
}

impl MessageView {
    /// Puts a message and its events together. The latest by time decides;
    /// of events in the same millisecond, that with the later id. The order
    /// in which they were written does not matter.
    pub(crate) fn new(message: SubmittedMessage, mut attempts: Vec<AttemptEvent>) -> Self {
        attempts.sort_by_key(|event| (event.time, event.attempt_id));
        let disposition = attempts.last().map_or(Disposition::Queued, |event| event.disposition);
        Self { message, disposition, attempts }
    }
}
