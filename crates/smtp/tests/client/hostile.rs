//! Servers that misbehave, in every way that comes to mind, and the failure
//! that the client makes of each.

use std::time::{Duration, Instant};

use posthaste_smtp::{Failure, FailureKind, Session, Stage, Transaction};

use crate::{
    cases::{self, Case, Kind},
    peer::{Peer, Step, options, tls},
};

/// Connects and, where that goes well, sends one message.
async fn outcome(
    case: &Case,
    address: std::net::SocketAddr,
) -> (Result<(), Failure>, Option<bool>) {
    let mut options = options();
    options.tls = case.mode;
    if case.slow {
        let short = Duration::from_millis(60);
        let timeouts = &mut options.timeouts;
        match case.stage {
            Stage::Greeting => timeouts.greeting = short,
            Stage::Ehlo => timeouts.ehlo = short,
            Stage::StartTls => timeouts.starttls = short,
            Stage::MailFrom => timeouts.mail = short,
            Stage::RcptTo => timeouts.rcpt = short,
            Stage::Data => timeouts.data = short,
            Stage::DataEnd => timeouts.data_end = short,
            Stage::Connect | Stage::Reset | Stage::Quit => unreachable!(),
        }
    }
    let mut session = match Session::connect("mx.test", address, &options, &tls()).await {
        Ok(session) => session,
        Err(failure) => return (Err(failure), None),
    };
    let parts: [&[u8]; 2] = [b"To: b@b.test\r\n", b"Subject: x\r\n\r\n.dot\r\n"];
    let transaction = Transaction {
        return_path: Some("a@a.test"),
        recipient: "b@b.test",
        smtputf8: false,
        eight_bit: false,
        parts: &parts,
    };
    let outcome = session.transact(&transaction).await.map(|_| ());
    let usable = session.is_usable();
    if !usable && outcome.is_err() {
        // A dead session stays dead, and says so without touching the peer.
        let again = session.transact(&transaction).await;
        assert!(again.is_err(), "{}", case.name);
    }
    (outcome, Some(usable))
}

fn matches(expected: Kind, stage: Stage, outcome: &Result<(), Failure>) -> bool {
    let failure = match outcome {
        Ok(()) => return matches!(expected, Kind::Delivered),
        Err(failure) => failure,
    };
    let kind = match (expected, &failure.kind) {
        (Kind::Reply(code), FailureKind::Reply(reply)) => reply.code == code,
        (Kind::Closed, FailureKind::Closed)
        | (Kind::Timeout, FailureKind::Timeout)
        | (Kind::Protocol, FailureKind::Protocol(_))
        | (Kind::Tls, FailureKind::Tls(_))
        | (Kind::Unsupported, FailureKind::Unsupported(_)) => true,
        _ => false,
    };
    kind && failure.stage == stage
}

async fn check(cases: Vec<Case>) {
    for case in cases {
        let name = case.name;
        let peer = Peer::play(case.script.clone()).await;
        let started = Instant::now();
        let (outcome, usable) = outcome(&case, peer.address).await;
        // Half the time limit of a stage: no reply was waited for in vain.
        assert!(started.elapsed() < Duration::from_secs(10), "{name}: {:?}", started.elapsed());
        assert!(
            matches(case.kind, case.stage, &outcome),
            "{name}: expected {:?} {:?}, got {outcome:?}",
            case.stage,
            case.kind
        );
        if case.usable.is_some() {
            assert_eq!(usable, case.usable, "{name}: usable");
        }
        let unknown = outcome.as_ref().is_err_and(Failure::is_outcome_unknown);
        let silent = matches!(case.kind, Kind::Closed | Kind::Timeout | Kind::Protocol);
        assert_eq!(unknown, case.stage == Stage::DataEnd && silent, "{name}: outcome unknown");
        // A script that ends in End has seen that the client said no more. Those
        // that end otherwise may have been left in the middle.
        if matches!(case.script.last(), Some(Step::End)) {
            assert_eq!(peer.task.await.unwrap().err(), None, "{name}: the peer");
        } else {
            peer.task.abort();
        }
    }
}

#[tokio::test]
async fn while_opening() {
    check(cases::opening()).await;
}

#[tokio::test]
async fn with_tls() {
    check(cases::tls_cases()).await;
}

#[tokio::test]
async fn step_by_step() {
    check(cases::stepwise_cases()).await;
}

#[tokio::test]
async fn pipelining() {
    check(cases::pipelined_cases()).await;
}

#[tokio::test]
async fn after_the_content() {
    check(cases::content_cases()).await;
}
