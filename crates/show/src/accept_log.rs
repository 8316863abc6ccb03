//! Reads the accept log of the sink: one line for each message that it took,
//! written before it replied.
//!
//! A line is the time in Unix milliseconds, the message id from the trace
//! field that Posthaste adds, and the recipient, separated by spaces. A
//! message that has no such field (Postfix's) has `-` in place of the id.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// One accepted message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Unix milliseconds.
    pub at: u64,
    /// The message id as text, or `-`.
    pub id: String,
    /// The recipient.
    pub recipient: String,
}

/// Follows a growing accept log.
#[derive(Debug)]
pub struct AcceptLog {
    path: PathBuf,
    offset: u64,
}

impl AcceptLog {
    /// Follows the log at `path` from its beginning; it need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0 }
    }

    /// The whole lines that were added since the last call.
    ///
    /// # Errors
    /// When the log cannot be read or a line is not of the described form.
    pub fn read(&mut self) -> Result<Vec<Accepted>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context("cannot open the accept log"),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.offset += whole as u64;
        text[..whole].lines().map(parse).collect()
    }
}

fn parse(line: &str) -> Result<Accepted> {
    let mut words = line.split_whitespace();
    let (at, id, recipient) = (words.next(), words.next(), words.next());
    let accepted = at.and_then(|at| at.parse().ok()).zip(id).zip(recipient);
    let ((at, id), recipient) = accepted.with_context(|| format!("strange line: {line:?}"))?;
    Ok(Accepted { at, id: id.to_owned(), recipient: recipient.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_torn_line_is_read_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accepted");
        let mut log = AcceptLog::new(&path);
        assert!(log.read().unwrap().is_empty());
        let mut file = File::create(&path).unwrap();
        file.write_all(b"1 a b@c.test\n2 b").unwrap();
        assert_eq!(log.read().unwrap().len(), 1);
        file.write_all(b" d@e.test\n").unwrap();
        let rest = log.read().unwrap();
        assert_eq!(rest, [Accepted { at: 2, id: "b".into(), recipient: "d@e.test".into() }]);
        file.write_all(b"nonsense\n").unwrap();
        assert!(log.read().is_err());
    }
}
