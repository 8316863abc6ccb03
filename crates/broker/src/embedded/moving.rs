//! Reading what compaction may move at the same time.
//!
//! A place in a segment is good only while the index says so: the segment may
//! be freed and its file used again. So a failure counts only when the part
//! still stands where it was read.

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Core,
    consumer::Part,
    index::{Index, Span},
    segment::ReadError,
    settle::BODY_GONE,
};

/// Most reads of one part while it is moved again and again.
const MOVES: usize = 8;

impl Core {
    /// The head of a live message.
    pub fn read_head(&self, id: Uuid) -> Result<Bytes, ReadError> {
        self.read_moving(|index| index.find(id).map(|slot| index.head_span(slot)))
    }

    /// The body of a live message.
    pub fn read_body(&self, id: Uuid) -> Result<Bytes, ReadError> {
        self.read_moving(|index| {
            index.find(id).and_then(|slot| match index.body_part(slot) {
                Part::At(span) => Some(span),
                _ => None,
            })
        })
    }

    /// Reads what compaction may move while it is read: a failure counts only
    /// when it stands where it stood.
    pub fn read_moving(&self, place: impl Fn(&Index) -> Option<Span>) -> Result<Bytes, ReadError> {
        let mut before = None;
        let mut failure = ReadError::lasting(BODY_GONE);
        for _ in 0..MOVES {
            let now = place(&self.index.lock());
            let Some(span) = now.filter(|_| now != before) else { break };
            match self.reader.read(span) {
                Ok(bytes) => return Ok(bytes),
                Err(why) => failure = why,
            }
            before = now;
        }
        Err(failure)
    }
}
