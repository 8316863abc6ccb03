//! Messages of one subscription between the reader and who takes them.
//!
//! Bounded by messages and bytes, but one message always fits. The reader waits
//! while it is full, and with it the broker.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::consume::Message;
use crate::{error::LinkError, message::Settling};

pub(super) struct Buffer {
    settling: Settling,
    max_messages: usize,
    max_bytes: usize,
    state: Mutex<State>,
    // One task takes and one puts in: a stored permit is enough for each.
    readable: Notify,
    writable: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    bytes: usize,
    stopped: bool,
    ended: Option<LinkError>,
}

/// Most messages that are taken at once.
const BATCH: usize = 256;

impl Buffer {
    pub(super) fn new(settling: Settling, max_messages: usize, max_bytes: usize) -> Self {
        Self {
            settling,
            max_messages,
            max_bytes,
            state: Mutex::default(),
            readable: Notify::new(),
            writable: Notify::new(),
        }
    }

    /// Who acknowledges its messages.
    pub(super) const fn settling(&self) -> Settling {
        self.settling
    }

    /// Puts a message in, when there is room. It is dropped when the
    /// subscription has stopped.
    pub(super) async fn put(&self, message: Message) {
        let bytes = message.bytes();
        let mut message = Some(message);
        loop {
            {
                let mut state = self.state.lock();
                if state.stopped || state.ended.is_some() {
                    return;
                }
                let room = state.queue.is_empty()
                    || (state.queue.len() < self.max_messages
                        && state.bytes.saturating_add(bytes) <= self.max_bytes);
                if room {
                    state.queue.extend(message.take());
                    state.bytes = state.bytes.saturating_add(bytes);
                    self.readable.notify_one();
                    return;
                }
            }
            self.writable.notified().await;
        }
    }

    /// Waits for messages. Cancelling loses nothing.
    pub(super) async fn take(&self) -> Result<Vec<Message>, LinkError> {
        loop {
            {
                let mut state = self.state.lock();
                if let Some(cause) = &state.ended {
                    return Err(cause.clone());
                }
                if state.stopped {
                    return Err(LinkError::Closed);
                }
                if !state.queue.is_empty() {
                    let count = state.queue.len().min(BATCH);
                    let taken: Vec<_> = state.queue.drain(..count).collect();
                    let bytes: usize = taken.iter().map(Message::bytes).sum();
                    state.bytes = state.bytes.saturating_sub(bytes);
                    self.writable.notify_one();
                    return Ok(taken);
                }
            }
            self.readable.notified().await;
        }
    }

    /// Nothing is handed over any more; what waits is dropped unacknowledged.
    pub(super) fn stop(&self) {
        self.finish(|state| state.stopped = true);
    }

    /// The connection has ended.
    pub(super) fn end(&self, cause: LinkError) {
        self.finish(|state| state.ended = Some(cause));
    }

    fn finish(&self, mark: impl FnOnce(&mut State)) {
        let dropped = {
            let mut state = self.state.lock();
            mark(&mut state);
            state.bytes = 0;
            std::mem::take(&mut state.queue)
        };
        drop(dropped);
        self.readable.notify_one();
        self.writable.notify_one();
    }
}
