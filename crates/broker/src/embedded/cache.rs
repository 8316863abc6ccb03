//! What was just published and not yet handed over, bounded in bytes, so that
//! a queue that is drained as fast as it fills reads nothing.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::HashMap;

/// Head and body of a message.
#[derive(Debug, Clone)]
pub struct Payload {
    /// The small part.
    pub head: Bytes,
    /// The large part.
    pub body: Bytes,
}

impl Payload {
    const fn size(&self) -> usize {
        // What the map and the order cost beside the bytes.
        self.head.len() + self.body.len() + 128
    }
}

/// Payloads by slot, the oldest dropped first.
#[derive(Debug, Default)]
pub struct Cache {
    max: usize,
    bytes: usize,
    serial: u64,
    kept: HashMap<u32, (u64, Payload)>,
    order: VecDeque<(u64, u32)>,
}

impl Cache {
    /// One that holds about so many bytes.
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// Keeps a payload, unless it would push out too much else.
    pub fn put(&mut self, slot: u32, payload: Payload) {
        self.take(slot);
        let size = payload.size();
        if size > self.max / 4 {
            return;
        }
        while self.bytes + size > self.max {
            let Some((serial, slot)) = self.order.pop_front() else { break };
            if self.kept.get(&slot).is_some_and(|(kept, _)| *kept == serial) {
                self.take(slot);
            }
        }
        self.serial += 1;
        self.bytes += size;
        self.kept.insert(slot, (self.serial, payload));
        self.order.push_back((self.serial, slot));
        if self.order.len() > 64 + 2 * self.kept.len() {
            let kept = &self.kept;
            self.order.retain(|(serial, slot)| kept.get(slot).is_some_and(|(s, _)| s == serial));
        }
    }

    /// Takes a payload out.
    pub fn take(&mut self, slot: u32) -> Option<Payload> {
        let (_, payload) = self.kept.remove(&slot)?;
        self.bytes -= payload.size();
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(len: usize) -> Payload {
        Payload { head: Bytes::new(), body: Bytes::from(vec![0; len]) }
    }

    #[test]
    fn is_bounded_and_drops_the_oldest() {
        let mut cache = Cache::new(10_000);
        for slot in 0..1000 {
            cache.put(slot, payload(872));
        }
        assert_eq!(cache.kept.len(), 10);
        assert!(cache.take(989).is_none());
        assert!(cache.take(990).is_some());
        for _ in 0..10_000 {
            cache.put(5, payload(10));
            cache.take(5);
        }
        assert!(cache.order.len() < 200);
        cache.put(6, payload(9000));
        assert!(cache.take(6).is_none());
    }
}
