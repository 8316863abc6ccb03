//! Compaction keeps what lives and frees what does not.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use posthaste_model::SystemClock;
use uuid::Uuid;

use super::{acknowledge, all, messages, name};
use crate::{
    contract::{Body, Broker, Publish, Settlement, SharedBody},
    embedded::{EmbeddedConfig, EmbeddedQueue, faulty::FaultyDisk, offline},
    suite::{self, AMPLE, PATIENCE},
};

fn config(dir: &Path) -> EmbeddedConfig {
    EmbeddedConfig { segment_bytes: 64 << 10, cache_bytes: 0, ..EmbeddedConfig::new(dir) }
}

fn open(dir: &Path) -> Arc<EmbeddedQueue> {
    EmbeddedQueue::open(config(dir), Arc::new(SystemClock)).unwrap()
}

/// One of ten stays: by itself, the queue takes hardly more than those.
#[tokio::test]
async fn what_stays_does_not_keep_what_went() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let queue = open(dir.path());
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let mut stays = Vec::new();
    for n in 0..60 {
        let texts = (0..10).map(|m| format!("{n}.{m} ").repeat(200));
        queue.publish(messages(&pool, texts)).await.unwrap();
        let taken = suite::take(&mut *subscription, 10).await;
        acknowledge(&queue, &taken[1..]).await;
        stays.extend(suite::texts(&taken[..1]));
    }
    // It goes on by itself when nothing else is to be done.
    let started = std::time::Instant::now();
    while queue.stats().live_bytes * 2 < queue.stats().bytes_on_disk - (96 << 10) {
        assert!(started.elapsed() < PATIENCE, "{:?}", queue.stats());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let stats = queue.stats();
    assert!(stats.compactions > 3 && stats.compaction_bytes > 0, "{stats:?}");
    drop(subscription);
    assert_eq!(suite::texts(&all(&queue, &pool).await), stays, "in their order");
    drop(queue);
    let report = offline::verify(dir.path()).unwrap();
    assert_eq!((report.messages, report.problems), (60, vec![]));
    let queue = open(dir.path());
    let mut found = suite::texts(&all(&queue, &pool).await);
    found.sort_unstable();
    stays.sort_unstable();
    assert_eq!(found, stays, "after a restart");
    // What was copied can be acknowledged, and does not rise again.
    let report = queue.compact().await.unwrap();
    assert!(report.after <= report.before);
    assert_eq!(queue.purge(&pool).await.unwrap(), 60);
    drop(queue);
    assert_eq!(open(dir.path()).depth(&pool).await.unwrap().total(), 0);
}

/// Every message deferred many times: heads only are written, and the space
/// stays bounded.
#[tokio::test]
async fn deferrals_keep_the_space_bounded() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let queue = open(dir.path());
    let texts: Vec<String> = (0..100).map(|n| format!("{n} ").repeat(400)).collect();
    queue.publish(messages(&pool, texts.clone())).await.unwrap();
    let base = queue.stats().bytes_written;
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let mut most = 0;
    for _ in 0..100 {
        let taken = suite::take(&mut *subscription, 100).await;
        for some in taken.chunks(20) {
            let publishes = some.iter().map(|one| suite::deferral(&pool, one, None));
            let publishes =
                publishes.map(|publish| Publish { head: Bytes::from(vec![b'h'; 150]), ..publish });
            let tokens = suite::tokens(some);
            queue.settle(Settlement { tokens, publishes: publishes.collect() }).await.unwrap();
        }
        most = most.max(queue.stats().bytes_on_disk);
    }
    let stats = queue.stats();
    let each = (stats.bytes_written - stats.compaction_bytes - base) / 10_000;
    assert!(each < 350, "a deferral takes {each} bytes");
    // About 200 KB live; written was ten times as much.
    assert!(most < 1 << 20, "{most}: {stats:?}");
    drop(subscription);
    drop(queue);
    let queue = open(dir.path());
    let mut found = suite::texts(&all(&queue, &pool).await);
    let mut texts = texts;
    found.sort_unstable();
    texts.sort_unstable();
    assert_eq!(found, texts);
}

#[tokio::test]
async fn a_shared_body_is_kept_once_and_read_once() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let config = EmbeddedConfig { cache_bytes: 1, ..config(dir.path()) };
    let open = || EmbeddedQueue::open(config.clone(), Arc::new(SystemClock)).unwrap();
    let queue = open();
    let body = SharedBody { id: Uuid::now_v7(), bytes: Bytes::from(vec![b's'; 50_000]) };
    let share = |n: usize| Publish {
        body: Body::Shared(body.clone()),
        ..suite::message(&pool, &n.to_string())
    };
    queue.publish((0..100).map(share).collect()).await.unwrap();
    // What is dead around it makes its segments worth compacting.
    for n in 0..20 {
        queue.publish(messages(&name("other"), [n.to_string().repeat(9_000)])).await.unwrap();
    }
    assert_eq!(queue.purge(&name("other")).await.unwrap(), 20);
    for round in 0..4 {
        let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
        let taken = suite::take(&mut *subscription, 100 - 20 * round).await;
        assert!(taken.iter().all(|delivery| delivery.body == body.bytes));
        // The reader kept the one body, so all of them are the same bytes.
        let one = taken[0].body.as_ptr();
        assert!(taken.iter().all(|delivery| delivery.body.as_ptr() == one));
        acknowledge(&queue, &taken[..20]).await;
        drop(subscription);
        queue.compact().await.unwrap();
        let stats = queue.stats();
        assert_eq!((stats.messages, stats.bodies), (80 - 20 * round as u64, 1));
        assert!(stats.bytes_on_disk < 90_000, "{stats:?}");
    }
    assert!(queue.stats().compactions > 0);
    drop(queue);
    let queue = open();
    let left = all(&queue, &pool).await;
    assert!(left.len() == 20 && left.iter().all(|delivery| delivery.body == body.bytes));
    assert_eq!(queue.purge(&pool).await.unwrap(), 20);
    drop(queue);
    assert_eq!(open().stats().bodies, 0);
}

/// A kill after every change of the disk that a compaction makes.
#[tokio::test]
async fn a_compaction_may_be_killed_anywhere() {
    let (root, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let (disk, live) = (FaultyDisk::default(), root.path().join("live"));
    let config = EmbeddedConfig { segment_bytes: 16 << 10, compact_dead: 100, ..config(&live) };
    let queue = EmbeddedQueue::open_on(Arc::new(disk.clone()), config, Arc::new(SystemClock));
    let queue = queue.unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let shared = SharedBody { id: Uuid::now_v7(), bytes: Bytes::from(vec![b's'; 3000]) };
    let mut expected = Vec::new();
    for n in 0..15 {
        let mut batch = messages(&pool, (0..10).map(|m| format!("{n}.{m} ").repeat(100)));
        for publish in &mut batch[..3] {
            publish.body = Body::Shared(shared.clone());
        }
        queue.publish(batch).await.unwrap();
        let taken = suite::take(&mut *subscription, 10).await;
        let (stay, go) = taken.split_at(4);
        acknowledge(&queue, go).await;
        let publishes = vec![suite::deferral(&pool, &stay[3], None)];
        let tokens = vec![stay[3].token];
        queue.settle(Settlement { tokens, publishes }).await.unwrap();
        let again = suite::take(&mut *subscription, 1).await;
        assert_eq!(again[0].id, stay[3].id);
        expected.extend(suite::texts(stay));
    }
    expected.sort_unstable();
    drop(subscription);
    let killed = root.path().join("killed");
    std::fs::create_dir(&killed).unwrap();
    disk.watch(&live, &killed);
    let report = queue.compact().await.unwrap();
    // The freed files are used again.
    for _ in 0..12 {
        queue.publish(messages(&name("other"), ["other".repeat(700)])).await.unwrap();
    }
    let kills = disk.watched();
    assert!(report.segments > 2 && kills > 60, "{report:?}, {kills} kills");
    assert!(queue.stats().recycled > 0);
    for kill in 0..kills {
        let killed = killed.join(kill.to_string());
        let queue = open(&killed);
        let mut found = suite::texts(&all(&queue, &pool).await);
        found.sort_unstable();
        assert_eq!(found, expected, "kill {kill} of {kills}");
        // What is done afterwards is not mixed with what was amid.
        assert_eq!(queue.purge(&pool).await.unwrap(), 60);
        drop(queue);
        assert_eq!(open(&killed).depth(&pool).await.unwrap().total(), 0, "kill {kill}");
        std::fs::remove_dir_all(&killed).unwrap();
    }
}
