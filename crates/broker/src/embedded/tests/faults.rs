//! What the queue does when the disk fails.

use std::{path::Path, sync::Arc, time::Duration};

use posthaste_model::{ManualClock, SystemClock, Timestamp};

use super::{acknowledge, all, messages, name, open};
use crate::{
    contract::{Broker, BrokerError, Depth, LinkState, Publish, PublishOutcome, Settlement},
    embedded::{
        EmbeddedConfig, EmbeddedQueue,
        faulty::{Faults, FaultyDisk},
    },
    suite::{self, AMPLE},
};

fn open_faulty(dir: &Path, config: EmbeddedConfig) -> (FaultyDisk, Arc<EmbeddedQueue>) {
    let disk = FaultyDisk::default();
    let config = EmbeddedConfig { dir: dir.to_owned(), ..config };
    let queue = EmbeddedQueue::open_on(Arc::new(disk.clone()), config, Arc::new(SystemClock));
    (disk, queue.unwrap())
}

fn small() -> EmbeddedConfig {
    EmbeddedConfig { segment_bytes: 64 << 10, ..EmbeddedConfig::new("") }
}

async fn publish(queue: &EmbeddedQueue, batch: Vec<Publish>) -> Result<(), BrokerError> {
    let outcomes = queue.publish(batch).await?;
    assert!(outcomes.iter().all(|outcome| *outcome == PublishOutcome::Durable), "{outcomes:?}");
    Ok(())
}

/// Every text once, after a restart too.
async fn holds(dir: &Path, queue: Arc<EmbeddedQueue>, texts: &[&str]) {
    let pool = name("pool");
    assert_eq!(suite::texts(&all(&queue, &pool).await), texts);
    drop(queue);
    let queue = open(dir).unwrap();
    assert_eq!(suite::texts(&all(&queue, &pool).await), texts, "after a restart");
}

#[tokio::test]
async fn a_failed_write_takes_nothing() {
    let pool = name("pool");
    for room in [0, 1, 47, 48, 100, 150, 1000] {
        let dir = tempfile::tempdir().unwrap();
        let (disk, queue) = open_faulty(dir.path(), small());
        publish(&queue, messages(&pool, ["before".into()])).await.unwrap();
        disk.set(|faults| faults.write_room = Some(room));
        let refused = publish(&queue, messages(&pool, ["lost".repeat(500)])).await;
        let Err(BrokerError::Full(why)) = &refused else { panic!("{refused:?}") };
        assert!(why.contains(&*dir.path().to_string_lossy()), "{why}");
        disk.set(|faults| faults.write_room = None);
        publish(&queue, messages(&pool, ["after".into()])).await.unwrap();
        assert_eq!(*queue.link_state().borrow(), LinkState::Up);
        holds(dir.path(), queue, &["before", "after"]).await;
    }
}

#[tokio::test]
async fn a_failed_sync_takes_nothing_and_gives_up_the_segment() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let (disk, queue) = open_faulty(dir.path(), small());
    publish(&queue, messages(&pool, ["before".into()])).await.unwrap();
    disk.set(|faults| faults.sync = true);
    for _ in 0..5 {
        let refused = publish(&queue, messages(&pool, ["lost".into()])).await;
        assert!(matches!(refused, Err(BrokerError::Storage(_))), "{refused:?}");
    }
    // The newest, and one that is about to be removed.
    assert!(super::segments(dir.path()).len() <= 3, "given up segments are left");
    disk.set(|faults| faults.sync = false);
    publish(&queue, messages(&pool, ["after".into()])).await.unwrap();
    holds(dir.path(), queue, &["before", "after"]).await;
}

#[tokio::test]
async fn a_failed_settlement_can_be_repeated() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let (disk, queue) = open_faulty(dir.path(), small());
    publish(&queue, messages(&pool, ["one".into(), "two".into()])).await.unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let taken = suite::take(&mut *subscription, 2).await;
    let settlement = Settlement {
        tokens: suite::tokens(&taken),
        publishes: vec![suite::deferral(&pool, &taken[0], None)],
    };
    disk.set(|faults| faults.sync = true);
    assert!(queue.settle(settlement.clone()).await.is_err());
    assert!(matches!(queue.purge(&pool).await, Ok(0)));
    disk.set(|faults| faults.sync = false);
    assert_eq!(queue.settle(settlement.clone()).await.unwrap(), [Ok(()), Ok(())]);
    let again = suite::take(&mut *subscription, 1).await;

    // The subscription ends while its settlement is on the way, which fails.
    disk.set(|faults| (faults.sync, faults.hold) = (true, true));
    let settlement = Settlement { tokens: suite::tokens(&again), publishes: vec![] };
    let settling = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { queue.settle(settlement).await }
    });
    tokio::task::yield_now().await;
    drop(subscription);
    let held = Depth { ready: 0, delayed: 0, unacknowledged: 1 };
    assert_eq!(queue.depth(&pool).await.unwrap(), held);
    disk.set(|faults| faults.hold = false);
    assert!(settling.await.unwrap().is_err());
    disk.set(|faults| faults.sync = false);
    holds(dir.path(), queue, &["one"]).await;
}

#[tokio::test]
async fn a_failed_purge_leaves_all() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let (disk, queue) = open_faulty(dir.path(), small());
    publish(&queue, messages(&pool, ["one".into(), "two".into()])).await.unwrap();
    disk.set(|faults| faults.sync = true);
    assert!(queue.purge(&pool).await.is_err());
    disk.set(|faults| faults.sync = false);
    assert_eq!(queue.depth(&pool).await.unwrap().ready, 2);
    holds(dir.path(), queue, &["one", "two"]).await;
}

#[tokio::test]
async fn what_cannot_be_taken_back_ends_the_queue() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let (disk, queue) = open_faulty(dir.path(), small());
    publish(&queue, messages(&pool, ["before".into()])).await.unwrap();
    disk.set(|faults| (faults.sync, faults.truncate) = (true, true));
    let outcome = queue.publish(messages(&pool, ["unknown".into()])).await.unwrap();
    assert!(matches!(&outcome[..], [PublishOutcome::Unknown(_)]), "{outcome:?}");
    assert!(matches!(&*queue.link_state().borrow(), LinkState::Down(_)));
    disk.set(|faults| *faults = Faults::default());
    let refused = publish(&queue, messages(&pool, ["refused".into()])).await;
    let Err(BrokerError::Storage(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("restart"), "{why}");
    drop(queue);
    let queue = open(dir.path()).unwrap();
    let texts = suite::texts(&all(&queue, &pool).await);
    assert!(texts == ["before"] || texts == ["before", "unknown"], "{texts:?}");
}

#[tokio::test]
async fn a_full_disk_refuses_and_still_acknowledges() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let config = EmbeddedConfig { segment_bytes: 2 << 20, spare_segments: 0, ..small() };
    let (disk, queue) = open_faulty(dir.path(), config);
    let large = || messages(&pool, ["x".repeat(500 << 10)]);
    for _ in 0..4 {
        publish(&queue, large()).await.unwrap();
    }
    disk.set(|faults| faults.largest_file = Some(1 << 20));
    for _ in 0..3 {
        let refused = publish(&queue, large()).await;
        assert!(matches!(refused, Err(BrokerError::Full(_))), "{refused:?}");
    }
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let taken = suite::take(&mut *subscription, 4).await;
    let log = name("log");
    // So large that the rest of the segment cannot hold it.
    let records = messages(&log, ["record".repeat(20_000)]);
    let settlement = Settlement { tokens: suite::tokens(&taken), publishes: records };
    assert_eq!(queue.settle(settlement).await.unwrap().len(), 4);
    let refused = publish(&queue, messages(&pool, ["small".into()])).await;
    assert!(matches!(refused, Err(BrokerError::Full(_))), "the last room is not for it");
    disk.set(|faults| faults.largest_file = None);
    publish(&queue, messages(&pool, ["after".into()])).await.unwrap();
    drop(subscription);
    assert_eq!(queue.depth(&log).await.unwrap().ready, 1);
    holds(dir.path(), queue, &["after"]).await;
}

#[tokio::test]
async fn a_slow_disk_holds_publishers_back() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let config = EmbeddedConfig { max_pending_bytes: 100_000, ..small() };
    let (disk, queue) = open_faulty(dir.path(), config);
    disk.set(|faults| faults.hold = true);
    let mut publishers = tokio::task::JoinSet::new();
    for n in 0..50 {
        let queue = Arc::clone(&queue);
        let batch = messages(&pool, [format!("{n}").repeat(5000)]);
        publishers.spawn(async move { publish(&queue, batch).await });
    }
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    let waiting = queue.core.handoff.waiting_bytes();
    assert!(waiting <= 100_000, "{waiting} bytes wait for the disk");
    assert!(publishers.try_join_next().is_none());
    disk.set(|faults| faults.hold = false);
    while let Some(published) = publishers.join_next().await {
        published.unwrap().unwrap();
    }
    assert_eq!(queue.depth(&pool).await.unwrap().ready, 50);
    disk.set(|faults| faults.hold = true);
    let late = tokio::spawn({
        let (queue, batch) = (Arc::clone(&queue), messages(&pool, ["late".into()]));
        async move { publish(&queue, batch).await }
    });
    tokio::task::yield_now().await;
    let closed = queue.close(Duration::from_millis(50)).await;
    assert!(matches!(closed, Err(BrokerError::Storage(_))), "{closed:?}");
    disk.set(|faults| faults.hold = false);
    late.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_segment_that_cannot_be_removed_stops_the_others() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let (disk, queue) = open_faulty(dir.path(), small());
    for n in 0..20 {
        publish(&queue, messages(&pool, [n.to_string().repeat(10_000)])).await.unwrap();
    }
    let before = super::segments(dir.path());
    assert!(before.len() >= 3);
    disk.set(|faults| (faults.remove, faults.rename) = (true, true));
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let taken = suite::take(&mut *subscription, 20).await;
    acknowledge(&queue, &taken).await;
    publish(&queue, messages(&pool, ["one".into()])).await.unwrap();
    assert!(super::segments(dir.path()).starts_with(&before));
    disk.set(|faults| (faults.remove, faults.rename) = (false, false));
    publish(&queue, messages(&pool, ["two".into()])).await.unwrap();
    drop(subscription);
    holds(dir.path(), queue, &["one", "two"]).await;
    assert!(super::segments(dir.path()).len() <= 2);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_now_is_read_later() {
    let dir = tempfile::tempdir().unwrap();
    let (pool, quarantine) = (name("pool"), name(posthaste_model::QUARANTINE));
    let (disk, start) = (FaultyDisk::default(), Timestamp::from_millis(1_000_000));
    let clock = Arc::new(ManualClock::at(start));
    // Nothing is kept in memory: a hand-over has to read.
    let config = EmbeddedConfig { cache_bytes: 0, ..EmbeddedConfig::new(dir.path()) };
    let queue = EmbeddedQueue::open_on(Arc::new(disk.clone()), config, clock.clone()).unwrap();
    publish(&queue, messages(&pool, ["later".into()])).await.unwrap();
    disk.set(|faults| faults.read = true);
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    suite::nothing(&mut *subscription).await;
    let waiting = Depth { ready: 0, delayed: 1, unacknowledged: 0 };
    assert_eq!(queue.depth(&pool).await.unwrap(), waiting);
    disk.set(|faults| faults.read = false);
    clock.advance(Duration::from_secs(10));
    queue.clock_moved();
    let deliveries = subscription.next().await.unwrap();
    assert_eq!(suite::texts(&deliveries), ["later"]);
    assert_eq!((queue.damaged(), queue.depth(&quarantine).await.unwrap().total()), (0, 0));
}
