//! What is gone leaves nothing in memory, and what is due comes by itself.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use posthaste_model::{Clock, ManualClock, SystemClock, Timestamp};

use super::{acknowledge, messages, name, open};
use crate::{
    contract::{Broker, Credit, Publish, SubscribeOptions},
    embedded::{EmbeddedConfig, EmbeddedQueue},
    suite::{self, AMPLE},
};

#[tokio::test]
async fn a_stopped_consumer_forgets_flows_that_others_drained() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let queue = open(dir.path()).unwrap();
    let none = Credit { messages: 0, ..AMPLE.credit };
    let stopped = SubscribeOptions { credit: none, ..AMPLE };
    let _stopped = queue.subscribe(&pool, stopped).await.unwrap();
    let mut other = queue.subscribe(&pool, AMPLE).await.unwrap();
    for round in 0..20 {
        let one = |n| suite::in_flow(&pool, &format!("{round}.{n}.test"), "text");
        queue.publish((0..100).map(one).collect()).await.unwrap();
        let taken = suite::take(&mut *other, 100).await;
        acknowledge(&queue, &taken).await;
    }
    let index = queue.core.index.lock();
    for consumer in index.consumers.iter().flatten() {
        // Of the last round, and what is found out later.
        assert!(consumer.ringed() <= 64 + 2 * 100 + 1, "{}", consumer.ringed());
        assert_eq!(consumer.shared_flows(), 0);
    }
    assert_eq!(index.entries.live(), 0);
    assert!(index.flows.queues.iter().all(|queue| queue.flows.is_empty()));
}

#[tokio::test]
async fn what_is_purged_before_its_time_is_forgotten() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let queue = open(dir.path()).unwrap();
    let due = Some(SystemClock.now().plus(Duration::from_secs(3600)));
    for _ in 0..5 {
        let batch = messages(&pool, (0..500).map(|n| n.to_string()));
        let batch = batch.into_iter().map(|publish| Publish { due, ..publish });
        queue.publish(batch.collect()).await.unwrap();
        assert_eq!(queue.purge(&pool).await.unwrap(), 500);
    }
    let index = queue.core.index.lock();
    let waiting: usize = index.flows.queues.iter().map(|queue| queue.delayed.len()).sum();
    assert!(waiting <= 130, "{waiting}");
}

#[tokio::test]
async fn what_is_due_comes_by_itself() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let queue = open(dir.path()).unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let due = |millis| Some(SystemClock.now().plus(Duration::from_millis(millis)));
    let [mut later, mut sooner] = [suite::message(&pool, "b"), suite::message(&pool, "a")];
    (later.due, sooner.due) = (due(120), due(40));
    let expected = [sooner.due, later.due];
    queue.publish(vec![later]).await.unwrap();
    // It waits for the first when the second comes, which is due before it.
    let waiting = tokio::spawn(async move {
        let mut came = Vec::new();
        for _ in 0..2 {
            came.extend(suite::texts(&suite::take(&mut *subscription, 1).await));
            came.push(SystemClock.now().to_string());
        }
        came
    });
    tokio::task::yield_now().await;
    queue.publish(vec![sooner]).await.unwrap();
    let came = waiting.await.unwrap();
    assert_eq!((came[0].as_str(), came[2].as_str()), ("a", "b"));
    for (at, due) in [&came[1], &came[3]].into_iter().zip(expected) {
        assert!(*at >= due.unwrap().to_string(), "{at} is before {due:?}");
    }
}

#[tokio::test]
async fn a_jump_of_the_clock_is_noticed() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
    let queue = EmbeddedQueue::open(EmbeddedConfig::new(dir.path()), clock.clone()).unwrap();
    let mut one = suite::message(&pool, "one");
    one.due = Some(Timestamp::from_millis(3_600_000));
    queue.publish(vec![one]).await.unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let waiting = tokio::spawn(async move { suite::take(&mut *subscription, 1).await.len() });
    tokio::task::yield_now().await;
    clock.advance(Duration::from_secs(3600));
    assert_eq!(waiting.await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_not_in_memory_is_read() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let config = EmbeddedConfig { cache_bytes: 0, ..EmbeddedConfig::new(dir.path()) };
    let queue = EmbeddedQueue::open(config, Arc::new(SystemClock)).unwrap();
    let batch = messages(&pool, (0..200).map(|n| n.to_string()));
    queue.publish(batch).await.unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    // Cancelled while it reads, again and again.
    let mut seen = Vec::new();
    while seen.len() < 200 {
        tokio::select! {
            biased;
            taken = subscription.next() => seen.extend(suite::texts(&taken.unwrap())),
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(seen.iter().eq(&(0..200).map(|n| n.to_string()).collect::<Vec<_>>()));
    assert_eq!(queue.damaged(), 0);
    // And dropped while it reads.
    let mut one = suite::message(&pool, "last");
    one.head = Bytes::new();
    queue.publish(vec![one]).await.unwrap();
    tokio::select! {
        biased;
        _ = subscription.next() => {}
        () = std::future::ready(()) => {}
    }
    drop(subscription);
    assert_eq!(queue.depth(&pool).await.unwrap().ready, 201);
}
