//! The bytes of frames and operations. No I/O.
//!
//! Integers are little-endian. Reading is bounded and never panics, whatever
//! the bytes: what is not a record is a [`RecordError`].
//!
//! A frame is `header, operations, bodies, padding to 8`. The checksum of the
//! operations is made by the publisher; the header's, which covers it, by the
//! commit thread, because only that one knows where and in which commit the
//! frame is written.

use bytes::Bytes;
use uuid::Uuid;

/// Bytes of a frame header.
pub const FRAME_HEADER: usize = 48;
/// Frames begin at multiples of it.
pub const ALIGN: u64 = 8;
/// Largest frame; offsets in a segment fit in 32 bits.
pub const MAX_FRAME: u64 = 2 << 30;
/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"PHf1";
/// Stands for "no due time".
pub const NO_DUE: i64 = i64::MIN;

const TAG_PUT: u8 = 1;
const TAG_BODY: u8 = 2;
const TAG_REHEAD: u8 = 3;
const TAG_ACK: u8 = 4;
const BODY_INLINE: u8 = 0;
const BODY_REF: u8 = 1;

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
}

/// The bytes of a body as they are written.
pub fn body_len(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Builds a frame: the header's room, the operations, the bodies beside it.
#[derive(Debug)]
pub struct FrameBuilder {
    buf: Vec<u8>,
    bodies: Vec<Bytes>,
    body_bytes: u64,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self { buf: vec![0; FRAME_HEADER], bodies: Vec::new(), body_bytes: 0 }
    }
}

impl FrameBuilder {
    fn meta(&mut self, meta: &Meta<'_>) {
        self.buf.extend_from_slice(meta.id.as_bytes());
        self.buf.push(meta.priority);
        self.buf.extend_from_slice(&meta.due.to_le_bytes());
        for text in [meta.queue, meta.flow_key] {
            // The contract bounds both to 255 bytes, and who calls has checked.
            self.buf.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
            self.buf.extend_from_slice(text.as_bytes());
        }
        self.buf.extend_from_slice(&u32::try_from(meta.head.len()).unwrap_or(0).to_le_bytes());
        self.buf.extend_from_slice(meta.head);
    }

    fn key(&mut self, key: &BodyKey) {
        self.buf.extend_from_slice(key.id.as_bytes());
        self.buf.extend_from_slice(&key.len.to_le_bytes());
        self.buf.extend_from_slice(&key.crc.to_le_bytes());
    }

    fn carry(&mut self, body: Bytes) {
        self.body_bytes += body.len() as u64;
        if !body.is_empty() {
            self.bodies.push(body);
        }
    }

    /// A message with a body of its own.
    pub fn put_inline(&mut self, meta: &Meta<'_>, body: Bytes) {
        self.buf.push(TAG_PUT);
        self.meta(meta);
        self.buf.push(BODY_INLINE);
        self.buf.extend_from_slice(&body_len(&body).to_le_bytes());
        self.buf.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        self.carry(body);
    }

    /// A message with a shared body.
    pub fn put_ref(&mut self, meta: &Meta<'_>, key: &BodyKey) {
        self.buf.push(TAG_PUT);
        self.meta(meta);
        self.buf.push(BODY_REF);
        self.key(key);
    }

    /// A shared body.
    pub fn body(&mut self, key: &BodyKey, body: Bytes) {
        self.buf.push(TAG_BODY);
        self.key(key);
        self.carry(body);
    }

    /// A new head for a live message.
    pub fn rehead(&mut self, meta: &Meta<'_>) {
        self.buf.push(TAG_REHEAD);
        self.meta(meta);
    }

    /// The end of a message.
    pub fn ack(&mut self, id: Uuid) {
        self.buf.push(TAG_ACK);
        self.buf.extend_from_slice(id.as_bytes());
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.buf.len() == FRAME_HEADER
    }

    /// The frame, still without its place.
    pub fn finish(self) -> FrameBytes {
        FrameBytes { buf: self.buf, bodies: self.bodies, body_bytes: self.body_bytes }
    }
}

/// A frame that waits to be given its place in the log.
#[derive(Debug)]
pub struct FrameBytes {
    /// Header and operations.
    pub buf: Vec<u8>,
    /// The bodies, in order.
    pub bodies: Vec<Bytes>,
    body_bytes: u64,
}

impl FrameBytes {
    /// The operations.
    pub fn ops(&self) -> &[u8] {
        self.buf.get(FRAME_HEADER..).unwrap_or_default()
    }

    /// Bytes in the file, with the padding.
    pub fn size(&self) -> u64 {
        (self.buf.len() as u64 + self.body_bytes).next_multiple_of(ALIGN)
    }

    /// Bytes of padding.
    pub fn padding(&self) -> usize {
        usize::try_from(self.size() - self.buf.len() as u64 - self.body_bytes).unwrap_or(0)
    }

    /// Checksum of the operations, to be made outside of the commit thread.
    pub fn seal(&mut self) {
        let crc = crc32c::crc32c(self.ops());
        if let Some(field) = self.buf.get_mut(40..44) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Writes the header into its room.
    pub fn place(&mut self, place: &Place) {
        let ops_len = u32::try_from(self.ops().len()).unwrap_or(u32::MAX);
        let Some(header) = self.buf.get_mut(..FRAME_HEADER) else { return };
        header[0..4].copy_from_slice(&FRAME_MAGIC);
        header[4..8].copy_from_slice(&ops_len.to_le_bytes());
        header[8..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        header[16..24].copy_from_slice(&place.segment.to_le_bytes());
        header[24..32].copy_from_slice(&place.commit.to_le_bytes());
        header[32..36].copy_from_slice(&place.commit_start.to_le_bytes());
        header[36..40].copy_from_slice(&place.commit_left.to_le_bytes());
        let crc = crc32c::crc32c(&header[..44]);
        header[44..48].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Sequence of its segment.
    pub segment: u64,
    /// Number of the commit that wrote it, one more for each.
    pub commit: u64,
    /// Offset at which that commit begins.
    pub commit_start: u32,
    /// Frames of that commit that follow.
    pub commit_left: u32,
}

/// A frame header that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Where it says that it stands.
    pub place: Place,
    /// Bytes of operations.
    pub ops_len: u32,
    /// Bytes of all bodies.
    pub body_bytes: u64,
    /// Checksum of the operations.
    pub ops_crc: u32,
}

impl FrameHeader {
    /// Reads a header of this segment; `None` when it is none.
    pub fn read(bytes: &[u8], segment: u64) -> Option<Self> {
        let mut reader = Reader { bytes: bytes.get(..FRAME_HEADER)?, at: 0 };
        if reader.array::<4>().ok()? != FRAME_MAGIC {
            return None;
        }
        let ops_len = reader.u32().ok()?;
        let body_bytes = reader.u64().ok()?;
        let place = Place {
            segment: reader.u64().ok()?,
            commit: reader.u64().ok()?,
            commit_start: reader.u32().ok()?,
            commit_left: reader.u32().ok()?,
        };
        let ops_crc = reader.u32().ok()?;
        let header_crc = reader.u32().ok()?;
        let header = Self { place, ops_len, body_bytes, ops_crc };
        let valid = header_crc == crc32c::crc32c(bytes.get(..44)?)
            && place.segment == segment
            && u64::from(ops_len) <= MAX_FRAME
            && body_bytes <= MAX_FRAME;
        valid.then_some(header)
    }

    /// Bytes in the file, with the padding.
    pub fn size(&self) -> u64 {
        (FRAME_HEADER as u64 + u64::from(self.ops_len) + self.body_bytes).next_multiple_of(ALIGN)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let end = self.at.checked_add(len).ok_or(RecordError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(RecordError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N)?.try_into().map_err(|_| RecordError::Short)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn uuid(&mut self) -> Result<Uuid, RecordError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<&'a str, RecordError> {
        let len = self.u8()?;
        std::str::from_utf8(self.take(usize::from(len))?).map_err(|_| RecordError::Text)
    }

    fn key(&mut self) -> Result<BodyKey, RecordError> {
        Ok(BodyKey { id: self.uuid()?, len: self.u32()?, crc: self.u32()? })
    }

    fn meta(&mut self) -> Result<Meta<'a>, RecordError> {
        let id = self.uuid()?;
        let priority = self.u8()?.min(9);
        let due = i64::from_le_bytes(self.array()?);
        let queue = self.text()?;
        let flow_key = self.text()?;
        let len = self.u32()?;
        let head_at = u32::try_from(self.at).map_err(|_| RecordError::Short)?;
        let head = self.take(usize::try_from(len).map_err(|_| RecordError::Short)?)?;
        Ok(Meta { id, queue, priority, due, flow_key, head, head_at })
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
        Self { reader: Reader { bytes, at: 0 }, body_at: 0, failed: false }
    }

    fn read(&mut self) -> Result<(Op<'a>, u64), RecordError> {
        let at = self.body_at;
        let op = match self.reader.u8()? {
            TAG_PUT => {
                let meta = self.reader.meta()?;
                let body = match self.reader.u8()? {
                    BODY_INLINE => {
                        PutBody::Inline { len: self.reader.u32()?, crc: self.reader.u32()? }
                    }
                    BODY_REF => PutBody::Ref(self.reader.key()?),
                    other => return Err(RecordError::Unknown(other)),
                };
                if let PutBody::Inline { len, .. } = body {
                    self.body_at += u64::from(len);
                }
                Op::Put(meta, body)
            }
            TAG_BODY => {
                let key = self.reader.key()?;
                self.body_at += u64::from(key.len);
                Op::Body(key)
            }
            TAG_REHEAD => Op::Rehead(self.reader.meta()?),
            TAG_ACK => Op::Ack(self.reader.uuid()?),
            other => return Err(RecordError::Unknown(other)),
        };
        Ok((op, at))
    }
}

impl<'a> Iterator for Ops<'a> {
    type Item = Result<(Op<'a>, u64), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.reader.at >= self.reader.bytes.len() {
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
