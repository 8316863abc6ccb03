//! Subscriptions: what they hold, share and give back.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;

use super::{
    AMPLE, Bench, acknowledge, credit, message, nothing, publish, subscribe, take, texts, total,
};
use crate::contract::{Body, Credit, Publish, SubscribeOptions};

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

pub async fn a_dropped_one_returns_all(bench: &mut dyn Bench) {
    let queue = bench.name("dropped");
    publish(bench, (0..20).map(|n| message(&queue, &n.to_string())).collect()).await;
    let mut subscription = subscribe(bench, &queue, credit(10)).await;
    let taken = take(&mut *subscription, 10).await;
    assert!(taken.iter().all(|delivery| !delivery.redelivered));
    acknowledge(bench, &taken[..3]).await;
    drop(subscription);
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let again = take(&mut *subscription, 17).await;
    assert_eq!(texts(&again), numbers(3..20), "in their order, and before the others");
    let redelivered = again.iter().filter(|delivery| delivery.redelivered).count();
    assert!(redelivered >= 7, "{redelivered} of 7 are marked");
}

pub async fn twenty_five_dropped(bench: &mut dyn Bench) {
    let queue = bench.name("dropped25");
    publish(bench, (0..30).map(|n| message(&queue, &n.to_string())).collect()).await;
    for _ in 0..25 {
        let mut subscription = subscribe(bench, &queue, AMPLE).await;
        assert_eq!(texts(&take(&mut *subscription, 30).await), numbers(0..30));
    }
    assert_eq!(total(bench, &queue).await, 30);
}

pub async fn two_share(bench: &mut dyn Bench) {
    let queue = bench.name("share");
    let mut one = subscribe(bench, &queue, credit(10)).await;
    let mut two = subscribe(bench, &queue, credit(10)).await;
    publish(bench, (0..200).map(|n| message(&queue, &n.to_string())).collect()).await;
    let (mut seen, mut counts) = (BTreeSet::new(), [0, 0]);
    while seen.len() < 200 {
        let (who, taken) = tokio::select! {
            taken = one.next() => (0, taken),
            taken = two.next() => (1, taken),
        };
        let taken = taken.expect("next");
        counts[who] += taken.len();
        for text in texts(&taken) {
            assert!(seen.insert(text), "handed over twice");
        }
        acknowledge(bench, &taken).await;
    }
    assert!(counts.iter().all(|count| *count >= 20), "{counts:?}");
}

pub async fn credit_bounds_what_is_held(bench: &mut dyn Bench) {
    let queue = bench.name("credit");
    publish(bench, (0..30).map(|n| message(&queue, &n.to_string())).collect()).await;
    let mut subscription = subscribe(bench, &queue, credit(4)).await;
    let taken = take(&mut *subscription, 4).await;
    nothing(&mut *subscription).await;
    acknowledge(bench, &taken[1..3]).await;
    assert_eq!(texts(&take(&mut *subscription, 2).await), ["4", "5"]);
    nothing(&mut *subscription).await;
}

pub async fn bytes_bound_but_one_is_allowed(bench: &mut dyn Bench) {
    let queue = bench.name("bytes");
    let body = || Body::Inline(Bytes::from(vec![7; 1000]));
    let one = |_| Publish { body: body(), head: Bytes::new(), ..message(&queue, "") };
    publish(bench, (0..10).map(one).collect()).await;
    let bound = |bytes| SubscribeOptions { credit: Credit { messages: 100, bytes }, ..AMPLE };
    let mut subscription = subscribe(bench, &queue, bound(10)).await;
    let taken = take(&mut *subscription, 1).await;
    nothing(&mut *subscription).await;
    acknowledge(bench, &taken).await;
    take(&mut *subscription, 1).await;
    drop(subscription);
    let mut subscription = subscribe(bench, &queue, bound(3500)).await;
    take(&mut *subscription, 3).await;
    nothing(&mut *subscription).await;
}

pub async fn credit_changes(bench: &mut dyn Bench) {
    let queue = bench.name("change");
    publish(bench, (0..30).map(|n| message(&queue, &n.to_string())).collect()).await;
    let mut subscription = subscribe(bench, &queue, credit(2)).await;
    let mut held = take(&mut *subscription, 2).await;
    subscription.set_credit(Credit { messages: 5, ..AMPLE.credit });
    held.extend(take(&mut *subscription, 3).await);
    subscription.set_credit(Credit { messages: 1, ..AMPLE.credit });
    acknowledge(bench, &held[..4]).await;
    nothing(&mut *subscription).await;
    acknowledge(bench, &held[4..]).await;
    take(&mut *subscription, 1).await;
}

pub async fn cancelled_next_loses_nothing(bench: &mut dyn Bench) {
    let queue = bench.name("cancelled");
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let mut seen = Vec::new();
    for n in 0..50 {
        publish(bench, vec![message(&queue, &n.to_string())]).await;
        if n % 10 == 0 {
            bench.crash().await;
            subscription = subscribe(bench, &queue, AMPLE).await;
            seen.clear();
        }
        // Polled once, which may start something, and dropped.
        tokio::select! {
            biased;
            taken = subscription.next() => seen.extend(texts(&taken.expect("next"))),
            () = std::future::ready(()) => {}
        }
    }
    let missing = 50 - seen.len();
    if missing > 0 {
        seen.extend(texts(&take(&mut *subscription, missing).await));
    }
    assert_eq!(seen, numbers(0..50));
}

pub async fn exclusive_hands_over(bench: &mut dyn Bench) {
    let queue = bench.name("exclusive");
    let exclusive = SubscribeOptions { exclusive: true, ..credit(2) };
    let mut first = subscribe(bench, &queue, exclusive).await;
    let mut second = subscribe(bench, &queue, exclusive).await;
    publish(bench, (0..4).map(|n| message(&queue, &n.to_string())).collect()).await;
    nothing(&mut *second).await;
    let taken = take(&mut *first, 2).await;
    acknowledge(bench, &taken[..1]).await;
    nothing(&mut *second).await;
    let waiting = tokio::spawn(async move {
        let taken = take(&mut *second, 2).await;
        (second, texts(&taken))
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(first);
    let (_second, taken) = waiting.await.expect("handed over");
    assert_eq!(taken, ["1", "2"]);
}

pub async fn a_stopped_consumer_costs_nothing(bench: &mut dyn Bench) {
    let queue = bench.name("stopped");
    let mut stopped = subscribe(bench, &queue, credit(3)).await;
    let body = Bytes::from(vec![9; 10_000]);
    let one = |_| Publish { body: Body::Inline(body.clone()), ..message(&queue, "") };
    for _ in 0..20 {
        publish(bench, (0..100).map(one).collect()).await;
    }
    let depth = bench.broker().depth(&queue).await.expect("depth");
    assert!(depth.unacknowledged <= 3 && depth.total() == 2000, "{depth:?}");
    take(&mut *stopped, 3).await;
    let mut other = subscribe(bench, &queue, AMPLE).await;
    assert_eq!(take(&mut *other, 1997).await.len(), 1997);
}
