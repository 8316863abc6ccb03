//! The task that writes: frames are gathered into few writes, acknowledgements
//! wait a little for company, heart-beats fill the silence, and the oldest
//! receipt is watched.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, BytesMut};
use tokio::{
    io::AsyncWriteExt,
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};

use super::{handshake::Write, state::Shared};
use crate::{
    codec::{Command, Frame, Headers, encode, encode_ack},
    error::LinkError,
};

/// What is to be written.
pub(super) enum Outgoing {
    Frame(Frame),
    /// Together, in this order.
    Frames(Vec<Frame>),
    /// The receipt is asked for with the last one: the broker works in order.
    Acks {
        ids: Vec<Box<str>>,
        receipt: Option<u64>,
    },
}

/// Items taken from the channel at once.
const TAKE: usize = 128;
/// Bodies from this size on are written as they are, not copied.
const COPY_BELOW: usize = 32 << 10;
/// Bytes that are gathered at most.
const GATHER: usize = 256 << 10;
/// How long a sleep without a reason may be.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) async fn run(
    shared: Arc<Shared>,
    outgoing: mpsc::Receiver<Outgoing>,
    write: Write,
    send_every: Option<Duration>,
) {
    let closed = shared.closed.clone();
    let mut writer = Writer {
        shared: Arc::clone(&shared),
        write,
        buffer: BytesMut::new(),
        waiting_acks: 0,
        flush_at: None,
        written_at: Instant::now(),
        // Half of it, since the way takes time too.
        send_every: send_every.map(|every| every / 2),
    };
    let result = tokio::select! {
        biased;
        () = closed.cancelled() => Ok(()),
        result = writer.work(outgoing) => result,
    };
    if let Err(cause) = result {
        shared.fail(cause);
    }
    // The connection is over whatever the socket says to this.
    drop(tokio::time::timeout(Duration::from_secs(1), writer.write.shutdown()).await);
}

struct Writer {
    shared: Arc<Shared>,
    write: Write,
    buffer: BytesMut,
    /// Acknowledgements in the buffer.
    waiting_acks: usize,
    /// When they must be written.
    flush_at: Option<Instant>,
    written_at: Instant,
    send_every: Option<Duration>,
}

impl Writer {
    async fn work(&mut self, mut outgoing: mpsc::Receiver<Outgoing>) -> Result<(), LinkError> {
        let mut items = Vec::with_capacity(TAKE);
        loop {
            let deadline = self.shared.oldest_deadline();
            let wake = self.wake(deadline);
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                count = outgoing.recv_many(&mut items, TAKE) => if count == 0 {
                    return Err(LinkError::Closed);
                },
                () = shared.dropped.notified() => {}
                () = sleep_until(wake) => {}
            }
            let ending = shared.take_ending();
            if !ending.is_empty() {
                // Acknowledgements that were put in before go first.
                for _ in 0..outgoing.len() {
                    items.extend(outgoing.try_recv());
                }
            }
            for item in items.drain(..) {
                self.put(item).await?;
            }
            for subscription in ending {
                self.put(Outgoing::Frame(unsubscribe(subscription))).await?;
            }
            self.on_time().await?;
        }
    }

    /// When something has to be done at the latest.
    fn wake(&self, receipt: Option<Instant>) -> Instant {
        let beat = self.send_every.map(|every| self.written_at + every);
        let idle = Instant::now() + IDLE;
        [receipt, beat, self.flush_at].into_iter().flatten().min().unwrap_or(idle)
    }

    /// After each round: flush, beat, and look for a receipt that is overdue.
    async fn on_time(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        if self.shared.oldest_deadline().is_some_and(|deadline| deadline <= now) {
            let within = self.shared.options.receipt_timeout;
            return Err(LinkError::Timeout { what: "receipt", within });
        }
        let acks_alone = self.flush_at.is_some();
        let due = self.flush_at.is_some_and(|at| at <= now)
            || self.waiting_acks >= self.shared.options.ack_batch;
        if !self.buffer.is_empty() && (!acks_alone || due) {
            self.flush().await?;
        }
        let silent = self.send_every.is_some_and(|every| now >= self.written_at + every);
        if silent {
            self.buffer.put_u8(b'\n');
            self.flush().await?;
        }
        Ok(())
    }

    async fn put(&mut self, item: Outgoing) -> Result<(), LinkError> {
        match item {
            Outgoing::Frame(frame) => self.frame(&frame).await,
            Outgoing::Frames(frames) => {
                for frame in frames {
                    self.frame(&frame).await?;
                }
                Ok(())
            }
            Outgoing::Acks { ids, receipt } => self.acks(&ids, receipt).await,
        }
    }

    async fn acks(&mut self, ids: &[Box<str>], receipt: Option<u64>) -> Result<(), LinkError> {
        let alone = self.buffer.is_empty() || self.flush_at.is_some();
        let last = ids.len().saturating_sub(1);
        for (at, id) in ids.iter().enumerate() {
            encode_ack(id, receipt.filter(|_| at == last), &mut self.buffer);
        }
        self.waiting_acks += ids.len();
        if receipt.is_some() {
            self.flush_at = None;
        } else if alone && self.flush_at.is_none() {
            self.flush_at = Some(Instant::now() + self.shared.options.ack_delay);
        }
        self.flush_large().await
    }

    async fn frame(&mut self, frame: &Frame) -> Result<(), LinkError> {
        let apart = frame.body.len() >= COPY_BELOW;
        encode(frame, &mut self.buffer, apart)?;
        self.flush_at = None;
        if apart {
            self.flush().await?;
            self.write(&frame.body).await?;
            self.buffer.put_u8(0);
        }
        self.flush_large().await
    }

    async fn flush_large(&mut self) -> Result<(), LinkError> {
        if self.buffer.len() >= GATHER { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.write(&buffer).await?;
        buffer.clear();
        self.buffer = buffer;
        self.waiting_acks = 0;
        self.flush_at = None;
        Ok(())
    }

    /// Writes, for as long as the oldest receipt allows: a broker may stop
    /// reading when it is full.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let within = self.shared.options.receipt_timeout;
        let latest = Instant::now() + within;
        let deadline = self.shared.oldest_deadline().map_or(latest, |oldest| oldest.min(latest));
        let writing = async {
            self.write.write_all(bytes).await?;
            self.write.flush().await
        };
        match timeout_at(deadline, writing).await {
            Err(_) => return Err(LinkError::Timeout { what: "progress in writing", within }),
            Ok(result) => result?,
        }
        self.written_at = Instant::now();
        Ok(())
    }
}

pub(super) fn unsubscribe(subscription: u64) -> Frame {
    Frame::new(Command::Unsubscribe, Headers::new().with("id", &subscription.to_string()))
}
