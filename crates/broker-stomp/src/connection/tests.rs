//! What depends on time, with a paused clock and a pipe for a socket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use posthaste_broker::{Credit, Token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};

use super::{
    Connection, StaleToken, Subscription,
    handshake::{HeartBeat, Opened, Server},
};
use crate::{
    codec::{Command, Decoder, Frame, Limits},
    config::ConnectionOptions,
    dialect::{Destination, Dialect},
    error::LinkError,
    message::{Publication, Receive, SendOutcome},
};

const MS: Duration = Duration::from_millis(1);

/// The broker's end of the pipe.
struct Peer {
    stream: DuplexStream,
    decoder: Decoder,
    input: BytesMut,
}

impl Peer {
    async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input).unwrap() {
                return frame;
            }
            assert_ne!(self.stream.read_buf(&mut self.input).await.unwrap(), 0, "closed");
        }
    }

    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    async fn confirm(&mut self, frame: &Frame) {
        let receipt = frame.headers.get("receipt").expect("a receipt is asked for");
        self.say(&format!("RECEIPT\nreceipt-id:{receipt}\n\n\0")).await;
    }

    /// Answers SUBSCRIBE and hands over so many messages.
    async fn serve(&mut self, count: usize) -> String {
        let frame = self.frame().await;
        assert_eq!(frame.command, Command::Subscribe);
        self.confirm(&frame).await;
        let id = frame.headers.get("id").unwrap().to_owned();
        for n in 0..count {
            self.say(&message(&id, n)).await;
        }
        id
    }
}

fn message(subscription: &str, n: usize) -> String {
    format!("MESSAGE\nsubscription:{subscription}\nack:a\\c{n}\nmessage-id:{n}\n\nbody {n}\0")
}

fn pair(dialect: Dialect, beat: Duration, options: ConnectionOptions) -> (Connection, Peer) {
    let (ours, theirs) = duplex(1 << 20);
    let (read, write) = tokio::io::split(ours);
    let opened = Opened {
        read: Box::new(read),
        write: Box::new(write),
        decoder: Decoder::new(Limits::default()),
        rest: BytesMut::new(),
        server: Server { name: None, dialect },
        heart_beat: HeartBeat { send_every: Some(beat), expect_within: beat },
    };
    let connection = Connection::start(opened, options, 7);
    let decoder = Decoder::new(Limits::default());
    (connection, Peer { stream: theirs, decoder, input: BytesMut::new() })
}

/// Without heart-beats in the way.
fn quiet() -> (Connection, Peer) {
    pair(Dialect::Artemis, Duration::from_secs(3600), ConnectionOptions::default())
}

fn queue() -> Destination {
    Destination::Queue("q".into())
}

fn send() -> Publication {
    Publication::new(queue(), Bytes::from_static(b"x"))
}

fn receive() -> Receive {
    Receive::new(queue(), Credit { messages: 100, bytes: 1 << 20 })
}

async fn subscribed(
    connection: &Connection,
    peer: &mut Peer,
    count: usize,
) -> (Subscription, Vec<Token>) {
    let request = receive();
    let (subscription, _) = tokio::join!(connection.subscribe(&request), peer.serve(count));
    let mut subscription = subscription.unwrap();
    let mut tokens = Vec::new();
    while tokens.len() < count {
        let taken = subscription.next().await.unwrap();
        tokens.extend(taken.iter().filter_map(|message| message.token));
    }
    (subscription, tokens)
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it_after_two_heart_beats() {
    let start = Instant::now();
    let beat = Duration::from_secs(10);
    let (connection, mut peer) = pair(Dialect::Artemis, beat, ConnectionOptions::default());
    sleep(15_000 * MS).await;
    peer.say("\n").await;
    assert_eq!(connection.ended().await, LinkError::Silent(2 * beat));
    assert_eq!(start.elapsed().as_secs(), 35);
}

#[tokio::test(start_paused = true)]
async fn heart_beats_are_sent_in_time() {
    let beat = Duration::from_secs(10);
    let (connection, mut peer) = pair(Dialect::Artemis, beat, ConnectionOptions::default());
    let mut last = Instant::now();
    for _ in 0..20 {
        let mut byte = [0];
        peer.stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, *b"\n");
        assert!(last.elapsed() <= beat / 2 + MS, "{:?}", last.elapsed());
        last = Instant::now();
        peer.say("\n").await;
    }
    assert_eq!(connection.cause(), None);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_that_does_not_come_makes_all_unknown() {
    let (connection, mut peer) = quiet();
    let start = Instant::now();
    let first = connection.send(&send()).await;
    sleep(5_000 * MS).await;
    let second = connection.send(&send()).await;
    let confirmed = peer.frame().await;
    peer.frame().await;
    let cause = LinkError::Timeout { what: "receipt", within: Duration::from_secs(15) };
    peer.confirm(&confirmed).await;
    assert_eq!(first.outcome().await, SendOutcome::Durable);
    let third = connection.send(&send()).await;
    assert_eq!(second.outcome().await, SendOutcome::Unknown(cause.clone()));
    assert_eq!(start.elapsed().as_secs(), 20);
    assert_eq!(third.outcome().await, SendOutcome::Unknown(cause.clone()));
    assert_eq!(connection.send(&send()).await.outcome().await, SendOutcome::Unknown(cause));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_wait_for_company_but_not_long() {
    let (connection, mut peer) = quiet();
    let (_subscription, tokens) = subscribed(&connection, &mut peer, 100).await;
    // By time.
    let start = Instant::now();
    for token in &tokens[..10] {
        connection.acknowledge(&[*token]).await.unwrap();
    }
    for n in 0..10 {
        let frame = peer.frame().await;
        assert_eq!(frame.command, Command::Ack);
        assert_eq!(frame.headers.get("id"), Some(&*format!("a:{n}")));
        assert_eq!(frame.headers.get("receipt"), None);
    }
    assert!(start.elapsed() >= 50 * MS && start.elapsed() <= 52 * MS, "{:?}", start.elapsed());
    // By count.
    let start = Instant::now();
    connection.acknowledge(&tokens[10..80]).await.unwrap();
    for _ in 10..80 {
        peer.frame().await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    // With whatever else is written, and before it.
    connection.acknowledge(&tokens[80..90]).await.unwrap();
    let confirmation = connection.send(&send()).await;
    for _ in 80..90 {
        assert_eq!(peer.frame().await.command, Command::Ack);
    }
    let frame = peer.frame().await;
    peer.confirm(&frame).await;
    assert_eq!(confirmation.outcome().await, SendOutcome::Durable);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_durable_acknowledgement_asks_for_one_receipt() {
    let (connection, mut peer) = quiet();
    let (_subscription, tokens) = subscribed(&connection, &mut peer, 3).await;
    let broker = async {
        for n in 0..3 {
            let frame = peer.frame().await;
            assert_eq!(frame.headers.get("receipt").is_some(), n == 2);
            if n == 2 {
                peer.confirm(&frame).await;
            }
        }
    };
    let (results, ()) = tokio::join!(connection.acknowledge_durably(&tokens), broker);
    assert_eq!(results, Ok(vec![Ok(()); 3]));
    // Used before, of another epoch, never given: nothing is sent, nothing hangs.
    let other = Token { epoch: 6, ..tokens[0] };
    let never = Token { epoch: 7, tag: u64::MAX };
    let results = connection.acknowledge_durably(&[tokens[0], other, never]).await;
    assert_eq!(results, Ok(vec![Err(StaleToken); 3]));
    assert!(timeout(1000 * MS, peer.frame()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refused_acknowledgement_ends_the_connection() {
    let (connection, mut peer) = quiet();
    let (_subscription, tokens) = subscribed(&connection, &mut peer, 1).await;
    let broker = async {
        let frame = peer.frame().await;
        let receipt = frame.headers.get("receipt").unwrap();
        peer.say(&format!("ERROR\nreceipt-id:{receipt}\nmessage:no\n\n\0")).await;
    };
    let (results, ()) = tokio::join!(connection.acknowledge_durably(&tokens), broker);
    assert_eq!(results, Err(LinkError::Server("no".into())));
    assert_eq!(connection.cause(), Some(LinkError::Server("no".into())));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_after_unsubscribe() {
    let (connection, mut peer) = quiet();
    let (mut subscription, tokens) = subscribed(&connection, &mut peer, 3).await;
    subscription.stop();
    assert_eq!(subscription.next().await.unwrap_err(), LinkError::Closed);
    connection.acknowledge(&tokens[..2]).await.unwrap();
    let broker = async {
        assert_eq!(peer.frame().await.command, Command::Ack);
        assert_eq!(peer.frame().await.command, Command::Ack);
        let frame = peer.frame().await;
        assert_eq!(frame.command, Command::Unsubscribe);
        peer.say(&message(frame.headers.get("id").unwrap(), 9)).await;
        peer.confirm(&frame).await;
    };
    let (result, ()) = tokio::join!(subscription.unsubscribe(), broker);
    assert_eq!(result, Ok(()));
    let results = connection.acknowledge(&tokens[2..]).await;
    assert_eq!(results, Ok(vec![Err(StaleToken)]));
    // Nor is the late one.
    assert!(timeout(1000 * MS, peer.frame()).await.is_err());
    assert_eq!(connection.cause(), None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_subscription_is_ended_after_its_acknowledgements() {
    let (connection, mut peer) = quiet();
    let (subscription, tokens) = subscribed(&connection, &mut peer, 2).await;
    connection.acknowledge(&tokens[..1]).await.unwrap();
    drop(subscription);
    assert_eq!(connection.acknowledge(&tokens[1..]).await, Ok(vec![Err(StaleToken)]));
    assert_eq!(peer.frame().await.command, Command::Ack);
    let frame = peer.frame().await;
    assert_eq!(frame.command, Command::Unsubscribe);
    assert_eq!(connection.cause(), None);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_refused_is_not_ended_again() {
    let (connection, mut peer) = quiet();
    let broker = async {
        let frame = peer.frame().await;
        let receipt = frame.headers.get("receipt").unwrap();
        peer.say(&format!("ERROR\nreceipt-id:{receipt}\nmessage:no right\n\n\0")).await;
    };
    let request = receive();
    let (result, ()) = tokio::join!(connection.subscribe(&request), broker);
    assert_eq!(result.unwrap_err(), LinkError::Server("no right".into()));
    assert!(timeout(1000 * MS, peer.frame()).await.is_err());
    assert_eq!(connection.cause(), None);
}

#[tokio::test(start_paused = true)]
async fn an_error_fails_its_receipt_alone() {
    let (connection, mut peer) = quiet();
    let bad = connection.send(&send()).await;
    let good = connection.send(&send()).await;
    let frame = peer.frame().await;
    let receipt = frame.headers.get("receipt").unwrap();
    peer.say(&format!("ERROR\nreceipt-id:{receipt}\nmessage:full\n\n\0")).await;
    let frame = peer.frame().await;
    peer.confirm(&frame).await;
    assert_eq!(bad.outcome().await, SendOutcome::Rejected("the broker reports: full".into()));
    assert_eq!(good.outcome().await, SendOutcome::Durable);
    let lost = connection.send(&send()).await;
    // One of nobody's receipt is the end.
    peer.say("ERROR\nreceipt-id:999\nmessage:broken\n\nstack\0").await;
    let cause = LinkError::Server("broken: stack".into());
    assert_eq!(lost.outcome().await, SendOutcome::Unknown(cause.clone()));
    assert_eq!(connection.ended().await, cause);
}

#[tokio::test(start_paused = true)]
async fn the_window_bounds_what_is_on_the_way() {
    let options = ConnectionOptions {
        window_messages: 3,
        window_bytes: 64 << 10,
        ..ConnectionOptions::default()
    };
    for (body, most) in [(1, 3), (40 << 10, 1), (1 << 20, 1)] {
        let (connection, mut peer) = pair(Dialect::Artemis, 3_600_000 * MS, options);
        let message = Publication::new(queue(), Bytes::from(vec![0; body]));
        let mut sent = Vec::new();
        for _ in 0..most {
            sent.push(connection.send(&message).await);
        }
        assert!(timeout(1000 * MS, connection.send(&message)).await.is_err(), "{body}");
        let frame = peer.frame().await;
        assert_eq!(frame.body.len(), body);
        peer.confirm(&frame).await;
        let next = timeout(1000 * MS, connection.send(&message)).await;
        assert!(next.is_ok(), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_one_piece_and_its_name_is_used_again() {
    let (connection, mut peer) =
        pair(Dialect::Classic, 3_600_000 * MS, ConnectionOptions::default());
    let mut names = std::collections::HashSet::new();
    for _ in 0..10 {
        let broker = async {
            let mut commands = Vec::new();
            loop {
                let frame = peer.frame().await;
                names.insert(frame.headers.get("transaction").unwrap().to_owned());
                commands.push(frame.command);
                if frame.command == Command::Commit {
                    peer.confirm(&frame).await;
                    return commands;
                }
                assert_eq!(frame.headers.get("receipt"), None);
            }
        };
        let messages = [send(), send()];
        let (outcome, commands) = tokio::join!(connection.transaction(&messages), broker);
        assert_eq!(outcome, SendOutcome::Durable);
        assert_eq!(commands, [Command::Begin, Command::Send, Command::Send, Command::Commit]);
    }
    assert!(names.len() <= 4, "{names:?}");
    // One bad message is found before anything is sent.
    let bad = Publication { priority: 10, ..send() };
    let outcome = connection.transaction(&[send(), bad]).await;
    assert!(matches!(outcome, SendOutcome::Rejected(_)), "{outcome:?}");
    assert_eq!(connection.cause(), None);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_read_is_given_up() {
    let (connection, peer) = quiet();
    let large = Publication::new(queue(), Bytes::from(vec![0; 4 << 20]));
    let start = Instant::now();
    let sent = connection.send(&large).await;
    let outcome = sent.outcome().await;
    assert!(matches!(outcome, SendOutcome::Unknown(LinkError::Timeout { .. })), "{outcome:?}");
    assert_eq!(start.elapsed().as_secs(), 15);
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn the_reader_stops_when_a_buffer_is_full() {
    let (connection, mut peer) = quiet();
    let request = Receive { buffer_messages: 10, ..receive() };
    let (subscription, id) = tokio::join!(connection.subscribe(&request), peer.serve(0));
    let mut subscription = subscription.unwrap();
    let body = "x".repeat(10_000);
    let endless = async {
        for n in 0.. {
            let text =
                format!("MESSAGE\nsubscription:{id}\nack:{n}\ncontent-length:10000\n\n{body}\0");
            if timeout(1000 * MS, peer.stream.write_all(text.as_bytes())).await.is_err() {
                return n;
            }
        }
        0
    };
    let fitted = endless.await;
    // The pipe takes 1 MiB, and what was read and not yet decoded some more.
    assert!((10..=130).contains(&fitted), "{fitted}");
    let mut taken = 0;
    while taken < fitted {
        let messages = subscription.next().await.unwrap();
        assert!(messages.len() <= 10);
        taken += messages.len();
    }
    assert_eq!(connection.cause(), None);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_credit_ends_it() {
    let options = ConnectionOptions { max_unacknowledged: 5, ..ConnectionOptions::default() };
    let (connection, mut peer) = pair(Dialect::Artemis, 3_600_000 * MS, options);
    let request = receive();
    let (subscription, _) = tokio::join!(connection.subscribe(&request), peer.serve(6));
    assert!(matches!(connection.ended().await, LinkError::Protocol(_)));
    assert!(subscription.unwrap().next().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn closing_says_goodbye_after_everything_else() {
    let (connection, mut peer) = quiet();
    let (_subscription, tokens) = subscribed(&connection, &mut peer, 1).await;
    connection.acknowledge(&tokens).await.unwrap();
    let broker = async {
        assert_eq!(peer.frame().await.command, Command::Ack);
        let frame = peer.frame().await;
        assert_eq!(frame.command, Command::Disconnect);
        peer.confirm(&frame).await;
    };
    let (closed, ()) = tokio::join!(connection.close(1000 * MS), broker);
    assert_eq!(closed, Ok(()));
    assert_eq!(connection.cause(), Some(LinkError::Closed));
    let mut rest = Vec::new();
    peer.stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_last_holder() {
    let (connection, mut peer) = quiet();
    let (subscription, _) = subscribed(&connection, &mut peer, 0).await;
    drop(connection);
    assert!(timeout(1000 * MS, peer.frame()).await.is_err(), "the subscription holds it");
    drop(subscription);
    let mut rest = Vec::new();
    peer.stream.read_to_end(&mut rest).await.unwrap();
}
