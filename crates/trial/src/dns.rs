//! A small DNS server for trials and tests: it answers from a table that can
//! be changed while it runs, and counts what it is asked.
//!
//! UDP and TCP on one port. An answer that is too long for UDP is cut, so
//! that the client comes by TCP (RFC 1035 section 4.2.1). It is authoritative
//! for everything: a name that the table does not know does not exist. What
//! cannot be read is dropped. Bounded: connections, their idle time, and the
//! names that are counted one by one.

mod answer;
mod zones;

use std::{collections::HashMap, io, mem, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::op::Message;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

pub use zones::{RecordKind, Zones};

/// TCP connections at once.
const MAX_CONNECTIONS: usize = 64;
/// How long a TCP connection may say nothing.
const IDLE: Duration = Duration::from_secs(10);
/// Names that are counted one by one; what comes after is counted in all.
const MAX_COUNTED: usize = 100_000;
/// A query has one question: far less than this.
const MAX_QUERY: usize = 4096;
/// After an error of the socket, so that a lasting one does not spin.
const PAUSE: Duration = Duration::from_millis(20);
/// Tries to find a port that is free for UDP and TCP both.
const PORT_TRIES: usize = 20;

/// A running DNS server. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct TestDns {
    address: SocketAddr,
    shared: Arc<Shared>,
    stopped: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    zones: Zones,
    counts: HashMap<(String, RecordKind), u64>,
    total: u64,
}

impl TestDns {
    /// Listens on `listen` for UDP and TCP; with port 0 on one that is free
    /// for both.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start(listen: SocketAddr, zones: Zones) -> io::Result<Self> {
        let (udp, tcp) = bind(listen).await?;
        let address = udp.local_addr()?;
        let state = State { zones, counts: HashMap::new(), total: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let (stopped, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (token, server) = (stopped.clone(), shared.clone());
        tasks.spawn(async move { token.run_until_cancelled(serve_udp(udp, server)).await });
        let (token, server, connections) = (stopped.clone(), shared.clone(), tasks.clone());
        tasks.spawn(serve_tcp(tcp, server, token, connections));
        tasks.close();
        Ok(Self { address, shared, stopped, tasks })
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the table; the next question sees it.
    pub fn update(&self, change: impl FnOnce(Zones) -> Zones) {
        let mut state = self.shared.state.lock();
        let zones = mem::take(&mut state.zones);
        state.zones = change(zones);
    }

    /// How often this was asked, repetitions included.
    #[must_use]
    pub fn queries(&self, name: &str, kind: RecordKind) -> u64 {
        let key = (zones::key(name), kind);
        self.shared.state.lock().counts.get(&key).copied().unwrap_or(0)
    }

    /// Questions in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.shared.state.lock().total
    }

    /// Stops answering, closes the connections and waits for the end.
    pub async fn stop(self) {
        self.stopped.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for TestDns {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

impl Shared {
    /// The reply to a query; `None` when there is to be none.
    fn reply(&self, query: &[u8], max_size: Option<usize>) -> Option<Vec<u8>> {
        let query = match Message::from_vec(query) {
            Ok(query) => query,
            Err(error) => {
                debug!(%error, "a DNS query cannot be read");
                return None;
            }
        };
        let mut state = self.state.lock();
        state.count(&query);
        let reply = answer::answer(&state.zones, &query)?;
        drop(state);
        answer::encode(&reply, max_size.map(|max| max.min(answer::max_udp(&query))))
    }
}

impl State {
    fn count(&mut self, query: &Message) {
        self.total += 1;
        let Some(question) = query.queries.first() else { return };
        let name = zones::key(&question.name().to_ascii());
        let key = (name, RecordKind::of(question.query_type()));
        if self.counts.len() < MAX_COUNTED || self.counts.contains_key(&key) {
            *self.counts.entry(key).or_default() += 1;
        }
    }
}

/// One port for both. A free one for UDP may be taken for TCP: then another.
async fn bind(listen: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tries = if listen.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        let udp = UdpSocket::bind(listen).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 1 => tries -= 1,
            Err(error) => return Err(error),
        }
    }
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        // On Linux an error here tells of an earlier reply that nobody took.
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "no DNS query received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if let Some(reply) = shared.reply(&buffer[..length], Some(usize::from(u16::MAX)))
            && let Err(error) = socket.send_to(&reply, from).await
        {
            debug!(%error, %from, "a DNS reply was not sent");
        }
    }
}

async fn serve_tcp(
    listener: TcpListener,
    shared: Arc<Shared>,
    stopped: CancellationToken,
    tasks: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accept = async {
        // Never closed: the loop ends with the token.
        while let Ok(place) = places.clone().acquire_owned().await {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "a DNS connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (shared, token) = (shared.clone(), stopped.clone());
            tasks.spawn(async move {
                if let Some(Err(error)) =
                    token.run_until_cancelled(serve_connection(stream, shared)).await
                {
                    debug!(%error, "a DNS connection ended");
                }
                drop(place);
            });
        }
    };
    stopped.run_until_cancelled(accept).await;
}

/// Each message has its length in front (RFC 1035 section 4.2.2).
async fn serve_connection(mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    loop {
        let query = tokio::time::timeout(IDLE, read_query(&mut stream)).await??;
        if let Some(reply) = shared.reply(&query, None) {
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat()).await?;
        }
    }
}

async fn read_query(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the query is too long"));
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
