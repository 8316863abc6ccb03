//! What becomes of a message, and what the record says about it.

use std::time::Duration;

use posthaste_model::{AttemptEvent, Disposition, Reason};
use posthaste_trial::{
    dns::Zones,
    sink::{Action, Rule, RuleStage},
};

use crate::stage::{CONTENT, Stage, one_host, quarantine, retry, says, times};

fn end(event: &AttemptEvent) -> (Disposition, Reason, u32) {
    (event.disposition, event.reason, event.attempt)
}

#[tokio::test]
async fn delivered_with_evidence() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    let head = stage.head("b@a.test");
    let running = stage.start();
    let id = stage.send_head(&head).await;

    let received = sink.next().await;
    assert_eq!(received.sender.as_deref(), Some("a@sender.test"));
    assert_eq!(received.recipients, ["b@a.test"]);
    assert_eq!(received.content.unwrap(), format!("To: b@a.test\r\n{CONTENT}"));
    let event = stage.event_of(id).await;
    assert_eq!(end(&event), (Disposition::Delivered, Reason::Accepted, 1));
    assert_eq!(event.submission_id, head.submission_id);
    assert_eq!(event.reply.unwrap().code, 250);
    assert_eq!(event.remote_host.as_deref(), Some("mx.test"));
    assert_eq!(event.remote_address.unwrap(), sink.sink.address().to_string());
    assert_eq!(event.smtp_client, "c1");
    assert_eq!(event.next_attempt_at, None);
    assert!(event.time >= event.started_at);
    let headers: Vec<(String, String)> = serde_json::from_str(event.headers.get()).unwrap();
    assert_eq!(headers[0], ("To".into(), "b@a.test".into()));
    assert_eq!(headers[1], ("Subject".into(), "hello".into()));
    let client: serde_json::Value = serde_json::from_str(event.client.get()).unwrap();
    assert_eq!(client["ehlo_name"], "client.test");

    stage.stop(running).await;
    assert_eq!(stage.depth().await.total(), 0);
    assert_eq!(stage.events().len(), 1);
    let left = posthaste_delivery::journal::read(&stage.journal_dir()).unwrap();
    assert!(left.iter().all(|attempt| attempt.has_final && attempt.is_settled), "{left:?}");
}

#[tokio::test]
async fn deferred_then_delivered_at_its_due_time() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let refusal = times(1, says(RuleStage::Rcpt, 450, "4.2.1"));
    let mut sink = stage.sink("127.0.0.1", vec![refusal]).await;
    stage.config.retry = retry(&[300], 3);
    let running = stage.start();
    let id = stage.send("b@a.test").await;

    let received = sink.next().await;
    let events = stage.events_of(id, 2).await;
    assert_eq!(end(&events[0]), (Disposition::Deferred, Reason::RemoteTemporary, 1));
    assert_eq!(events[0].reply.as_ref().unwrap().code, 450);
    assert_eq!(end(&events[1]), (Disposition::Delivered, Reason::Accepted, 2));
    let due = events[0].next_attempt_at.unwrap();
    assert!(due.since(events[0].time) >= Duration::from_millis(299));
    assert!(received.time >= due, "{} is before {due}", received.time);
    assert_eq!(received.content.unwrap(), format!("To: b@a.test\r\n{CONTENT}"));
    stage.stop(running).await;
    assert_eq!(stage.depth().await.total(), 0);
}

#[tokio::test]
async fn replies_decide() {
    use Disposition::{Deferred, Undeliverable};
    for (stage_of_rule, code, disposition, reason) in [
        (RuleStage::Connect, 554, Deferred, Reason::RemotePermanent),
        (RuleStage::Connect, 421, Deferred, Reason::RemoteTemporary),
        (RuleStage::Mail, 550, Undeliverable, Reason::RemotePermanent),
        (RuleStage::Mail, 451, Deferred, Reason::RemoteTemporary),
        (RuleStage::Rcpt, 550, Undeliverable, Reason::RemotePermanent),
        (RuleStage::Data, 451, Deferred, Reason::RemoteTemporary),
        (RuleStage::Data, 554, Undeliverable, Reason::RemotePermanent),
        (RuleStage::EndOfData, 452, Deferred, Reason::RemoteTemporary),
        (RuleStage::EndOfData, 552, Undeliverable, Reason::RemotePermanent),
    ] {
        let mut stage = Stage::new(one_host("a.test")).await;
        let sink = stage.sink("127.0.0.1", vec![says(stage_of_rule, code, "")]).await;
        stage.config.retry = retry(&[60_000], 3);
        let running = stage.start();
        let id = stage.send("b@a.test").await;
        let event = stage.event_of(id).await;
        assert_eq!(end(&event), (disposition, reason, 1), "{stage_of_rule:?} {code}");
        assert_eq!(event.reply.unwrap().code, code);
        assert_eq!(event.remote_host.as_deref(), Some("mx.test"));
        stage.stop(running).await;
        let delayed = u64::from(disposition == Deferred);
        assert_eq!((stage.depth().await.total(), stage.depth().await.delayed), (delayed, delayed));
        assert_eq!(sink.accepted(), 0);
    }
}

#[tokio::test]
async fn attempts_are_used_up() {
    let mut stage = Stage::new(one_host("a.test").null_mx("null.test")).await;
    let _sink = stage.sink("127.0.0.1", vec![says(RuleStage::Rcpt, 450, "")]).await;
    let running = stage.start();
    let refused = stage.send("b@a.test").await;
    let unroutable = stage.send("b@nowhere.test").await;
    let null = stage.send("b@null.test").await;

    let events = stage.events_of(refused, 3).await;
    for (event, number) in events.iter().zip(1..=2) {
        assert_eq!(end(event), (Disposition::Deferred, Reason::RemoteTemporary, number));
    }
    let last = &events[2];
    assert_eq!(end(last), (Disposition::Undeliverable, Reason::AttemptsExhausted, 3));
    assert_eq!(last.reply.as_ref().unwrap().code, 450);
    assert!(last.detail.as_ref().unwrap().contains("remote_temporary"), "{:?}", last.detail);

    let events = stage.events_of(unroutable, 2).await;
    assert_eq!(end(&events[0]), (Disposition::Deferred, Reason::NoRoute, 1));
    assert_eq!(end(&events[1]), (Disposition::Undeliverable, Reason::AttemptsExhausted, 2));

    let event = stage.event_of(null).await;
    assert_eq!(end(&event), (Disposition::Undeliverable, Reason::NullMx, 1));
    stage.stop(running).await;
    assert_eq!(stage.depth().await.total(), 0);
}

#[tokio::test]
async fn name_servers_that_fail_are_temporary() {
    let zones = Zones::new().servfail("broken.test");
    let mut stage = Stage::new(zones).await;
    let running = stage.start();
    let id = stage.send("b@broken.test").await;
    let event = stage.event_of(id).await;
    assert_eq!(end(&event), (Disposition::Deferred, Reason::DnsTemporary, 1));
    stage.stop(running).await;
}

#[tokio::test]
async fn a_private_destination_is_refused() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let sink = stage.sink("127.0.0.1", vec![]).await;
    stage.allow_private = false;
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    let event = stage.event_of(id).await;
    assert_eq!(end(&event), (Disposition::Deferred, Reason::DestinationRefused, 1));
    stage.stop(running).await;
    assert_eq!(sink.sink.stats().connections, 0);
}

#[tokio::test]
async fn what_the_server_cannot_take() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let adjust = |config: &mut posthaste_trial::SinkConfig| {
        config.server.smtputf8 = false;
        config.server.max_content = 20;
    };
    let sink = stage.sink_with("127.0.0.1", vec![], adjust).await;
    let running = stage.start();
    let large = stage.send("b@a.test").await;
    let mut head = stage.head("jörg@a.test");
    head.smtputf8 = true;
    let international = stage.send_head(&head).await;
    let event = stage.event_of(large).await;
    assert_eq!(end(&event), (Disposition::Undeliverable, Reason::TooLarge, 1));
    let event = stage.event_of(international).await;
    assert_eq!(end(&event), (Disposition::Undeliverable, Reason::Smtputf8Unsupported, 1));
    stage.stop(running).await;
    assert_eq!(sink.accepted(), 0);
}

#[tokio::test]
async fn loops_are_found() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let adjust = |config: &mut posthaste_trial::SinkConfig| {
        config.server.hostname = "CLIENT.test".into();
    };
    let sink = stage.sink_with("127.0.0.1", vec![], adjust).await;
    let running = stage.start();
    let back = stage.send("b@a.test").await;
    let mut head = stage.head("b@a.test");
    head.fields = "Received: by x\r\n".repeat(26);
    let hops = stage.send_head(&head).await;
    for id in [back, hops] {
        let event = stage.event_of(id).await;
        assert_eq!(end(&event), (Disposition::Undeliverable, Reason::Loop, 1));
    }
    stage.stop(running).await;
    assert_eq!(sink.accepted(), 0);
}

#[tokio::test]
async fn an_expired_message_is_not_attempted() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let sink = stage.sink("127.0.0.1", vec![]).await;
    let running = stage.start();
    let mut head = stage.head("b@a.test");
    head.expires_at = Some(posthaste_model::Timestamp::from_millis(1));
    let id = stage.send_head(&head).await;
    let event = stage.event_of(id).await;
    assert_eq!(end(&event), (Disposition::Undeliverable, Reason::Expired, 0));
    stage.stop(running).await;
    assert_eq!(sink.sink.stats().connections, 0);
    assert_eq!(stage.depth().await.total(), 0);
}

#[tokio::test]
async fn what_cannot_be_read_goes_to_quarantine() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    let running = stage.start();
    let head = stage.head("b@a.test");
    let garbage = stage.publish(&head, b"{garbage".as_slice().into(), "body".into()).await;
    let head = stage.head("b@a.test");
    let damaged = stage.publish(&head, head.encode().into(), "not zstd".into()).await;
    let good = stage.send("b@a.test").await;

    sink.next().await;
    let event = stage.event_of(damaged).await;
    assert_eq!(end(&event), (Disposition::Undeliverable, Reason::Unreadable, 0));
    assert_eq!(end(&stage.event_of(good).await).0, Disposition::Delivered);
    stage.stop(running).await;
    assert_eq!(stage.depth().await.total(), 0);
    assert_eq!(sink.accepted(), 1);
    let held = stage.queue.browse(&quarantine(), None, 10).await.unwrap();
    let mut held: Vec<_> = held.iter().map(|m| (m.id, m.head.clone(), m.body_len)).collect();
    held.sort();
    let mut expected = vec![
        (garbage.into(), b"{garbage".as_slice().into(), 4),
        (damaged.into(), head.encode().into(), 8),
    ];
    expected.sort();
    assert_eq!(held, expected);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let rule = Rule::new(RuleStage::Rcpt, Action::Silence);
    let _sink = stage.sink("127.0.0.1", vec![rule]).await;
    stage.config.timeouts.rcpt = Duration::from_millis(200);
    stage.config.retry = retry(&[60_000], 3);
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    let event = stage.event_of(id).await;
    assert_eq!(end(&event), (Disposition::Deferred, Reason::Timeout, 1));
    stage.stop(running).await;
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_cut_off() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let rule = Rule::new(RuleStage::EndOfData, Action::Silence);
    let _sink = stage.sink("127.0.0.1", vec![rule]).await;
    stage.config.attempt_timeout = Duration::from_millis(300);
    stage.config.retry = retry(&[60_000], 3);
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    let event = stage.event_of(id).await;
    assert_eq!(end(&event), (Disposition::Deferred, Reason::Timeout, 1));
    assert_eq!(event.remote_host.as_deref(), Some("mx.test"));
    stage.stop(running).await;
}
