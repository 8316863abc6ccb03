//! Heads and bodies of all sizes arrive as they were.

use bytes::Bytes;
use uuid::Uuid;

use super::{AMPLE, Bench, acknowledge, credit, message, publish, subscribe, take, total};
use crate::contract::{Body, Publish, SharedBody};

fn body(len: usize) -> Bytes {
    (0..len).map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap()).collect()
}

pub async fn every_size(bench: &mut dyn Bench) {
    let queue = bench.name("sizes");
    let sizes = [0, 1, 7, 8, 9, 2048, 101_375, 102_400, 103_424, 5 << 20];
    for crash in [false, true] {
        for len in sizes {
            let publishes = vec![Publish {
                head: body(len.min(4000)),
                body: Body::Inline(body(len)),
                ..message(&queue, "")
            }];
            publish(bench, publishes).await;
        }
        if crash {
            bench.crash().await;
        }
        let mut subscription = subscribe(bench, &queue, AMPLE).await;
        let taken = take(&mut *subscription, sizes.len()).await;
        for (delivery, len) in taken.iter().zip(sizes) {
            assert!(delivery.body == body(len), "{len} bytes, {} came", delivery.body.len());
            assert_eq!(delivery.head, body(len.min(4000)));
        }
        acknowledge(bench, &taken).await;
    }
}

pub async fn all_bytes(bench: &mut dyn Bench) {
    let queue = bench.name("bytes");
    let all: Bytes = (0..=255).collect();
    let one = Publish { head: all.clone(), body: Body::Inline(all.clone()), ..message(&queue, "") };
    publish(bench, vec![one]).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 1).await;
    assert_eq!((&taken[0].head, &taken[0].body), (&all, &all));
}

pub async fn shared_by_many(bench: &mut dyn Bench) {
    let queue = bench.name("shared");
    let shared = SharedBody { id: Uuid::now_v7(), bytes: body(300_000) };
    let one = |n: usize| Publish {
        head: Bytes::from(n.to_string()),
        body: Body::Shared(shared.clone()),
        ..message(&queue, "")
    };
    publish(bench, (0..20).map(one).collect()).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 20).await;
    assert!(taken.iter().all(|d| d.body == shared.bytes));
    acknowledge(bench, &taken[..19]).await;
    drop(subscription);
    bench.crash().await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 1).await;
    assert_eq!(taken[0].head, "19");
    assert!(taken[0].body == shared.bytes);
    acknowledge(bench, &taken).await;
    assert_eq!(total(bench, &queue).await, 0);
}

/// More than would fit anywhere if each message had a copy of its own.
pub async fn a_large_body_for_a_thousand(bench: &mut dyn Bench) {
    let queue = bench.name("thousand");
    let len = if bench.abilities().shared_bodies { 5 << 20 } else { 10_000 };
    let shared = SharedBody { id: Uuid::now_v7(), bytes: body(len) };
    let one = |_| Publish { body: Body::Shared(shared.clone()), ..message(&queue, "") };
    publish(bench, (0..1000).map(one).collect()).await;
    let mut subscription = subscribe(bench, &queue, credit(1)).await;
    let taken = take(&mut *subscription, 1).await;
    assert!(taken[0].body == shared.bytes);
    acknowledge(bench, &taken).await;
    assert_eq!(bench.broker().purge(&queue).await.expect("purge") + 1, 1000);
}
