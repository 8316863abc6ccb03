//! Reading a journal that belongs to another process, or to one that was killed.

use std::{collections::HashMap, path::Path};

use posthaste_model::{AttemptId, MessageId};

use super::{JournalError, error::failed, file, record::Record};

/// An attempt in the files of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalledAttempt {
    /// Its id.
    pub attempt_id: AttemptId,
    /// The message.
    pub message_id: MessageId,
    /// Which attempt of the message, from 1.
    pub number: u32,
    /// Whether its outcome is there.
    pub has_final: bool,
    /// Whether it is settled.
    pub is_settled: bool,
}

/// Reads the journal in `dir` without changing or locking it: for proofs that
/// compare it with what a remote server accepted. Attempts whose file was
/// deleted, which are settled, are not there.
///
/// # Errors
/// [`JournalError`].
pub fn read(dir: &Path) -> Result<Vec<JournalledAttempt>, JournalError> {
    let mut order = vec![];
    let mut attempts = HashMap::new();
    for file in file::list(dir).map_err(failed(dir))? {
        let mut note = |attempt_id, message_id, number, has_final| {
            let attempt = attempts.entry(attempt_id).or_insert_with(|| {
                order.push(attempt_id);
                JournalledAttempt {
                    attempt_id,
                    message_id,
                    number,
                    has_final: false,
                    is_settled: false,
                }
            });
            attempt.has_final |= has_final;
        };
        let mut settled = vec![];
        file::scan(dir, file, |_, record| match record {
            Record::Start(s) => note(s.attempt_id, s.message_id, s.number, false),
            Record::Final(f) => note(f.attempt_id, f.message_id, f.number, true),
            Record::Settled(ids) => settled.extend(ids),
        })
        .map_err(failed(&file::path(dir, file)))?;
        for id in settled {
            if let Some(attempt) = attempts.get_mut(&id) {
                attempt.is_settled = true;
            }
        }
    }
    Ok(order.iter().filter_map(|id| attempts.remove(id)).collect())
}
