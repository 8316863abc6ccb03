//! placeholder doc
mod error;
mod view;

use std::path::PathBuf;

use posthaste_model::{LogEvent, MessageId, SubmissionId, Timestamp};

pub use crate::{
    error::StoreError,
    view::{MessageView, SubmissionView},
};

/// How long one file of the log lasts, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A calendar day.
    Daily,
    /// An ISO 8601 week, Monday to Sunday.
    Weekly,
    /// A calendar month.
    #[default]
    Monthly,
    /// A calendar year.
    Yearly,
}

/// Where and how the store keeps its files.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory; made if need be.
    pub dir: PathBuf,
    /// What one file holds.
    pub period: Period,
    /// How many whole past periods are kept beside the current one; `None`:
    /// all.
    pub retention: Option<u32>,
}

/// The store.
#[derive(Debug)]
pub struct Store {}

#[allow(missing_docs, clippy::unused_async, unused_variables, reason = "stub")]
impl Store {
    pub async fn open(config: StoreConfig) -> Result<Self, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn append(&self, events: &[LogEvent]) -> Result<u64, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn submission(&self, id: SubmissionId) -> Result<Option<SubmissionView>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn message(
        &self,
        id: MessageId,
    ) -> Result<Option<(SubmissionId, MessageView)>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn enforce_retention(&self, now: Timestamp) -> Result<Vec<PathBuf>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn close(&self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
}
