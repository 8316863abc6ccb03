//! What each segment is still needed for, and which one is worth compacting.
//!
//! A segment is needed while it holds the put, the newest head or the shared
//! body of a live message, and while it holds the acknowledgement of a message
//! of which another segment still holds a put: without it the message would
//! rise from the dead. Such a segment may hold nothing that lives; it goes when
//! those with the puts go, so a segment that *pins* others is worth compacting
//! even when it is mostly alive itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    index::Index,
    slab::{Entry, Slab},
};

/// What an acknowledgement takes; with its share of a frame.
const ACK_COST: u64 = 48;

/// What a segment is needed for.
#[derive(Debug, Default)]
pub struct SegmentUse {
    /// Puts, newest heads and shared bodies of live messages.
    pub live: u64,
    /// Bytes of its frames.
    pub bytes: u64,
    /// Of these, about what nothing needs. Never counted but when something
    /// dies, so that what compaction writes holds no dead bytes and is not
    /// compacted for ever.
    dead: u64,
    /// Nothing is written to it any more.
    pub sealed: bool,
    /// Something in it cannot be read, so it cannot be compacted.
    pub stuck: bool,
    /// Segments with the puts of messages that are acknowledged here.
    acked_in: BTreeSet<u32>,
    /// Segments with other puts of messages that were copied to here.
    moved_from: BTreeSet<u32>,
}

impl SegmentUse {
    /// Bytes that nothing needs.
    pub fn dead(&self) -> u64 {
        if self.live == 0 { self.bytes } else { self.dead.min(self.bytes) }
    }
}

/// All segments, by sequence.
#[derive(Debug, Default)]
pub struct Needs {
    segments: BTreeMap<u32, SegmentUse>,
    /// Set when a segment may have become useless.
    pub freed: bool,
    /// Bytes that died since compaction was last thought of.
    pub died: u64,
}

/// Bytes of sealed segments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sealed {
    /// All.
    pub bytes: u64,
    /// What nothing needs.
    pub dead: u64,
}

impl Needs {
    /// All segments.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &SegmentUse)> {
        self.segments.iter().map(|(sequence, segment)| (*sequence, segment))
    }

    /// Whether a segment is there.
    pub fn contains(&self, sequence: u32) -> bool {
        self.segments.contains_key(&sequence)
    }

    /// A segment, added when it is new.
    pub fn segment(&mut self, sequence: u32) -> &mut SegmentUse {
        self.segments.entry(sequence).or_default()
    }

    /// Forgets a segment whose file is gone.
    pub fn remove(&mut self, sequence: u32) {
        self.segments.remove(&sequence);
    }

    /// Something in a segment lives.
    pub fn need(&mut self, sequence: u32) {
        self.segment(sequence).live += 1;
    }

    /// Something in a segment lives no more, or not there.
    pub fn no_need(&mut self, sequence: u32, cost: u64) {
        if let Some(segment) = self.segments.get_mut(&sequence) {
            segment.live -= 1;
            segment.dead += cost;
            self.died = self.died.saturating_add(cost);
            self.freed |= segment.live == 0;
        }
    }

    /// Something was written that never lived.
    pub fn dead_on_arrival(&mut self, sequence: u32, cost: u64) {
        self.segment(sequence).dead += cost;
        self.died = self.died.saturating_add(cost);
    }

    /// A message was acknowledged in a segment; its put, and others of it.
    pub fn acked(&mut self, here: u32, put: u32, copies: impl IntoIterator<Item = u32>) {
        let mut puts: BTreeSet<u32> = copies.into_iter().chain([put]).collect();
        if let Some(segment) = self.segments.get(&put) {
            puts.extend(&segment.moved_from);
        }
        puts.remove(&here);
        puts.retain(|put| self.segments.contains_key(put));
        self.segment(here).acked_in.extend(puts);
        self.dead_on_arrival(here, ACK_COST);
    }

    /// A message was copied to a segment; its put before, and others of it.
    pub fn moved(&mut self, here: u32, put: u32, copies: impl IntoIterator<Item = u32>) {
        let mut puts: BTreeSet<u32> = copies.into_iter().chain([put]).collect();
        if let Some(segment) = self.segments.get(&put) {
            puts.extend(&segment.moved_from);
        }
        puts.remove(&here);
        puts.retain(|put| self.segments.contains_key(put));
        let segment = self.segment(here);
        if !puts.is_subset(&segment.moved_from) {
            segment.moved_from.extend(puts);
        }
    }

    fn pinned(&self, segment: &SegmentUse) -> bool {
        segment.acked_in.iter().any(|put| self.segments.contains_key(put))
    }

    /// A segment that nothing needs, the oldest first; never the newest, which
    /// keeps the count of the sequence.
    pub fn useless(&self) -> Option<u32> {
        let newest = *self.segments.keys().next_back()?;
        self.segments
            .iter()
            .find(|(sequence, segment)| {
                **sequence != newest && segment.live == 0 && !self.pinned(segment)
            })
            .map(|(sequence, _)| *sequence)
    }

    /// Bytes of sealed segments.
    pub fn sealed(&self) -> Sealed {
        let sealed = self.segments.values().filter(|segment| segment.sealed);
        sealed.fold(Sealed::default(), |sum, segment| Sealed {
            bytes: sum.bytes + segment.bytes,
            dead: sum.dead + segment.dead(),
        })
    }

    /// The segment whose compaction frees most for what it copies; none when
    /// no one frees so many thousandths of itself.
    pub fn victim(&self, least: u64, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        let mut pins: BTreeMap<u32, u64> = BTreeMap::new();
        for segment in self.segments.values().filter(|segment| segment.live == 0) {
            for put in &segment.acked_in {
                *pins.entry(*put).or_default() += segment.bytes;
            }
        }
        let gain = |sequence: &u32, segment: &SegmentUse| {
            let freed = segment.dead() + pins.get(sequence).copied().unwrap_or(0);
            freed * 1000 / segment.bytes.max(1)
        };
        self.segments
            .iter()
            .filter(|(sequence, segment)| {
                segment.sealed && !segment.stuck && segment.live > 0 && wanted(**sequence)
            })
            .map(|(sequence, segment)| (gain(sequence, segment), *sequence))
            .filter(|(gain, _)| *gain >= least)
            // Of equals the oldest.
            .max_by_key(|(gain, sequence)| (*gain, std::cmp::Reverse(*sequence)))
            .map(|(_, sequence)| sequence)
    }
}

/// About what a message's put takes without its head.
pub const fn put_cost(entry: &Entry) -> u64 {
    if entry.has(Entry::SHARED) { 40 } else { 16 + entry.body_len as u64 }
}

/// About what a head takes, with what stands beside it.
pub const fn head_cost(entry: &Entry) -> u64 {
    60 + entry.head_len as u64
}

/// What a shared body takes.
pub const fn body_cost(len: u32) -> u64 {
    32 + len as u64
}

impl Index {
    /// The put of an entry is needed no more where it is.
    pub fn forget_put(&mut self, slot: u32) {
        let (segment, cost) = of(&self.entries, slot, |e| (e.put_segment, put_cost(e)));
        self.needs.no_need(segment, cost);
    }

    /// The head of an entry is needed no more where it is.
    pub fn forget_head(&mut self, slot: u32) {
        let (segment, cost) = of(&self.entries, slot, |e| (e.head_segment, head_cost(e)));
        self.needs.no_need(segment, cost);
    }
}

fn of<T>(entries: &Slab, slot: u32, get: impl Fn(&Entry) -> T) -> T {
    get(&entries[slot])
}
