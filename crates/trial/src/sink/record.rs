//! What a sink keeps of the messages it takes: counts, notifications, and the
//! accept log by which a trial can prove what was accepted.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use posthaste_model::Timestamp;

/// A message that a sink has accepted.
#[derive(Debug, Clone)]
pub struct Received {
    /// When the final dot came.
    pub time: Timestamp,
    /// The reverse path; `None` is the null path.
    pub sender: Option<String>,
    /// The forward paths.
    pub recipients: Vec<String>,
    /// Bytes of the content.
    pub size: usize,
    /// The content, with [`super::Keep::All`].
    pub content: Option<Bytes>,
    /// Whether it came through TLS.
    pub tls: bool,
    /// The name that the client gave with EHLO or HELO.
    pub helo: String,
}

/// What a sink has seen, since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// Connections taken.
    pub connections: u64,
    /// Connections refused because too many were open.
    pub connections_refused: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Handshakes completed.
    pub tls: u64,
    /// Messages accepted.
    pub accepted: u64,
    /// Recipients of the messages accepted.
    pub recipients: u64,
    /// Bytes of the messages accepted.
    pub bytes: u64,
    /// Refusals by a rule, at any stage.
    pub refused: u64,
    /// Connections dropped by a rule.
    pub dropped: u64,
    /// Notifications that the observer had no room for.
    pub unobserved: u64,
}

/// The counters behind [`SinkStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) tls: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) recipients: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) unobserved: AtomicU64,
}

/// Counts are independent of each other: no order is needed.
pub(super) fn count(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn snapshot(&self) -> SinkStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SinkStats {
            connections: read(&self.connections),
            connections_refused: read(&self.connections_refused),
            open: read(&self.open),
            tls: read(&self.tls),
            accepted: read(&self.accepted),
            recipients: read(&self.recipients),
            bytes: read(&self.bytes),
            refused: read(&self.refused),
            dropped: read(&self.dropped),
            unobserved: read(&self.unobserved),
        }
    }
}

/// The accept log: `unix_ms message_id recipient`, one line a recipient.
///
/// Lines are appended in one write before the message is acknowledged, so a
/// line stands for every acknowledged message however the sink ends. They are
/// not synchronised to the disk: a trial ends processes, not machines.
#[derive(Debug)]
pub(super) struct AcceptLog(File);

impl AcceptLog {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }

    /// Writes the lines of one message; `line` is a buffer to reuse.
    pub(super) fn append(
        &self,
        time: Timestamp,
        content: &[u8],
        recipients: &[String],
        line: &mut Vec<u8>,
    ) -> io::Result<()> {
        line.clear();
        let id = message_id(content).unwrap_or("-");
        for recipient in recipients {
            writeln!(line, "{} {id} {recipient}", time.as_millis())?;
        }
        (&self.0).write_all(line)
    }
}

/// The id that Posthaste wrote into its Received field: the word after `id`.
pub(super) fn message_id(content: &[u8]) -> Option<&str> {
    let mut rest = content;
    while !rest.is_empty() && !rest.starts_with(b"\r\n") {
        let (field, after) = rest.split_at(field_end(rest));
        rest = after;
        if field.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"Received:")) {
            let field = std::str::from_utf8(field).unwrap_or_default();
            let mut words = field.split_ascii_whitespace().skip_while(|w| *w != "(Posthaste)");
            if words.by_ref().any(|word| word == "id") {
                return words.next().map(|id| id.trim_end_matches(';'));
            }
        }
    }
    None
}

/// Where a header field with its folded lines ends.
fn field_end(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
        at += end + 1;
        if !matches!(text.get(at), Some(b' ' | b'\t')) {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids() {
        let ours = "Received: by a.example (Posthaste)\r\n with HTTP id 0192-ab;\r\n Tue\r\n";
        for (content, id) in [
            (ours.to_owned(), Some("0192-ab")),
            (format!("To: x\r\n\ty\r\n{ours}\r\nbody"), Some("0192-ab")),
            ("RECEIVED: by a (Posthaste) with HTTP id x; Tue\r\n\r\n".into(), Some("x")),
            (
                format!("Received: from b by c (Postfix)\r\n with ESMTP id QQ;\r\n Tue\r\n{ours}"),
                Some("0192-ab"),
            ),
            (format!("Subject: a\r\n\r\n{ours}"), None),
            ("Received: by a (Posthaste) with HTTP; Tue\r\n\r\n".into(), None),
            ("Received: by a (Posthaste) with HTTP id".into(), None),
            ("Received:".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(message_id(content.as_bytes()), id, "{content:?}");
        }
        assert_eq!(message_id(b"Received: \xff (Posthaste) id x\r\n"), None);
    }
}
