//! Due times.

use std::time::Duration;

use super::{AMPLE, Bench, message, nothing, publish, subscribe, take, texts};
use crate::contract::{Depth, Publish};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

pub async fn past_now_and_later(bench: &mut dyn Bench) {
    let queue = bench.name("due");
    let now = bench.now();
    let past = posthaste_model::Timestamp::from_millis(1);
    let due = |due, text| Publish { due: Some(due), ..message(&queue, text) };
    publish(
        bench,
        vec![
            due(now.plus(HOUR), "in an hour"),
            due(now.plus(SECOND), "in a second"),
            due(past, "past"),
            due(now, "now"),
        ],
    )
    .await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    assert_eq!(texts(&take(&mut *subscription, 2).await), ["past", "now"]);
    nothing(&mut *subscription).await;
    let depth = bench.broker().depth(&queue).await.expect("depth");
    assert_eq!(depth, Depth { ready: 0, delayed: 2, unacknowledged: 2 });
    bench.pass(SECOND).await;
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["in a second"]);
    nothing(&mut *subscription).await;
}

pub async fn never_early(bench: &mut dyn Bench) {
    let queue = bench.name("early");
    let due = bench.now().plus(SECOND);
    publish(bench, vec![Publish { due: Some(due), ..message(&queue, "m") }]).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    bench.pass(Duration::from_millis(500)).await;
    if bench.now() < due {
        nothing(&mut *subscription).await;
    }
    bench.pass(Duration::from_millis(500)).await;
    take(&mut *subscription, 1).await;
    assert!(bench.now() >= due);
}

pub async fn survives_a_crash(bench: &mut dyn Bench) {
    let queue = bench.name("duecrash");
    let due = Some(bench.now().plus(SECOND));
    let batch = (0..50).map(|n| Publish { due, ..message(&queue, &n.to_string()) }).collect();
    publish(bench, batch).await;
    bench.crash().await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    if Some(bench.now()) < due {
        nothing(&mut *subscription).await;
    }
    bench.pass(SECOND).await;
    assert_eq!(take(&mut *subscription, 50).await.len(), 50);
}

pub async fn order_of_due_times(bench: &mut dyn Bench) {
    let queue = bench.name("dueorder");
    let now = bench.now();
    let at = |n: u64| Some(now.plus(Duration::from_millis(1000 + n * 2000)));
    let batch = [2, 0, 1].map(|n| Publish { due: at(n), ..message(&queue, &n.to_string()) });
    publish(bench, batch.into()).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    for n in 0..3 {
        bench.pass(Duration::from_millis(if n == 0 { 1000 } else { 2000 })).await;
        assert_eq!(texts(&take(&mut *subscription, 1).await), [n.to_string()]);
    }
}
