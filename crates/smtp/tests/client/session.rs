//! Sessions with a server that behaves, and what the client makes of its offers.

use std::time::Duration;

use posthaste_smtp::{
    Failure, FailureKind, Requirement, Session, SessionOptions, Stage, TlsClient, TlsMode,
    Transaction,
};

use crate::peer::{Peer, Step, options, send, tls};

const EHLO: &str = "EHLO client.test\r\n";
const MESSAGE: &[&[u8]] = &[b"To: b@b.test\r\n", b"Subject: x\r\n\r\nhi\r\n"];
const SIZE: &str = " SIZE=32";

fn transaction<'a>(recipient: &'a str, parts: &'a [&'a [u8]]) -> Transaction<'a> {
    Transaction {
        return_path: Some("a@a.test"),
        recipient,
        smtputf8: false,
        eight_bit: false,
        parts,
    }
}

fn opened(keywords: &str) -> Vec<Step> {
    vec![
        send("220 mx1.b.test ESMTP ready\r\n"),
        Step::Expect(EHLO),
        send(&format!("250-mx1.b.test\r\n{keywords}250 HELP\r\n")),
    ]
}

async fn connect(peer: &Peer, options: &SessionOptions) -> Session {
    Session::connect("mx.test", peer.address, options, &tls()).await.unwrap()
}

fn in_clear() -> SessionOptions {
    SessionOptions { tls: TlsMode::Off, ..options() }
}

#[tokio::test]
async fn what_the_server_says_is_kept() {
    let peer =
        Peer::play([opened("250-PIPELINING\r\n250-SIZE 1000\r\n"), vec![Step::End]].concat()).await;
    let session = connect(&peer, &in_clear()).await;
    assert_eq!(session.greeting_host(), "mx1.b.test");
    assert_eq!(session.address(), peer.address);
    assert!(session.tls().is_none() && session.is_usable());
    assert!(session.capabilities().pipelining);
    assert_eq!(session.capabilities().size_limit, Some(1000));
    drop(session);
    peer.content().await;
}

#[tokio::test]
async fn the_parameters_follow_message_and_offer() {
    let all = "250-SIZE\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n";
    for (keywords, mut t, command) in [
        ("", transaction("b@b.test", MESSAGE), "MAIL FROM:<a@a.test>\r\n".to_owned()),
        (all, transaction("b@b.test", MESSAGE), format!("MAIL FROM:<a@a.test>{SIZE}\r\n")),
        (
            all,
            Transaction { eight_bit: true, smtputf8: true, ..transaction("b@b.test", MESSAGE) },
            format!("MAIL FROM:<a@a.test>{SIZE} BODY=8BITMIME SMTPUTF8\r\n"),
        ),
        (
            "",
            Transaction { eight_bit: true, ..transaction("b@b.test", MESSAGE) },
            "MAIL FROM:<a@a.test>\r\n".to_owned(),
        ),
        (
            all,
            transaction("jörg@b.test", MESSAGE),
            format!("MAIL FROM:<a@a.test>{SIZE} SMTPUTF8\r\n"),
        ),
        (
            "",
            Transaction { return_path: None, ..transaction("b@b.test", MESSAGE) },
            "MAIL FROM:<>\r\n".to_owned(),
        ),
    ] {
        let script = vec![Step::Expect(command.leak()), send("550 enough\r\n"), Step::End];
        let peer = Peer::play([opened(keywords), script].concat()).await;
        let mut session = connect(&peer, &in_clear()).await;
        t.parts = MESSAGE;
        let failure = session.transact(&t).await.unwrap_err();
        assert_eq!(failure.reply().map(|reply| reply.code), Some(550), "{failure}");
        drop(session);
        peer.content().await;
    }
}

#[tokio::test]
async fn what_the_server_cannot_take_is_not_sent() {
    let unsupported =
        |requirement| Failure::new(Stage::MailFrom, FailureKind::Unsupported(requirement));
    let utf8 = Transaction { smtputf8: true, ..transaction("b@b.test", MESSAGE) };
    for (keywords, t, requirement) in [
        ("250-SIZE 31\r\n", transaction("b@b.test", MESSAGE), Requirement::Size { limit: 31 }),
        ("", utf8, Requirement::Smtputf8),
        ("", transaction("jörg@b.test", MESSAGE), Requirement::Smtputf8),
    ] {
        let peer = Peer::play(
            [opened(keywords), vec![Step::Expect("QUIT\r\n"), send("221 bye\r\n"), Step::End]]
                .concat(),
        )
        .await;
        let mut session = connect(&peer, &in_clear()).await;
        assert_eq!(session.transact(&t).await, Err(unsupported(requirement)));
        assert!(session.is_usable());
        session.quit().await;
        peer.content().await;
    }
}

#[tokio::test]
async fn an_address_cannot_become_a_command() {
    let peer = Peer::play([opened("250-PIPELINING\r\n"), vec![Step::End]].concat()).await;
    let mut session = connect(&peer, &in_clear()).await;
    let evil = "b@b.test>\r\nRSET\r\nMAIL FROM:<x@x.test";
    let failure = session.transact(&transaction(evil, MESSAGE)).await.unwrap_err();
    assert!(matches!(failure, Failure { stage: Stage::RcptTo, kind: FailureKind::Protocol(_) }));
    assert!(session.is_usable());
    drop(session);
    peer.content().await;
}

#[tokio::test]
async fn a_session_is_used_again_after_success_and_refusal() {
    for keywords in ["", "250-PIPELINING\r\n"] {
        let pipelining = !keywords.is_empty();
        let mail = || Step::Expect("MAIL FROM:<a@a.test>\r\n");
        let script = if pipelining {
            vec![
                // Taken.
                mail(),
                Step::Expect("RCPT TO:<one@"),
                Step::Expect("DATA"),
                send("250 a\r\n250 b\r\n354 c\r\n"),
                Step::Content,
                send("250 taken 1\r\n"),
                // Refused.
                mail(),
                Step::Expect("RCPT TO:<two@"),
                Step::Expect("DATA"),
                send("250 a\r\n550 b\r\n554 c\r\n"),
                // Taken after a reset.
                Step::Expect("RSET\r\n"),
                mail(),
                Step::Expect("RCPT TO:<three@"),
                Step::Expect("DATA"),
                send("250 r\r\n250 a\r\n250 b\r\n354 c\r\n"),
                Step::Content,
                send("250 taken 3\r\n"),
                Step::Expect("QUIT\r\n"),
                send("221 bye\r\n"),
                Step::End,
            ]
        } else {
            let ok = || send("250 ok\r\n");
            vec![
                mail(),
                ok(),
                Step::Expect("RCPT TO:<one@"),
                ok(),
                Step::Expect("DATA"),
                send("354 c\r\n"),
                Step::Content,
                send("250 taken 1\r\n"),
                mail(),
                ok(),
                Step::Expect("RCPT TO:<two@"),
                send("550 b\r\n"),
                Step::Expect("RSET\r\n"),
                ok(),
                mail(),
                ok(),
                Step::Expect("RCPT TO:<three@"),
                ok(),
                Step::Expect("DATA"),
                send("354 c\r\n"),
                Step::Content,
                send("250 taken 3\r\n"),
                Step::Expect("QUIT\r\n"),
                send("221 bye\r\n"),
                Step::End,
            ]
        };
        let peer = Peer::play([opened(keywords), script].concat()).await;
        let mut session = connect(&peer, &in_clear()).await;
        let one = session.transact(&transaction("one@b.test", MESSAGE)).await.unwrap();
        assert_eq!(one.text, "taken 1");
        let two = session.transact(&transaction("two@b.test", MESSAGE)).await.unwrap_err();
        assert_eq!(two.to_string(), "RCPT TO: the server replied 550 b");
        assert!(session.is_usable());
        let three = session.transact(&transaction("three@b.test", MESSAGE)).await.unwrap();
        assert_eq!(three.text, "taken 3");
        session.quit().await;
        assert_eq!(peer.content().await, [MESSAGE.concat(), b".\r\n".to_vec()].concat().repeat(2));
    }
}

#[tokio::test]
async fn a_refused_reset_ends_the_session() {
    let script = vec![
        Step::Expect("MAIL"),
        send("550 no\r\n"),
        Step::Expect("RSET\r\n"),
        send("500 what\r\n"),
        Step::End,
    ];
    let peer = Peer::play([opened(""), script].concat()).await;
    let mut session = connect(&peer, &in_clear()).await;
    session.transact(&transaction("b@b.test", MESSAGE)).await.unwrap_err();
    let failure = session.transact(&transaction("b@b.test", MESSAGE)).await.unwrap_err();
    assert_eq!((failure.stage, failure.reply().unwrap().code), (Stage::Reset, 500));
    assert!(!session.is_usable());
    drop(session);
    peer.content().await;
}

/// Waits until the kernel has what the peer sent, with a bound.
async fn until_unusable(session: &Session) {
    for _ in 0..2000 {
        if !session.is_usable() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("the session still looks usable");
}

#[tokio::test]
async fn what_happens_between_transactions_is_seen() {
    let taken = || {
        let commands = ["MAIL", "RCPT", "DATA"].map(Step::Expect).to_vec();
        [
            opened("250-PIPELINING\r\n"),
            commands,
            vec![send("250 a\r\n250 b\r\n354 c\r\n"), Step::Content, send("250 d\r\n")],
        ]
        .concat()
    };
    // The peer closes.
    let peer = Peer::play([taken(), vec![Step::Close]].concat()).await;
    let mut session = connect(&peer, &in_clear()).await;
    session.transact(&transaction("b@b.test", MESSAGE)).await.unwrap();
    until_unusable(&session).await;

    // It says 421 and closes: what a transaction finds that did not look first.
    let peer =
        Peer::play([taken(), vec![send("421 4.3.2 closing\r\n"), Step::Close]].concat()).await;
    let mut session = connect(&peer, &in_clear()).await;
    session.transact(&transaction("b@b.test", MESSAGE)).await.unwrap();
    until_unusable(&session).await;
    peer.content().await;
    let failure = session.transact(&transaction("b@b.test", MESSAGE)).await;
    assert!(failure.is_err());
    assert!(!session.is_usable());
}

#[tokio::test]
async fn a_421_that_came_first_is_the_answer() {
    let peer = Peer::play(
        [opened("250-PIPELINING\r\n"), vec![send("421 4.3.2 closing\r\n"), Step::Close]].concat(),
    )
    .await;
    // Both lines may come in one read, or the second one later: with EHLO's
    // reply in mind, each is a 421 at MAIL FROM.
    let mut session = connect(&peer, &in_clear()).await;
    let address = peer.address;
    peer.content().await;
    let failure = session.transact(&transaction("b@b.test", MESSAGE)).await.unwrap_err();
    assert_eq!(failure.to_string(), "MAIL FROM: the server replied 421 4.3.2 closing", "{address}");
    assert!(!session.is_usable());
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_the_session_dead() {
    let peer = Peer::play(
        [opened("250-PIPELINING\r\n"), vec![Step::Expect("MAIL"), Step::Stall]].concat(),
    )
    .await;
    let mut session = connect(&peer, &in_clear()).await;
    let t = transaction("b@b.test", MESSAGE);
    let cut = tokio::time::timeout(Duration::from_millis(50), session.transact(&t)).await;
    assert!(cut.is_err());
    assert!(!session.is_usable());
    let failure = session.transact(&t).await.unwrap_err();
    assert_eq!(failure, Failure::new(Stage::MailFrom, FailureKind::Closed));
    session.quit().await;
    peer.content().await;
}

#[tokio::test]
async fn helo_when_ehlo_is_not_known() {
    let script = vec![
        send("220 old.test\r\n"),
        Step::Expect(EHLO),
        send("500 what?\r\n"),
        Step::Expect("HELO client.test\r\n"),
        send("250-old.test\r\n250 PIPELINING\r\n"),
        Step::Expect("MAIL FROM:<a@a.test>\r\n"),
        send("250 a\r\n"),
        Step::Expect("RCPT"),
        send("250 b\r\n"),
        Step::Expect("DATA"),
        send("354 c\r\n"),
        Step::Content,
        send("250 taken\r\n"),
        Step::End,
    ];
    let peer = Peer::play(script).await;
    let mut session = connect(&peer, &options()).await;
    assert_eq!(*session.capabilities(), posthaste_smtp::Capabilities::default());
    session.transact(&transaction("b@b.test", MESSAGE)).await.unwrap();
    drop(session);
    peer.content().await;
}

fn starttls(after_220: &str, inside: &str) -> Vec<Step> {
    let mut script = opened("250-STARTTLS\r\n250-SIZE 5\r\n");
    script.extend([
        Step::Expect("STARTTLS\r\n"),
        send(&format!("220 go\r\n{after_220}")),
        Step::Tls,
        Step::Expect(EHLO),
        send(&format!("250-mx1.b.test\r\n{inside}250 HELP\r\n")),
        Step::Expect("MAIL FROM:<a@a.test>\r\n"),
        Step::Expect("RCPT"),
        Step::Expect("DATA"),
        send("250 a\r\n250 b\r\n354 c\r\n"),
        Step::Content,
        send("250 taken\r\n"),
        Step::Expect("QUIT\r\n"),
        send("221 bye\r\n"),
        Step::End,
    ]);
    script
}

#[tokio::test]
async fn tls_forgets_what_was_said_before_it() {
    // Plain text after the 220, in the same segment: discarded, not obeyed.
    for injected in ["", "250-mx\r\n250 SIZE 1\r\n", "421 bye\r\n", "x"] {
        let peer = Peer::play(starttls(injected, "250-PIPELINING\r\n")).await;
        let mut session = connect(&peer, &options()).await;
        let info = session.tls().unwrap();
        assert_eq!(info.version, "TLSv1.3");
        assert!(info.cipher.starts_with("TLS_"), "{}", info.cipher);
        // The SIZE of the first EHLO is forgotten, so is its STARTTLS.
        assert!(!session.capabilities().size && !session.capabilities().starttls);
        assert!(session.is_usable());
        session.transact(&transaction("b@b.test", MESSAGE)).await.unwrap();
        assert!(session.is_usable());
        session.quit().await;
        assert_eq!(peer.content().await, [MESSAGE.concat(), b".\r\n".to_vec()].concat());
    }
}

#[tokio::test]
async fn a_certificate_is_verified_by_the_name_of_the_host() {
    let verify = SessionOptions { tls: TlsMode::Verify, ..options() };
    for (host, good) in [("mx.test", true), ("mx.test.", true), ("other.test", false), ("", false)]
    {
        let peer = Peer::play(starttls("", "250-PIPELINING\r\n")).await;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(peer.certificate.clone()).unwrap();
        let tls = TlsClient::with_roots(roots).unwrap();
        let outcome = Session::connect(host, peer.address, &verify, &tls).await;
        match outcome {
            Ok(session) => {
                assert!(good, "{host:?}");
                assert!(session.tls().is_some());
            }
            Err(Failure { stage: Stage::StartTls, kind: FailureKind::Tls(text) }) => {
                assert!(!good, "{host:?}: {text}");
            }
            Err(other) => panic!("{host:?}: {other}"),
        }
        peer.task.abort();
    }
}

#[tokio::test]
async fn tls_is_not_used_when_it_is_off() {
    let peer = Peer::play([opened("250-STARTTLS\r\n"), vec![Step::End]].concat()).await;
    let session = connect(&peer, &in_clear()).await;
    assert!(session.tls().is_none() && session.capabilities().starttls);
    drop(session);
    peer.content().await;
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let line = [b'x'; 75];
    let mut body = Vec::new();
    for n in 0..20_000 {
        body.extend_from_slice(if n % 3 == 0 { b"." } else { b"y" });
        body.extend_from_slice(&line);
        body.extend_from_slice(b"\r\n");
    }
    let parts: [&[u8]; 2] = [b"Subject: large\r\n\r\n", &body];
    for script in [
        [opened("250-PIPELINING\r\n"), starttls("", "")[8..].to_vec()].concat(),
        starttls("", "250-PIPELINING\r\n"),
    ] {
        let peer = Peer::play(script).await;
        let mut session = connect(&peer, &options()).await;
        session.transact(&transaction("b@b.test", &parts)).await.unwrap();
        session.quit().await;
        let wire = peer.content().await;
        let mut reader = posthaste_smtp::content::ContentReader::new(usize::MAX);
        let mut content = Vec::new();
        assert_eq!(reader.advance(&wire, &mut content), (wire.len(), true));
        assert!(content == parts.concat());
    }
}

#[tokio::test]
async fn a_refusal_amid_the_content_is_heard() {
    // The peer refuses before the end and hangs up; the message is too large
    // for the buffers between, so the client is still writing.
    let script = vec![
        Step::Expect("MAIL"),
        Step::Expect("RCPT"),
        Step::Expect("DATA"),
        send("250 a\r\n250 b\r\n354 c\r\n"),
        Step::Expect("Subject"),
        send("552 5.3.4 too large\r\n"),
        Step::Close,
    ];
    let peer = Peer::play([opened("250-PIPELINING\r\n"), script].concat()).await;
    let mut session = connect(&peer, &in_clear()).await;
    let body = vec![b'x'; 32 * 1024 * 1024];
    let parts: [&[u8]; 2] = [b"Subject: large\r\n\r\n", &body];
    let failure = session.transact(&transaction("b@b.test", &parts)).await.unwrap_err();
    assert_eq!(failure.stage, Stage::Data);
    assert_eq!(failure.reply().map(|reply| reply.code), Some(552), "{failure}");
    assert!(!session.is_usable());
}

#[tokio::test]
async fn no_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = Session::connect("mx.test", address, &options(), &tls()).await.unwrap_err();
    assert!(
        matches!(&failure, Failure { stage: Stage::Connect, kind: FailureKind::Connect(text) } if text.contains("refused")),
        "{failure}"
    );
}

#[tokio::test]
async fn the_source_address_is_bound() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let source: std::net::Ipv4Addr = "127.0.0.5".parse().unwrap();
    let bound = SessionOptions { source_v4: Some(source), ..options() };
    let client = tokio::spawn(async move {
        Session::connect("mx.test", address, &bound, &tls()).await.map(drop)
    });
    let (stream, from) = listener.accept().await.unwrap();
    assert_eq!(from.ip(), source);
    drop(stream);
    client.await.unwrap().unwrap_err();
    // An address that is not ours is an error of the connection.
    let foreign = SessionOptions { source_v4: Some("192.0.2.1".parse().unwrap()), ..options() };
    let failure = Session::connect("mx.test", address, &foreign, &tls()).await.unwrap_err();
    assert!(matches!(failure, Failure { stage: Stage::Connect, kind: FailureKind::Connect(_) }));
}
