//! Publishing, and looking at what is there.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;

use super::{AMPLE, Bench, acknowledge, credit, message, nothing, publish, subscribe, take, total};
use crate::contract::{Body, Depth, FlowKey, MessageState, Publish, PublishOutcome, Token};

pub async fn an_invalid_one_is_rejected_alone(bench: &mut dyn Bench) {
    let queue = bench.name("invalid");
    let long = FlowKey::new(&"x".repeat(FlowKey::MAX_LEN + 1));
    let batch = vec![
        message(&queue, "0"),
        Publish { priority: 10, ..message(&queue, "1") },
        Publish { flow_key: long, ..message(&queue, "2") },
        Publish { head: Bytes::from(vec![0; Publish::MAX_HEAD + 1]), ..message(&queue, "3") },
        Publish { body: Body::Kept(Token { epoch: 1, tag: 1 }), ..message(&queue, "4") },
        message(&queue, "5"),
    ];
    let outcomes = bench.broker().publish(batch).await.expect("publish");
    for (n, outcome) in outcomes.iter().enumerate() {
        let rejected = matches!(outcome, PublishOutcome::Rejected(why) if !why.is_empty());
        let durable = *outcome == PublishOutcome::Durable;
        assert!(if [0, 5].contains(&n) { durable } else { rejected }, "{n}: {outcome:?}");
    }
    assert_eq!(total(bench, &queue).await, 2);
    assert!(bench.broker().publish(Vec::new()).await.expect("publish").is_empty());
}

pub async fn a_repeated_id_is_one_message(bench: &mut dyn Bench) {
    if !bench.abilities().atomic {
        // Elsewhere copies are unavoidable, and consumers know them by the id.
        return;
    }
    let queue = bench.name("repeated");
    let one = message(&queue, "one");
    publish(bench, vec![one.clone(), one.clone()]).await;
    publish(bench, vec![one.clone()]).await;
    let broker = bench.broker();
    let again = (0..8).map(|_| broker.publish(vec![one.clone()]));
    for outcome in futures_all(again.collect()).await {
        assert_eq!(outcome.expect("publish"), [PublishOutcome::Durable]);
    }
    assert_eq!(total(bench, &queue).await, 1);
    bench.crash().await;
    assert_eq!(total(bench, &queue).await, 1);
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 1).await;
    acknowledge(bench, &taken).await;
    drop(subscription);
    bench.crash().await;
    assert_eq!(total(bench, &queue).await, 0);
}

async fn futures_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        match done.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

pub async fn confirmed_survives_a_crash(bench: &mut dyn Bench) {
    let queue = bench.name("crash");
    let mut ids = BTreeSet::new();
    for n in 0..40 {
        let batch: Vec<_> = (0..n % 7 + 1).map(|m| message(&queue, &format!("{n}.{m}"))).collect();
        ids.extend(batch.iter().map(|publish| publish.id));
        publish(bench, batch).await;
    }
    let mut subscription = subscribe(bench, &queue, credit(10)).await;
    let taken = take(&mut *subscription, 10).await;
    acknowledge(bench, &taken[..5]).await;
    for delivery in &taken[..5] {
        ids.remove(&delivery.id);
    }
    bench.crash().await;
    drop(subscription);
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let again = take(&mut *subscription, ids.len()).await;
    assert_eq!(again.iter().map(|d| d.id).collect::<BTreeSet<_>>(), ids);
    nothing(&mut *subscription).await;
}

pub async fn depth_and_queues(bench: &mut dyn Bench) {
    let queue = bench.name("depth");
    let broker = bench.broker();
    assert_eq!(broker.depth(&queue).await.expect("depth"), Depth::default());
    broker.declare(&queue).await.expect("declare");
    broker.declare(&queue).await.expect("declare again");
    assert!(broker.queues().await.expect("queues").contains(&queue));
    let due = Some(bench.now().plus(Duration::from_secs(3600)));
    let mut batch: Vec<_> = (0..5).map(|n| message(&queue, &n.to_string())).collect();
    batch.push(Publish { due, ..message(&queue, "later") });
    publish(bench, batch).await;
    let mut subscription = subscribe(bench, &queue, credit(2)).await;
    let taken = take(&mut *subscription, 2).await;
    let depth = broker.depth(&queue).await.expect("depth");
    assert_eq!(depth, Depth { ready: 3, delayed: 1, unacknowledged: 2 });
    acknowledge(bench, &taken[..1]).await;
    assert_eq!(total(bench, &queue).await, 5);
    drop(subscription);
    let depth = broker.depth(&queue).await.expect("depth");
    assert_eq!(depth, Depth { ready: 4, delayed: 1, unacknowledged: 0 });
}

pub async fn browse_in_order_of_ids(bench: &mut dyn Bench) {
    let queue = bench.name("browse");
    let due = bench.now().plus(Duration::from_secs(3600));
    let mut batch: Vec<_> = (0..10).map(|n| message(&queue, &n.to_string())).collect();
    batch[3].due = Some(due);
    batch[4].priority = 9;
    batch.sort_by_key(|publish| publish.id);
    let ids: Vec<_> = batch.iter().map(|publish| publish.id).collect();
    let last = batch.remove(9);
    publish(bench, batch).await;
    publish(bench, vec![last]).await;
    let mut subscription = subscribe(bench, &queue, credit(1)).await;
    let taken = take(&mut *subscription, 1).await;
    let broker = bench.broker();
    let first = broker.browse(&queue, None, 6).await.expect("browse");
    let rest = broker.browse(&queue, Some(ids[5]), 100).await.expect("browse");
    assert!(first.iter().chain(&rest).map(|b| b.id).eq(ids.iter().copied()));
    for browsed in first.iter().chain(&rest) {
        let state = match browsed.id {
            id if id == taken[0].id => MessageState::Unacknowledged,
            id if id == ids[3] => MessageState::Delayed,
            _ => MessageState::Ready,
        };
        assert_eq!((browsed.state, browsed.body_len), (state, 1));
        assert_eq!(browsed.due, (browsed.id == ids[3]).then_some(due));
        assert_eq!(browsed.flow_key, FlowKey::new("example.net"));
        assert!(browsed.head.starts_with(b"head of "));
    }
    let other = bench.name("browse.other");
    assert!(broker.browse(&other, None, 10).await.expect("browse").is_empty());
}

pub async fn purge_leaves_what_is_held(bench: &mut dyn Bench) {
    let queue = bench.name("purge");
    let other = bench.name("purge.other");
    let due = Some(bench.now().plus(Duration::from_secs(3600)));
    publish(bench, (0..3000).map(|n| message(&queue, &n.to_string())).collect()).await;
    publish(bench, (0..10).map(|_| Publish { due, ..message(&queue, "later") }).collect()).await;
    publish(bench, vec![message(&other, "other")]).await;
    let mut subscription = subscribe(bench, &queue, credit(7)).await;
    let held = take(&mut *subscription, 7).await;
    assert_eq!(bench.broker().purge(&queue).await.expect("purge"), 3003);
    let depth = bench.broker().depth(&queue).await.expect("depth");
    assert_eq!(depth, Depth { ready: 0, delayed: 0, unacknowledged: 7 });
    acknowledge(bench, &held[..2]).await;
    nothing(&mut *subscription).await;
    drop(subscription);
    bench.crash().await;
    assert_eq!(total(bench, &queue).await, 5);
    assert_eq!(total(bench, &other).await, 1);
}
