//! Consumers: what each may be handed next, and what it holds.
//!
//! A consumer has a ring of flows for each priority, and goes round it: one
//! message a flow. A flow that is blocked, at its cap or empty leaves the ring
//! and comes back when that changes. Rings may name flows that are gone; that
//! is found out when they come to their turn.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    flow::{List, PRIORITIES},
    index::{Index, Span},
    slab::{Entry, NIL, State},
};
use crate::contract::{Credit, FlowKey, SubscribeOptions, Token};

/// Most bytes handed over at once, but for a single larger message.
const PICK_BYTES: u64 = 4 << 20;

/// A consumer's share of a flow.
#[derive(Debug, Default)]
struct Share {
    /// Bit by priority: it is in that ring.
    in_ring: u16,
    /// Handed over from it and not acknowledged.
    unacknowledged: u32,
    blocked: bool,
}

/// One subscription, as the index sees it.
#[derive(Debug)]
pub struct Consumer {
    /// Unique over all consumers and all openings.
    pub epoch: u64,
    queue: u32,
    options: SubscribeOptions,
    /// False while an exclusive one goes first.
    active: bool,
    rings: [VecDeque<(u32, u32)>; PRIORITIES],
    shares: HashMap<u32, Share>,
    blocked: HashSet<FlowKey>,
    messages: u32,
    bytes: u64,
    /// What it holds, in the order of the hand-over.
    held: List,
    notify: Arc<Notify>,
}

impl Consumer {
    /// Flows in its rings.
    #[cfg(test)]
    pub fn ringed(&self) -> usize {
        self.rings.iter().map(VecDeque::len).sum()
    }

    /// Flows that it has a share of.
    #[cfg(test)]
    pub fn shared_flows(&self) -> usize {
        self.shares.len()
    }

    fn has_credit(&self) -> bool {
        self.messages < self.options.credit.messages
    }

    fn allows(&self, size: u64) -> bool {
        self.has_credit() && (self.messages == 0 || self.bytes + size <= self.options.credit.bytes)
    }
}

/// A part of a message: in memory, or where it is.
#[derive(Debug, Clone)]
pub enum Part {
    /// In memory.
    Here(Bytes),
    /// To be read.
    At(Span),
    /// Its segment is gone.
    Missing,
}

/// A message that is being handed over.
#[derive(Debug, Clone)]
pub struct Picked {
    /// For its acknowledgement.
    pub token: Token,
    /// Its id.
    pub id: Uuid,
    /// Its priority.
    pub priority: u8,
    /// Its flow key.
    pub flow_key: FlowKey,
    /// Whether it may have been handed over before.
    pub redelivered: bool,
    /// The small part.
    pub head: Part,
    /// The large part.
    pub body: Part,
    /// Others share the body.
    pub shared: bool,
}

impl Index {
    /// Adds a consumer of a queue: its slot and epoch.
    pub fn add_consumer(
        &mut self,
        queue: u32,
        options: SubscribeOptions,
        notify: Arc<Notify>,
    ) -> (u32, u64) {
        self.epoch = self.epoch.wrapping_add(1);
        // With none at all it would wait for ever.
        let options = SubscribeOptions { flow_messages: options.flow_messages.max(1), ..options };
        let consumer = Box::new(Consumer {
            epoch: self.epoch,
            queue,
            options,
            active: false,
            rings: Default::default(),
            shares: HashMap::new(),
            blocked: HashSet::new(),
            messages: 0,
            bytes: 0,
            held: List::EMPTY,
            notify,
        });
        let free = self.consumers.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.consumers.push(None);
            self.consumers.len() - 1
        });
        self.consumers[slot] = Some(consumer);
        let slot = u32::try_from(slot).unwrap_or(NIL);
        self.flows.queues[queue as usize].consumers.push(slot);
        self.arrange(queue);
        (slot, self.epoch)
    }

    /// The consumer in this slot, when it is still the one of that epoch.
    pub fn consumer(&mut self, slot: u32, epoch: u64) -> Option<&mut Consumer> {
        let consumer = self.consumers.get_mut(slot as usize)?.as_deref_mut()?;
        (consumer.epoch == epoch).then_some(consumer)
    }

    /// Ends a consumer: what it holds goes back to the front, in its order.
    pub fn end_consumer(&mut self, slot: u32, epoch: u64) {
        if self.consumer(slot, epoch).is_none() {
            return;
        }
        let Some(consumer) = self.consumers[slot as usize].take() else { return };
        let queue = consumer.queue;
        self.flows.queues[queue as usize].consumers.retain(|other| *other != slot);
        let mut at = consumer.held.tail;
        while at != NIL {
            let held = at;
            at = self.entries[held].prev;
            self.entries[held].consumer = NIL;
            if self.entries[held].has(Entry::SETTLING) {
                self.entries[held].flags |= Entry::ORPHAN;
            } else {
                self.give_back(held);
            }
        }
        self.arrange(queue);
    }

    /// Puts an unacknowledged entry that no consumer holds back to the front.
    pub fn give_back(&mut self, slot: u32) {
        let generation = self.next_generation();
        let entry = &mut self.entries[slot];
        entry.flags |= Entry::REDELIVERED;
        entry.flags &= !Entry::ORPHAN;
        entry.generation = generation;
        let flow = entry.flow;
        self.flows.queue_of(flow).depth.unacknowledged -= 1;
        self.make_ready(slot, true);
    }

    /// Decides which consumers of a queue are active. They are in the order of
    /// their coming: an exclusive one waits until it is the first, and whoever
    /// comes after it waits for its end.
    fn arrange(&mut self, queue: u32) {
        let order = self.flows.queues[queue as usize].consumers.clone();
        let mut taken = false;
        for (at, slot) in order.into_iter().enumerate() {
            let Some(consumer) = self.consumers[slot as usize].as_deref_mut() else { continue };
            let exclusive = consumer.options.exclusive;
            let active = if exclusive { at == 0 } else { !taken };
            taken |= exclusive;
            if active && !consumer.active {
                consumer.active = true;
                consumer.notify.notify_one();
                for flow in self.flows.queues[queue as usize].flows.clone() {
                    self.offer_flow(slot, flow);
                }
            }
        }
    }

    /// Tells the active consumers of a queue to look again.
    pub fn wake_queue(&self, queue: u32) {
        for slot in &self.flows.queues[queue as usize].consumers {
            if let Some(consumer) = self.consumers[*slot as usize].as_deref() {
                consumer.notify.notify_one();
            }
        }
    }

    /// Tells every consumer to look again.
    pub fn wake_all(&self) {
        for consumer in self.consumers.iter().flatten() {
            consumer.notify.notify_one();
        }
    }

    /// A lane has got something: it joins the rings.
    pub fn offer(&mut self, flow: u32, priority: u8) {
        let queue = self.flows.flow(flow).queue as usize;
        for at in 0..self.flows.queues[queue].consumers.len() {
            let slot = self.flows.queues[queue].consumers[at];
            self.offer_lane(slot, flow, priority);
        }
    }

    fn offer_lane(&mut self, slot: u32, flow: u32, priority: u8) {
        let Some(consumer) = self.consumers[slot as usize].as_deref_mut() else { return };
        if !consumer.active {
            return;
        }
        let state = self.flows.flow(flow);
        let blocked = &consumer.blocked;
        let share = consumer
            .shares
            .entry(flow)
            .or_insert_with(|| Share { blocked: blocked.contains(&state.key), ..Share::default() });
        let bit = 1 << priority;
        let full = share.unacknowledged >= consumer.options.flow_messages;
        if share.blocked || full || share.in_ring & bit != 0 {
            return;
        }
        share.in_ring |= bit;
        let ring = &mut consumer.rings[usize::from(priority)];
        ring.push_back((flow, state.generation));
        let flows = self.flows.queues[consumer.queue as usize].flows.len();
        if ring.len() > 64 + 2 * flows {
            ring.retain(|(flow, generation)| self.flows.is(*flow, *generation));
        }
        if consumer.has_credit() {
            consumer.notify.notify_one();
        }
    }

    fn offer_flow(&mut self, slot: u32, flow: u32) {
        for priority in 0..PRIORITIES {
            if !self.flows.flow(flow).lanes[priority].is_empty() {
                self.offer_lane(slot, flow, u8::try_from(priority).unwrap_or(0));
            }
        }
    }

    /// A flow is gone: nobody has a share of it any more.
    pub fn drop_shares(&mut self, queue: u32, flow: u32) {
        for slot in &self.flows.queues[queue as usize].consumers {
            if let Some(consumer) = self.consumers[*slot as usize].as_deref_mut() {
                consumer.shares.remove(&flow);
            }
        }
    }

    /// Takes an unacknowledged entry from its consumer.
    pub fn release(&mut self, slot: u32) {
        let entry = &self.entries[slot];
        let (holder, flow, size) = (entry.consumer, entry.flow, entry.size());
        let Some(consumer) = self.consumers.get_mut(holder as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        consumer.held.remove(&mut self.entries, slot);
        self.entries[slot].consumer = NIL;
        consumer.messages -= 1;
        consumer.bytes -= size;
        let Some(share) = consumer.shares.get_mut(&flow) else { return };
        let was_full = share.unacknowledged >= consumer.options.flow_messages;
        share.unacknowledged -= 1;
        consumer.notify.notify_one();
        if was_full {
            self.offer_flow(holder, flow);
        }
    }

    /// Hands over up to `max` messages.
    pub fn pick(&mut self, slot: u32, max: usize) -> Vec<Picked> {
        let Some(mut consumer) = self.consumers[slot as usize].take() else { return Vec::new() };
        let mut picked = Vec::new();
        let mut bytes = 0;
        while picked.len() < max && bytes < PICK_BYTES && consumer.active {
            let Some(entry) = self.pick_one(slot, &mut consumer) else { break };
            bytes += self.entries[entry].size();
            picked.push(self.picked(entry, consumer.epoch));
        }
        self.consumers[slot as usize] = Some(consumer);
        picked
    }

    fn pick_one(&mut self, slot: u32, consumer: &mut Consumer) -> Option<u32> {
        for priority in (0..PRIORITIES).rev() {
            let bit = 1 << priority;
            while let Some((flow, generation)) = consumer.rings[priority].pop_front() {
                if !self.flows.is(flow, generation) {
                    continue;
                }
                let Some(share) = consumer.shares.get_mut(&flow) else { continue };
                let head = self.flows.flow(flow).lanes[priority].head;
                let full = share.unacknowledged >= consumer.options.flow_messages;
                if head == NIL || share.blocked || full {
                    share.in_ring &= !bit;
                    continue;
                }
                if !consumer.allows(self.entries[head].size()) {
                    consumer.rings[priority].push_front((flow, generation));
                    return None;
                }
                let Some(share) = consumer.shares.get_mut(&flow) else { continue };
                share.unacknowledged += 1;
                self.hand_over(head, slot, consumer);
                let lane = &self.flows.flow(flow).lanes[priority];
                if lane.is_empty() {
                    if let Some(share) = consumer.shares.get_mut(&flow) {
                        share.in_ring &= !bit;
                    }
                } else {
                    consumer.rings[priority].push_back((flow, generation));
                }
                return Some(head);
            }
        }
        None
    }

    fn hand_over(&mut self, entry: u32, slot: u32, consumer: &mut Consumer) {
        self.take_out(entry);
        let generation = self.next_generation();
        let state = &mut self.entries[entry];
        state.state = State::Unacknowledged;
        state.consumer = slot;
        state.generation = generation;
        let (flow, size) = (state.flow, state.size());
        self.flows.queue_of(flow).depth.unacknowledged += 1;
        consumer.held.push_back(&mut self.entries, entry);
        consumer.messages += 1;
        consumer.bytes += size;
    }

    fn picked(&mut self, slot: u32, epoch: u64) -> Picked {
        let (head, body) = match self.cache.take(slot) {
            Some(payload) => (Part::Here(payload.head), Part::Here(payload.body)),
            None => (Part::At(self.head_span(slot)), self.body_part(slot)),
        };
        let entry = &self.entries[slot];
        Picked {
            token: Token { epoch, tag: u64::from(slot) << 32 | u64::from(entry.generation) },
            id: entry.id,
            priority: entry.priority,
            flow_key: self.flows.flow(entry.flow).key.clone(),
            redelivered: entry.has(Entry::REDELIVERED),
            head,
            body,
            shared: entry.has(Entry::SHARED),
        }
    }

    /// The slot of a token that may be settled.
    pub fn held(&self, token: Token) -> Option<u32> {
        let slot = u32::try_from(token.tag >> 32).ok()?;
        let entry = self.entries.get(slot)?;
        let fresh = entry.state == State::Unacknowledged
            && u64::from(entry.generation) == token.tag & u64::from(u32::MAX)
            && !entry.has(Entry::SETTLING);
        let holder = self.consumers.get(entry.consumer as usize)?.as_deref()?;
        (fresh && holder.epoch == token.epoch).then_some(slot)
    }

    /// Changes a consumer's credit.
    pub fn set_credit(&mut self, slot: u32, epoch: u64, credit: Credit) {
        if let Some(consumer) = self.consumer(slot, epoch) {
            consumer.options.credit = credit;
            consumer.notify.notify_one();
        }
    }

    /// Blocks or unblocks a flow for a consumer.
    pub fn set_blocked(&mut self, slot: u32, epoch: u64, key: &FlowKey, blocked: bool) {
        let Some(consumer) = self.consumer(slot, epoch) else { return };
        let queue = consumer.queue;
        if blocked {
            consumer.blocked.insert(key.clone());
        } else {
            consumer.blocked.remove(key);
        }
        let hash = self.hash_flow(queue, key.as_str());
        let Some(flow) = self.flows.find(hash, queue, key.as_str()) else { return };
        let Some(consumer) = self.consumer(slot, epoch) else { return };
        if let Some(share) = consumer.shares.get_mut(&flow) {
            share.blocked = blocked;
        }
        if !blocked {
            self.offer_flow(slot, flow);
        }
    }
}
