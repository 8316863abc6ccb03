//! Settlements.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    AMPLE, Bench, acknowledge, credit, deferral, message, nothing, publish, subscribe, take, texts,
    tokens, total,
};
use crate::contract::{Body, BrokerError, Delivery, Publish, Settlement, SharedBody, Token};

const HOUR: Duration = Duration::from_secs(3600);

async fn settle(
    bench: &dyn Bench,
    deliveries: &[Delivery],
    publishes: Vec<Publish>,
) -> Vec<Result<(), BrokerError>> {
    let settlement = Settlement { tokens: tokens(deliveries), publishes };
    bench.broker().settle(settlement).await.expect("settle")
}

pub async fn acknowledged_is_gone(bench: &mut dyn Bench) {
    let queue = bench.name("acked");
    publish(bench, (0..100).map(|n| message(&queue, &n.to_string())).collect()).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 100).await;
    acknowledge(bench, &taken).await;
    assert_eq!(total(bench, &queue).await, 0);
    drop(subscription);
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    nothing(&mut *subscription).await;
    bench.crash().await;
    assert_eq!(total(bench, &queue).await, 0);
}

pub async fn stale_tokens_are_refused(bench: &mut dyn Bench) {
    let queue = bench.name("stale");
    publish(bench, vec![message(&queue, "one")]).await;
    let mut first = subscribe(bench, &queue, AMPLE).await;
    let dead = take(&mut *first, 1).await;
    drop(first);
    assert_eq!(settle(bench, &dead, vec![]).await, [Err(BrokerError::StaleToken)]);
    let mut second = subscribe(bench, &queue, AMPLE).await;
    let live = take(&mut *second, 1).await;
    assert!(live[0].redelivered);
    assert_eq!(settle(bench, &dead, vec![]).await, [Err(BrokerError::StaleToken)]);
    let made_up = Settlement { tokens: vec![Token { epoch: 7, tag: u64::MAX }], publishes: vec![] };
    let refused = bench.broker().settle(made_up).await.expect("settle");
    assert_eq!(refused, [Err(BrokerError::StaleToken)]);
    assert_eq!(total(bench, &queue).await, 1);
    let twice = [live[0].clone(), live[0].clone()];
    assert_eq!(settle(bench, &twice, vec![]).await, [Ok(()), Err(BrokerError::StaleToken)]);
    assert_eq!(settle(bench, &live, vec![]).await, [Err(BrokerError::StaleToken)]);
    assert_eq!(total(bench, &queue).await, 0);
}

pub async fn one_stale_among_many(bench: &mut dyn Bench) {
    let queue = bench.name("many");
    let log = bench.name("many.log");
    publish(bench, (0..1023).map(|n| message(&queue, &n.to_string())).collect()).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let mut taken = take(&mut *subscription, 1023).await;
    taken.insert(500, Delivery { token: Token { epoch: 0, tag: 0 }, ..taken[0].clone() });
    let results = settle(bench, &taken, vec![message(&log, "done")]).await;
    for (n, result) in results.iter().enumerate() {
        let expected = if n == 500 { Err(BrokerError::StaleToken) } else { Ok(()) };
        assert_eq!(*result, expected, "{n}");
    }
    assert_eq!(results.len(), 1024);
    assert_eq!((total(bench, &queue).await, total(bench, &log).await), (0, 1));
    taken.push(taken[0].clone());
    let too_many = Settlement { tokens: tokens(&taken), publishes: vec![] };
    let refused = bench.broker().settle(too_many).await;
    assert!(matches!(refused, Err(BrokerError::Invalid(_))));
}

pub async fn a_deferral_keeps_the_body(bench: &mut dyn Bench) {
    let queue = bench.name("defer");
    publish(bench, vec![message(&queue, "body")]).await;
    let mut subscription = subscribe(bench, &queue, credit(1)).await;
    let mut id = None;
    for round in 0..5 {
        let taken = take(&mut *subscription, 1).await;
        assert_eq!(texts(&taken), ["body"]);
        assert!(id.is_none_or(|id| id == taken[0].id));
        id = Some(taken[0].id);
        if round > 0 {
            assert_eq!(taken[0].head, "deferred");
        }
        let due = Some(bench.now().plus(Duration::from_secs(1)));
        let copy = deferral(&queue, &taken[0], due);
        assert_eq!(settle(bench, &taken, vec![copy]).await, [Ok(())]);
        assert_eq!(settle(bench, &taken, vec![]).await, [Err(BrokerError::StaleToken)]);
        assert_eq!(total(bench, &queue).await, 1);
        if round == 2 {
            drop(subscription);
            bench.crash().await;
            subscription = subscribe(bench, &queue, credit(1)).await;
        }
        bench.pass(Duration::from_secs(1)).await;
    }
    let taken = take(&mut *subscription, 1).await;
    acknowledge(bench, &taken).await;
    drop(subscription);
    bench.crash().await;
    assert_eq!(total(bench, &queue).await, 0);
}

pub async fn an_outcome_is_recorded(bench: &mut dyn Bench) {
    let queue = bench.name("outcome");
    let log = bench.name("outcome.log");
    publish(bench, vec![message(&queue, "mail")]).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 1).await;
    drop(subscription);
    // What happened has happened, even when the message comes again.
    let results = settle(bench, &taken, vec![message(&log, "event")]).await;
    assert_eq!(results, [Err(BrokerError::StaleToken)]);
    assert_eq!((total(bench, &queue).await, total(bench, &log).await), (1, 1));
    let records = Settlement { tokens: vec![], publishes: vec![message(&log, "event")] };
    assert_eq!(bench.broker().settle(records).await, Ok(vec![]));
    bench.crash().await;
    assert_eq!((total(bench, &queue).await, total(bench, &log).await), (1, 2));
}

pub async fn a_move_to_another_queue(bench: &mut dyn Bench) {
    let queue = bench.name("move");
    let held = bench.name("move.held");
    publish(bench, vec![message(&queue, "body")]).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 1).await;
    let copy = deferral(&held, &taken[0], None);
    assert_eq!(settle(bench, &taken, vec![copy]).await, [Ok(())]);
    nothing(&mut *subscription).await;
    bench.crash().await;
    assert_eq!((total(bench, &queue).await, total(bench, &held).await), (0, 1));
    let mut subscription = subscribe(bench, &held, AMPLE).await;
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["body"]);
}

pub async fn a_replacement_with_the_same_id(bench: &mut dyn Bench) {
    let queue = bench.name("replace");
    publish(bench, vec![message(&queue, "old")]).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 1).await;
    let new = Publish { id: taken[0].id, ..message(&queue, "new") };
    assert_eq!(settle(bench, &taken, vec![new]).await, [Ok(())]);
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["new"]);
    bench.crash().await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["new"]);
}

pub async fn a_copy_with_another_id(bench: &mut dyn Bench) {
    let queue = bench.name("copy");
    let shared = SharedBody { id: Uuid::now_v7(), bytes: Bytes::from_static(b"shared") };
    let sharing = Publish { body: Body::Shared(shared), ..message(&queue, "") };
    publish(bench, vec![message(&queue, "own"), sharing]).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 2).await;
    let copies: Vec<_> =
        taken.iter().map(|d| Publish { id: Uuid::now_v7(), ..deferral(&queue, d, None) }).collect();
    assert_eq!(settle(bench, &taken, copies).await, [Ok(()), Ok(())]);
    let taken = take(&mut *subscription, 2).await;
    assert_eq!(texts(&taken), ["own", "shared"]);
    bench.crash().await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 2).await;
    assert_eq!(texts(&taken), ["own", "shared"]);
    acknowledge(bench, &taken).await;
}

pub async fn a_dead_copy_is_not_published(bench: &mut dyn Bench) {
    let queue = bench.name("dead");
    let log = bench.name("dead.log");
    publish(bench, vec![message(&queue, "body")]).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 1).await;
    drop(subscription);
    let copies = vec![
        deferral(&queue, &taken[0], Some(bench.now().plus(HOUR))),
        Publish { id: Uuid::now_v7(), ..deferral(&queue, &taken[0], None) },
        message(&log, "event"),
    ];
    assert_eq!(settle(bench, &taken, copies).await, [Err(BrokerError::StaleToken)]);
    assert_eq!((total(bench, &queue).await, total(bench, &log).await), (1, 1));
    let depth = bench.broker().depth(&queue).await.expect("depth");
    assert_eq!(depth.ready, 1);
}

pub async fn a_crash_between_leaves_one_copy(bench: &mut dyn Bench) {
    let queue = bench.name("between");
    let atomic = bench.abilities().atomic;
    publish(bench, vec![message(&queue, "body")]).await;
    for step in 0..6 {
        let mut subscription = subscribe(bench, &queue, AMPLE).await;
        let taken = take(&mut *subscription, 1).await;
        let settlement = Settlement {
            tokens: tokens(&taken),
            publishes: vec![deferral(&queue, &taken[0], None)],
        };
        let broker = bench.broker();
        let settling = tokio::spawn(async move { broker.settle(settlement).await.map(|_| ()) });
        for _ in 0..step {
            tokio::task::yield_now().await;
        }
        bench.crash().await;
        settling.abort();
        drop(subscription);
        let left = total(bench, &queue).await;
        assert!(left == 1 || (!atomic && left == 2), "step {step}: {left} copies");
    }
}

pub async fn a_cancelled_settlement_is_whole_or_nothing(bench: &mut dyn Bench) {
    let queue = bench.name("cancel");
    publish(bench, vec![message(&queue, "body")]).await;
    for step in 0..12 {
        let mut subscription = subscribe(bench, &queue, AMPLE).await;
        let taken = take(&mut *subscription, 1).await;
        let settlement = Settlement {
            tokens: tokens(&taken),
            publishes: vec![deferral(&queue, &taken[0], None)],
        };
        let broker = bench.broker();
        let settling = tokio::spawn(async move { broker.settle(settlement).await.map(|_| ()) });
        for _ in 0..step {
            tokio::task::yield_now().await;
        }
        settling.abort();
        // Whether it was taken or not, and whenever that is decided, the end
        // of the subscription loses and doubles nothing.
        drop(subscription);
        assert_eq!(total(bench, &queue).await, 1, "step {step}");
    }
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["body"]);
}

pub async fn nonsense_is_refused(bench: &mut dyn Bench) {
    let queue = bench.name("nonsense");
    publish(bench, vec![message(&queue, "body")]).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 1).await;
    let not_settled = Settlement {
        tokens: vec![],
        publishes: vec![Publish { id: Uuid::now_v7(), ..deferral(&queue, &taken[0], None) }],
    };
    let invalid = Settlement {
        tokens: tokens(&taken),
        publishes: vec![Publish { priority: 10, ..message(&queue, "x") }],
    };
    for settlement in [not_settled, invalid] {
        let refused = bench.broker().settle(settlement).await;
        assert!(matches!(refused, Err(BrokerError::Invalid(_))), "{refused:?}");
    }
    // Nothing was taken, so the token is still good.
    acknowledge(bench, &taken).await;
    assert_eq!(total(bench, &queue).await, 0);
}
