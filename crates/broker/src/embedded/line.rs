//! The line in which work waits for the one thread that does it.
//!
//! Nothing that was let in is lost, done twice or done out of order; once the
//! line is closed nothing more is let in, and its end is seen only when it is
//! empty. A model of all interleavings is in `tests/loom.rs`, so this file
//! knows nothing of the rest.

use std::collections::VecDeque;

#[cfg(all(loom, test))]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(all(loom, test)))]
use std::sync::{Condvar, Mutex, MutexGuard};

/// Most requests that wait.
const MAX_ASKED: usize = 16;

/// What has a size.
pub trait Weigh {
    /// Bytes.
    fn weight(&self) -> u64;
}

/// What there is to do.
#[derive(Debug)]
pub enum Work<T, R> {
    /// What waited, in its order.
    Items(VecDeque<T>),
    /// Somebody asked for something beside it.
    Asked(R),
    /// Nothing waits, for who has something else to do.
    Nothing,
    /// Nothing waits and nothing will come.
    Closed,
}

#[derive(Debug)]
struct Waiting<T, R> {
    items: VecDeque<T>,
    asked: VecDeque<R>,
    closed: bool,
}

/// The line. Bounded by who lets in: see `handoff`.
#[derive(Debug)]
pub struct Line<T, R> {
    waiting: Mutex<Waiting<T, R>>,
    arrived: Condvar,
}

impl<T, R> Default for Line<T, R> {
    fn default() -> Self {
        let waiting = Waiting { items: VecDeque::new(), asked: VecDeque::new(), closed: false };
        Self { waiting: Mutex::new(waiting), arrived: Condvar::new() }
    }
}

impl<T: Weigh, R> Line<T, R> {
    /// The state is whole between any two lines of this file, so a panic of
    /// another thread does not matter.
    fn lock(&self) -> MutexGuard<'_, Waiting<T, R>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets an item in; gives it back when the line is closed.
    pub fn push(&self, item: T) -> Result<(), T> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(item);
        }
        waiting.items.push_back(item);
        self.arrived.notify_one();
        Ok(())
    }

    /// Lets a request in; gives it back when the line is closed or too many
    /// wait.
    pub fn ask(&self, request: R) -> Result<(), R> {
        let mut waiting = self.lock();
        if waiting.closed || waiting.asked.len() >= MAX_ASKED {
            return Err(request);
        }
        waiting.asked.push_back(request);
        self.arrived.notify_one();
        Ok(())
    }

    /// Lets nothing in any more. What waits is still taken; requests are not.
    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.asked.clear();
        self.arrived.notify_one();
    }

    /// What waits and will not be taken.
    pub fn abandon(&self) -> VecDeque<T> {
        std::mem::take(&mut self.lock().items)
    }

    /// Weight of what waits.
    #[cfg(test)]
    pub fn weight(&self) -> u64 {
        self.lock().items.iter().map(Weigh::weight).sum()
    }

    /// What there is to do: a request, or items up to a weight, at least one.
    /// Waits for it, unless there is other work meanwhile.
    pub fn take(&self, max_weight: u64, busy: bool) -> Work<T, R> {
        let mut waiting = self.lock();
        loop {
            if let Some(request) = waiting.asked.pop_front() {
                return Work::Asked(request);
            }
            if !waiting.items.is_empty() {
                break;
            }
            if waiting.closed {
                return Work::Closed;
            }
            if busy {
                return Work::Nothing;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let mut weight = 0;
        let fits = waiting.items.iter().take_while(|item| {
            weight += item.weight();
            weight <= max_weight
        });
        let count = fits.count().max(1);
        if count == waiting.items.len() {
            return Work::Items(std::mem::take(&mut waiting.items));
        }
        Work::Items(waiting.items.drain(..count).collect())
    }
}
