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

impl JournalError {
    /// Whether the same may work later (no file descriptor is free, say): what
    /// was written is not lost.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        match self {
            Self::InUse(_) => true,
            Self::File { source, .. } => {
                !matches!(source.kind(), InvalidData | NotFound | UnexpectedEof)
            }
        }
    }
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> JournalError + '_ {
    |source| JournalError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_damaged_stays_so() {
        let passes = |source: io::Error| failed(Path::new("f"))(source).may_pass();
        // EMFILE, ENFILE, EIO.
        for code in [24, 23, 5] {
            assert!(passes(io::Error::from_raw_os_error(code)), "{code}");
        }
        for kind in
            [io::ErrorKind::InvalidData, io::ErrorKind::NotFound, io::ErrorKind::UnexpectedEof]
        {
            assert!(!passes(kind.into()), "{kind}");
        }
    }
}
