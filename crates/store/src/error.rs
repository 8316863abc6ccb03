//! What can go wrong with the store, which file it is about and what to do.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why the store failed. Completes "failed to use the store: ".
///
/// After an error nothing of a period's batch is there; what was appended to
/// another period before may be. Appending the same events again is safe.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It was closed by us.
    #[error("it is closed")]
    Closed,
    /// The directory or a file in it cannot be made, listed or removed.
    #[error(
        "cannot {action} {}: {source}; check the path, its owner and its permissions",
        path.display()
    )]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No room for the batch.
    #[error("{}: the disk is full; make room, then it goes on by itself", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another program holds the file for too long.
    #[error(
        "{}: another program has locked it; end that program or its transaction",
        path.display()
    )]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file may only be read.
    #[error("{}: it may only be read; make it and its directory writable", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else, or broken.
    #[error(
        "{}: it is not a database or is damaged ({detail}); move it away and restore it from a copy",
        path.display()
    )]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A newer program made the file.
    #[error(
        "{}: its schema has version {found}, this program knows versions up to {known}; use the newer program",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its schema.
        found: i64,
        /// The newest version that is known.
        known: i64,
    },
    /// Anything else that SQLite says.
    #[error("{}: {detail}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What was said.
        detail: String,
    },
}

impl StoreError {
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), source }
    }

    /// Sorts what sqlx says about the file at `path`. A result code of SQLite
    /// has its class in its low byte (<https://www.sqlite.org/rescode.html>).
    pub(crate) fn sqlite(path: &Path, error: &sqlx::Error) -> Self {
        const BUSY: u32 = 5;
        const LOCKED: u32 = 6;
        const READONLY: u32 = 8;
        const CORRUPT: u32 = 11;
        const FULL: u32 = 13;
        const NOTADB: u32 = 26;
        let path = path.to_owned();
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<u32>().ok());
        match code.map(|code| code & 0xff) {
            Some(FULL) => Self::Full { path },
            Some(BUSY | LOCKED) => Self::Locked { path },
            Some(READONLY) => Self::ReadOnly { path },
            Some(CORRUPT | NOTADB) => Self::NotADatabase { path, detail: error.to_string() },
            _ => Self::Database { path, detail: error.to_string() },
        }
    }
}
