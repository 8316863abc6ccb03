//! What lives: the messages, where their parts are, and what each segment is
//! still needed for.
//!
//! [`Index::apply`] is the only way in: see `apply`.

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher;
use uuid::Uuid;

use super::{
    bodies::Bodies,
    cache::Cache,
    consumer::{Consumer, Part},
    flow::Flows,
    frame::FRAME_HEADER,
    needs::Needs,
    record::BodyKey,
    slab::{Entry, NIL, Slab, State},
};
use crate::contract::BrokerError;

/// A part of a message in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Segment.
    pub segment: u32,
    /// Offset in it.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
    /// CRC-32C.
    pub crc: u32,
}

/// An entry that a frame on its way settles. While it stands where it stood
/// when it was marked, its generation is the same.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Slot.
    pub slot: u32,
    /// Generation.
    pub generation: u32,
}

/// Where a frame stands, as its operations need it.
#[derive(Debug, Clone, Copy)]
pub struct FrameAt {
    /// Segment.
    pub segment: u32,
    /// Offset of its header.
    pub offset: u32,
    /// Bytes of its operations.
    pub ops_len: u32,
}

impl FrameAt {
    /// Offset of a head in the segment.
    pub fn head(&self, head_at: u32) -> u32 {
        self.offset + FRAME_HEADER as u32 + head_at
    }

    /// Offset of a body in the segment.
    pub fn body(&self, body_at: u64) -> u32 {
        let at = u64::from(self.offset) + FRAME_HEADER as u64 + u64::from(self.ops_len) + body_at;
        u32::try_from(at).unwrap_or(NIL)
    }
}

/// All that is known without reading.
pub struct Index {
    /// The messages.
    pub entries: Slab,
    /// Slots by id.
    pub ids: HashTable<u32>,
    /// Of ids and flow keys.
    pub hasher: DefaultHashBuilder,
    /// The shared bodies.
    pub bodies: Bodies,
    /// Segments of all puts of a message that was published more than once.
    pub copies: HashMap<Uuid, Vec<u32>>,
    /// What the segments are needed for.
    pub needs: Needs,
    /// Queues and flows.
    pub flows: Flows,
    /// By slot.
    pub consumers: Vec<Option<Box<Consumer>>>,
    /// Just published payloads.
    pub cache: Cache,
    /// The last generation given.
    pub generation: u32,
    /// The last epoch given.
    pub epoch: u64,
    /// Set while recovering: whatever is put may have been handed over.
    pub recovering: bool,
    /// Set by close.
    pub closed: Option<BrokerError>,
}

impl Index {
    /// An empty one. `epoch` differs from opening to opening.
    pub fn new(cache_bytes: usize, epoch: u64) -> Self {
        Self {
            entries: Slab::default(),
            ids: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            bodies: Bodies::default(),
            copies: HashMap::new(),
            needs: Needs::default(),
            flows: Flows::default(),
            consumers: Vec::new(),
            cache: Cache::new(cache_bytes),
            generation: 0,
            epoch,
            recovering: false,
            closed: None,
        }
    }

    /// Hash of an id.
    pub fn hash_id(&self, id: Uuid) -> u64 {
        self.hasher.hash_one(id.as_u128())
    }

    /// Hash of a flow key in a queue.
    pub fn hash_flow(&self, queue: u32, key: &str) -> u64 {
        self.hasher.hash_one((queue, key))
    }

    /// The slot of a live message.
    pub fn find(&self, id: Uuid) -> Option<u32> {
        self.ids.find(self.hash_id(id), |slot| self.entries[*slot].id == id).copied()
    }

    /// The key of a message's shared body; `None` when it has its own.
    pub fn shared_key(&self, slot: u32) -> Option<BodyKey> {
        let entry = &self.entries[slot];
        if !entry.has(Entry::SHARED) {
            return None;
        }
        self.bodies.key(entry.body_at)
    }

    /// Where the head is.
    pub fn head_span(&self, slot: u32) -> Span {
        let entry = &self.entries[slot];
        Span {
            segment: entry.head_segment,
            offset: entry.head_offset,
            len: entry.head_len,
            crc: entry.head_crc,
        }
    }

    /// Where the body is.
    pub fn body_part(&self, slot: u32) -> Part {
        let entry = &self.entries[slot];
        let (segment, offset) = if entry.has(Entry::SHARED) {
            match self.bodies.get(entry.body_at) {
                Some(body) => (body.segment, body.offset),
                None => return Part::Missing,
            }
        } else {
            (entry.put_segment, entry.body_at)
        };
        Part::At(Span { segment, offset, len: entry.body_len, crc: entry.body_crc })
    }

    /// What was on its way to the disk did not get there.
    pub fn unmark(&mut self, marks: &[Mark]) {
        for Mark { slot, generation } in marks.iter().copied() {
            if self.entries[slot].generation != generation {
                continue;
            }
            self.entries[slot].flags &= !Entry::SETTLING;
            match self.entries[slot].state {
                State::Removing => {
                    self.take_out(slot);
                    let flow = self.entries[slot].flow;
                    let queue = self.flows.flow(flow).queue;
                    // What is due by now is found so by who looks next.
                    self.enqueue(slot, i64::MIN);
                    self.wake_queue(queue);
                }
                State::Unacknowledged if self.entries[slot].has(Entry::ORPHAN) => {
                    self.give_back(slot);
                }
                _ => {}
            }
        }
    }
}
