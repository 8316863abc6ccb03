//! A drained queue gives its disk back, and nothing that is still needed.

use std::{sync::Arc, time::Duration};

use posthaste_model::SystemClock;

use super::{acknowledge, all, messages, name, open, segments};
use crate::{
    contract::{Broker, Settlement, Subscription},
    embedded::{EmbeddedConfig, EmbeddedQueue, faulty::FaultyDisk},
    suite::{self, AMPLE, deferral},
};

#[tokio::test]
async fn a_drained_queue_gives_its_disk_back() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let queue = open(dir.path()).unwrap();
    for n in 0..100 {
        queue.publish(messages(&pool, [n.to_string().repeat(5_000)])).await.unwrap();
    }
    assert!(segments(dir.path()).len() >= 8);
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let taken = suite::take(&mut *subscription, 100).await;
    acknowledge(&queue, &taken).await;
    queue.close(Duration::from_secs(10)).await.unwrap();
    assert_eq!(segments(dir.path()).len(), 1);
}

/// Writes several segments of what is done with at once.
async fn fill_segments(queue: &EmbeddedQueue, subscription: &mut dyn Subscription) {
    for n in 0..8 {
        let text = format!("{n} ").repeat(9_000);
        queue.publish(messages(&name("pool"), [text.clone(), text])).await.unwrap();
        let taken = suite::take(subscription, 2).await;
        acknowledge(queue, &taken).await;
    }
}

/// The acknowledgements of an old message, and the old message itself, stay
/// and go together.
#[tokio::test]
async fn nothing_rises_from_the_dead() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let queue = open(dir.path()).unwrap();
    // One that stays pins the first segment, in which others are dead.
    let first = messages(&pool, ["stays".into(), "dead".into(), "deferred".into()]);
    queue.publish(first).await.unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let held = suite::take(&mut *subscription, 3).await;
    fill_segments(&queue, &mut *subscription).await;
    // Its acknowledgement stands among what nothing needs.
    acknowledge(&queue, &held[1..2]).await;
    fill_segments(&queue, &mut *subscription).await;
    let settlement = Settlement {
        tokens: vec![held[2].token],
        publishes: vec![deferral(&pool, &held[2], None)],
    };
    queue.settle(settlement).await.unwrap();
    let deferred = suite::take(&mut *subscription, 1).await;
    fill_segments(&queue, &mut *subscription).await;
    // The first, what it needs, the deferral, the newest; one may be about to
    // be removed.
    assert!(segments(dir.path()).len() <= 5, "{:?}", segments(dir.path()));
    drop((subscription, deferred, queue));
    for _ in 0..2 {
        let queue = open(dir.path()).unwrap();
        assert_eq!(suite::texts(&all(&queue, &pool).await), ["stays", "deferred"]);
    }
    let queue = open(dir.path()).unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let taken = suite::take(&mut *subscription, 2).await;
    acknowledge(&queue, &taken).await;
    drop((subscription, queue));
    let queue = open(dir.path()).unwrap();
    assert_eq!(queue.depth(&pool).await.unwrap().total(), 0);
    drop(queue);
    assert_eq!(segments(dir.path()).len(), 1);
}

/// Two publishes of one id that overtook the check write two records of it; the
/// acknowledgement is needed until both are gone.
#[tokio::test]
async fn a_repetition_does_not_rise_from_the_dead() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let disk = FaultyDisk::default();
    let config = EmbeddedConfig { segment_bytes: 64 << 10, ..EmbeddedConfig::new(dir.path()) };
    let queue =
        EmbeddedQueue::open_on(Arc::new(disk.clone()), config, Arc::new(SystemClock)).unwrap();
    let twice = suite::message(&pool, "twice");
    let batches = [
        vec![twice.clone()],
        messages(&pool, ["fill".repeat(16_000)]),
        vec![twice, suite::message(&pool, "stays")],
    ];
    disk.set(|faults| faults.hold = true);
    let mut publishers = tokio::task::JoinSet::new();
    for batch in batches {
        let queue = Arc::clone(&queue);
        publishers.spawn(async move { queue.publish(batch).await.unwrap() });
    }
    // All three have found that the id does not live, and handed over.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    disk.set(|faults| faults.hold = false);
    while let Some(published) = publishers.join_next().await {
        published.unwrap();
    }
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let held = suite::take(&mut *subscription, 3).await;
    assert_eq!(held[2].body, "stays");
    fill_segments(&queue, &mut *subscription).await;
    acknowledge(&queue, &held[..2]).await;
    fill_segments(&queue, &mut *subscription).await;
    drop((subscription, queue));
    let queue = open(dir.path()).unwrap();
    assert_eq!(suite::texts(&all(&queue, &pool).await), ["stays"]);
}

#[tokio::test]
async fn a_second_opening_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).unwrap();
    let refused = open(dir.path()).err().unwrap().to_string();
    assert!(refused.contains(&*dir.path().to_string_lossy()), "{refused}");
    assert!(refused.contains("Stop it first"), "{refused}");
    queue.close(Duration::from_secs(10)).await.unwrap();
    open(dir.path()).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("queue");
    let queue = open(&dir).unwrap();
    queue.publish(messages(&name("pool"), ["x".into()])).await.unwrap();
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in std::fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}
