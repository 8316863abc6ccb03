//! The sink on a real socket, with the client session of the house.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use std::{net::SocketAddr, path::Path, time::Duration};

use posthaste_smtp::{
    Failure, FailureKind, Session, SessionOptions, Stage, Timeouts, TlsClient, TlsMode,
    Transaction, server::ServerOptions,
};
use posthaste_trial::sink::{Keep, Received, Rule, Sink, SinkConfig, SinkStats};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

const RECEIVED: &[u8] =
    b"Received: by a.test (Posthaste)\r\n with HTTP id 0192-ab;\r\n Tue, 1 Jul 2025 00:00:00 +0000\r\n";
const CONTENT: &[u8] = b"Subject: x\r\n\r\n.hi\r\n";
const PARTS: &[&[u8]] = &[RECEIVED, CONTENT];

fn to(recipient: &str) -> Transaction<'_> {
    Transaction {
        return_path: Some("a@a.test"),
        recipient,
        smtputf8: false,
        eight_bit: false,
        parts: PARTS,
    }
}

fn config() -> SinkConfig {
    SinkConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn rules(lines: &[&str]) -> SinkConfig {
    SinkConfig {
        rules: lines.iter().map(|line| line.parse::<Rule>().unwrap()).collect(),
        ..config()
    }
}

async fn connect(sink: &Sink, tls: TlsMode) -> Result<Session, Failure> {
    let options = SessionOptions { tls, ..SessionOptions::new("client.test") };
    Session::connect("sink.test", sink.address(), &options, &TlsClient::new().unwrap()).await
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn takes_mail_and_tells_of_it_before_the_reply() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("accepted");
    for (starttls, tls) in
        [(false, TlsMode::Require), (true, TlsMode::Require), (true, TlsMode::Off)]
    {
        let (sender, mut observed) = mpsc::channel::<Received>(10);
        let sink = Sink::start(SinkConfig {
            server: ServerOptions { starttls, ..ServerOptions::new("sink.test") },
            keep: Keep::All,
            observer: Some(sender),
            log: Some(log.clone()),
            ..config()
        })
        .await
        .unwrap();
        assert_eq!(sink.certificate().is_some(), starttls);
        let mode = if starttls { tls } else { TlsMode::Opportunistic };
        let mut session = connect(&sink, mode).await.unwrap();
        assert_eq!(session.greeting_host(), "sink.test");
        for recipient in ["one@b.test", "two@b.test"] {
            let before = lines(&log).len();
            session.transact(&to(recipient)).await.unwrap();
            let received = observed.try_recv().unwrap();
            assert_eq!(received.sender.as_deref(), Some("a@a.test"));
            assert_eq!(received.recipients, [recipient]);
            assert_eq!(received.content.as_deref(), Some(&PARTS.concat()[..]));
            assert_eq!(received.size, PARTS.concat().len());
            assert_eq!(received.tls, mode == TlsMode::Require);
            assert_eq!(received.helo, "client.test");
            let log = lines(&log);
            assert_eq!(log.len(), before + 1);
            let [time, id, to] = log[before].split(' ').collect::<Vec<_>>()[..] else { panic!() };
            assert_eq!(
                (time, id, to),
                (&*received.time.as_millis().to_string(), "0192-ab", recipient)
            );
        }
        session.quit().await;
        let size = PARTS.concat().len() as u64;
        let expected = SinkStats {
            connections: 1,
            tls: u64::from(mode == TlsMode::Require),
            accepted: 2,
            recipients: 2,
            bytes: 2 * size,
            ..SinkStats::default()
        };
        assert_eq!(SinkStats { open: 0, ..sink.stats() }, expected);
        sink.stop().await;
    }
    assert_eq!(lines(&log).len(), 6);
}

#[tokio::test]
async fn a_client_can_verify_its_certificate() {
    let server = ServerOptions { starttls: true, ..ServerOptions::new("mx.sink.test") };
    let sink = Sink::start(SinkConfig { server, ..config() }).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(sink.certificate().unwrap().clone()).unwrap();
    let tls = TlsClient::with_roots(roots).unwrap();
    let options = SessionOptions { tls: TlsMode::Verify, ..SessionOptions::new("client.test") };
    let mut session =
        Session::connect("mx.sink.test", sink.address(), &options, &tls).await.unwrap();
    session.transact(&to("b@b.test")).await.unwrap();
    let other = Session::connect("mx2.sink.test", sink.address(), &options, &tls).await;
    assert!(matches!(other, Err(Failure { stage: Stage::StartTls, kind: FailureKind::Tls(_) })));
    sink.stop().await;
}

#[tokio::test]
async fn rules_refuse_and_sessions_go_on() {
    let sink = Sink::start(rules(&[
        "mail=bad@*:550 5.1.8 sender",
        "rcpt=slow*@*:450 4.2.1 busy:once each",
        "rcpt=gone@*:550 5.1.1 no such user",
        "data=full@*:452 4.3.1 full",
        "end_of_data=spam@*:554 5.7.1 spam\\nreally",
        "end_of_data=words@*:250 2.6.0 taken as 7",
    ]))
    .await
    .unwrap();
    let mut session = connect(&sink, TlsMode::Off).await.unwrap();
    let bad = Transaction { return_path: Some("bad@a.test"), ..to("x@b.test") };
    for (t, expected) in [
        (bad, "MAIL FROM: the server replied 550 5.1.8 sender"),
        (to("slow1@b.test"), "RCPT TO: the server replied 450 4.2.1 busy"),
        (to("slow1@b.test"), "250 2.0.0 OK"),
        (to("slow2@b.test"), "RCPT TO: the server replied 450 4.2.1 busy"),
        (to("slow1@b.test"), "250 2.0.0 OK"),
        (to("slow2@b.test"), "250 2.0.0 OK"),
        (to("gone@b.test"), "RCPT TO: the server replied 550 5.1.1 no such user"),
        (to("full@b.test"), "DATA: the server replied 452 4.3.1 full"),
        (to("spam@b.test"), "end of data: the server replied 554 5.7.1 spam\nreally"),
        (to("words@b.test"), "250 2.6.0 taken as 7"),
        (to("x@b.test"), "250 2.0.0 OK"),
    ] {
        let outcome = match session.transact(&t).await {
            Ok(reply) => reply.to_string(),
            Err(failure) => failure.to_string(),
        };
        assert_eq!(outcome, expected, "{}", t.recipient);
        assert!(session.is_usable());
    }
    let stats = sink.stats();
    assert_eq!((stats.connections, stats.accepted, stats.refused), (1, 5, 6));
    sink.stop().await;
}

#[tokio::test]
async fn rules_break_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("accepted");
    for (rule, stage, kind, accepted) in [
        ("connect:554 no", Stage::Greeting, "the server replied 554 no", 0),
        ("connect:421 busy", Stage::Greeting, "the server replied 421 busy", 0),
        ("connect:drop", Stage::Greeting, "the connection was lost before the reply", 0),
        ("connect:garbage", Stage::Greeting, "not SMTP", 0),
        ("ehlo=client.*:drop", Stage::Ehlo, "the connection was lost before the reply", 0),
        ("ehlo:550 no", Stage::Ehlo, "the server replied 550 no", 0),
        ("starttls:454 4.7.0 no", Stage::StartTls, "the server replied 454 4.7.0 no", 0),
        ("mail:421 bye", Stage::MailFrom, "the server replied 421 bye", 0),
        ("rcpt:drop", Stage::RcptTo, "the connection was lost before the reply", 0),
        ("rcpt:garbage", Stage::RcptTo, "not SMTP", 0),
        ("data:250 odd", Stage::Data, "not SMTP: unexpected reply 250 odd", 0),
        ("end_of_data:drop", Stage::DataEnd, "the connection was lost before the reply", 0),
        (
            "end_of_data:accept_then_drop",
            Stage::DataEnd,
            "the connection was lost before the reply",
            1,
        ),
        ("end_of_data:garbage", Stage::DataEnd, "not SMTP", 0),
    ] {
        let server = ServerOptions { starttls: true, ..ServerOptions::new("sink.test") };
        let sink = Sink::start(SinkConfig { server, log: Some(log.clone()), ..rules(&[rule]) })
            .await
            .unwrap();
        let outcome = match connect(&sink, TlsMode::Opportunistic).await {
            Ok(mut session) => session.transact(&to("b@b.test")).await,
            Err(failure) => Err(failure),
        };
        let failure = outcome.unwrap_err();
        assert_eq!(failure.stage, stage, "{rule}: {failure}");
        assert!(failure.kind.to_string().starts_with(kind), "{rule}: {failure}");
        assert_eq!(sink.stats().accepted, accepted, "{rule}");
        assert_eq!(lines(&log).len() as u64, accepted, "{rule}");
        sink.stop().await;
        std::fs::remove_file(&log).unwrap();
    }
}

#[tokio::test]
async fn silence_and_delay() {
    let sink =
        Sink::start(rules(&["end_of_data=never@*:silence", "end_of_data=late@*:delay 80ms"]))
            .await
            .unwrap();
    let timeouts = Timeouts { data_end: Duration::from_millis(50), ..Timeouts::default() };
    let options = SessionOptions { timeouts, ..SessionOptions::new("client.test") };
    let tls = TlsClient::new().unwrap();
    let mut session = Session::connect("sink.test", sink.address(), &options, &tls).await.unwrap();
    let failure = session.transact(&to("never@b.test")).await.unwrap_err();
    assert_eq!(failure, Failure::new(Stage::DataEnd, FailureKind::Timeout));

    let mut session = connect(&sink, TlsMode::Off).await.unwrap();
    let started = std::time::Instant::now();
    session.transact(&to("late@b.test")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(80));
    assert_eq!(sink.stats().accepted, 1);
    sink.stop().await;
}

#[tokio::test]
async fn what_is_not_offered_is_not_taken() {
    let server = ServerOptions {
        pipelining: false,
        smtputf8: false,
        max_content: 10,
        ..ServerOptions::new("small.test")
    };
    let sink = Sink::start(SinkConfig { server, ..config() }).await.unwrap();
    let mut session = connect(&sink, TlsMode::Off).await.unwrap();
    assert!(!session.capabilities().pipelining);
    for t in [to("b@b.test"), to("jörg@b.test")] {
        let failure = session.transact(&t).await.unwrap_err();
        assert!(matches!(failure.kind, FailureKind::Unsupported(_)), "{failure}");
    }
    let small = Transaction { parts: &[b"hi\r\n"], ..to("b@b.test") };
    session.transact(&small).await.unwrap();
    sink.stop().await;
}

#[tokio::test]
async fn too_many_connections_are_refused_and_slots_come_free() {
    let sink = Sink::start(SinkConfig { max_connections: 1, ..config() }).await.unwrap();
    let first = connect(&sink, TlsMode::Off).await.unwrap();
    let failure = connect(&sink, TlsMode::Off).await.unwrap_err();
    assert_eq!(failure.to_string(), "greeting: the server replied 421 4.7.0 Too many connections");
    first.quit().await;
    for _ in 0..2000 {
        if sink.stats().open == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    connect(&sink, TlsMode::Off).await.unwrap();
    assert_eq!(sink.stats().connections_refused, 1);
    sink.stop().await;
}

#[tokio::test]
async fn an_observer_without_room_holds_nothing_up() {
    let (sender, mut observed) = mpsc::channel(1);
    let sink = Sink::start(SinkConfig { observer: Some(sender), ..config() }).await.unwrap();
    let mut session = connect(&sink, TlsMode::Off).await.unwrap();
    for _ in 0..3 {
        session.transact(&to("b@b.test")).await.unwrap();
    }
    assert_eq!((sink.stats().accepted, sink.stats().unobserved), (3, 2));
    assert!(observed.try_recv().unwrap().content.is_none());
    sink.stop().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_never_acknowledged() {
    // Writes to this device fail, as on a full disk.
    let full = Path::new("/dev/full");
    assert!(full.exists(), "this test needs /dev/full");
    let sink = Sink::start(SinkConfig { log: Some(full.to_owned()), ..config() }).await.unwrap();
    let mut session = connect(&sink, TlsMode::Off).await.unwrap();
    let failure = session.transact(&to("b@b.test")).await.unwrap_err();
    assert_eq!((failure.stage, failure.reply().unwrap().code), (Stage::DataEnd, 451));
    assert_eq!(sink.stats().accepted, 0);
    sink.stop().await;
}

#[tokio::test]
async fn silent_clients_are_closed_and_stop_closes_the_others() {
    let sink = Sink::start(SinkConfig { idle_timeout: Duration::from_millis(50), ..config() })
        .await
        .unwrap();
    let mut idle = TcpStream::connect(sink.address()).await.unwrap();
    let mut said = Vec::new();
    idle.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"220 sink.test ESMTP\r\n");
    sink.stop().await;

    let sink = Sink::start(config()).await.unwrap();
    let address = sink.address();
    let session = connect(&sink, TlsMode::Off).await.unwrap();
    sink.stop().await;
    assert!(!session.is_usable());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_whole_session_in_one_write_with_many_recipients() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("accepted");
    let sink = Sink::start(SinkConfig { log: Some(log.clone()), ..rules(&["rcpt=no@*:550 no"]) })
        .await
        .unwrap();
    let mut client = TcpStream::connect(sink.address()).await.unwrap();
    client
        .write_all(
            b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<no@b>\r\nRCPT TO:<c@b>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n",
        )
        .await
        .unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(
        said.ends_with("354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"),
        "{said}"
    );
    let ends: Vec<_> =
        lines(&log).iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(ends, ["- a@b", "- c@b"]);
    sink.stop().await;
}
