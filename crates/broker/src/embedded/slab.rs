//! The entries of all live messages, 80 bytes each, in chunks that never
//! move: a million messages cost no copy of half a million.

use std::ops::{Index, IndexMut};

use uuid::Uuid;

/// No slot.
pub const NIL: u32 = u32::MAX;
const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The slot is free.
    Free,
    /// In the lane of its flow.
    Ready,
    /// In the heap of its queue.
    Delayed,
    /// Handed over: in the list of its consumer, or in none when it is
    /// [`Entry::ORPHAN`].
    Unacknowledged,
    /// In no list: a purge is about to end it.
    Removing,
}

/// What is known of a message without reading it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its id.
    pub id: Uuid,
    /// Milliseconds of wall clock, or [`super::record::NO_DUE`].
    pub due: i64,
    /// Segment of its newest head.
    pub head_segment: u32,
    /// Offset of the head.
    pub head_offset: u32,
    /// Bytes of the head.
    pub head_len: u32,
    /// CRC-32C of the head.
    pub head_crc: u32,
    /// Segment of its put, and of its body unless that is shared.
    pub put_segment: u32,
    /// Offset of the body, or slot of the shared body.
    pub body_at: u32,
    /// Bytes of the body.
    pub body_len: u32,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// Its flow.
    pub flow: u32,
    /// Next in its list.
    pub next: u32,
    /// Previous in its list.
    pub prev: u32,
    /// Changes with every move, so that what remembers an old one is stale.
    pub generation: u32,
    /// Who holds it, when unacknowledged.
    pub consumer: u32,
    /// 0 to 9.
    pub priority: u8,
    /// Where it stands.
    pub state: State,
    /// The flags below.
    pub flags: u8,
}

impl Entry {
    /// The body is shared.
    pub const SHARED: u8 = 1;
    /// It may have been handed over before.
    pub const REDELIVERED: u8 = 2;
    /// A settlement or a purge of it is on its way to the disk.
    pub const SETTLING: u8 = 4;
    /// Its consumer ended while it was settling.
    pub const ORPHAN: u8 = 8;

    const FREE: Self = Self {
        id: Uuid::nil(),
        due: 0,
        head_segment: 0,
        head_offset: 0,
        head_len: 0,
        head_crc: 0,
        put_segment: 0,
        body_at: 0,
        body_len: 0,
        body_crc: 0,
        flow: NIL,
        next: NIL,
        prev: NIL,
        generation: 0,
        consumer: NIL,
        priority: 0,
        state: State::Free,
        flags: 0,
    };

    /// Whether a flag is set.
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of head and body, as the credit counts them.
    pub const fn size(&self) -> u64 {
        self.head_len as u64 + self.body_len as u64
    }
}

/// All entries.
#[derive(Debug)]
pub struct Slab {
    chunks: Vec<Box<[Entry]>>,
    free: u32,
    live: usize,
}

impl Default for Slab {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NIL, live: 0 }
    }
}

impl Slab {
    /// Takes a free slot; `None` when 4 billion are taken.
    pub fn take(&mut self) -> Option<u32> {
        if self.free == NIL {
            let first = u32::try_from(self.chunks.len() << CHUNK_BITS).ok()?;
            let last = first.checked_add(u32::try_from(CHUNK).ok()?)?;
            let mut chunk = vec![Entry::FREE; CHUNK].into_boxed_slice();
            for (entry, next) in chunk.iter_mut().zip(first + 1..last) {
                entry.next = next;
            }
            self.chunks.push(chunk);
            self.free = first;
        }
        let slot = self.free;
        self.free = self[slot].next;
        self.live += 1;
        Some(slot)
    }

    /// Gives a slot back.
    pub fn give(&mut self, slot: u32) {
        let free = self.free;
        self[slot] = Entry { next: free, ..Entry::FREE };
        self.free = slot;
        self.live -= 1;
    }

    /// How many messages live.
    pub const fn live(&self) -> usize {
        self.live
    }

    /// The entry, when there is one.
    pub fn get(&self, slot: u32) -> Option<&Entry> {
        self.chunks.get((slot >> CHUNK_BITS) as usize)?.get(slot as usize % CHUNK)
    }

    /// How many chunks there are, for a walk that lets go of the lock between.
    pub const fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The entries of a chunk.
    pub fn chunk(&self, chunk: usize) -> impl Iterator<Item = (u32, &Entry)> {
        let first = u32::try_from(chunk << CHUNK_BITS).unwrap_or(NIL);
        let entries = self.chunks.get(chunk).map(|c| &**c).unwrap_or_default();
        (first..).zip(entries).filter(|(_, entry)| entry.state != State::Free)
    }
}

impl Index<u32> for Slab {
    type Output = Entry;

    fn index(&self, slot: u32) -> &Entry {
        &self.chunks[(slot >> CHUNK_BITS) as usize][slot as usize % CHUNK]
    }
}

impl IndexMut<u32> for Slab {
    fn index_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.chunks[(slot >> CHUNK_BITS) as usize][slot as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 80, "{}", size_of::<Entry>());
    }

    #[test]
    fn slots_are_used_again() {
        let mut slab = Slab::default();
        let slots: Vec<u32> = (0..5000).filter_map(|_| slab.take()).collect();
        assert_eq!(slots, (0..5000).collect::<Vec<_>>());
        for slot in slots {
            slab.give(slot);
        }
        assert_eq!(slab.live(), 0);
        assert_eq!(slab.take(), Some(4999));
        assert_eq!(slab.chunks(), 2);
    }
}
