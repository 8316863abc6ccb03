//! Hosts of a route, TLS, and sessions.

use std::time::Duration;

use posthaste_model::{Disposition, Reason};
use posthaste_smtp::TlsMode;
use posthaste_trial::{
    SinkConfig,
    dns::Zones,
    sink::{Action, Rule, RuleStage},
};

use crate::stage::{Stage, one_host, says, times, to, until};

/// Nobody listens at 127.0.0.9.
fn two_hosts() -> Zones {
    Zones::new()
        .mx("a.test", 10, "first.test")
        .mx("a.test", 20, "second.test")
        .a("first.test", [127, 0, 0, 9])
        .a("second.test", [127, 0, 0, 1])
}

#[tokio::test]
async fn the_second_host_when_the_first_is_down() {
    let mut stage = Stage::new(two_hosts()).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    sink.next().await;
    let event = stage.event_of(id).await;
    assert_eq!((event.disposition, event.attempt), (Disposition::Delivered, 1));
    assert_eq!(event.remote_host.as_deref(), Some("second.test"));
    stage.stop(running).await;
}

#[tokio::test]
async fn all_hosts_down() {
    let zones = two_hosts().remove("second.test").a("second.test", [127, 0, 0, 8]);
    let mut stage = Stage::new(zones).await;
    // Takes the port, so that nobody else does.
    let sink = stage.sink("127.0.0.1", vec![]).await;
    stage.config.retry = crate::stage::retry(&[60_000], 3);
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    let event = stage.event_of(id).await;
    assert_eq!((event.disposition, event.reason), (Disposition::Deferred, Reason::Unreachable));
    assert_eq!(event.remote_host.as_deref(), Some("second.test"));
    stage.stop(running).await;
    assert_eq!(stage.depth().await.delayed, 1);
    assert_eq!(sink.sink.stats().connections, 0);
}

#[tokio::test]
async fn a_host_that_does_not_want_to_talk_is_passed_over() {
    for rule in [
        says(RuleStage::Connect, 554, "5.7.1"),
        says(RuleStage::Connect, 421, "4.7.0"),
        says(RuleStage::Mail, 421, ""),
        Rule::new(RuleStage::Connect, Action::Drop),
        Rule::new(RuleStage::Connect, Action::Garbage),
        Rule::new(RuleStage::Rcpt, Action::Drop),
    ] {
        let zones = two_hosts().remove("first.test").a("first.test", [127, 0, 0, 3]);
        let mut stage = Stage::new(zones).await;
        let mut second = stage.sink("127.0.0.1", vec![]).await;
        let first = stage.sink("127.0.0.3", vec![rule.clone()]).await;
        let running = stage.start();
        let id = stage.send("b@a.test").await;
        second.next().await;
        let event = stage.event_of(id).await;
        assert_eq!((event.disposition, event.attempt), (Disposition::Delivered, 1), "{rule:?}");
        assert_eq!(event.remote_host.as_deref(), Some("second.test"));
        assert_eq!(first.sink.stats().connections, 1);
        stage.stop(running).await;
    }
}

#[tokio::test]
async fn no_other_host_when_the_first_may_have_taken_it() {
    let zones = two_hosts().remove("first.test").a("first.test", [127, 0, 0, 3]);
    let mut stage = Stage::new(zones).await;
    let second = stage.sink("127.0.0.1", vec![]).await;
    let rule = Rule::new(RuleStage::EndOfData, Action::AcceptThenDrop);
    let mut first = stage.sink("127.0.0.3", vec![rule]).await;
    stage.config.retry = crate::stage::retry(&[60_000], 3);
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    first.next().await;
    let event = stage.event_of(id).await;
    assert_eq!((event.disposition, event.reason), (Disposition::Deferred, Reason::ConnectionLost));
    stage.stop(running).await;
    assert_eq!(second.sink.stats().connections, 0);
}

#[tokio::test]
async fn a_smart_host_takes_everything() {
    let mut stage = Stage::new(Zones::new().a("relay.test", [127, 0, 0, 1])).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    stage.config.smart_host = Some("relay.test".into());
    let running = stage.start();
    let id = stage.send("b@unheard.test").await;
    sink.next().await;
    assert_eq!(stage.event_of(id).await.remote_host.as_deref(), Some("relay.test"));
    stage.stop(running).await;
}

fn with_tls(config: &mut SinkConfig) {
    config.server.starttls = true;
}

#[tokio::test]
async fn tls_when_it_is_offered() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink_with("127.0.0.1", vec![], with_tls).await;
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    assert!(sink.next().await.tls);
    let event = stage.event_of(id).await;
    let tls = event.tls.unwrap();
    assert!(tls.version.starts_with("TLSv1."), "{tls:?}");
    assert!(!tls.cipher.is_empty());
    stage.stop(running).await;
}

#[tokio::test]
async fn tls_that_fails_is_given_up_and_remembered() {
    for action in [Action::Drop, Action::Garbage] {
        let mut stage = Stage::new(one_host("a.test")).await;
        let rule = Rule::new(RuleStage::Starttls, action.clone());
        let mut sink = stage.sink_with("127.0.0.1", vec![rule], with_tls).await;
        stage.config.messages_per_connection = 1;
        let running = stage.start();
        for connections in [2, 3] {
            let id = stage.send("b@a.test").await;
            assert!(!sink.next().await.tls);
            let event = stage.event_of(id).await;
            assert_eq!((event.disposition, event.attempt), (Disposition::Delivered, 1));
            assert_eq!(event.tls, None);
            let detail = event.detail.unwrap();
            assert!(detail.starts_with("sent in clear: "), "{detail}");
            assert_eq!(sink.sink.stats().connections, connections, "{action:?}");
        }
        stage.stop(running).await;
    }
}

/// TLS fails for a moment with a server that takes no mail without it: that is
/// no judgement on the message, and TLS is tried again with the next attempt.
#[tokio::test]
async fn a_server_that_insists_on_tls() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let broken = times(1, Rule::new(RuleStage::Starttls, Action::Garbage));
    let insists = times(1, says(RuleStage::Mail, 530, "5.7.0"));
    let mut sink = stage.sink_with("127.0.0.1", vec![broken, insists], with_tls).await;
    stage.config.retry = crate::stage::retry(&[10], 3);
    let running = stage.start();
    let id = stage.send("b@a.test").await;
    let event = stage.event_of(id).await;
    assert_eq!((event.disposition, event.reason), (Disposition::Deferred, Reason::TlsFailed));
    assert_eq!(event.reply.as_ref().map(|reply| reply.code), Some(530));
    let detail = event.detail.unwrap();
    assert!(detail.starts_with("the server takes no mail in clear"), "{detail}");
    assert!(sink.next().await.tls);
    let event = stage.events_of(id, 2).await.remove(1);
    assert_eq!((event.disposition, event.attempt), (Disposition::Delivered, 2));
    stage.stop(running).await;
}

#[tokio::test]
async fn required_tls_is_never_given_up() {
    for mode in [TlsMode::Require, TlsMode::Verify] {
        for offered in [false, true] {
            let mut stage = Stage::new(one_host("a.test")).await;
            let rule = Rule::new(RuleStage::Starttls, Action::Garbage);
            let adjust = |config: &mut SinkConfig| config.server.starttls = offered;
            let sink = stage.sink_with("127.0.0.1", vec![rule], adjust).await;
            stage.config.tls = mode;
            stage.config.retry = crate::stage::retry(&[60_000], 3);
            let running = stage.start();
            let id = stage.send("b@a.test").await;
            let event = stage.event_of(id).await;
            assert_eq!(event.disposition, Disposition::Deferred);
            // What garbage in place of a reply is called is the session's.
            let reasons = [Reason::TlsFailed, Reason::ProtocolError];
            assert!(reasons.contains(&event.reason), "{event:?}");
            stage.stop(running).await;
            assert_eq!(sink.accepted(), 0);
        }
    }
}

#[tokio::test]
async fn a_session_serves_many_and_one_that_was_closed_is_replaced() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let closing = to("last@sender.test", times(1, says(RuleStage::Mail, 421, "")));
    let mut sink = stage.sink("127.0.0.1", vec![closing]).await;
    stage.config.total_concurrency = 1;
    let running = stage.start();
    for _ in 0..5 {
        stage.send("b@a.test").await;
        sink.next().await;
    }
    assert_eq!(sink.sink.stats().connections, 1);
    let mut head = stage.head("b@a.test");
    head.return_path = Some("last@sender.test".parse().unwrap());
    let id = stage.send_head(&head).await;
    sink.next().await;
    let event = stage.event_of(id).await;
    assert_eq!((event.disposition, event.attempt), (Disposition::Delivered, 1));
    assert_eq!(sink.sink.stats().connections, 2);
    stage.stop(running).await;
    assert_eq!(stage.events().len(), 6);
}

#[tokio::test]
async fn a_session_has_bounds() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    stage.config.total_concurrency = 1;
    stage.config.messages_per_connection = 3;
    let running = stage.start();
    for _ in 0..7 {
        stage.send("b@a.test").await;
    }
    for _ in 0..7 {
        sink.next().await;
    }
    assert_eq!(sink.sink.stats().connections, 3);
    stage.stop(running).await;
}

#[tokio::test]
async fn an_idle_session_is_ended() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![]).await;
    stage.config.session_idle = Duration::from_millis(50);
    let running = stage.start();
    for connections in [1, 2] {
        let id = stage.send("b@a.test").await;
        sink.next().await;
        stage.event_of(id).await;
        assert_eq!(sink.sink.stats().connections, connections);
        until(async || sink.sink.stats().open == 0).await;
    }
    stage.stop(running).await;
}

#[tokio::test]
async fn a_session_that_the_server_ended_is_replaced() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let adjust = |config: &mut SinkConfig| config.idle_timeout = Duration::from_millis(100);
    let mut sink = stage.sink_with("127.0.0.1", vec![], adjust).await;
    let running = stage.start();
    for _ in 0..2 {
        let id = stage.send("b@a.test").await;
        sink.next().await;
        let event = stage.event_of(id).await;
        assert_eq!((event.disposition, event.attempt), (Disposition::Delivered, 1));
        until(async || sink.sink.stats().open == 0).await;
    }
    stage.stop(running).await;
    assert_eq!(stage.events().len(), 2);
}

#[tokio::test]
async fn a_refused_message_leaves_the_session_usable() {
    let mut stage = Stage::new(one_host("a.test")).await;
    let refusal = to("no@a.test", says(RuleStage::Rcpt, 550, "5.1.1"));
    let mut sink = stage.sink("127.0.0.1", vec![refusal]).await;
    stage.config.total_concurrency = 1;
    let running = stage.start();
    stage.send("b@a.test").await;
    let refused = stage.send("no@a.test").await;
    stage.send("c@a.test").await;
    sink.next().await;
    sink.next().await;
    assert_eq!(stage.event_of(refused).await.disposition, Disposition::Undeliverable);
    stage.stop(running).await;
    assert_eq!(sink.sink.stats().connections, 1);
}
