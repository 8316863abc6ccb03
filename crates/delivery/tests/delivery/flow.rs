//! Limits, priorities, and domains that do not hold each other up.

use posthaste_model::Disposition;
use posthaste_trial::{dns::Zones, sink::RuleStage};

use crate::stage::{Stage, delay, one_host, to};

#[tokio::test]
async fn a_domain_never_has_more_than_its_limit() {
    let zones = one_host("a.test").mx("b.test", 10, "other.test").a("other.test", [127, 0, 0, 2]);
    let mut stage = Stage::new(zones).await;
    let rules = || vec![delay(RuleStage::EndOfData, 10)];
    let limited = stage.sink("127.0.0.1", rules()).await;
    let usual = stage.sink("127.0.0.2", rules()).await;
    stage.config.domain_concurrency = 5;
    stage.config.domain_limits = [("a.test".parse().unwrap(), 2)].into();
    for n in 0..40 {
        stage.send(&format!("{n}@a.test")).await;
        stage.send(&format!("{n}@b.test")).await;
    }
    let running = stage.start();
    stage.events_until(|events| events.len() == 80).await;
    stage.stop(running).await;
    // Sessions are reused: as many connections as ever ran at once.
    assert_eq!((limited.accepted(), limited.sink.stats().connections), (40, 2));
    assert_eq!(usual.accepted(), 40);
    assert!(usual.sink.stats().connections <= 5);
}

#[tokio::test]
async fn the_total_is_never_exceeded() {
    let zones = Zones::new().wildcard("mx.test", [127, 0, 0, 1]);
    let mut stage = Stage::new(zones).await;
    let sink = stage.sink("127.0.0.1", vec![delay(RuleStage::EndOfData, 5)]).await;
    stage.config.total_concurrency = 3;
    for n in 0..30 {
        stage.send(&format!("b@d{n}.test")).await;
    }
    let running = stage.start();
    stage.events_until(|events| events.len() == 30).await;
    stage.stop(running).await;
    // One site: its sessions serve all domains.
    assert_eq!((sink.accepted(), sink.sink.stats().connections), (30, 3));
}

#[tokio::test]
async fn a_higher_priority_overtakes() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![delay(RuleStage::EndOfData, 50)]).await;
    stage.config.domain_concurrency = 1;
    for n in 0..40 {
        let mut head = stage.head(&format!("low{n}@a.test"));
        head.priority = 1;
        stage.send_head(&head).await;
    }
    let running = stage.start();
    sink.next().await;
    let mut head = stage.head("high@a.test");
    head.priority = 9;
    let high = stage.send_head(&head).await;
    let events = stage.events_until(|events| events.len() == 41).await;
    stage.stop(running).await;
    let high = events.iter().find(|event| event.message_id == high).unwrap();
    let low = || events.iter().filter(|event| event.message_id != high.message_id);
    assert!(low().any(|event| event.time > high.time), "nothing was left to overtake");
    // The one that was on its way, and one that was chosen while the queue
    // was handing this one over.
    let between = low().filter(|low| low.time > high.started_at && low.time < high.time);
    assert!(between.count() <= 2);
}

#[tokio::test]
async fn a_slow_domain_holds_nobody_up() {
    let zones = one_host("slow.test").mx("quick.test", 10, "mx.test");
    let mut stage = Stage::new(zones).await;
    let rule = to("*@slow.test", delay(RuleStage::Rcpt, 3_600_000));
    let mut sink = stage.sink("127.0.0.1", vec![rule]).await;
    stage.config.domain_concurrency = 2;
    stage.config.window.messages = 40;
    stage.config.drain_timeout = std::time::Duration::from_millis(100);
    // Far more than the window holds.
    for n in 0..200 {
        stage.send(&format!("{n}@slow.test")).await;
    }
    let running = stage.start();
    for n in 0..50 {
        let id = stage.send(&format!("{n}@quick.test")).await;
        sink.next().await;
        assert_eq!(stage.event_of(id).await.disposition, Disposition::Delivered);
    }
    stage.stop(running).await;
    assert_eq!(stage.depth().await.total(), 200);
}
