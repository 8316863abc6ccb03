//! One connection to a sink: the shell around [`Server`] that reads, writes,
//! and does what the rules say.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use posthaste_model::{Clock, SmtpReply, SystemClock};
use posthaste_smtp::server::{Request, Server};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::error::TrySendError,
    time::{sleep, timeout},
};

use super::{
    Keep, Shared,
    record::{Received, count},
    rule::{Action, Occasion, RuleStage},
};

/// Space for one read.
const READ_LEN: usize = 16 * 1024;
/// What no client can take for a reply.
const GARBAGE: &[u8] = b"\x00\xff\x15\x03 this is not SMTP\r\n";

/// How a phase of a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    StartTls,
}

/// What to do after a request.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Close,
}

/// A connection, apart from its stream.
struct Peer {
    shared: Arc<Shared>,
    server: Server,
    input: BytesMut,
    out: Vec<u8>,
    line: Vec<u8>,
}

pub(super) async fn serve(shared: Arc<Shared>, mut stream: TcpStream, address: SocketAddr) {
    let server = Server::new(shared.options.clone());
    let acceptor = shared.tls.clone();
    let mut peer =
        Peer { shared, server, input: BytesMut::new(), out: Vec::new(), line: Vec::new() };
    let ended = match peer.greet(&mut stream).await {
        Ok(Next::GoOn) => peer.run(&mut stream).await,
        Ok(Next::Close) => Ok(End::Closed),
        Err(error) => Err(error),
    };
    let ended = match (ended, acceptor) {
        (Ok(End::StartTls), Some(acceptor)) => {
            match timeout(peer.shared.idle_timeout, acceptor.accept(stream)).await {
                Ok(Ok(mut stream)) => {
                    count(&peer.shared.counters.tls, 1);
                    peer.run(&mut stream).await
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Ok(End::Closed),
            }
        }
        (ended, _) => ended,
    };
    // What goes wrong on a connection is the client's to see and to report.
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "sink: connection ended");
    }
}

impl Peer {
    async fn greet(&mut self, stream: &mut TcpStream) -> std::io::Result<Next> {
        let shared = Arc::clone(&self.shared);
        let occasion = Occasion { stage: RuleStage::Connect, sender: "", subjects: &[] };
        let decision = shared.rules.decide(occasion);
        sleep_for(decision.delay).await;
        match decision.action {
            Action::Reply(reply) => {
                self.server.greet_with(reply, &mut self.out);
                if reply.code != 220 {
                    count(&shared.counters.refused, 1);
                }
            }
            Action::Drop | Action::AcceptThenDrop => {
                count(&shared.counters.dropped, 1);
                return Ok(Next::Close);
            }
            Action::Silence => {
                self.hold(stream).await?;
                return Ok(Next::Close);
            }
            Action::Garbage => self.out.extend_from_slice(GARBAGE),
            Action::Accept | Action::Delay(_) => self.server.greet(&mut self.out),
        }
        Ok(Next::GoOn)
    }

    async fn run<S>(&mut self, stream: &mut S) -> std::io::Result<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let was_tls = self.server.is_tls();
            while let Some(request) = self.server.next(&mut self.input, &mut self.out) {
                if self.handle(request, stream).await? == Next::Close {
                    self.flush(stream).await?;
                    return Ok(End::Closed);
                }
            }
            self.flush(stream).await?;
            if self.server.is_closed() {
                stream.shutdown().await?;
                return Ok(End::Closed);
            }
            if self.server.is_tls() != was_tls {
                return Ok(End::StartTls);
            }
            self.input.reserve(READ_LEN);
            let read = timeout(self.shared.idle_timeout, stream.read_buf(&mut self.input)).await;
            if !matches!(read, Ok(Ok(1..))) {
                return read.unwrap_or(Ok(0)).map(|_| End::Closed);
            }
        }
    }

    async fn handle<S>(&mut self, request: Request, stream: &mut S) -> std::io::Result<Next>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let shared = Arc::clone(&self.shared);
        let stage = stage_of(request);
        if !shared.rules.concern(stage) {
            self.accept(request, None);
            return Ok(Next::GoOn);
        }
        let decision = self.decide(&shared, request, stage);
        if decision.delay > Duration::ZERO {
            self.flush(stream).await?;
            sleep(decision.delay).await;
        }
        match decision.action {
            Action::Accept | Action::Delay(_) => self.accept(request, None),
            Action::Reply(reply) if is_acceptance(request, reply) => {
                self.accept(request, Some(reply));
            }
            Action::Reply(reply) => {
                count(&shared.counters.refused, 1);
                self.server.refuse(reply, &mut self.out);
            }
            Action::Garbage => {
                self.server.abandon();
                self.out.extend_from_slice(GARBAGE);
            }
            Action::Silence => {
                self.flush(stream).await?;
                self.hold(stream).await?;
                return Ok(Next::Close);
            }
            Action::Drop => {
                count(&shared.counters.dropped, 1);
                return Ok(Next::Close);
            }
            Action::AcceptThenDrop => {
                count(&shared.counters.dropped, 1);
                let said = self.out.len();
                self.accept(request, None);
                self.out.truncate(said);
                return Ok(Next::Close);
            }
        }
        Ok(Next::GoOn)
    }

    fn decide<'a>(
        &self,
        shared: &'a Shared,
        request: Request,
        stage: RuleStage,
    ) -> super::rule::Decision<'a> {
        let envelope = self.server.envelope();
        let sender = envelope.sender.as_deref().unwrap_or_default();
        let all: Vec<&str>;
        let subjects = match request {
            Request::Hello => &[self.server.hello_name()][..],
            Request::Mail => &[sender],
            Request::Recipient => &[self.server.candidate()],
            Request::Data | Request::Message => {
                all = envelope.recipients.iter().map(String::as_str).collect();
                &all
            }
            Request::StartTls => &[],
        };
        shared.rules.decide(Occasion { stage, sender, subjects })
    }

    fn accept(&mut self, request: Request, words: Option<&SmtpReply>) {
        if request == Request::Message && !self.record() {
            let reply = SmtpReply {
                code: 451,
                enhanced: "4.3.0".parse().ok(),
                text: "The accept log cannot be written".into(),
            };
            self.server.refuse(&reply, &mut self.out);
            return;
        }
        match words {
            Some(reply) => self.server.accept_with(reply, &mut self.out),
            None => self.server.accept(&mut self.out),
        }
    }

    /// Records a message before it is acknowledged.
    fn record(&mut self) -> bool {
        let time = SystemClock.now();
        let envelope = self.server.envelope();
        let content = self.server.content();
        if let Some(log) = &self.shared.log
            && let Err(error) = log.append(time, content, &envelope.recipients, &mut self.line)
        {
            tracing::error!(%error, "sink: the accept log cannot be written");
            return false;
        }
        let counters = &self.shared.counters;
        count(&counters.accepted, 1);
        count(&counters.recipients, envelope.recipients.len());
        count(&counters.bytes, content.len());
        if let Some(observer) =
            self.shared.observer.as_ref().filter(|_| self.shared.keep != Keep::Nothing)
        {
            let received = Received {
                time,
                sender: envelope.sender.clone(),
                recipients: envelope.recipients.clone(),
                size: content.len(),
                content: (self.shared.keep == Keep::All).then(|| Bytes::copy_from_slice(content)),
                tls: self.server.is_tls(),
                helo: self.server.hello_name().to_owned(),
            };
            match observer.try_send(received) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                    count(&counters.unobserved, 1);
                }
            }
        }
        true
    }

    /// Says nothing until the client gives up.
    async fn hold<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> std::io::Result<()> {
        loop {
            self.input.clear();
            self.input.reserve(READ_LEN);
            if stream.read_buf(&mut self.input).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn flush<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> std::io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let write = async {
            stream.write_all(&self.out).await?;
            stream.flush().await
        };
        match timeout(self.shared.idle_timeout, write).await {
            Ok(written) => written?,
            Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
        }
        self.out.clear();
        Ok(())
    }
}

async fn sleep_for(delay: Duration) {
    if delay > Duration::ZERO {
        sleep(delay).await;
    }
}

const fn stage_of(request: Request) -> RuleStage {
    match request {
        Request::Hello => RuleStage::Ehlo,
        Request::Mail => RuleStage::Mail,
        Request::Recipient => RuleStage::Rcpt,
        Request::Data => RuleStage::Data,
        Request::Message => RuleStage::EndOfData,
        Request::StartTls => RuleStage::Starttls,
    }
}

/// Whether a reply tells the client to go on.
fn is_acceptance(request: Request, reply: &SmtpReply) -> bool {
    match request {
        Request::Data => reply.code == 354,
        _ => reply.code / 100 == 2,
    }
}
