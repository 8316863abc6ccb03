//! A connection at work, and how it ends.

use std::time::Duration;

use posthaste_broker_stomp::{
    Connection, LinkError, SendOutcome,
    codec::{Command, DecodeError},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::peer::{ARTEMIS, Broker, Peer, SOON, message, receive, send};

async fn open(broker: &Broker) -> (Connection, Peer<TcpStream>) {
    let (node, config) = (broker.node(), broker.config());
    let (connection, peer) =
        tokio::join!(Connection::open(&node, &config, 1), broker.connected(ARTEMIS));
    (connection.unwrap(), peer)
}

#[tokio::test]
async fn frames_in_pieces_of_one_byte() {
    let broker = Broker::start().await;
    let (connection, mut peer) = open(&broker).await;
    let request = receive();
    let (subscription, id) = tokio::join!(connection.subscribe(&request), peer.subscribed());
    let mut subscription = subscription.unwrap();
    peer.stream.set_nodelay(true).unwrap();
    for byte in message(&id, 1, "in pieces").bytes() {
        peer.stream.write_all(&[byte]).await.unwrap();
    }
    let messages = timeout(SOON, subscription.next()).await.unwrap().unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].body, "in pieces");
}

#[tokio::test]
async fn receipts_in_any_order() {
    let broker = Broker::start().await;
    let (connection, mut peer) = open(&broker).await;
    let mut sent = Vec::new();
    for n in 0..50 {
        sent.push(connection.send(&send(&n.to_string())).await);
    }
    let mut frames = Vec::new();
    for n in 0..50 {
        frames.push(peer.frame().await);
        assert_eq!(frames[n].body, n.to_string(), "the order of the calls");
    }
    for frame in frames.iter().rev() {
        peer.confirm(frame).await;
    }
    for confirmation in sent {
        assert_eq!(confirmation.outcome().await, SendOutcome::Durable);
    }
}

#[tokio::test]
async fn what_ends_it() {
    let too_long = format!("MESSAGE\ncontent-length:{}\n\n", 1_u64 << 40);
    let limit = DecodeError::BodyTooLong(65 << 20);
    let cases: [(&str, LinkError); 8] = [
        ("ERROR\nmessage:going down\n\n\0", LinkError::Server("going down".into())),
        ("ERROR\nreceipt-id:77\nmessage:x\n\n\0", LinkError::Server("x".into())),
        ("ERROR\nreceipt-id:none\n\n\0", LinkError::Server("an error without a text".into())),
        ("CONNECTED\n\n\0", LinkError::Protocol("CONNECTED out of place".into())),
        ("SEND\n\n\0", LinkError::Protocol("SEND out of place".into())),
        ("MESSAGE\n\n\0", LinkError::Protocol("a MESSAGE without its subscription".into())),
        (&too_long, LinkError::Decode(limit)),
        ("RECEIPT\nreceipt-id:77\n\n\0MESS", LinkError::ClosedByPeer),
    ];
    for (text, expected) in cases {
        let broker = Broker::start().await;
        let (connection, mut peer) = open(&broker).await;
        let request = receive();
        let (subscription, _) = tokio::join!(connection.subscribe(&request), peer.subscribed());
        let mut subscription = subscription.unwrap();
        let sent = connection.send(&send("x")).await;
        peer.frame().await;
        peer.say(text).await;
        if expected == LinkError::ClosedByPeer {
            peer.stream.shutdown().await.unwrap();
        }
        let cause = timeout(SOON, connection.ended()).await.unwrap();
        assert_eq!(cause, expected, "{text:?}");
        assert_eq!(sent.outcome().await, SendOutcome::Unknown(expected.clone()));
        assert_eq!(subscription.next().await.unwrap_err(), expected);
        assert_eq!(connection.subscribe(&request).await.unwrap_err(), expected);
        // And the socket is closed.
        assert!(peer.next().await.is_none());
    }
}

#[tokio::test]
async fn a_black_hole_is_found_within_two_heart_beats() {
    let broker = Broker::start().await;
    let (node, mut config) = (broker.node(), broker.config());
    config.options.heart_beat = Duration::from_millis(200);
    let start = Instant::now();
    let (connection, _peer) = tokio::join!(Connection::open(&node, &config, 1), async {
        let mut peer = broker.accept().await;
        peer.frame().await;
        let text = format!("CONNECTED\nversion:1.2\nserver:{ARTEMIS}\nheart-beat:1,1\n\n\0");
        peer.say(&text).await;
        peer
    });
    let cause = timeout(SOON, connection.unwrap().ended()).await.unwrap();
    assert_eq!(cause, LinkError::Silent(Duration::from_millis(400)));
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_slow_consumer_stops_the_broker_and_loses_nothing() {
    let broker = Broker::start().await;
    let (connection, mut peer) = open(&broker).await;
    let request = receive();
    let (subscription, id) = tokio::join!(connection.subscribe(&request), peer.subscribed());
    let mut subscription = subscription.unwrap();
    // More than the sockets and the buffer can hold.
    let body = "x".repeat(1 << 20);
    let count = 64;
    let writer = tokio::spawn(async move {
        for n in 0..count {
            peer.say(&message(&id, n, &body)).await;
        }
        peer
    });
    let mut tokens = Vec::new();
    while tokens.len() < count {
        let messages = timeout(SOON, subscription.next()).await.unwrap().unwrap();
        let bytes: usize = messages.iter().map(|message| message.body.len()).sum();
        // Twice the credit of 1 MiB, less the headers.
        assert!(bytes <= 2 << 20, "{bytes} were buffered");
        tokens.extend(messages.iter().filter_map(|message| message.token));
    }
    let mut peer = writer.await.unwrap();
    let answered = async {
        for n in 0..count {
            let frame = peer.frame().await;
            assert_eq!(frame.command, Command::Ack);
            assert_eq!(frame.headers.get("id"), Some(&*n.to_string()));
            if n + 1 == count {
                peer.confirm(&frame).await;
            }
        }
    };
    let (results, ()) = tokio::join!(connection.acknowledge_durably(&tokens), answered);
    assert!(results.unwrap().iter().all(Result::is_ok));
}

#[tokio::test]
async fn large_and_empty_bodies_are_written_whole() {
    let broker = Broker::start().await;
    let (connection, mut peer) = open(&broker).await;
    let sizes = [0, 1, 32 << 10, (32 << 10) - 1, 300_000, 5 << 20, 10];
    let sender = async {
        let mut sent = Vec::new();
        for size in sizes {
            sent.push(connection.send(&send(&"y".repeat(size))).await);
        }
        for confirmation in sent {
            assert_eq!(confirmation.outcome().await, SendOutcome::Durable);
        }
    };
    let receiver = async {
        for size in sizes {
            let frame = peer.frame().await;
            assert_eq!(frame.body.len(), size);
            assert_eq!(frame.headers.get("content-length"), Some(&*size.to_string()));
            peer.confirm(&frame).await;
        }
    };
    tokio::join!(sender, receiver);
}
