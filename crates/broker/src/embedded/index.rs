//! What lives: the messages, where their parts are, and what each segment is
//! still needed for.
//!
//! [`Index::apply`] is the only way in. A running queue and one that recovers
//! both apply the operations of frames as they stand in the log, so what is in
//! memory is what a restart would make of the disk.
//!
//! A segment is needed while it holds the put, the newest head or the shared
//! body of a live message, and while it holds the acknowledgement of a message
//! whose put is still in another segment: without it the message would rise
//! from the dead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use std::hash::BuildHasher;
use uuid::Uuid;

use super::{
    bodies::Bodies,
    cache::{Cache, Payload},
    consumer::{Consumer, Part},
    flow::{Flow, Flows},
    record::{BodyKey, FRAME_HEADER, Meta, NO_DUE, Op, Ops, PutBody, RecordError},
    slab::{Entry, NIL, Slab, State},
};
use crate::contract::{BrokerError, QueueName};

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
    fn head(&self, head_at: u32) -> u32 {
        self.offset + FRAME_HEADER as u32 + head_at
    }

    fn body(&self, body_at: u64) -> u32 {
        let at = u64::from(self.offset) + FRAME_HEADER as u64 + u64::from(self.ops_len) + body_at;
        u32::try_from(at).unwrap_or(NIL)
    }
}

/// What a segment is needed for.
#[derive(Debug, Default)]
pub struct SegmentUse {
    /// Puts, newest heads and shared bodies of live messages.
    pub live: u64,
    /// Segments with the puts of messages that are acknowledged here.
    pub acked_in: BTreeSet<u32>,
}

/// All that is known without reading.
pub struct Index {
    /// The messages.
    pub entries: Slab,
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
    bodies: Bodies,
    /// Segments of all puts of a message that was published more than once.
    copies: HashMap<Uuid, Vec<u32>>,
    /// By sequence.
    pub segments: BTreeMap<u32, SegmentUse>,
    /// Set when a segment may have become useless.
    pub segment_freed: bool,
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
            segments: BTreeMap::new(),
            segment_freed: false,
            flows: Flows::default(),
            consumers: Vec::new(),
            cache: Cache::new(cache_bytes),
            generation: 0,
            epoch,
            recovering: false,
            closed: None,
        }
    }

    fn hash_id(&self, id: Uuid) -> u64 {
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
        self.bodies.get(entry.body_at).map(|body| body.key)
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

    /// Applies the operations of a durable frame. `payloads` has one for each
    /// put, or none at all.
    ///
    /// # Errors
    /// When they cannot be read; [`super::record::check`] tells beforehand.
    pub fn apply(
        &mut self,
        at: FrameAt,
        ops: &[u8],
        mut payloads: VecDeque<Option<Payload>>,
        now: i64,
    ) -> Result<(), RecordError> {
        for op in Ops::new(ops) {
            let (op, body_at) = op?;
            match op {
                Op::Body(key) => {
                    if self.bodies.add(key, at.segment, at.body(body_at)) {
                        self.need(at.segment);
                    }
                }
                Op::Put(meta, body) => {
                    let payload = payloads.pop_front().flatten();
                    self.put(at, &meta, body, body_at, payload, now);
                }
                Op::Rehead(meta) => self.rehead(at, &meta, now),
                Op::Ack(id) => {
                    if let Some(slot) = self.find(id) {
                        self.remove(slot, at.segment);
                    }
                }
            }
        }
        for segment in self.bodies.drop_loose() {
            self.no_need(segment);
        }
        Ok(())
    }

    fn queue_named(&mut self, name: &str) -> u32 {
        match self.flows.find_queue(name) {
            Some(queue) => queue,
            // A name in the log was checked when it was published.
            None => QueueName::new(name).map_or(0, |name| self.flows.queue(&name)),
        }
    }

    fn join_flow(&mut self, meta: &Meta<'_>) -> u32 {
        let queue = self.queue_named(meta.queue);
        let hash = self.hash_flow(queue, meta.flow_key);
        let hasher = self.hasher.clone();
        let rehash = |flow: &Flow| hasher.hash_one((flow.queue, flow.key.as_str()));
        self.flows.join(hash, queue, meta.flow_key, rehash)
    }

    fn leave_flow(&mut self, flow: u32) {
        let queue = self.flows.flow(flow).queue;
        let hash = self.hash_flow(queue, self.flows.flow(flow).key.as_str());
        if self.flows.leave(hash, flow) {
            self.drop_shares(queue, flow);
        }
    }

    fn need(&mut self, segment: u32) {
        self.segments.entry(segment).or_default().live += 1;
    }

    fn no_need(&mut self, segment: u32) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live -= 1;
            self.segment_freed |= segment.live == 0;
        }
    }

    fn put(
        &mut self,
        at: FrameAt,
        meta: &Meta<'_>,
        body: PutBody,
        body_at: u64,
        payload: Option<Payload>,
        now: i64,
    ) {
        if let Some(slot) = self.find(meta.id) {
            // The repetition of a publish whose outcome was unknown.
            let first = self.entries[slot].put_segment;
            self.copies.entry(meta.id).or_insert_with(|| vec![first]).push(at.segment);
            return;
        }
        let Some(slot) = self.entries.take() else { return };
        let flow = self.join_flow(meta);
        let (shared, body_at, body_len, body_crc) = match body {
            PutBody::Inline { len, crc } => (false, at.body(body_at), len, crc),
            PutBody::Ref(key) => (true, self.bodies.share(&key), key.len, key.crc),
        };
        let entry = &mut self.entries[slot];
        entry.id = meta.id;
        entry.flow = flow;
        entry.put_segment = at.segment;
        (entry.body_at, entry.body_len, entry.body_crc) = (body_at, body_len, body_crc);
        entry.flags = if shared { Entry::SHARED } else { 0 };
        if self.recovering {
            entry.flags |= Entry::REDELIVERED;
        }
        self.set_head(slot, at, meta);
        self.need(at.segment);
        let hash = self.hash_id(meta.id);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.ids.insert_unique(hash, slot, |slot| hasher.hash_one(entries[*slot].id.as_u128()));
        if let Some(payload) = payload.filter(|_| meta.due == NO_DUE || meta.due <= now) {
            self.cache.put(slot, payload);
        }
        self.enqueue(slot, now);
    }

    fn set_head(&mut self, slot: u32, at: FrameAt, meta: &Meta<'_>) {
        let entry = &mut self.entries[slot];
        entry.priority = meta.priority;
        entry.due = meta.due;
        entry.head_segment = at.segment;
        entry.head_offset = at.head(meta.head_at);
        entry.head_len = u32::try_from(meta.head.len()).unwrap_or(0);
        entry.head_crc = crc32c::crc32c(meta.head);
        self.need(at.segment);
    }

    fn rehead(&mut self, at: FrameAt, meta: &Meta<'_>, now: i64) {
        // A message that is unknown was acknowledged, and its put's segment is
        // gone already.
        let Some(slot) = self.find(meta.id) else { return };
        self.take_out(slot);
        self.cache.take(slot);
        let old = self.entries[slot].head_segment;
        let old_flow = self.entries[slot].flow;
        // In before out: the flow may be the same.
        self.entries[slot].flow = self.join_flow(meta);
        self.leave_flow(old_flow);
        self.set_head(slot, at, meta);
        self.no_need(old);
        let entry = &mut self.entries[slot];
        entry.flags &= Entry::SHARED;
        if self.recovering {
            entry.flags |= Entry::REDELIVERED;
        }
        self.enqueue(slot, now);
    }

    fn remove(&mut self, slot: u32, acked_in: u32) {
        self.take_out(slot);
        self.cache.take(slot);
        let entry = &self.entries[slot];
        let (id, put, head, flow) = (entry.id, entry.put_segment, entry.head_segment, entry.flow);
        let shared = entry.has(Entry::SHARED).then_some(entry.body_at);
        self.leave_flow(flow);
        if let Some(body) = shared {
            self.bodies.unshare(body);
        }
        let copies = self.copies.remove(&id).unwrap_or_default();
        let here = self.segments.entry(acked_in).or_default();
        here.acked_in.extend(copies.into_iter().chain([put]).filter(|put| *put != acked_in));
        self.no_need(put);
        self.no_need(head);
        if let Ok(found) = self.ids.find_entry(self.hasher.hash_one(id.as_u128()), |s| *s == slot) {
            found.remove();
        }
        self.entries.give(slot);
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

    /// A segment that nothing needs, the oldest first; never the newest, which
    /// keeps the count of the sequence.
    pub fn useless_segment(&self) -> Option<u32> {
        let newest = *self.segments.keys().next_back()?;
        self.segments
            .iter()
            .find(|(sequence, segment)| {
                **sequence != newest
                    && segment.live == 0
                    && !segment.acked_in.iter().any(|other| self.segments.contains_key(other))
            })
            .map(|(sequence, _)| *sequence)
    }
}
