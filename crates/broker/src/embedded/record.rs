//! The bytes of operations. No I/O.
//!
//! Integers are little-endian. Reading is bounded and never panics, whatever
//! the bytes: what is not a record is a [`RecordError`].

use bytes::Bytes;
use uuid::Uuid;

use super::{
    codec::{Reader, RecordWriter},
    frame::{FRAME_HEADER, FrameBytes},
};

/// Stands for "no due time".
pub const NO_DUE: i64 = i64::MIN;

const TAG_PUT: u8 = 1;
const TAG_BODY: u8 = 2;
const TAG_REHEAD: u8 = 3;
const TAG_ACK: u8 = 4;
const TAG_MOVE_PUT: u8 = 5;
const TAG_MOVE_HEAD: u8 = 6;
const TAG_MOVE_BODY: u8 = 7;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They end early.
    #[error("it ends early")]
    Short,
    /// An operation or a kind of body that this version does not know.
    #[error("it holds a kind of record that this version does not know: {0}")]
    Unknown(u8),
    /// A text that is not UTF-8.
    #[error("it holds a name that is not UTF-8")]
    Text,
    /// A body longer than a frame may be.
    #[error("its lengths do not add up")]
    Length,
}

/// Names a shared body: with length and checksum, so that an id that is used
/// again with other bytes is another body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyKey {
    /// The id given by the publisher.
    pub id: Uuid,
    /// Bytes.
    pub len: u32,
    /// CRC-32C.
    pub crc: u32,
}

/// Where the body of a [`Op::Put`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBody {
    /// In the same frame, next in the order of its operations.
    Inline {
        /// Bytes.
        len: u32,
        /// CRC-32C.
        crc: u32,
    },
    /// A shared one.
    Ref(BodyKey),
}

/// What a put and a rehead have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta<'a> {
    /// The message.
    pub id: Uuid,
    /// Its queue.
    pub queue: &'a str,
    /// 0 to 9.
    pub priority: u8,
    /// Milliseconds of wall clock, or [`NO_DUE`].
    pub due: i64,
    /// See the contract.
    pub flow_key: &'a str,
    /// The small part.
    pub head: &'a [u8],
    /// Where the head begins in the operations section.
    pub head_at: u32,
    /// Length and checksum of the head, where its bytes are not at hand.
    pub sum: Option<(u32, u32)>,
}

impl Meta<'_> {
    /// Length and checksum of the head.
    pub fn head_sum(&self) -> (u32, u32) {
        let sum = || (u32::try_from(self.head.len()).unwrap_or(0), crc32c::crc32c(self.head));
        self.sum.unwrap_or_else(sum)
    }
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// A message comes to be.
    Put(Meta<'a>, PutBody),
    /// A shared body, in the same frame.
    Body(BodyKey),
    /// The head of a live message is replaced, its body kept.
    Rehead(Meta<'a>),
    /// A message is done with.
    Ack(Uuid),
    /// Compaction has copied a message to here.
    MovePut(Meta<'a>, PutBody),
    /// Compaction has copied its newest head to here.
    MoveHead(Meta<'a>),
    /// Compaction has copied a shared body to here.
    MoveBody(BodyKey),
}

impl Op<'_> {
    /// What it begins with.
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Put(..) => TAG_PUT,
            Self::Body(_) => TAG_BODY,
            Self::Rehead(_) => TAG_REHEAD,
            Self::Ack(_) => TAG_ACK,
            Self::MovePut(..) => TAG_MOVE_PUT,
            Self::MoveHead(_) => TAG_MOVE_HEAD,
            Self::MoveBody(_) => TAG_MOVE_BODY,
        }
    }
}

/// The bytes of a body as they are written.
pub fn body_len(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Builds a frame: the header's room, the operations, the bodies beside it.
#[derive(Debug)]
pub struct FrameBuilder {
    out: RecordWriter,
    bodies: Vec<Bytes>,
    body_bytes: u64,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        let out = RecordWriter { bytes: vec![0; FRAME_HEADER] };
        Self { out, bodies: Vec::new(), body_bytes: 0 }
    }
}

impl FrameBuilder {
    fn carry(&mut self, body: Bytes) {
        self.body_bytes += body.len() as u64;
        if !body.is_empty() {
            self.bodies.push(body);
        }
    }

    fn put(&mut self, tag: u8, meta: &Meta<'_>, body: &PutBody) {
        self.out.u8(tag);
        self.out.meta(meta);
        self.out.put_body(body);
    }

    /// A message with a body of its own.
    pub fn put_inline(&mut self, meta: &Meta<'_>, body: Bytes) {
        let place = PutBody::Inline { len: body_len(&body), crc: crc32c::crc32c(&body) };
        self.put(TAG_PUT, meta, &place);
        self.carry(body);
    }

    /// A message with a shared body.
    pub fn put_ref(&mut self, meta: &Meta<'_>, key: &BodyKey) {
        self.put(TAG_PUT, meta, &PutBody::Ref(*key));
    }

    /// A shared body.
    pub fn body(&mut self, key: &BodyKey, body: Bytes) {
        self.out.u8(TAG_BODY);
        self.out.key(key);
        self.carry(body);
    }

    /// A new head for a live message.
    pub fn rehead(&mut self, meta: &Meta<'_>) {
        self.out.u8(TAG_REHEAD);
        self.out.meta(meta);
    }

    /// The end of a message.
    pub fn ack(&mut self, id: Uuid) {
        self.out.u8(TAG_ACK);
        self.out.uuid(id);
    }

    /// The copy of a message with a body of its own, which has this checksum.
    pub fn move_inline(&mut self, meta: &Meta<'_>, body: Bytes, crc: u32) {
        self.put(TAG_MOVE_PUT, meta, &PutBody::Inline { len: body_len(&body), crc });
        self.carry(body);
    }

    /// The copy of a message with a shared body.
    pub fn move_ref(&mut self, meta: &Meta<'_>, key: &BodyKey) {
        self.put(TAG_MOVE_PUT, meta, &PutBody::Ref(*key));
    }

    /// The copy of a head.
    pub fn move_head(&mut self, meta: &Meta<'_>) {
        self.out.u8(TAG_MOVE_HEAD);
        self.out.meta(meta);
    }

    /// The copy of a shared body.
    pub fn move_body(&mut self, key: &BodyKey, body: Bytes) {
        self.out.u8(TAG_MOVE_BODY);
        self.out.key(key);
        self.carry(body);
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.out.bytes.len() as u64 + self.body_bytes
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.out.bytes.len() == FRAME_HEADER
    }

    /// The frame, still without its place.
    pub fn finish(self) -> FrameBytes {
        FrameBytes { buf: self.out.bytes, bodies: self.bodies, body_bytes: self.body_bytes }
    }
}

/// Reads the operations of a frame, each with the offset of its body among
/// the bodies of the frame.
pub struct Ops<'a> {
    reader: Reader<'a>,
    body_at: u64,
    failed: bool,
}

impl<'a> Ops<'a> {
    /// Of an operations section.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), body_at: 0, failed: false }
    }

    fn read(&mut self) -> Result<(Op<'a>, u64), RecordError> {
        let at = self.body_at;
        let op = match self.reader.u8()? {
            tag @ (TAG_PUT | TAG_MOVE_PUT) => {
                let meta = self.reader.meta()?;
                let body = self.reader.put_body()?;
                if let PutBody::Inline { len, .. } = body {
                    self.body_at += u64::from(len);
                }
                if tag == TAG_PUT { Op::Put(meta, body) } else { Op::MovePut(meta, body) }
            }
            tag @ (TAG_BODY | TAG_MOVE_BODY) => {
                let key = self.reader.key()?;
                self.body_at += u64::from(key.len);
                if tag == TAG_BODY { Op::Body(key) } else { Op::MoveBody(key) }
            }
            TAG_REHEAD => Op::Rehead(self.reader.meta()?),
            TAG_MOVE_HEAD => Op::MoveHead(self.reader.meta()?),
            TAG_ACK => Op::Ack(self.reader.uuid()?),
            other => return Err(RecordError::Unknown(other)),
        };
        Ok((op, at))
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<(Op<'a>, u64), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.is_empty() {
            return None;
        }
        let item = self.read();
        self.failed = item.is_err();
        Some(item)
    }
}

/// Checks that all operations can be read and that their bodies make up
/// `body_bytes`.
pub fn check(ops: &[u8], body_bytes: u64) -> Result<(), RecordError> {
    let mut reader = Ops::new(ops);
    for op in reader.by_ref() {
        op?;
    }
    if reader.body_at == body_bytes { Ok(()) } else { Err(RecordError::Length) }
}
