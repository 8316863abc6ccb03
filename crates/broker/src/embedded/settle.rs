//! From a batch or a settlement of the contract to a frame.
//!
//! The order of operations in a frame: shared bodies, messages, new heads,
//! acknowledgements, and last the messages that replace an acknowledged one of
//! the same id.
//!
//! From its making until its commit, a settlement *marks* the entries that it
//! settles: a second settlement finds them stale, and the end of their
//! subscription does not give them back. A failure, or a future that is
//! dropped before its frame is handed over, takes the marks off.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Core,
    cache::Payload,
    consumer::Part,
    index::Mark,
    log::{Failure, Frame},
    record::{BodyKey, FrameBuilder, MAX_FRAME, Meta, NO_DUE, body_len},
    slab::{Entry, State},
};
use crate::contract::{
    Body, BrokerError, FlowKey, Publish, PublishOutcome, QueueName, Settlement, Token,
};

/// Most acknowledgements of one frame of a purge.
const PURGE_CHUNK: usize = 1024;
/// Said of a message whose shared body is in none of the segments.
pub const BODY_GONE: &str = "the segment with the shared body is missing";

/// Why a publish is not within the contract; `None` when it is.
fn objection(publish: &Publish) -> Option<String> {
    let body = match &publish.body {
        Body::Inline(bytes) => bytes.len(),
        Body::Shared(shared) => shared.bytes.len(),
        Body::Kept(_) => 0,
    };
    if publish.priority > 9 {
        Some(format!("priority {} is not in 0 to 9", publish.priority))
    } else if publish.flow_key.as_str().len() > FlowKey::MAX_LEN {
        Some(format!("the flow key is longer than {} bytes", FlowKey::MAX_LEN))
    } else if publish.head.len() > Publish::MAX_HEAD {
        Some(format!("the head is larger than {} bytes", Publish::MAX_HEAD))
    } else if body > Publish::MAX_BODY {
        Some(format!("the body is larger than {} bytes", Publish::MAX_BODY))
    } else {
        None
    }
}

fn meta(publish: &Publish) -> Meta<'_> {
    Meta {
        id: publish.id,
        queue: publish.queue.as_str(),
        priority: publish.priority,
        due: publish.due.map_or(NO_DUE, |due| due.as_millis().max(NO_DUE + 1)),
        flow_key: publish.flow_key.as_str(),
        head: &publish.head,
        head_at: 0,
    }
}

/// About what a publish takes in a frame.
fn cost(publish: &Publish) -> u64 {
    let body = match &publish.body {
        Body::Inline(bytes) => bytes.len(),
        Body::Shared(shared) => shared.bytes.len(),
        Body::Kept(_) => 0,
    };
    (publish.head.len() + body + 640) as u64
}

fn check_size(bytes: u64) -> Result<(), BrokerError> {
    if bytes < MAX_FRAME {
        return Ok(());
    }
    Err(BrokerError::Invalid(format!(
        "a batch of {bytes} bytes is larger than {MAX_FRAME}: publish it in parts"
    )))
}

/// A frame being made from publishes.
#[derive(Default)]
struct Draft {
    frame: FrameBuilder,
    payloads: VecDeque<Option<Payload>>,
    bodies: HashMap<Uuid, (BodyKey, Bytes)>,
}

impl Draft {
    /// Writes the shared bodies of these first.
    fn bodies<'a>(&mut self, publishes: impl Iterator<Item = &'a Publish>) -> Result<(), String> {
        for publish in publishes {
            let Body::Shared(shared) = &publish.body else { continue };
            if let Some((_, known)) = self.bodies.get(&shared.id) {
                if known.as_ptr() != shared.bytes.as_ptr() && known != &shared.bytes {
                    return Err(format!("two bodies of this batch have the id {}", shared.id));
                }
                continue;
            }
            let crc = crc32c::crc32c(&shared.bytes);
            let key = BodyKey { id: shared.id, len: body_len(&shared.bytes), crc };
            self.frame.body(&key, shared.bytes.clone());
            self.bodies.insert(shared.id, (key, shared.bytes.clone()));
        }
        Ok(())
    }

    fn put(&mut self, publish: &Publish) {
        let bytes = match &publish.body {
            Body::Inline(bytes) => {
                self.frame.put_inline(&meta(publish), bytes.clone());
                bytes
            }
            Body::Shared(shared) => {
                let Some((key, _)) = self.bodies.get(&shared.id) else { return };
                self.frame.put_ref(&meta(publish), key);
                &shared.bytes
            }
            Body::Kept(_) => return,
        };
        let (head, body) = (publish.head.clone(), bytes.clone());
        self.payloads.push_back(Some(Payload { head, body }));
    }

    /// A message of its own with the body of another one.
    fn copy(&mut self, publish: &Publish, kept: &Kept) {
        if let Some(key) = &kept.shared {
            self.frame.put_ref(&meta(publish), key);
            self.payloads.push_back(None);
        } else {
            self.frame.put_inline(&meta(publish), kept.bytes.clone());
            let (head, body) = (publish.head.clone(), kept.bytes.clone());
            self.payloads.push_back(Some(Payload { head, body }));
        }
    }
}

/// A token that is settled.
struct Held {
    slot: u32,
    id: Uuid,
}

/// The body of a settled message that a copy with another id needs.
struct Kept {
    shared: Option<BodyKey>,
    part: Part,
    bytes: Bytes,
}

/// Takes the marks off unless they were handed over.
struct Marks {
    core: Arc<Core>,
    marks: Vec<Mark>,
}

impl Drop for Marks {
    fn drop(&mut self) {
        if !self.marks.is_empty() {
            self.core.index.lock().unmark(&self.marks);
        }
    }
}

impl Core {
    async fn commit(
        &self,
        draft: Draft,
        mut marks: Option<Marks>,
        room: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<(), Failure> {
        let (done, outcome) = oneshot::channel();
        let mut bytes = draft.frame.finish();
        bytes.seal();
        let marks = marks.as_mut().map(|marks| std::mem::take(&mut marks.marks));
        let frame =
            Frame { bytes, payloads: draft.payloads, marks: marks.unwrap_or_default(), done, room };
        if let Err(frame) = self.handoff.push(frame) {
            self.index.lock().unmark(&frame.marks);
            return Err(Failure::NotTaken(BrokerError::Closed));
        }
        outcome.await.unwrap_or_else(|_| {
            let why = "the commit thread has ended".to_owned();
            Err(Failure::Unknown(BrokerError::Storage(why)))
        })
    }

    /// See [`crate::Broker::publish`].
    pub async fn publish(
        self: &Arc<Self>,
        batch: Vec<Publish>,
    ) -> Result<Vec<PublishOutcome>, BrokerError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut taken = Vec::with_capacity(batch.len());
        let mut bytes = 0;
        for publish in &batch {
            let kept = matches!(publish.body, Body::Kept(_));
            let kept = kept.then(|| "only a settlement can keep a body".to_owned());
            if let Some(why) = objection(publish).or(kept) {
                outcomes.push(PublishOutcome::Rejected(why));
            } else {
                outcomes.push(PublishOutcome::Durable);
                bytes += cost(publish);
                taken.push(publish);
            }
        }
        check_size(bytes)?;
        let room = self.handoff.room(bytes).await?;
        {
            let index = self.index.lock();
            if let Some(error) = &index.closed {
                return Err(error.clone());
            }
            taken.retain(|publish| index.find(publish.id).is_none());
        }
        if taken.len() > 1 {
            let mut ids = HashSet::with_capacity(taken.len());
            taken.retain(|publish| ids.insert(publish.id));
        }
        if taken.is_empty() {
            return Ok(outcomes);
        }
        let mut draft = Draft::default();
        draft.bodies(taken.iter().copied()).map_err(BrokerError::Invalid)?;
        for publish in taken {
            draft.put(publish);
        }
        match self.commit(draft, None, room).await {
            Ok(()) => Ok(outcomes),
            Err(Failure::NotTaken(error)) => Err(error),
            Err(Failure::Unknown(error)) => {
                for outcome in &mut outcomes {
                    if *outcome == PublishOutcome::Durable {
                        *outcome = PublishOutcome::Unknown(error.to_string());
                    }
                }
                Ok(outcomes)
            }
        }
    }

    /// See [`crate::Broker::settle`].
    pub async fn settle(
        self: &Arc<Self>,
        settlement: Settlement,
    ) -> Result<Vec<Result<(), BrokerError>>, BrokerError> {
        check_settlement(&settlement)?;
        let Settlement { tokens, publishes } = settlement;
        let bytes: u64 = publishes.iter().map(cost).sum::<u64>() + 32 * tokens.len() as u64;
        check_size(bytes)?;
        let mut room = self.handoff.room(bytes).await?;
        let (marks, results, held) = self.mark(&tokens)?;
        let settled: HashSet<Uuid> = held.values().map(|held| held.id).collect();
        let mut kept = self.kept(&publishes, &held);
        let copied = self.read_kept(&mut kept).await?;
        if copied > 0 {
            check_size(bytes + copied)?;
            // The first room is given back first: two that each hold a part
            // and wait for more would wait for ever.
            drop(room);
            room = self.handoff.room(bytes + copied).await?;
        }
        let draft = {
            let live: HashSet<Uuid> = {
                let index = self.index.lock();
                publishes.iter().map(|p| p.id).filter(|id| index.find(*id).is_some()).collect()
            };
            compose(&publishes, &held, &settled, &kept, &live)?
        };
        if draft.frame.is_empty() {
            return Ok(results);
        }
        match self.commit(draft, Some(marks), room).await {
            Ok(()) => Ok(results),
            Err(Failure::NotTaken(error) | Failure::Unknown(error)) => Err(error),
        }
    }

    /// Replaces the head, queue and due time of a live message.
    pub async fn rehead(&self, publish: &Publish) -> Result<(), Failure> {
        let room = self.handoff.room(cost(publish)).await.map_err(Failure::NotTaken)?;
        let mut draft = Draft::default();
        draft.frame.rehead(&meta(publish));
        self.commit(draft, None, room).await
    }

    #[expect(clippy::type_complexity, reason = "used once, right here")]
    fn mark(
        self: &Arc<Self>,
        tokens: &[Token],
    ) -> Result<(Marks, Vec<Result<(), BrokerError>>, HashMap<Token, Held>), BrokerError> {
        let mut index = self.index.lock();
        if let Some(error) = &index.closed {
            return Err(error.clone());
        }
        let mut marks = Vec::with_capacity(tokens.len());
        let mut results = Vec::with_capacity(tokens.len());
        let mut held = HashMap::with_capacity(tokens.len());
        for token in tokens {
            let Some(slot) = index.held(*token) else {
                results.push(Err(BrokerError::StaleToken));
                continue;
            };
            index.entries[slot].flags |= Entry::SETTLING;
            marks.push(Mark { slot, generation: index.entries[slot].generation });
            held.insert(*token, Held { slot, id: index.entries[slot].id });
            results.push(Ok(()));
        }
        drop(index);
        Ok((Marks { core: Arc::clone(self), marks }, results, held))
    }

    /// The bodies that copies with other ids need.
    fn kept(&self, publishes: &[Publish], held: &HashMap<Token, Held>) -> HashMap<Token, Kept> {
        let index = self.index.lock();
        let mut kept = HashMap::new();
        for publish in publishes {
            let Body::Kept(token) = publish.body else { continue };
            let Some(settled) = held.get(&token).filter(|held| held.id != publish.id) else {
                continue;
            };
            let shared = index.shared_key(settled.slot);
            let part = index.body_part(settled.slot);
            kept.entry(token).or_insert(Kept { shared, part, bytes: Bytes::new() });
        }
        kept
    }

    /// Reads what has to be copied; returns how many bytes.
    async fn read_kept(&self, kept: &mut HashMap<Token, Kept>) -> Result<u64, BrokerError> {
        let mut copied = 0;
        for kept in kept.values_mut().filter(|kept| kept.shared.is_none()) {
            let Part::At(span) = kept.part else {
                return Err(BrokerError::Storage(BODY_GONE.to_owned()));
            };
            let reader = Arc::clone(&self.reader);
            let read = tokio::task::spawn_blocking(move || reader.read(span)).await;
            let bytes = read
                .unwrap_or_else(|error| Err(error.to_string()))
                .map_err(BrokerError::Storage)?;
            copied += bytes.len() as u64;
            kept.bytes = bytes;
        }
        Ok(copied)
    }

    /// See [`crate::Broker::purge`].
    pub async fn purge(self: &Arc<Self>, queue: &QueueName) -> Result<u64, BrokerError> {
        let mut purged = 0;
        // What comes while it works is not meant.
        let mut left = {
            let index = self.index.lock();
            if let Some(error) = &index.closed {
                return Err(error.clone());
            }
            let Some(queue) = index.flows.find_queue(queue.as_str()) else { return Ok(0) };
            let depth = index.flows.queues[queue as usize].depth;
            depth.ready + depth.delayed
        };
        let mut cursor = 0;
        while left > 0 {
            let room = self.handoff.room(PURGE_CHUNK as u64 * 32).await?;
            let (marks, draft, next) = self.mark_for_purge(queue, left, cursor);
            if marks.marks.is_empty() && next.is_none() {
                break;
            }
            cursor = next.unwrap_or(cursor);
            let count = marks.marks.len() as u64;
            if count == 0 {
                continue;
            }
            match self.commit(draft, Some(marks), room).await {
                Ok(()) => purged += count,
                Err(Failure::NotTaken(error) | Failure::Unknown(error)) => return Err(error),
            }
            left -= count;
        }
        Ok(purged)
    }

    /// Marks up to a chunk of messages from the slab's chunk `cursor` on.
    fn mark_for_purge(
        self: &Arc<Self>,
        queue: &QueueName,
        left: u64,
        cursor: usize,
    ) -> (Marks, Draft, Option<usize>) {
        let mut index = self.index.lock();
        let mut draft = Draft::default();
        let mut marks = Vec::new();
        let max = PURGE_CHUNK.min(usize::try_from(left).unwrap_or(PURGE_CHUNK));
        let mut next = None;
        if let Some(queue) = index.flows.find_queue(queue.as_str()) {
            let of_queue = |slot: &u32, index: &super::index::Index| {
                let entry = &index.entries[*slot];
                matches!(entry.state, State::Ready | State::Delayed)
                    && index.flows.flow(entry.flow).queue == queue
            };
            let chunk = index.entries.chunk(cursor).map(|(slot, _)| slot);
            let slots: Vec<u32> = chunk.filter(|slot| of_queue(slot, &index)).take(max).collect();
            // A chunk that gave all that was asked may have more.
            next = match slots.len() < max {
                true if cursor + 1 < index.entries.chunks() => Some(cursor + 1),
                true => None,
                false => Some(cursor),
            };
            for slot in slots {
                index.take_out(slot);
                let generation = index.next_generation();
                let entry = &mut index.entries[slot];
                entry.state = State::Removing;
                entry.flags |= Entry::SETTLING;
                entry.generation = generation;
                let (flow, id) = (entry.flow, entry.id);
                index.flows.queue_of(flow).depth.unacknowledged += 1;
                draft.frame.ack(id);
                marks.push(Mark { slot, generation });
            }
        }
        drop(index);
        (Marks { core: Arc::clone(self), marks }, draft, next)
    }
}

fn check_settlement(settlement: &Settlement) -> Result<(), BrokerError> {
    if settlement.tokens.len() > Settlement::MAX_TOKENS {
        return Err(BrokerError::Invalid(format!(
            "{} tokens are more than {} for one settlement",
            settlement.tokens.len(),
            Settlement::MAX_TOKENS
        )));
    }
    for publish in &settlement.publishes {
        if let Some(why) = objection(publish) {
            return Err(BrokerError::Invalid(why));
        }
        if let Body::Kept(token) = publish.body
            && !settlement.tokens.contains(&token)
        {
            let why = "a body can only be kept of a message that is settled with it";
            return Err(BrokerError::Invalid(why.to_owned()));
        }
    }
    Ok(())
}

/// The operations of a settlement.
fn compose(
    publishes: &[Publish],
    held: &HashMap<Token, Held>,
    settled: &HashSet<Uuid>,
    kept: &HashMap<Token, Kept>,
    live: &HashSet<Uuid>,
) -> Result<Draft, BrokerError> {
    let mut draft = Draft::default();
    let mut ids = HashSet::with_capacity(publishes.len());
    let (mut puts, mut copies, mut heads, mut replacing) = (vec![], vec![], vec![], vec![]);
    for publish in publishes {
        let replaces = settled.contains(&publish.id);
        if let Body::Kept(token) = publish.body {
            // A copy of a dead token's message would double it.
            let Some(source) = held.get(&token) else { continue };
            if source.id == publish.id && ids.insert(publish.id) {
                heads.push(publish);
            } else if ids.insert(publish.id) && (replaces || !live.contains(&publish.id)) {
                copies.push((publish, token, replaces));
            }
        } else if ids.insert(publish.id) && (replaces || !live.contains(&publish.id)) {
            if replaces { replacing.push(publish) } else { puts.push(publish) }
        }
    }
    let all = puts.iter().chain(&replacing).copied();
    draft.bodies(all).map_err(BrokerError::Invalid)?;
    puts.into_iter().for_each(|publish| draft.put(publish));
    let copy = |draft: &mut Draft, late: bool| {
        for (publish, token, replaces) in &copies {
            if let Some(kept) = kept.get(token).filter(|_| *replaces == late) {
                draft.copy(publish, kept);
            }
        }
    };
    copy(&mut draft, false);
    for publish in &heads {
        draft.frame.rehead(&meta(publish));
    }
    let reheaded: HashSet<Uuid> = heads.iter().map(|publish| publish.id).collect();
    for settled in held.values().filter(|held| !reheaded.contains(&held.id)) {
        draft.frame.ack(settled.id);
    }
    replacing.into_iter().for_each(|publish| draft.put(publish));
    copy(&mut draft, true);
    Ok(draft)
}
