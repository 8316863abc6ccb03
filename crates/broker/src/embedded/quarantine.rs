//! What becomes of a message whose parts cannot be read.
//!
//! For a cause that may pass (no file descriptor left, a disk that fails for a
//! moment) it waits in its queue. When it is damaged it leaves its queue for `quarantine`, with a due time at the end of time:
//! it is seen there and can be purged, and nobody is handed it again. When not
//! even its head can be read it stays where it is, in the same way, until the
//! next start.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use posthaste_model::{QUARANTINE, Timestamp};

use super::{Core, handoff::Failure};
use crate::contract::{Body, Publish, QueueName, Token};

/// How long a message waits that could not be read for a cause that may pass.
pub(super) const PUT_OFF: Duration = Duration::from_secs(10);

impl Core {
    /// Puts a message that was picked back into its queue for a while. Nothing
    /// is written: after a restart it is there at once.
    pub fn put_off(&self, token: Token) {
        let now = self.clock.now();
        let mut index = self.index.lock();
        let Some(slot) = index.held(token) else { return };
        index.take_out(slot);
        index.entries[slot].due = now.plus(PUT_OFF).as_millis();
        index.enqueue(slot, now.as_millis());
    }

    /// Takes a message that was picked and cannot be read out of the way.
    pub fn quarantine(self: &Arc<Self>, token: Token, head: Option<Bytes>) {
        let now = self.clock.now().as_millis();
        let mut index = self.index.lock();
        let Some(slot) = index.held(token) else { return };
        index.take_out(slot);
        index.entries[slot].due = i64::MAX;
        index.enqueue(slot, now);
        let entry = &index.entries[slot];
        let (id, priority) = (entry.id, entry.priority);
        let flow = index.flows.flow(entry.flow);
        let already = index.flows.queues[flow.queue as usize].name.as_str() == QUARANTINE;
        let flow_key = flow.key.clone();
        drop(index);
        let (Some(head), Ok(queue)) = (head, QueueName::new(QUARANTINE)) else { return };
        if already {
            return;
        }
        let due = Some(Timestamp::from_millis(i64::MAX));
        let body = Body::Kept(token);
        let publish = Publish { queue, id, priority, due, flow_key, head, body };
        let core = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(Failure::NotTaken(error) | Failure::Unknown(error)) =
                core.rehead(&publish).await
            {
                tracing::error!(%id, %error, "a damaged message could not be moved to quarantine: it stays in its queue");
            }
        });
    }
}
