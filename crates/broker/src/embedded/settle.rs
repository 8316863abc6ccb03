//! From a batch or a settlement of the contract to a frame.
//!
//! From its making until its commit, a settlement *marks* the entries that it
//! settles: a second settlement finds them stale, and the end of their
//! subscription does not give them back. A failure, or a future that is
//! dropped before its frame is handed over, takes the marks off.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Core,
    draft::{Draft, Held, Kept, check_size, compose, cost, meta, objection},
    handoff::{Failure, Frame},
    index::Mark,
    segment::ReadError,
    slab::Entry,
};
use crate::contract::{Body, BrokerError, Publish, PublishOutcome, Settlement, Token};

/// Said of a message whose shared body is in none of the segments.
pub const BODY_GONE: &str = "the segment with the shared body is missing";

/// Takes the marks off unless they were handed over.
pub struct Marks {
    /// Where they are.
    pub core: Arc<Core>,
    /// The marked entries.
    pub marks: Vec<Mark>,
}

impl Drop for Marks {
    fn drop(&mut self) {
        if !self.marks.is_empty() {
            self.core.index.lock().unmark(&self.marks);
        }
    }
}

impl Core {
    /// Hands a draft over and waits until it is durable.
    pub async fn commit(
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
        for publish in &batch {
            let kept = matches!(publish.body, Body::Kept(_));
            let kept = kept.then(|| "only a settlement can keep a body".to_owned());
            if let Some(why) = objection(publish).or(kept) {
                outcomes.push(PublishOutcome::Rejected(why));
            } else {
                outcomes.push(PublishOutcome::Durable);
                taken.push(publish);
            }
        }
        self.reserve.check()?;
        let bytes = cost(taken.iter().copied());
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
        let bytes: u64 = cost(&publishes) + 32 * tokens.len() as u64;
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
        let room = self.handoff.room(cost([publish])).await.map_err(Failure::NotTaken)?;
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
            let id = settled.id;
            kept.entry(token).or_insert(Kept { shared, id, bytes: Bytes::new() });
        }
        kept
    }

    /// Reads what has to be copied; returns how many bytes.
    async fn read_kept(
        self: &Arc<Self>,
        kept: &mut HashMap<Token, Kept>,
    ) -> Result<u64, BrokerError> {
        let mut copied = 0;
        for kept in kept.values_mut().filter(|kept| kept.shared.is_none()) {
            let (core, id) = (Arc::clone(self), kept.id);
            let read = tokio::task::spawn_blocking(move || core.read_body(id)).await;
            let bytes = read
                .unwrap_or_else(|error| Err(ReadError::lasting(error.to_string())))
                .map_err(|error| BrokerError::Storage(error.why))?;
            copied += bytes.len() as u64;
            kept.bytes = bytes;
        }
        Ok(copied)
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
