//! A subscription of the embedded queue.
//!
//! It has no task and no buffer of its own: [`Subscription::next`] picks from
//! the index when it is called, so a consumer that stops costs no memory. What
//! has to be read from the disk is read by a blocking task, which the
//! subscription keeps when `next` is cancelled.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use super::{
    Core,
    consumer::{Part, Picked},
    quarantine::PUT_OFF,
    segment::ReadError,
    settle::BODY_GONE,
};
use crate::contract::{
    BrokerError, Credit, Delivery, FlowKey, QueueName, SubscribeOptions, Subscription,
};

/// Most messages handed over at once.
const BATCH: usize = 64;
/// The wall clock may jump: it is looked at this often while something waits
/// for its due time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

type ReadResult = Vec<(Picked, Result<(Bytes, Bytes), Damage>)>;

/// A message that cannot be read.
struct Damage {
    /// The small part, when at least that can.
    head: Option<Bytes>,
    error: ReadError,
}

/// See the module.
pub struct EmbeddedSubscription {
    core: Arc<Core>,
    queue: u32,
    slot: u32,
    epoch: u64,
    notify: Arc<Notify>,
    reading: Option<JoinHandle<ReadResult>>,
}

enum Look {
    Deliver(Vec<Picked>),
    Wait(Option<Duration>),
}

impl EmbeddedSubscription {
    /// Starts to consume.
    ///
    /// # Errors
    /// When the queue was closed.
    pub fn start(
        core: Arc<Core>,
        queue: &QueueName,
        options: SubscribeOptions,
    ) -> Result<Self, BrokerError> {
        let notify = Arc::new(Notify::new());
        let mut index = core.index.lock();
        if let Some(error) = &index.closed {
            return Err(error.clone());
        }
        let queue = index.flows.queue(queue);
        let (slot, epoch) = index.add_consumer(queue, options, Arc::clone(&notify));
        drop(index);
        Ok(Self { core, queue, slot, epoch, notify, reading: None })
    }

    fn look(&self) -> Result<Look, BrokerError> {
        let now = self.core.clock.now().as_millis();
        let mut index = self.core.index.lock();
        if let Some(error) = &index.closed {
            return Err(error.clone());
        }
        if index.consumer(self.slot, self.epoch).is_none() {
            return Err(BrokerError::Closed);
        }
        let due = index.promote(self.queue, now);
        let picked = index.pick(self.slot, BATCH);
        if !picked.is_empty() {
            return Ok(Look::Deliver(picked));
        }
        Ok(Look::Wait(due.map(|due| {
            let millis = u64::try_from(due.saturating_sub(now)).unwrap_or(0);
            Duration::from_millis(millis).min(LOOK_AGAIN)
        })))
    }

    /// What needs no reading at once, the rest by a blocking task.
    fn deliver(&mut self, picked: Vec<Picked>) -> Vec<Delivery> {
        let in_memory = |p: &Picked| matches!((&p.head, &p.body), (Part::Here(_), Part::Here(_)));
        if !picked.iter().all(in_memory) {
            let core = Arc::clone(&self.core);
            let read = move || picked.into_iter().map(|p| read(&core, p)).collect();
            self.reading = Some(tokio::task::spawn_blocking(read));
            return Vec::new();
        }
        let handed_over = Instant::now();
        let here = |part| match part {
            Part::Here(bytes) => bytes,
            Part::At(_) | Part::Missing => Bytes::new(),
        };
        picked
            .into_iter()
            .map(|mut p| {
                let head = here(std::mem::replace(&mut p.head, Part::Missing));
                let body = here(std::mem::replace(&mut p.body, Part::Missing));
                delivery(p, head, body, handed_over)
            })
            .collect()
    }

    fn readable(&self, read: ReadResult) -> Vec<Delivery> {
        let handed_over = Instant::now();
        let mut deliveries = Vec::with_capacity(read.len());
        for (picked, parts) in read {
            match parts {
                Ok((head, body)) => deliveries.push(delivery(picked, head, body, handed_over)),
                Err(damage) => {
                    let (id, why) = (picked.id, damage.error.why);
                    if damage.error.may_pass {
                        tracing::error!(%id, why, "a message cannot be read now: it waits for {PUT_OFF:?}");
                        self.core.put_off(picked.token);
                        continue;
                    }
                    self.core.damaged.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%id, why, "a message cannot be read: it goes to quarantine");
                    self.core.quarantine(picked.token, damage.head);
                }
            }
        }
        deliveries
    }
}

fn delivery(picked: Picked, head: Bytes, body: Bytes, handed_over: Instant) -> Delivery {
    Delivery {
        token: picked.token,
        id: picked.id,
        priority: picked.priority,
        flow_key: picked.flow_key,
        head,
        body,
        redelivered: picked.redelivered,
        handed_over,
    }
}

fn read(core: &Core, picked: Picked) -> (Picked, Result<(Bytes, Bytes), Damage>) {
    // What has moved since it was picked is looked up again.
    let head = match &picked.head {
        Part::Here(bytes) => Ok(bytes.clone()),
        Part::At(span) => core.reader.read(*span).or_else(|_| core.read_head(picked.id)),
        Part::Missing => Err(ReadError::lasting(BODY_GONE)),
    };
    let body = || match &picked.body {
        Part::Here(bytes) => Ok(bytes.clone()),
        Part::At(span) if picked.shared => {
            core.reader.read_shared(*span).or_else(|_| core.read_body(picked.id))
        }
        Part::At(span) => core.reader.read(*span).or_else(|_| core.read_body(picked.id)),
        Part::Missing => Err(ReadError::lasting(BODY_GONE)),
    };
    let result = match head {
        Err(error) => Err(Damage { head: None, error }),
        Ok(head) => match body() {
            Err(error) => Err(Damage { head: Some(head), error }),
            Ok(body) => Ok((head, body)),
        },
    };
    (picked, result)
}

#[async_trait]
impl Subscription for EmbeddedSubscription {
    async fn next(&mut self) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                let Ok(read) = read else {
                    // The runtime ends. What was picked goes back.
                    self.core.index.lock().end_consumer(self.slot, self.epoch);
                    return Err(BrokerError::Closed);
                };
                let deliveries = self.readable(read);
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
            }
            match self.look()? {
                Look::Deliver(picked) => {
                    let deliveries = self.deliver(picked);
                    if !deliveries.is_empty() {
                        return Ok(deliveries);
                    }
                }
                Look::Wait(None) => self.notify.notified().await,
                Look::Wait(Some(wait)) => {
                    // Either way it looks again.
                    tokio::select! {
                        () = self.notify.notified() => {}
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    fn set_credit(&self, credit: Credit) {
        self.core.index.lock().set_credit(self.slot, self.epoch, credit);
    }

    fn block(&self, flow_key: &FlowKey) {
        self.core.index.lock().set_blocked(self.slot, self.epoch, flow_key, true);
    }

    fn unblock(&self, flow_key: &FlowKey) {
        self.core.index.lock().set_blocked(self.slot, self.epoch, flow_key, false);
    }
}

impl Drop for EmbeddedSubscription {
    fn drop(&mut self) {
        self.core.index.lock().end_consumer(self.slot, self.epoch);
    }
}
