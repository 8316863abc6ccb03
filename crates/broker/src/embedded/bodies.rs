//! Shared bodies, and how many messages each has.
//!
//! After compaction a message may stand in the log before its body. While it
//! recovers, a body that is not known yet is therefore *unresolved*, and one
//! that has no message yet stays until the end.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{record::BodyKey, slab::NIL};

/// A shared body on the disk.
#[derive(Debug, Clone, Copy)]
pub struct SharedBody {
    /// What names it.
    pub key: BodyKey,
    /// Segment; [`NIL`] while unresolved.
    pub segment: u32,
    /// Offset in it.
    pub offset: u32,
    refs: u32,
}

/// Where a body stood before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It was not there.
    Nowhere,
    /// In this segment.
    In(u32),
}

/// All shared bodies that live: 36 bytes each and a slot in the table.
#[derive(Debug, Default)]
pub struct Bodies {
    by_key: HashTable<u32>,
    hasher: DefaultHashBuilder,
    slots: Vec<SharedBody>,
    free: Vec<u32>,
    /// What may be without a message: decided at the end of the frame, which
    /// may end the last message of a body and begin another.
    loose: Vec<u32>,
}

impl Bodies {
    fn find(&self, key: &BodyKey) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.by_key.find(hash, |slot| self.slots[*slot as usize].key == *key).copied()
    }

    fn insert(&mut self, body: SharedBody) -> u32 {
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = body;
            slot
        } else {
            self.slots.push(body);
            u32::try_from(self.slots.len() - 1).unwrap_or(NIL)
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |slot: &u32| hasher.hash_one(slots[*slot as usize].key);
        self.by_key.insert_unique(hasher.hash_one(body.key), slot, rehash);
        slot
    }

    /// Adds a body that has no message yet; false when it is there already.
    pub fn add(&mut self, key: BodyKey, segment: u32, offset: u32) -> bool {
        if let Some(slot) = self.find(&key) {
            let body = &mut self.slots[slot as usize];
            let unresolved = body.segment == NIL;
            if unresolved {
                (body.segment, body.offset) = (segment, offset);
            }
            return unresolved;
        }
        let slot = self.insert(SharedBody { key, segment, offset, refs: 0 });
        self.loose.push(slot);
        true
    }

    /// A body was copied to another place.
    pub fn relocate(&mut self, key: BodyKey, segment: u32, offset: u32) -> Before {
        let Some(slot) = self.find(&key) else {
            self.add(key, segment, offset);
            return Before::Nowhere;
        };
        let body = &mut self.slots[slot as usize];
        let before = body.segment;
        (body.segment, body.offset) = (segment, offset);
        if before == NIL { Before::Nowhere } else { Before::In(before) }
    }

    /// Gives a body one more message.
    pub fn share(&mut self, key: &BodyKey) -> u32 {
        let slot = self.find(key).unwrap_or_else(|| {
            self.insert(SharedBody { key: *key, segment: NIL, offset: 0, refs: 0 })
        });
        self.slots[slot as usize].refs += 1;
        slot
    }

    /// Takes a message from a body.
    pub fn unshare(&mut self, slot: u32) {
        let Some(body) = self.slots.get_mut(slot as usize) else { return };
        body.refs -= 1;
        if body.refs == 0 {
            self.loose.push(slot);
        }
    }

    /// The key in a slot.
    pub fn key(&self, slot: u32) -> Option<BodyKey> {
        self.slots.get(slot as usize).map(|body| body.key)
    }

    /// A body that can be read.
    pub fn get(&self, slot: u32) -> Option<&SharedBody> {
        self.slots.get(slot as usize).filter(|body| body.segment != NIL)
    }

    /// The body of this name that can be read.
    pub fn named(&self, key: &BodyKey) -> Option<&SharedBody> {
        self.find(key).and_then(|slot| self.get(slot))
    }

    /// How many there are.
    pub fn live(&self) -> usize {
        self.by_key.len()
    }

    /// Drops the bodies without a message: their segments and lengths.
    pub fn drop_loose(&mut self) -> Vec<(u32, u32)> {
        let mut dropped = Vec::new();
        while let Some(slot) = self.loose.pop() {
            let SharedBody { key, segment, refs, .. } = self.slots[slot as usize];
            // It may be in the list twice.
            if refs > 0 {
                continue;
            }
            let hash = self.hasher.hash_one(key);
            if let Ok(found) = self.by_key.find_entry(hash, |other| *other == slot) {
                found.remove();
                self.free.push(slot);
                if segment != NIL {
                    dropped.push((segment, key.len));
                }
            }
        }
        dropped
    }
}
