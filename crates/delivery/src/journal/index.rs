//! What the journal knows in memory: the attempts that are not settled, and
//! how many of them hold each file.

use std::collections::{BTreeMap, HashMap};

use posthaste_model::{AttemptId, MessageId, Timestamp};

use super::file::Location;

/// An attempt that is not settled.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub message_id: MessageId,
    pub number: u32,
    pub time: Timestamp,
    pub start: Option<Location>,
    pub outcome: Option<Location>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    attempts: HashMap<AttemptId, Attempt>,
    by_message: HashMap<(MessageId, u32), AttemptId>,
    /// Files that exist, with the records in them that are still needed.
    files: BTreeMap<u64, u32>,
}

impl Index {
    pub fn add_file(&mut self, file: u64) {
        self.files.entry(file).or_default();
    }

    pub fn remove_file(&mut self, file: u64) {
        self.files.remove(&file);
    }

    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The oldest file and how many of its records are needed.
    pub fn oldest(&self) -> Option<(u64, u32)> {
        self.files.first_key_value().map(|(file, needed)| (*file, *needed))
    }

    pub fn get(&self, id: AttemptId) -> Option<&Attempt> {
        self.attempts.get(&id)
    }

    pub fn of_message(&self, message_id: MessageId, number: u32) -> Option<AttemptId> {
        self.by_message.get(&(message_id, number)).copied()
    }

    pub fn attempts(&self) -> impl Iterator<Item = (AttemptId, &Attempt)> {
        self.attempts.iter().map(|(id, attempt)| (*id, attempt))
    }

    pub fn started(&mut self, id: AttemptId, of: (MessageId, u32), time: Timestamp, at: Location) {
        let attempt = self.entry(id, of, time);
        let old = attempt.start.replace(at);
        self.moved(old, at);
    }

    pub fn finished(&mut self, id: AttemptId, of: (MessageId, u32), time: Timestamp, at: Location) {
        let attempt = self.entry(id, of, time);
        attempt.time = time;
        let old = attempt.outcome.replace(at);
        self.moved(old, at);
        self.by_message.insert(of, id);
    }

    fn entry(&mut self, id: AttemptId, of: (MessageId, u32), time: Timestamp) -> &mut Attempt {
        let (message_id, number) = of;
        self.by_message.entry(of).or_insert(id);
        self.attempts.entry(id).or_insert(Attempt {
            message_id,
            number,
            time,
            start: None,
            outcome: None,
        })
    }

    /// A redelivery of its message is settled by this attempt, if it is known.
    pub fn name(&mut self, id: AttemptId, of: (MessageId, u32)) -> bool {
        let known = self.attempts.contains_key(&id);
        if known {
            self.by_message.insert(of, id);
        }
        known
    }

    /// A redelivery of its message is delivered again.
    pub fn forget_message(&mut self, id: AttemptId) {
        if let Some(attempt) = self.attempts.get(&id) {
            let of = (attempt.message_id, attempt.number);
            if self.by_message.get(&of) == Some(&id) {
                self.by_message.remove(&of);
            }
        }
    }

    pub fn remove(&mut self, id: AttemptId) -> Option<Attempt> {
        self.forget_message(id);
        let attempt = self.attempts.remove(&id)?;
        for at in [attempt.start, attempt.outcome].into_iter().flatten() {
            self.release(at);
        }
        Some(attempt)
    }

    fn moved(&mut self, old: Option<Location>, new: Location) {
        if let Some(old) = old {
            self.release(old);
        }
        *self.files.entry(new.file).or_default() += 1;
    }

    fn release(&mut self, at: Location) {
        if let Some(needed) = self.files.get_mut(&at.file) {
            *needed = needed.saturating_sub(1);
        }
    }
}
