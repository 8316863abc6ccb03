//! Broadcasts, and the end.

use std::time::Duration;

use bytes::Bytes;

use super::{AMPLE, Bench, PATIENCE, message, publish, subscribe};
use crate::contract::{BrokerError, Listener, Notice, PublishOutcome};

async fn hear(listener: &mut dyn Listener) -> Notice {
    tokio::time::timeout(PATIENCE, listener.next()).await.expect("heard").expect("open")
}

pub async fn all_listeners_hear(bench: &mut dyn Bench) {
    let topic = bench.name("topic");
    let broker = bench.broker();
    broker.broadcast(&topic, Bytes::from_static(b"nobody listens")).await.expect("broadcast");
    let mut listeners = Vec::new();
    for _ in 0..5 {
        listeners.push(broker.listen(&topic).await.expect("listen"));
    }
    drop(listeners.pop());
    let mut other = broker.listen(&bench.name("topic.other")).await.expect("listen");
    for n in 0..10 {
        broker.broadcast(&topic, Bytes::from(n.to_string())).await.expect("broadcast");
    }
    for listener in &mut listeners {
        for n in 0..10 {
            assert_eq!(hear(&mut **listener).await, Notice::Message(n.to_string().into()));
        }
    }
    let quiet = tokio::time::timeout(Duration::from_millis(100), other.next()).await;
    assert!(quiet.is_err(), "heard another topic");
}

pub async fn a_lagging_listener_hears_of_the_gap(bench: &mut dyn Bench) {
    let topic = bench.name("lag");
    let broker = bench.broker();
    let mut lagging = broker.listen(&topic).await.expect("listen");
    for n in 0..10_000 {
        broker.broadcast(&topic, Bytes::from(n.to_string())).await.expect("broadcast");
    }
    let mut gap = false;
    let mut last = None;
    while last != Some(Bytes::from_static(b"9999")) {
        match hear(&mut *lagging).await {
            Notice::Gap => gap = true,
            Notice::Message(notice) => last = Some(notice),
        }
    }
    assert!(gap, "10,000 notices were kept for one that does not listen");
}

pub async fn close_ends_all(bench: &mut dyn Bench) {
    let queue = bench.name("close");
    let broker = bench.broker();
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let mut listener = broker.listen(&queue).await.expect("listen");
    let waiting = tokio::spawn(async move { subscription.next().await.map(|_| ()) });
    let hearing = tokio::spawn(async move { listener.next().await.map(|_| ()) });
    tokio::task::yield_now().await;
    broker.close(PATIENCE).await.expect("close");
    for ended in [waiting.await, hearing.await] {
        assert_eq!(ended.expect("no panic"), Err(BrokerError::Closed));
    }
    let refused = broker.publish(vec![message(&queue, "late")]).await;
    assert!(!matches!(&refused, Ok(outcomes) if outcomes.contains(&PublishOutcome::Durable)));
    assert!(broker.subscribe(&queue, AMPLE).await.is_err());
    broker.close(PATIENCE).await.expect("close again");
    drop(broker);
    bench.crash().await;
    publish(bench, vec![message(&queue, "after")]).await;
}
