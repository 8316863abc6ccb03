//! Who comes first.

use super::{AMPLE, Bench, acknowledge, credit, in_flow, message, publish, subscribe, take, texts};
use crate::contract::Publish;

pub async fn first_in_first_out(bench: &mut dyn Bench) {
    let queue = bench.name("fifo");
    for batch in 0..4 {
        let batch = (0..25).map(|n| message(&queue, &format!("{}", batch * 25 + n))).collect();
        publish(bench, batch).await;
    }
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let taken = take(&mut *subscription, 100).await;
    assert_eq!(texts(&taken), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub async fn higher_priority_first(bench: &mut dyn Bench) {
    let queue = bench.name("priority");
    for priority in [0, 9, 4, 7, 1, 8, 3] {
        let one = |n: u8| Publish { priority, ..message(&queue, &format!("{priority}{n}")) };
        publish(bench, vec![one(0), one(1)]).await;
    }
    let mut subscription = subscribe(bench, &queue, credit(1)).await;
    let mut seen = Vec::new();
    for _ in 0..14 {
        let taken = take(&mut *subscription, 1).await;
        seen.extend(texts(&taken));
        acknowledge(bench, &taken).await;
    }
    if bench.abilities().strict_priority {
        let strict =
            ["90", "91", "80", "81", "70", "71", "40", "41", "30", "31", "10", "11", "00", "01"];
        assert_eq!(seen, strict);
    } else {
        let band = |text: &String| match &text[..1] {
            "7" | "8" | "9" => 0,
            "0" | "1" | "2" => 2,
            _ => 1,
        };
        assert!(seen.is_sorted_by_key(band), "{seen:?}");
    }
}

pub async fn flows_take_turns(bench: &mut dyn Bench) {
    let queue = bench.name("turns");
    let mut batch: Vec<_> = (0..50).map(|n| in_flow(&queue, "a.test", &format!("a{n}"))).collect();
    batch.extend((0..3).map(|n| in_flow(&queue, "b.test", &format!("b{n}"))));
    publish(bench, batch).await;
    let mut subscription = subscribe(bench, &queue, AMPLE).await;
    let seen = texts(&take(&mut *subscription, 53).await);
    for key in ["a", "b"] {
        let of_key: Vec<_> = seen.iter().filter(|text| text.starts_with(key)).collect();
        let expected: Vec<_> = (0..of_key.len()).map(|n| format!("{key}{n}")).collect();
        assert!(of_key.into_iter().eq(&expected), "{seen:?}");
    }
    if bench.abilities().native_flows {
        let last = seen.iter().position(|text| text == "b2").unwrap();
        assert!(last <= 5, "a small flow waits for a large one: {seen:?}");
    }
}

pub async fn order_over_a_large_backlog(bench: &mut dyn Bench) {
    let queue = bench.name("backlog");
    for batch in 0..20 {
        let low = |n| Publish { priority: 1, ..message(&queue, &format!("{}", batch * 500 + n)) };
        publish(bench, (0..500).map(low).collect()).await;
    }
    let high = |n| Publish { priority: 9, ..message(&queue, &format!("high {n}")) };
    publish(bench, (0..5).map(high).collect()).await;
    let mut subscription = subscribe(bench, &queue, credit(64)).await;
    let mut seen = Vec::new();
    while seen.len() < 10_005 {
        let taken = subscription.next().await.expect("next");
        seen.extend(texts(&taken));
        acknowledge(bench, &taken).await;
    }
    let expected = (0..5).map(|n| format!("high {n}")).chain((0..10_000).map(|n| n.to_string()));
    assert!(seen.iter().eq(&expected.collect::<Vec<_>>()));
}
