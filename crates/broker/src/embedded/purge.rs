//! Purges: many acknowledgements without a token.

use std::sync::Arc;

use super::{Core, draft::Draft, handoff::Failure, index::Index, settle::Marks, slab::State};
use crate::contract::{BrokerError, QueueName};

/// Most acknowledgements of one frame.
const PURGE_CHUNK: usize = 1024;

impl Core {
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
            let of_queue = |slot: &u32, index: &Index| {
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
                let id = index.entries[slot].id;
                marks.push(index.mark_removing(slot));
                draft.frame.ack(id);
            }
        }
        drop(index);
        (Marks { core: Arc::clone(self), marks }, draft, next)
    }
}
