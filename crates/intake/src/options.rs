//! How a request is taken: all or nothing or item by item, and with which ids.

use posthaste_model::{MessageId, SubmissionId, Timestamp};
use sha2::{Digest, Sha256};

use crate::{errors::IntakeError, intake::Accepted};

/// What one bad item means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing of the request is accepted.
    #[default]
    Strict,
    /// The others are accepted; each item has an [`Outcome`] of its own.
    Permissive,
}

/// Where ids come from when a request may be repeated: the same seed and time
/// give the same ids, so that the queue recognises what it still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Derived {
    /// Random, and kept with the key that the submitter repeats.
    pub seed: [u8; 16],
    /// When the request was first taken. Ids carry it, and the whole request
    /// is read as of this time: a repetition is due when the first one was,
    /// and is not refused because its times have passed meanwhile.
    pub time: Timestamp,
}

/// How [`crate::Intake::submit_with`] takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubmitOptions {
    /// Strict by default.
    pub mode: Mode,
    /// `None`: fresh ids, the time now.
    pub derived: Option<Derived>,
}

/// What became of one item; its errors have pointers from the root of the
/// request.
pub type Outcome = Result<Accepted, IntakeError>;

/// Makes the ids of one item of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) derived: Option<Derived>,
    /// The item's place in the request.
    pub(crate) item: usize,
}

impl Ids {
    pub(crate) fn submission(&self) -> SubmissionId {
        self.derived
            .as_ref()
            .map_or_else(SubmissionId::new, |derived| derived.submission_id(self.item))
    }

    /// The message of the recipient at this place.
    pub(crate) fn message(&self, recipient: usize) -> MessageId {
        self.derived.as_ref().map_or_else(MessageId::new, |derived| {
            MessageId::from_bytes(derived.id(Kind::Message, self.item, recipient))
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Submission = 1,
    Message = 2,
}

impl Derived {
    /// The id of the submission at this place of the request.
    #[must_use]
    pub fn submission_id(&self, item: usize) -> SubmissionId {
        SubmissionId::from_bytes(self.id(Kind::Submission, item, 0))
    }

    /// A UUIDv7 (RFC 9562 section 5.7) whose random bits are a hash of the
    /// seed and the place. These bytes are part of what a stored key means:
    /// another version of the program must make the same.
    fn id(&self, kind: Kind, item: usize, recipient: usize) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update([kind as u8]);
        hash.update((item as u64).to_be_bytes());
        hash.update((recipient as u64).to_be_bytes());
        let mut id = [0; 16];
        for (byte, hashed) in id.iter_mut().skip(6).zip(hash.finalize()) {
            *byte = hashed;
        }
        let millis = u64::try_from(self.time.as_millis()).unwrap_or(0).to_be_bytes();
        for (byte, of_time) in id.iter_mut().zip(millis.into_iter().skip(2)) {
            *byte = of_time;
        }
        id[6] = 0x70 | (id[6] & 0x0f);
        id[8] = 0x80 | (id[8] & 0x3f);
        id
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const DERIVED: Derived =
        Derived { seed: [7; 16], time: Timestamp::from_millis(1_795_536_000_123) };

    #[test]
    fn derived_ids_are_the_same_and_all_different() {
        let mut seen = HashSet::new();
        for item in 0..20 {
            let ids = Ids { derived: Some(DERIVED), item };
            assert_eq!(ids.submission(), ids.submission());
            assert_eq!(ids.submission().time(), Some(DERIVED.time));
            assert!(seen.insert(*ids.submission().as_bytes()));
            for recipient in 0..50 {
                let id = ids.message(recipient);
                assert_eq!((id, id.time()), (ids.message(recipient), Some(DERIVED.time)));
                assert!(seen.insert(*id.as_bytes()));
            }
        }
        let other = Derived { seed: [8; 16], ..DERIVED };
        assert!(seen.insert(*Ids { derived: Some(other), item: 0 }.submission().as_bytes()));
    }

    #[test]
    fn the_derivation_never_changes() {
        let ids = Ids { derived: Some(DERIVED), item: 3 };
        assert_eq!(ids.submission().to_string(), "01a20e49-147b-756a-9939-eeb5f5cc8bcd");
        assert_eq!(ids.message(5).to_string(), "01a20e49-147b-7ca9-96ee-4b7ac5a09aa5");
    }

    #[test]
    fn without_a_seed_ids_are_fresh() {
        let ids = Ids { derived: None, item: 0 };
        assert_ne!(ids.submission(), ids.submission());
        assert_ne!(ids.message(0), ids.message(0));
    }
}
