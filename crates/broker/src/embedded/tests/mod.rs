//! Tests of the embedded queue: the contract suite, and what is its own.

mod bench;
mod bounds;
mod compact;
mod damage;
mod faults;
mod fuzz;
mod model;
mod records;
mod recycle;
mod space;
mod upgrade;

use std::{path::Path, sync::Arc};

use posthaste_model::SystemClock;

use super::{EmbeddedConfig, EmbeddedQueue};
use crate::{
    contract::{Broker, BrokerError, Delivery, Publish, QueueName, Settlement},
    suite::{self, AMPLE},
};

/// A queue with segments of 64 KiB that is closed in order when dropped.
fn open(dir: &Path) -> Result<Arc<EmbeddedQueue>, BrokerError> {
    let config = EmbeddedConfig { segment_bytes: 64 << 10, ..EmbeddedConfig::new(dir) };
    EmbeddedQueue::open(config, Arc::new(SystemClock))
}

fn name(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn messages(queue: &QueueName, texts: impl IntoIterator<Item = String>) -> Vec<Publish> {
    texts.into_iter().map(|text| suite::message(queue, &text)).collect()
}

/// All that is in a queue, without taking it away.
async fn all(queue: &EmbeddedQueue, name: &QueueName) -> Vec<Delivery> {
    let count = usize::try_from(queue.depth(name).await.unwrap().ready).unwrap();
    let mut subscription = queue.subscribe(name, AMPLE).await.unwrap();
    suite::take(&mut *subscription, count).await
}

async fn acknowledge(queue: &EmbeddedQueue, deliveries: &[Delivery]) {
    let settlement = Settlement { tokens: suite::tokens(deliveries), publishes: vec![] };
    for result in queue.settle(settlement).await.unwrap() {
        result.unwrap();
    }
}

/// The segments in a directory, oldest first.
fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|of| of == "seg")).collect();
    files.sort();
    files
}
