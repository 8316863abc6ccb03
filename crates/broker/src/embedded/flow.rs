//! Queues and flows: who comes next among what is ready.
//!
//! A flow is one flow key in one queue; it has a lane, first in first out, for
//! each priority. A flow without messages is dropped. Lanes are linked lists
//! through the entries.

use std::{cmp::Reverse, collections::BinaryHeap};

use hashbrown::{HashMap, HashTable};

use super::{
    index::Index,
    slab::{Entry, NIL, Slab, State},
};
use crate::contract::{Depth, FlowKey, QueueName};

/// Number of priorities.
pub const PRIORITIES: usize = 10;

/// Both ends of a list of entries.
#[derive(Debug, Clone, Copy)]
pub struct List {
    /// First.
    pub head: u32,
    /// Last.
    pub tail: u32,
}

impl List {
    /// Nothing.
    pub const EMPTY: Self = Self { head: NIL, tail: NIL };

    /// Whether there is nothing in it.
    pub const fn is_empty(self) -> bool {
        self.head == NIL
    }

    /// Adds at the end.
    pub fn push_back(&mut self, entries: &mut Slab, slot: u32) {
        entries[slot].next = NIL;
        entries[slot].prev = self.tail;
        match self.tail {
            NIL => self.head = slot,
            tail => entries[tail].next = slot,
        }
        self.tail = slot;
    }

    /// Adds at the front.
    pub fn push_front(&mut self, entries: &mut Slab, slot: u32) {
        entries[slot].prev = NIL;
        entries[slot].next = self.head;
        match self.head {
            NIL => self.tail = slot,
            head => entries[head].prev = slot,
        }
        self.head = slot;
    }

    /// Takes out, wherever it is.
    pub fn remove(&mut self, entries: &mut Slab, slot: u32) {
        let (prev, next) = (entries[slot].prev, entries[slot].next);
        match prev {
            NIL => self.head = next,
            prev => entries[prev].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => entries[next].prev = prev,
        }
        entries[slot].prev = NIL;
        entries[slot].next = NIL;
    }
}

/// One flow key in one queue.
#[derive(Debug)]
pub struct Flow {
    /// Its queue.
    pub queue: u32,
    /// Its key.
    pub key: FlowKey,
    /// Which flow of all that used this slot.
    pub generation: u32,
    /// Live messages in it, wherever they stand.
    messages: u32,
    /// Where it stands in its queue's list of flows.
    position: u32,
    /// What is ready, by priority.
    pub lanes: [List; PRIORITIES],
}

/// One queue.
#[derive(Debug)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// What it holds.
    pub depth: Depth,
    /// Its flows.
    pub flows: Vec<u32>,
    /// What is not due yet: due time, generation, slot.
    pub delayed: BinaryHeap<Reverse<(i64, u32, u32)>>,
    /// Entries of the heap whose message is gone or moved.
    pub stale: usize,
    /// Its consumers, in the order of their coming.
    pub consumers: Vec<u32>,
}

/// All queues and flows.
#[derive(Debug, Default)]
pub struct Flows {
    /// Queues are few and stay.
    pub queues: Vec<Queue>,
    by_name: HashMap<Box<str>, u32>,
    /// By slot; a free one has no messages.
    flows: Vec<Flow>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    generation: u32,
}

impl Flows {
    /// The queue of this name.
    pub fn find_queue(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The queue of this name, made when missing.
    pub fn queue(&mut self, name: &QueueName) -> u32 {
        if let Some(queue) = self.find_queue(name.as_str()) {
            return queue;
        }
        self.queues.push(Queue {
            name: name.clone(),
            depth: Depth::default(),
            flows: Vec::new(),
            delayed: BinaryHeap::new(),
            stale: 0,
            consumers: Vec::new(),
        });
        let queue = u32::try_from(self.queues.len() - 1).unwrap_or(NIL);
        self.by_name.insert(name.as_str().into(), queue);
        queue
    }

    /// A flow.
    pub fn flow(&self, flow: u32) -> &Flow {
        &self.flows[flow as usize]
    }

    /// A flow, to be changed.
    pub fn flow_mut(&mut self, flow: u32) -> &mut Flow {
        &mut self.flows[flow as usize]
    }

    /// The queue of a flow.
    pub fn queue_of(&mut self, flow: u32) -> &mut Queue {
        let queue = self.flows[flow as usize].queue;
        &mut self.queues[queue as usize]
    }

    /// The flow of this key, when it has messages.
    pub fn find(&self, hash: u64, queue: u32, key: &str) -> Option<u32> {
        let same = |slot: &u32| {
            let flow = &self.flows[*slot as usize];
            flow.queue == queue && flow.key.as_str() == key
        };
        self.by_key.find(hash, same).copied()
    }

    /// Adds a message to the flow of this key, made when missing.
    pub fn join(&mut self, hash: u64, queue: u32, key: &str, rehash: impl Fn(&Flow) -> u64) -> u32 {
        if let Some(slot) = self.find(hash, queue, key) {
            self.flows[slot as usize].messages += 1;
            return slot;
        }
        self.generation = self.generation.wrapping_add(1);
        let list = &mut self.queues[queue as usize].flows;
        let flow = Flow {
            queue,
            key: FlowKey::new(key),
            generation: self.generation,
            messages: 1,
            position: u32::try_from(list.len()).unwrap_or(NIL),
            lanes: [List::EMPTY; PRIORITIES],
        };
        let slot = if let Some(slot) = self.free.pop() {
            self.flows[slot as usize] = flow;
            slot
        } else {
            self.flows.push(flow);
            u32::try_from(self.flows.len() - 1).unwrap_or(NIL)
        };
        list.push(slot);
        let flows = &self.flows;
        self.by_key.insert_unique(hash, slot, |slot| rehash(&flows[*slot as usize]));
        slot
    }

    /// Takes a message out of its flow; true when that was the last and the
    /// flow is gone.
    pub fn leave(&mut self, hash: u64, slot: u32) -> bool {
        let flow = &mut self.flows[slot as usize];
        flow.messages -= 1;
        if flow.messages > 0 {
            return false;
        }
        let (queue, position) = (flow.queue, flow.position);
        if let Ok(found) = self.by_key.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        let list = &mut self.queues[queue as usize].flows;
        list.swap_remove(position as usize);
        if let Some(moved) = list.get(position as usize).copied() {
            self.flows[moved as usize].position = position;
        }
        self.free.push(slot);
        true
    }

    /// Whether the flow that had this generation is still there.
    pub fn is(&self, slot: u32, generation: u32) -> bool {
        let flow = &self.flows[slot as usize];
        flow.generation == generation && flow.messages > 0
    }
}

impl Index {
    /// A generation that no entry has had for 4 billion moves.
    pub fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Puts an entry that is in no list where its due time says.
    pub fn enqueue(&mut self, slot: u32, now: i64) {
        let generation = self.next_generation();
        let entry = &mut self.entries[slot];
        entry.generation = generation;
        if entry.due <= now {
            self.make_ready(slot, false);
            return;
        }
        entry.state = State::Delayed;
        let (due, flow) = (entry.due, entry.flow);
        let queue = self.flows.queue_of(flow);
        queue.depth.delayed += 1;
        let earliest = queue.delayed.peek().is_none_or(|Reverse((first, ..))| due < *first);
        queue.delayed.push(Reverse((due, generation, slot)));
        if earliest {
            let queue = self.flows.flow(flow).queue;
            self.wake_queue(queue);
        }
    }

    /// Puts an entry that is in no list into its lane.
    pub fn make_ready(&mut self, slot: u32, front: bool) {
        let entry = &mut self.entries[slot];
        entry.state = State::Ready;
        let (flow, priority) = (entry.flow, entry.priority);
        let lane = &mut self.flows.flow_mut(flow).lanes[usize::from(priority)];
        if front {
            lane.push_front(&mut self.entries, slot);
        } else {
            lane.push_back(&mut self.entries, slot);
        }
        self.flows.queue_of(flow).depth.ready += 1;
        self.offer(flow, priority);
    }

    /// Takes an entry out of whatever list it is in, and out of the depth.
    pub fn take_out(&mut self, slot: u32) {
        let entry = &self.entries[slot];
        let (flow, state) = (entry.flow, entry.state);
        match state {
            State::Ready => {
                let priority = usize::from(entry.priority);
                let lane = &mut self.flows.flow_mut(flow).lanes[priority];
                lane.remove(&mut self.entries, slot);
                self.flows.queue_of(flow).depth.ready -= 1;
            }
            State::Delayed => {
                let queue = self.flows.queue_of(flow);
                queue.depth.delayed -= 1;
                queue.stale += 1;
                // What is purged or moved must not fill the memory until its
                // time comes.
                if queue.stale > 64 + queue.delayed.len() / 2 {
                    let entries = &self.entries;
                    let own = self.entries[slot].generation;
                    queue.delayed.retain(|Reverse((_, generation, slot))| {
                        let entry = &entries[*slot];
                        *generation != own
                            && entry.generation == *generation
                            && entry.state == State::Delayed
                    });
                    queue.stale = 0;
                }
            }
            State::Unacknowledged => {
                if !entry.has(Entry::ORPHAN) {
                    self.release(slot);
                }
                self.flows.queue_of(flow).depth.unacknowledged -= 1;
            }
            State::Removing => self.flows.queue_of(flow).depth.unacknowledged -= 1,
            State::Free => {}
        }
    }

    /// Moves what has become due into the lanes; returns the next due time.
    pub fn promote(&mut self, queue: u32, now: i64) -> Option<i64> {
        loop {
            let heap = &mut self.flows.queues[queue as usize];
            let Reverse((due, generation, slot)) = *heap.delayed.peek()?;
            let entry = &self.entries[slot];
            let live = entry.generation == generation && entry.state == State::Delayed;
            if live && due > now {
                return Some(due);
            }
            heap.delayed.pop();
            if live {
                heap.depth.delayed -= 1;
                self.make_ready(slot, false);
            } else {
                heap.stale = heap.stale.saturating_sub(1);
            }
        }
    }
}
