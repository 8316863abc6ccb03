//! A look into a queue, in the order of ids.
//!
//! The entries are not sorted by id, so a look walks all of them, a chunk at a
//! time, and lets go of the lock between: it is for operators, not for paths
//! that must be fast.

use std::{collections::BinaryHeap, sync::Arc};

use posthaste_model::Timestamp;
use uuid::Uuid;

use super::{Core, admin::message_state, index::Index, record::NO_DUE};
use crate::contract::{BrokerError, Browsed, QueueName};

/// Most messages of one look.
const MAX_LIMIT: usize = 10_000;

impl Core {
    /// See [`crate::Broker::browse`].
    pub async fn browse(
        self: &Arc<Self>,
        queue: &QueueName,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Browsed>, BrokerError> {
        let (core, queue) = (Arc::clone(self), queue.clone());
        let look = move || core.look_into(&queue, after, limit.min(MAX_LIMIT));
        tokio::task::spawn_blocking(look).await.map_err(|_| BrokerError::Closed)?
    }

    fn look_into(
        &self,
        queue: &QueueName,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<Browsed>, BrokerError> {
        let mut first: BinaryHeap<Uuid> = BinaryHeap::with_capacity(limit + 1);
        let mut chunk = 0;
        loop {
            let mut index = self.index.lock();
            if let Some(error) = &index.closed {
                return Err(error.clone());
            }
            let Some(number) = index.flows.find_queue(queue.as_str()) else {
                return Ok(Vec::new());
            };
            index.promote(number, self.clock.now().as_millis());
            if chunk >= index.entries.chunks() {
                break;
            }
            for (_, entry) in index.entries.chunk(chunk) {
                let wanted = index.flows.flow(entry.flow).queue == number
                    && after.is_none_or(|after| entry.id > after);
                if wanted {
                    first.push(entry.id);
                    if first.len() > limit {
                        first.pop();
                    }
                }
            }
            chunk += 1;
        }
        let mut browsed = Vec::with_capacity(first.len());
        for id in first.into_sorted_vec() {
            // It may have gone or moved meanwhile.
            let found = browsed_entry(&self.index.lock(), queue, id);
            let Some(mut found) = found else { continue };
            match self.read_head(id) {
                Ok(head) => found.head = head,
                Err(error) => {
                    tracing::error!(%id, why = error.why, "a message in a queue cannot be read")
                }
            }
            browsed.push(found);
        }
        Ok(browsed)
    }
}

fn browsed_entry(index: &Index, queue: &QueueName, id: Uuid) -> Option<Browsed> {
    let slot = index.find(id)?;
    let entry = &index.entries[slot];
    let flow = index.flows.flow(entry.flow);
    if index.flows.queues[flow.queue as usize].name != *queue {
        return None;
    }
    let browsed = Browsed {
        id,
        priority: entry.priority,
        due: (entry.due != NO_DUE).then(|| Timestamp::from_millis(entry.due)),
        flow_key: flow.key.clone(),
        head: bytes::Bytes::new(),
        body_len: u64::from(entry.body_len),
        state: message_state(entry.state),
    };
    Some(browsed)
}
