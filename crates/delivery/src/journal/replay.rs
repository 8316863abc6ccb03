//! What stands in the files when the journal is opened.

use std::{collections::HashMap, path::Path};

use super::{
    JournalError,
    error::failed,
    file,
    index::Index,
    record::{Record, Start},
};

pub(super) struct Replayed {
    pub index: Index,
    pub interrupted: Vec<Start>,
    pub damaged: u64,
}

pub(super) fn replay(dir: &Path, files: &[u64]) -> Result<Replayed, JournalError> {
    let mut index = Index::default();
    let mut starts = HashMap::new();
    let mut damaged = 0;
    for file in files {
        let path = file::path(dir, *file);
        index.add_file(*file);
        let scanned = file::scan(dir, *file, |at, record| match record {
            Record::Start(start) => {
                let of = (start.message_id, start.number);
                index.started(start.attempt_id, of, start.time, at);
                starts.insert(start.attempt_id, start);
            }
            Record::Final(outcome) => {
                let of = (outcome.message_id, outcome.number);
                index.finished(outcome.attempt_id, of, outcome.time, at);
                starts.remove(&outcome.attempt_id);
            }
            Record::Settled(attempts) => {
                for id in attempts {
                    index.remove(id);
                    starts.remove(&id);
                }
            }
        })
        .map_err(failed(&path))?;
        if scanned.damaged > 0 {
            let (path, bytes) = (path.display(), scanned.damaged);
            tracing::error!(%path, bytes, "damage in the journal was skipped: outcomes in it are lost, their messages may be delivered again");
        }
        if scanned.torn > 0 {
            tracing::info!(path = %path.display(), bytes = scanned.torn, "a record that was not written to its end was cut from the journal");
        }
        damaged += scanned.damaged;
    }
    // A start whose final is in the index but came before it (a copy).
    starts.retain(|id, _| index.get(*id).is_some_and(|attempt| attempt.outcome.is_none()));
    let interrupted: Vec<_> = starts.into_values().collect();
    for start in &interrupted {
        index.forget_message(start.attempt_id);
    }
    Ok(Replayed { index, interrupted, damaged })
}
