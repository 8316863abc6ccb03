//! Frames being made from publishes.
//!
//! The order of operations in a frame: shared bodies, messages, new heads,
//! acknowledgements, and last the messages that replace an acknowledged one of
//! the same id.

use std::collections::VecDeque;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use uuid::Uuid;

use super::{
    cache::Payload,
    frame::MAX_FRAME,
    record::{BodyKey, FrameBuilder, Meta, NO_DUE, body_len},
};
use crate::contract::{Body, BrokerError, FlowKey, Publish, Token};

/// Why a publish is not within the contract; `None` when it is.
pub fn objection(publish: &Publish) -> Option<String> {
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

pub fn meta(publish: &Publish) -> Meta<'_> {
    Meta {
        id: publish.id,
        queue: publish.queue.as_str(),
        priority: publish.priority,
        due: publish.due.map_or(NO_DUE, |due| due.as_millis().max(NO_DUE + 1)),
        flow_key: publish.flow_key.as_str(),
        head: &publish.head,
        head_at: 0,
        sum: None,
    }
}

/// About what these take in a frame; never less.
pub fn cost<'a>(publishes: impl IntoIterator<Item = &'a Publish>) -> u64 {
    let mut shared = HashSet::new();
    let one = |publish: &Publish| {
        let body = match &publish.body {
            Body::Inline(bytes) => bytes.len(),
            Body::Shared(body) if shared.insert(body.id) => body.bytes.len(),
            Body::Shared(_) | Body::Kept(_) => 0,
        };
        (publish.head.len() + body + 640) as u64
    };
    publishes.into_iter().map(one).sum()
}

/// Refuses what does not fit in a frame.
pub fn check_size(bytes: u64) -> Result<(), BrokerError> {
    if bytes < MAX_FRAME {
        return Ok(());
    }
    Err(BrokerError::Invalid(format!(
        "a batch of {bytes} bytes is larger than {MAX_FRAME}: publish it in parts"
    )))
}

/// A frame being made from publishes.
#[derive(Default)]
pub struct Draft {
    /// What is written.
    pub frame: FrameBuilder,
    /// One for each put.
    pub payloads: VecDeque<Option<Payload>>,
    bodies: HashMap<Uuid, (BodyKey, Bytes)>,
}

impl Draft {
    /// Writes the shared bodies of these first.
    pub fn bodies<'a>(
        &mut self,
        publishes: impl Iterator<Item = &'a Publish>,
    ) -> Result<(), String> {
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

    /// A message with the body that it brings.
    pub fn put(&mut self, publish: &Publish) {
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
pub struct Held {
    /// Its entry.
    pub slot: u32,
    /// Its message.
    pub id: Uuid,
}

/// The body of a settled message that a copy with another id needs.
pub struct Kept {
    /// Its key, when it is shared.
    pub shared: Option<BodyKey>,
    /// Whose it is.
    pub id: Uuid,
    /// Its bytes, when they were read to be copied.
    pub bytes: Bytes,
}

/// The operations of a settlement.
pub fn compose(
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
