//! Why the journal cannot be used.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the journal cannot be used. Completes "failed to use the journal: ".
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> JournalError + '_ {
    |source| JournalError::File { path: path.to_owned(), source }
}
