//! A directory without an open queue: is it whole?

use std::path::{Path, PathBuf};

use crate::contract::BrokerError;

/// What is wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// File.
    pub path: PathBuf,
    /// Byte in it.
    pub offset: u64,
    /// What is wrong, and what it means.
    pub why: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Segment files read.
    pub segments: u64,
    /// Frames read.
    pub frames: u64,
    /// Live messages, in all queues.
    pub messages: u64,
    /// Live messages whose head or body is damaged or missing.
    pub damaged_messages: u64,
    /// Shared bodies that live.
    pub bodies: u64,
    /// Bytes read.
    pub bytes: u64,
    /// All that is wrong; empty when the directory is whole.
    pub problems: Vec<Problem>,
}

/// Reads all of a directory and checks every checksum. Changes nothing, and
/// blocks on the disk.
///
/// # Errors
/// [`BrokerError::InUse`] when a process has the queue open;
/// [`BrokerError::Storage`] when the directory cannot be read at all.
pub fn verify(dir: &Path) -> Result<VerifyReport, BrokerError> {
    Err(BrokerError::Invalid(format!("{} cannot be verified yet", dir.display())))
}
