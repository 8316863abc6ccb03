//! Flows: blocks and caps.

use super::{AMPLE, Bench, acknowledge, credit, in_flow, nothing, publish, subscribe, take, texts};
use crate::contract::{FlowKey, SubscribeOptions};

pub async fn a_blocked_flow_waits(bench: &mut dyn Bench) {
    let queue = bench.name("blocked");
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    // Once before it has messages, and once while it has.
    subscription.block(&FlowKey::new("a.test"));
    let pair = |n: u32| {
        vec![
            in_flow(&queue, "a.test", &format!("a{n}")),
            in_flow(&queue, "b.test", &format!("b{n}")),
        ]
    };
    publish(bench, pair(0)).await;
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["b0"]);
    nothing(&mut *subscription).await;
    subscription.unblock(&FlowKey::new("a.test"));
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["a0"]);
    subscription.block(&FlowKey::new("b.test"));
    publish(bench, pair(1)).await;
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["a1"]);
    nothing(&mut *subscription).await;
    // A block is one consumer's own.
    drop(subscription);
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    assert_eq!(take(&mut *subscription, 4).await.len(), 4);
}

pub async fn a_cap_holds_one_flow(bench: &mut dyn Bench) {
    if !bench.abilities().native_flows {
        // Lanes stand in for it there.
        return;
    }
    let queue = bench.name("cap");
    let batch = (0..10).map(|n| in_flow(&queue, "a.test", &format!("a{n}")));
    publish(bench, batch.collect()).await;
    let capped = SubscribeOptions { flow_messages: 3, ..AMPLE };
    let mut subscription = subscribe(bench, &queue, capped).await;
    let held = take(&mut *subscription, 3).await;
    nothing(&mut *subscription).await;
    publish(bench, vec![in_flow(&queue, "b.test", "b0")]).await;
    assert_eq!(texts(&take(&mut *subscription, 1).await), ["b0"]);
    acknowledge(bench, &held[..2]).await;
    assert_eq!(texts(&take(&mut *subscription, 2).await), ["a3", "a4"]);
    nothing(&mut *subscription).await;
}

pub async fn a_slow_flow_holds_up_no_other(bench: &mut dyn Bench) {
    let queue = bench.name("slow");
    let batch = (0..500).map(|n| in_flow(&queue, "slow.test", &format!("s{n}")));
    publish(bench, batch.collect()).await;
    let mut subscription =
        subscribe(bench, &queue, SubscribeOptions { flow_messages: 5, ..credit(20) }).await;
    subscription.block(&FlowKey::new("slow.test"));
    let fast = (0..100).map(|n| in_flow(&queue, &format!("f{}.test", n % 10), &format!("f{n}")));
    publish(bench, fast.collect()).await;
    let mut seen = 0;
    while seen < 100 {
        let taken = subscription.next().await.expect("next");
        assert!(texts(&taken).iter().all(|text| text.starts_with('f')));
        seen += taken.len();
        acknowledge(bench, &taken).await;
    }
    nothing(&mut *subscription).await;
    subscription.unblock(&FlowKey::new("slow.test"));
    assert_eq!(take(&mut *subscription, 5).await.len(), 5);
}
