//! Freed segments are used again, and what they held is not read again.

use std::{path::Path, sync::Arc, time::Duration};

use posthaste_model::SystemClock;

use super::{acknowledge, all, messages, name, open, segments};
use crate::{
    contract::{Broker, BrokerError},
    embedded::{
        EmbeddedConfig, EmbeddedQueue,
        faulty::{Faults, FaultyDisk},
        offline,
    },
    suite::{self, AMPLE},
};

fn spares(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|of| of == "spare")).count()
}

async fn flow(queue: &EmbeddedQueue, rounds: usize) {
    let pool = name("pool");
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    for n in 0..rounds {
        queue.publish(messages(&pool, [n.to_string().repeat(3000)])).await.unwrap();
        let taken = suite::take(&mut *subscription, 1).await;
        acknowledge(queue, &taken).await;
    }
}

#[tokio::test]
async fn a_steady_flow_makes_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).unwrap();
    flow(&queue, 400).await;
    let stats = queue.stats();
    assert!(stats.created <= 4, "{stats:?}");
    assert!(stats.recycled >= 20, "{stats:?}");
    assert!(stats.segments <= 3 && stats.spares <= 2, "{stats:?}");
    queue.publish(messages(&name("pool"), ["kept".into()])).await.unwrap();
    queue.close(Duration::from_secs(10)).await.unwrap();
    drop(queue);
    assert!(spares(dir.path()) <= 2);
    // The spare files are found again.
    let queue = open(dir.path()).unwrap();
    assert_eq!(suite::texts(&all(&queue, &name("pool")).await), ["kept"]);
    assert_eq!(queue.purge(&name("pool")).await.unwrap(), 1);
    flow(&queue, 100).await;
    assert!(queue.stats().created <= 2, "{:?}", queue.stats());
    drop(queue);
    assert_eq!(offline::verify(dir.path()).unwrap().problems, []);
}

/// A segment that a kill has left among the old frames of its file.
#[tokio::test]
async fn what_a_file_held_before_is_not_read() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let disk = FaultyDisk::default();
    let live = dir.path().join("live");
    let config = EmbeddedConfig { segment_bytes: 64 << 10, ..EmbeddedConfig::new(&live) };
    let queue =
        EmbeddedQueue::open_on(Arc::new(disk.clone()), config, Arc::new(SystemClock)).unwrap();
    flow(&queue, 100).await;
    assert!(queue.stats().recycled > 3);
    for n in 0..30 {
        let text = n.to_string();
        queue.publish(messages(&pool, [text.repeat(500)])).await.unwrap();
        let killed = dir.path().join(&text);
        disk.snapshot(&live, &killed).unwrap();
        let queue = open(&killed).unwrap();
        assert_eq!(queue.depth(&pool).await.unwrap().ready, n + 1);
        queue.publish(messages(&pool, ["more".into()])).await.unwrap();
        drop(queue);
        assert_eq!(offline::verify(&killed).unwrap().messages, n + 2);
    }
}

/// Whatever fails about spare files and names, nothing is lost.
#[tokio::test]
async fn failures_around_the_names_of_files() {
    let faults: [fn(&mut Faults); 4] = [
        |faults| faults.rename = true,
        |faults| faults.sync_dir = true,
        |faults| faults.remove = true,
        |faults| (faults.rename, faults.sync_dir, faults.remove) = (true, true, true),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
        let disk = FaultyDisk::default();
        let config = EmbeddedConfig { segment_bytes: 16 << 10, ..EmbeddedConfig::new(dir.path()) };
        let queue =
            EmbeddedQueue::open_on(Arc::new(disk.clone()), config, Arc::new(SystemClock)).unwrap();
        flow(&queue, 30).await;
        let mut confirmed = Vec::new();
        for n in 0..40 {
            disk.set(|faults| *faults = Faults::default());
            if n % 4 > 1 {
                disk.set(fault);
            }
            let text = n.to_string().repeat(1500);
            match queue.publish(messages(&pool, [text.clone()])).await {
                Ok(_) => confirmed.push(text),
                Err(error) => assert!(matches!(error, BrokerError::Storage(_)), "{error}"),
            }
        }
        assert!(confirmed.len() >= 20, "{number}: {}", confirmed.len());
        assert_eq!(suite::texts(&all(&queue, &pool).await), confirmed);
        drop(queue);
        disk.set(|faults| *faults = Faults::default());
        let queue = open(dir.path()).unwrap();
        assert_eq!(suite::texts(&all(&queue, &pool).await), confirmed, "{number}");
        assert!(segments(dir.path()).len() < 40);
    }
}

#[tokio::test]
async fn publishes_leave_the_reserve_alone() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let disk = FaultyDisk::default();
    let config = EmbeddedConfig {
        segment_bytes: 64 << 10,
        disk_reserve: 1 << 30,
        ..EmbeddedConfig::new(dir.path())
    };
    disk.set(|faults| faults.free = Some(10 << 30));
    let queue =
        EmbeddedQueue::open_on(Arc::new(disk.clone()), config, Arc::new(SystemClock)).unwrap();
    for n in 0..10 {
        queue.publish(messages(&pool, [n.to_string()])).await.unwrap();
    }
    disk.set(|faults| faults.free = Some((1 << 30) - 1));
    queue.core.reserve.look_again();
    let refused = queue.publish(messages(&pool, ["refused".into()])).await;
    let Err(BrokerError::Full(why)) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("1023 MiB are free") && why.contains("1024 MiB"), "{why}");
    // Settlements still go, with records that need a new segment.
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    for delivery in suite::take(&mut *subscription, 10).await {
        let publishes = messages(&name("log"), ["record".repeat(10_000)]);
        let tokens = vec![delivery.token];
        let settled = queue.settle(crate::Settlement { tokens, publishes }).await.unwrap();
        assert_eq!(settled, [Ok(())]);
    }
    disk.set(|faults| faults.free = Some(10 << 30));
    queue.core.reserve.look_again();
    queue.publish(messages(&pool, ["taken".into()])).await.unwrap();
    assert_eq!(queue.depth(&name("log")).await.unwrap().ready, 10);
}
