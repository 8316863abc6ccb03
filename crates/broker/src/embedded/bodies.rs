//! Shared bodies, and how many messages each has.

use hashbrown::HashMap;

use super::{record::BodyKey, slab::NIL};

/// A shared body on the disk.
#[derive(Debug, Clone, Copy)]
pub struct SharedBody {
    /// What names it.
    pub key: BodyKey,
    /// Segment.
    pub segment: u32,
    /// Offset in it.
    pub offset: u32,
    refs: u32,
}

/// All shared bodies that live.
#[derive(Debug, Default)]
pub struct Bodies {
    by_key: HashMap<BodyKey, u32>,
    slots: Vec<SharedBody>,
    free: Vec<u32>,
    /// What may be without a message: decided at the end of the frame, which
    /// may end the last message of a body and begin another.
    loose: Vec<u32>,
}

impl Bodies {
    /// Adds a body that has no message yet; false when it is there already.
    pub fn add(&mut self, key: BodyKey, segment: u32, offset: u32) -> bool {
        if self.by_key.contains_key(&key) {
            return false;
        }
        let body = SharedBody { key, segment, offset, refs: 0 };
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = body;
            slot
        } else {
            self.slots.push(body);
            u32::try_from(self.slots.len() - 1).unwrap_or(NIL)
        };
        self.by_key.insert(key, slot);
        self.loose.push(slot);
        true
    }

    /// Gives a body one more message; [`NIL`] when there is no such body.
    pub fn share(&mut self, key: &BodyKey) -> u32 {
        let Some(slot) = self.by_key.get(key).copied() else { return NIL };
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

    /// A body; none for [`NIL`].
    pub fn get(&self, slot: u32) -> Option<&SharedBody> {
        self.slots.get(slot as usize)
    }

    /// Drops the bodies without a message: the segments in which they were.
    pub fn drop_loose(&mut self) -> Vec<u32> {
        let mut segments = Vec::new();
        while let Some(slot) = self.loose.pop() {
            let SharedBody { key, segment, refs, .. } = self.slots[slot as usize];
            // It may be in the list twice.
            if refs == 0 && self.by_key.get(&key) == Some(&slot) {
                self.by_key.remove(&key);
                self.free.push(slot);
                segments.push(segment);
            }
        }
        segments
    }
}
