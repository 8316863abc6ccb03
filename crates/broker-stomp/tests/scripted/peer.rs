//! A broker that does what a test tells it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use posthaste_broker::Credit;
use posthaste_broker_stomp::{
    ClientConfig, Destination, Node, Publication, Receive,
    codec::{Command, Decoder, Frame, Limits},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

pub const ARTEMIS: &str = "ActiveMQ-Artemis/2.44.0 ActiveMQ Artemis Messaging Engine";

/// So long a test waits for what has to come; far more than it takes.
pub const SOON: Duration = Duration::from_secs(20);

/// Listens on a port of its own.
pub struct Broker {
    listener: TcpListener,
}

impl Broker {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn node(&self) -> Node {
        let port = self.listener.local_addr().unwrap().port();
        Node { host: "127.0.0.1".into(), port }
    }

    pub fn config(&self) -> ClientConfig {
        config(vec![self.node()])
    }

    /// The next connection, before its CONNECT.
    pub async fn accept(&self) -> Peer<TcpStream> {
        let (stream, _) = timeout(SOON, self.listener.accept()).await.unwrap().unwrap();
        Peer::new(stream)
    }

    /// The next connection, after CONNECTED.
    pub async fn connected(&self, server: &str) -> Peer<TcpStream> {
        let mut peer = self.accept().await;
        peer.connect(server).await;
        peer
    }
}

pub fn config(nodes: Vec<Node>) -> ClientConfig {
    let mut config = ClientConfig::new(nodes);
    config.backoff_first = Duration::from_millis(5);
    config.backoff_most = Duration::from_millis(20);
    config
}

/// A port that is taken and refuses, for as long as the socket is held.
pub fn nobody() -> (TcpSocket, Node) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, Node { host: "127.0.0.1".into(), port })
}

/// One connection, from the broker's side.
pub struct Peer<S> {
    pub stream: S,
    decoder: Decoder,
    input: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, decoder: Decoder::new(Limits::default()), input: BytesMut::new() }
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input).unwrap() {
                return Some(frame);
            }
            let read = timeout(SOON, self.stream.read_buf(&mut self.input)).await.unwrap();
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    pub async fn frame(&mut self) -> Frame {
        self.next().await.expect("the client has closed")
    }

    pub async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn connect(&mut self, server: &str) -> Frame {
        let frame = self.frame().await;
        assert_eq!(frame.command, Command::Connect);
        self.say(&format!("CONNECTED\nversion:1.2\nserver:{server}\nheart-beat:10000,10000\n\n\0"))
            .await;
        frame
    }

    pub async fn confirm(&mut self, frame: &Frame) {
        let receipt = frame.headers.get("receipt").expect("a receipt is asked for");
        self.say(&format!("RECEIPT\nreceipt-id:{receipt}\n\n\0")).await;
    }

    /// Confirms whatever asks for it until the client closes; all that came.
    pub async fn confirm_all(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            if let Some(receipt) = frame.headers.get("receipt") {
                let text = format!("RECEIPT\nreceipt-id:{receipt}\n\n\0");
                // The client may be gone already.
                if self.stream.write_all(text.as_bytes()).await.is_err() {
                    break;
                }
            }
            frames.push(frame);
        }
        frames
    }

    /// Confirms a SUBSCRIBE; its id.
    pub async fn subscribed(&mut self) -> String {
        let frame = self.frame().await;
        assert_eq!(frame.command, Command::Subscribe);
        self.confirm(&frame).await;
        frame.headers.get("id").unwrap().to_owned()
    }
}

pub fn send(text: &str) -> Publication {
    Publication::new(Destination::Queue("q".into()), Bytes::from(text.to_owned()))
}

pub fn receive() -> Receive {
    let credit = Credit { messages: 100, bytes: 1 << 20 };
    Receive::new(Destination::Queue("q".into()), credit)
}

pub fn message(subscription: &str, n: usize, body: &str) -> String {
    let length = body.len();
    format!(
        "MESSAGE\nsubscription:{subscription}\nack:{n}\nmessage-id:{n}\ncontent-length:{length}\n\n{body}\0"
    )
}
