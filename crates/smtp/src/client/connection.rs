//! A connection to a server: a plain or TLS stream, what has come and is not
//! read yet, and one buffer for what goes out.
//!
//! Every wait has the time limit of its stage. After an error the position in
//! the dialogue is lost, so the connection must not be used any more.

use std::{io, mem::MaybeUninit, time::Duration};

use bytes::{Buf, BytesMut};
use posthaste_model::SmtpReply;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{Failure, FailureKind, Stage, reply::ReplyParser};

/// Space for one read. Replies are short.
const READ_LEN: usize = 2 * 1024;
/// The output buffer keeps no more than this between transactions: thousands
/// of idle sessions may be open.
const KEPT_OUTPUT: usize = 16 * 1024;
/// How long to look for a reply that came before the connection broke. It has
/// arrived already or never will.
const LAST_WORDS: Duration = Duration::from_millis(100);

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read_buf(into).await,
            Self::Tls(tls) => tls.read_buf(into).await,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(bytes).await,
            Self::Tls(tls) => {
                tls.write_all(bytes).await?;
                tls.flush().await
            }
        }
    }
}

pub(super) struct Connection {
    pub(super) stream: Stream,
    input: BytesMut,
    /// Commands are written here, then sent with [`Connection::send`].
    pub(super) output: Vec<u8>,
    replies: ReplyParser,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), output: Vec::new(), replies: ReplyParser::new() }
    }

    pub(super) const fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Whether the server has said something that nobody has read yet, as far
    /// as this process knows. The kernel may hold more.
    pub(super) fn has_input(&self) -> bool {
        let decrypted = match &self.stream {
            Stream::Plain(_) => false,
            // rustls wants no further bytes while it holds decrypted ones.
            Stream::Tls(tls) => !tls.get_ref().1.wants_read(),
        };
        decrypted || !self.input.is_empty() || self.replies.is_amid()
    }

    /// Whether nothing has come since the last reply: no bytes, no end, no
    /// error. Does not wait.
    pub(super) fn is_quiet(&self) -> bool {
        if self.has_input() {
            return false;
        }
        let mut byte = [MaybeUninit::uninit()];
        match socket2::SockRef::from(self.stream.tcp()).peek(&mut byte) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// Reads one reply.
    pub(super) async fn reply(
        &mut self,
        stage: Stage,
        limit: Duration,
    ) -> Result<SmtpReply, Failure> {
        match timeout(limit, self.read_reply(stage)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::new(stage, FailureKind::Timeout)),
        }
    }

    async fn read_reply(&mut self, stage: Stage) -> Result<SmtpReply, Failure> {
        loop {
            let step = self
                .replies
                .advance(&self.input)
                .map_err(|error| Failure::new(stage, FailureKind::Protocol(error.to_string())))?;
            self.input.advance(step.consumed);
            if let Some(reply) = step.reply {
                return Ok(reply);
            }
            self.input.reserve(READ_LEN);
            match self.stream.read(&mut self.input).await {
                Ok(0) => return Err(Failure::new(stage, FailureKind::Closed)),
                Ok(_) => {}
                Err(error) => return Err(Failure::new(stage, io_kind(&error))),
            }
        }
    }

    /// Sends what is in the output buffer.
    pub(super) async fn send(&mut self, stage: Stage, limit: Duration) -> Result<(), Failure> {
        let output = std::mem::take(&mut self.output);
        let outcome = self.write(&output, stage, limit).await;
        self.output = output;
        self.output.clear();
        outcome
    }

    /// Gives back the memory that a large message took.
    pub(super) fn trim(&mut self) {
        if self.output.capacity() > KEPT_OUTPUT {
            self.output = Vec::new();
        }
    }

    /// Sends bytes past the output buffer. When that fails because the server
    /// has gone, its last words say more than the error does: 421, or what it
    /// did not like.
    pub(super) async fn write(
        &mut self,
        bytes: &[u8],
        stage: Stage,
        limit: Duration,
    ) -> Result<(), Failure> {
        let kind = match timeout(limit, self.stream.write(bytes)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => io_kind(&error),
            Err(_) => FailureKind::Timeout,
        };
        match self.reply(stage, LAST_WORDS).await {
            Ok(reply) if reply.code >= 400 => Err(Failure::new(stage, FailureKind::Reply(reply))),
            _ => Err(Failure::new(stage, kind)),
        }
    }

    /// Fails when the server has spoken out of turn: whatever it says next
    /// would be taken for the reply to another command.
    pub(super) async fn check_turn(&mut self, stage: Stage) -> Result<(), Failure> {
        if !self.has_input() {
            return Ok(());
        }
        let kind = match self.reply(stage, LAST_WORDS).await {
            Ok(reply) if reply.code == 421 => FailureKind::Reply(reply),
            Ok(reply) => FailureKind::Protocol(format!("unsolicited reply {reply}")),
            Err(failure) => failure.kind,
        };
        Err(Failure::new(stage, kind))
    }

    /// Sends one command, which is in the output buffer, and reads the reply.
    pub(super) async fn exchange(
        &mut self,
        stage: Stage,
        limit: Duration,
    ) -> Result<SmtpReply, Failure> {
        self.check_turn(stage).await?;
        self.send(stage, limit).await?;
        self.reply(stage, limit).await
    }

    /// Ends the connection in order; bounded by the caller.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(tcp) => tcp.shutdown().await,
            Stream::Tls(tls) => tls.shutdown().await,
        }
    }
}

/// What an error of the stream means for the session.
fn io_kind(error: &io::Error) -> FailureKind {
    match error.kind() {
        // tokio-rustls reports a breach of TLS as invalid data.
        io::ErrorKind::InvalidData => FailureKind::Tls(error.to_string()),
        io::ErrorKind::TimedOut => FailureKind::Timeout,
        _ => FailureKind::Closed,
    }
}
