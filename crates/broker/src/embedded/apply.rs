//! The operations of durable frames, applied to the index.
//!
//! [`Index::apply`] is the only way in. A running queue and one that recovers
//! both apply the operations of frames as they stand in the log, so what is in
//! memory is what a restart would make of the disk.
//!
//! A repeated put of a live id changes nothing. A *move* is compaction's copy
//! of what lives: in a running queue it changes only where things are; to one
//! that recovers, it may be all that is left of a message, and is as good as
//! its put.

use std::{collections::VecDeque, hash::BuildHasher};

use super::{
    bodies::Before,
    cache::Payload,
    flow::Flow,
    index::{FrameAt, Index},
    needs::body_cost,
    record::{BodyKey, Meta, NO_DUE, Op, Ops, PutBody, RecordError},
    slab::Entry,
};
use crate::contract::QueueName;

impl Index {
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
            let payload = matches!(op, Op::Put(..)).then(|| payloads.pop_front().flatten());
            self.apply_op(at, op, body_at, payload.flatten(), now);
        }
        self.end_of_frame();
        Ok(())
    }

    /// Applies one operation; its body stands so far into the bodies.
    pub fn apply_op(
        &mut self,
        at: FrameAt,
        op: Op<'_>,
        body_at: u64,
        payload: Option<Payload>,
        now: i64,
    ) {
        match op {
            Op::Body(key) => {
                if self.bodies.add(key, at.segment, at.body(body_at)) {
                    self.needs.need(at.segment);
                } else {
                    self.needs.dead_on_arrival(at.segment, body_cost(key.len));
                }
            }
            Op::Put(meta, body) => self.put(at, &meta, body, body_at, payload, now),
            Op::Rehead(meta) => self.rehead(at, &meta, now),
            Op::Ack(id) => {
                if let Some(slot) = self.find(id) {
                    self.remove(slot, at.segment);
                }
            }
            Op::MovePut(meta, body) => self.move_put(at, &meta, body, body_at, now),
            Op::MoveHead(meta) => self.move_head(at, &meta, now),
            Op::MoveBody(key) => self.move_body(at, key, body_at),
        }
    }

    /// Drops the bodies that have no message any more.
    pub fn end_of_frame(&mut self) {
        if self.recovering {
            return;
        }
        for (segment, len) in self.bodies.drop_loose() {
            self.needs.no_need(segment, body_cost(len));
        }
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
            let body = if let PutBody::Inline { len, .. } = body { u64::from(len) } else { 0 };
            let cost = u64::from(meta.head_sum().0) + body;
            self.needs.dead_on_arrival(at.segment, cost);
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
        self.needs.need(at.segment);
        self.insert_id(slot);
        if let Some(payload) = payload.filter(|_| meta.due == NO_DUE || meta.due <= now) {
            self.cache.put(slot, payload);
        }
        self.enqueue(slot, now);
    }

    fn insert_id(&mut self, slot: u32) {
        let hash = self.hash_id(self.entries[slot].id);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.ids.insert_unique(hash, slot, |slot| hasher.hash_one(entries[*slot].id.as_u128()));
    }

    fn set_head(&mut self, slot: u32, at: FrameAt, meta: &Meta<'_>) {
        let entry = &mut self.entries[slot];
        entry.priority = meta.priority;
        entry.due = meta.due;
        self.place_head(slot, at, meta);
    }

    fn place_head(&mut self, slot: u32, at: FrameAt, meta: &Meta<'_>) {
        let entry = &mut self.entries[slot];
        entry.head_segment = at.segment;
        entry.head_offset = at.head(meta.head_at);
        (entry.head_len, entry.head_crc) = meta.head_sum();
        self.needs.need(at.segment);
    }

    fn rehead(&mut self, at: FrameAt, meta: &Meta<'_>, now: i64) {
        // A message that is unknown was acknowledged, and its put's segment is
        // gone already.
        let Some(slot) = self.find(meta.id) else {
            self.needs.dead_on_arrival(at.segment, u64::from(meta.head_sum().0));
            return;
        };
        self.take_out(slot);
        self.cache.take(slot);
        self.forget_head(slot);
        let old_flow = self.entries[slot].flow;
        // In before out: the flow may be the same.
        self.entries[slot].flow = self.join_flow(meta);
        self.leave_flow(old_flow);
        self.set_head(slot, at, meta);
        let entry = &mut self.entries[slot];
        entry.flags &= Entry::SHARED;
        if self.recovering {
            entry.flags |= Entry::REDELIVERED;
        }
        self.enqueue(slot, now);
    }

    fn move_head(&mut self, at: FrameAt, meta: &Meta<'_>, now: i64) {
        if self.recovering {
            // The record that it was copied from may be gone.
            return self.rehead(at, meta, now);
        }
        if let Some(slot) = self.find(meta.id) {
            self.forget_head(slot);
            self.place_head(slot, at, meta);
        }
    }

    fn move_put(&mut self, at: FrameAt, meta: &Meta<'_>, body: PutBody, body_at: u64, now: i64) {
        let Some(slot) = self.find(meta.id) else {
            return self.put(at, meta, body, body_at, None, now);
        };
        let copies = self.copies.remove(&meta.id).unwrap_or_default();
        self.needs.moved(at.segment, self.entries[slot].put_segment, copies);
        self.needs.need(at.segment);
        self.forget_put(slot);
        let entry = &mut self.entries[slot];
        entry.put_segment = at.segment;
        if matches!(body, PutBody::Inline { .. }) && !entry.has(Entry::SHARED) {
            entry.body_at = at.body(body_at);
        }
        self.move_head(at, meta, now);
    }

    fn move_body(&mut self, at: FrameAt, key: BodyKey, body_at: u64) {
        if let Before::In(segment) = self.bodies.relocate(key, at.segment, at.body(body_at)) {
            self.needs.no_need(segment, body_cost(key.len));
        }
        self.needs.need(at.segment);
    }

    fn remove(&mut self, slot: u32, acked_in: u32) {
        self.take_out(slot);
        self.cache.take(slot);
        let entry = &self.entries[slot];
        let (id, put, flow) = (entry.id, entry.put_segment, entry.flow);
        let shared = entry.has(Entry::SHARED).then_some(entry.body_at);
        self.leave_flow(flow);
        if let Some(body) = shared {
            self.bodies.unshare(body);
        }
        let copies = self.copies.remove(&id).unwrap_or_default();
        self.needs.acked(acked_in, put, copies);
        self.forget_put(slot);
        self.forget_head(slot);
        if let Ok(found) = self.ids.find_entry(self.hasher.hash_one(id.as_u128()), |s| *s == slot) {
            found.remove();
        }
        self.entries.give(slot);
    }
}
