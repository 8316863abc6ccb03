//! What an operator does with single messages: look at one, remove some, move
//! some to another queue.
//!
//! Only what is ready or delayed is removed or moved. Each call works in
//! chunks: after a failure, those before it are done.

use std::sync::Arc;

use bytes::Bytes;
use posthaste_model::Timestamp;
use uuid::Uuid;

use super::{
    Core, EmbeddedQueue,
    draft::Draft,
    handoff::Failure,
    index::{Index, Mark},
    record::{Meta, NO_DUE},
    settle::Marks,
    slab::{Entry, State},
};
use crate::contract::{BrokerError, Browsed, FlowKey, MessageState, QueueName};

/// Most messages of one frame.
const CHUNK: usize = 256;

/// A message as it is stored.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its id.
    pub id: Uuid,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: u8,
    /// Its due time.
    pub due: Option<Timestamp>,
    /// Its flow key.
    pub flow_key: FlowKey,
    /// Where it stands.
    pub state: MessageState,
    /// The small part, or why it cannot be read.
    pub head: Result<Bytes, String>,
    /// The large part, or why it cannot be read.
    pub body: Result<Bytes, String>,
    /// Whether other messages may share the body.
    pub shared_body: bool,
}

/// Where an entry stands, for who looks.
pub const fn message_state(state: State) -> MessageState {
    match state {
        State::Ready => MessageState::Ready,
        State::Delayed => MessageState::Delayed,
        State::Unacknowledged | State::Removing | State::Free => MessageState::Unacknowledged,
    }
}

impl Index {
    /// Takes an entry that is ready or delayed out of its list, until a frame
    /// that ends or moves it is durable.
    pub fn mark_removing(&mut self, slot: u32) -> Mark {
        self.take_out(slot);
        let generation = self.next_generation();
        let entry = &mut self.entries[slot];
        entry.state = State::Removing;
        entry.flags |= Entry::SETTLING;
        entry.generation = generation;
        let flow = entry.flow;
        self.flows.queue_of(flow).depth.unacknowledged += 1;
        Mark { slot, generation }
    }

    fn movable(&self, queue: &QueueName, id: Uuid) -> Option<u32> {
        let slot = self.find(id)?;
        let entry = &self.entries[slot];
        let of = self.flows.flow(entry.flow).queue;
        let same = self.flows.queues[of as usize].name == *queue;
        (same && matches!(entry.state, State::Ready | State::Delayed)).then_some(slot)
    }
}

impl EmbeddedQueue {
    /// Reads one message. Blocks on the disk for a moment.
    ///
    /// # Errors
    /// When the queue was closed.
    pub async fn message(&self, id: Uuid) -> Result<Option<StoredMessage>, BrokerError> {
        let core = Arc::clone(&self.core);
        let read = tokio::task::spawn_blocking(move || core.stored(id));
        read.await.map_err(|_| BrokerError::Closed)?
    }

    /// Removes those of these messages that are in the queue and not handed
    /// over; returns how many.
    ///
    /// # Errors
    /// When the rest was not removed.
    pub async fn remove(&self, queue: &QueueName, ids: &[Uuid]) -> Result<u64, BrokerError> {
        let mut removed = 0;
        for some in ids.chunks(CHUNK) {
            let room = self.core.handoff.room(CHUNK as u64 * 32).await?;
            let (marks, draft) = self.core.mark_removal(queue, some)?;
            let count = marks.marks.len() as u64;
            if count > 0 {
                self.core.commit(draft, Some(marks), room).await.map_err(Failure::into_error)?;
            }
            removed += count;
        }
        Ok(removed)
    }

    /// Moves messages that are not handed over to another queue, as they are:
    /// these, or all that are there now. Returns how many.
    ///
    /// # Errors
    /// When the rest was not moved.
    pub async fn move_messages(
        &self,
        from: &QueueName,
        to: &QueueName,
        ids: Option<&[Uuid]>,
    ) -> Result<u64, BrokerError> {
        if from == to {
            return Ok(0);
        }
        let (mut moved, mut after) = (0, None);
        loop {
            let page = self.core.browse(from, after, 4096).await?;
            let Some(last) = page.last() else { return Ok(moved) };
            after = Some(last.id);
            let wanted = page.iter().filter(|one| ids.is_none_or(|ids| ids.contains(&one.id)));
            let wanted: Vec<&Browsed> = wanted.collect();
            for some in wanted.chunks(CHUNK) {
                let bytes = some.iter().map(|one| one.head.len() as u64 + 640).sum();
                let room = self.core.handoff.room(bytes).await?;
                let (marks, draft) = self.core.mark_move(from, to, some)?;
                let count = marks.marks.len() as u64;
                if count > 0 {
                    self.core
                        .commit(draft, Some(marks), room)
                        .await
                        .map_err(Failure::into_error)?;
                }
                moved += count;
            }
        }
    }
}

impl Core {
    fn stored(&self, id: Uuid) -> Result<Option<StoredMessage>, BrokerError> {
        let found = {
            let index = self.index.lock();
            if let Some(error) = &index.closed {
                return Err(error.clone());
            }
            index.find(id).map(|slot| {
                let entry = &index.entries[slot];
                let flow = index.flows.flow(entry.flow);
                StoredMessage {
                    id,
                    queue: index.flows.queues[flow.queue as usize].name.clone(),
                    priority: entry.priority,
                    due: (entry.due != NO_DUE).then(|| Timestamp::from_millis(entry.due)),
                    flow_key: flow.key.clone(),
                    state: message_state(entry.state),
                    head: Ok(Bytes::new()),
                    body: Ok(Bytes::new()),
                    shared_body: entry.has(Entry::SHARED),
                }
            })
        };
        let Some(mut found) = found else { return Ok(None) };
        found.head = self.read_head(id).map_err(String::from);
        found.body = self.read_body(id).map_err(String::from);
        Ok(Some(found))
    }

    fn mark_removal(
        self: &Arc<Self>,
        queue: &QueueName,
        ids: &[Uuid],
    ) -> Result<(Marks, Draft), BrokerError> {
        let mut index = self.index.lock();
        if let Some(error) = &index.closed {
            return Err(error.clone());
        }
        let (mut marks, mut draft) = (Vec::new(), Draft::default());
        for id in ids {
            let Some(slot) = index.movable(queue, *id) else { continue };
            marks.push(index.mark_removing(slot));
            draft.frame.ack(*id);
        }
        Ok((Marks { core: Arc::clone(self), marks }, draft))
    }

    fn mark_move(
        self: &Arc<Self>,
        from: &QueueName,
        to: &QueueName,
        some: &[&Browsed],
    ) -> Result<(Marks, Draft), BrokerError> {
        let mut index = self.index.lock();
        if let Some(error) = &index.closed {
            return Err(error.clone());
        }
        let (mut marks, mut draft) = (Vec::new(), Draft::default());
        for one in some {
            let Some(slot) = index.movable(from, one.id) else { continue };
            let entry = &index.entries[slot];
            // A head that could not be read, or that was replaced meanwhile.
            if entry.head_len as usize != one.head.len() {
                continue;
            }
            let (priority, due) = (entry.priority, entry.due);
            marks.push(index.mark_removing(slot));
            draft.frame.rehead(&Meta {
                id: one.id,
                queue: to.as_str(),
                priority,
                due,
                flow_key: one.flow_key.as_str(),
                head: &one.head,
                head_at: 0,
                sum: None,
            });
        }
        Ok((Marks { core: Arc::clone(self), marks }, draft))
    }
}
