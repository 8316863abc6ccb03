//! The index beside a sealed segment: what a start needs of its records.
//!
//! `00000000000000000001.idx` holds the operations without heads and bodies,
//! about 60 bytes a message, so that a start reads neither. It is made from
//! the segment when that is sealed, needs no sync, and is trusted only with
//! its checksum and when it says that it belongs to that segment: a missing,
//! damaged or older one costs a look at the segment, and is made again.
//!
//! ```text
//! index  = magic 8, version 2, zero 2, segment 4, queue id 16, end 8, commit 8; records; CRC 4
//! record = 16, name 1+n                                        names are counted from 0
//!        | 17, offset 4, length of ops 4, commit 8                frame
//!        | 1 or 5, meta, 0, length 4, CRC 4                    put, move of a put
//!        | 1 or 5, meta, 1, id 16, length 4, CRC 4             the same, shared body
//!        | 2 or 7, id 16, length 4, CRC 4                      body, move of a body
//!        | 3 or 6, meta                                        rehead, move of a head
//!        | 4, id 16                                            ack
//! meta   = id 16, priority 1, due 8, queue 4, flow key 4, place of head 4, length 4, CRC 4
//! ```

use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use uuid::Uuid;

use super::{
    codec::{Reader, RecordWriter},
    frame::FrameHeader,
    record::{Meta, Op, Ops, PutBody, RecordError},
};

const MAGIC: [u8; 8] = *b"PHINDEX\n";
/// Version of the format.
const VERSION: u16 = 1;
const HEADER: usize = 48;
const NAME: u8 = 16;
const FRAME: u8 = 17;

/// Path of the index of a segment.
pub fn path(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("{sequence:020}.idx"))
}

/// The sequence in a file's name; `None` when it is not an index's.
pub fn sequence(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".idx")?;
    if name.len() == 20 { name.parse().ok() } else { None }
}

/// Which segment an index is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Of {
    /// Sequence.
    pub segment: u32,
    /// Id of the queue.
    pub queue: Uuid,
    /// Offset at which its frames end.
    pub end: u64,
    /// Its last commit.
    pub commit: u64,
}

/// Makes an index.
#[derive(Default)]
pub struct SidecarBuilder {
    out: RecordWriter,
    names: HashMap<Box<str>, u32>,
}

impl SidecarBuilder {
    fn name(&mut self, name: &str) -> u32 {
        if let Some(number) = self.names.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.insert(name.into(), number);
        self.out.u8(NAME);
        self.out.text(name);
        number
    }

    fn meta(&mut self, tag: u8, meta: &Meta<'_>) {
        let (queue, flow_key) = (self.name(meta.queue), self.name(meta.flow_key));
        let (len, crc) = meta.head_sum();
        self.out.u8(tag);
        self.out.uuid(meta.id);
        self.out.u8(meta.priority);
        self.out.u64(meta.due.cast_unsigned());
        for number in [queue, flow_key, meta.head_at, len, crc] {
            self.out.u32(number);
        }
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// When its operations cannot be read.
    pub fn frame(
        &mut self,
        offset: u32,
        header: &FrameHeader,
        ops: &[u8],
    ) -> Result<(), RecordError> {
        self.out.u8(FRAME);
        self.out.u32(offset);
        self.out.u32(header.ops_len);
        self.out.u64(header.place.commit);
        for op in Ops::new(ops) {
            let (op, _) = op?;
            let tag = op.tag();
            match op {
                Op::Put(meta, body) | Op::MovePut(meta, body) => {
                    self.meta(tag, &meta);
                    self.out.put_body(&body);
                }
                Op::Rehead(meta) | Op::MoveHead(meta) => self.meta(tag, &meta),
                Op::Body(key) | Op::MoveBody(key) => {
                    self.out.u8(tag);
                    self.out.key(&key);
                }
                Op::Ack(id) => {
                    self.out.u8(tag);
                    self.out.uuid(id);
                }
            }
        }
        Ok(())
    }

    /// The bytes of the file.
    pub fn finish(self, of: &Of) -> Vec<u8> {
        let records = self.out.into_bytes();
        let mut bytes = Vec::with_capacity(HEADER + records.len() + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&of.segment.to_le_bytes());
        bytes.extend_from_slice(of.queue.as_bytes());
        bytes.extend_from_slice(&of.end.to_le_bytes());
        bytes.extend_from_slice(&of.commit.to_le_bytes());
        bytes.extend_from_slice(&records);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// What an index says, one after the other.
#[derive(Debug)]
pub enum Item<'a> {
    /// A frame begins: offset, length of its operations, commit.
    Frame {
        /// Offset in the segment.
        offset: u32,
        /// Bytes of its operations.
        ops_len: u32,
        /// Its commit.
        commit: u64,
    },
    /// An operation, and how far into the bodies of its frame its own stands.
    Op(Op<'a>, u64),
}

/// An index that was read.
pub struct Sidecar<'a> {
    /// The segment that it belongs to.
    pub of: Of,
    reader: Reader<'a>,
    names: Vec<&'a str>,
    body_at: u64,
}

impl<'a> Sidecar<'a> {
    /// Checks a file; `None` when it is no index, or a damaged one.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (rest, crc) = bytes.split_last_chunk::<4>()?;
        if rest.len() < HEADER || crc32c::crc32c(rest).to_le_bytes() != *crc {
            return None;
        }
        let mut reader = Reader::new(rest);
        if reader.array::<8>().ok()? != MAGIC || reader.u32().ok()? != u32::from(VERSION) {
            return None;
        }
        let of = Of {
            segment: reader.u32().ok()?,
            queue: reader.uuid().ok()?,
            end: reader.u64().ok()?,
            commit: reader.u64().ok()?,
        };
        Some(Self { of, reader, names: Vec::new(), body_at: 0 })
    }

    fn text(&mut self) -> Result<&'a str, RecordError> {
        let number = self.reader.u32()? as usize;
        self.names.get(number).copied().ok_or(RecordError::Length)
    }

    fn meta(&mut self) -> Result<Meta<'a>, RecordError> {
        Ok(Meta {
            id: self.reader.uuid()?,
            priority: self.reader.u8()?.min(9),
            due: self.reader.u64()?.cast_signed(),
            queue: self.text()?,
            flow_key: self.text()?,
            head: &[],
            head_at: self.reader.u32()?,
            sum: Some((self.reader.u32()?, self.reader.u32()?)),
        })
    }

    fn op(&mut self, tag: u8) -> Result<Item<'a>, RecordError> {
        let at = self.body_at;
        let op = match tag {
            1 | 5 => {
                let meta = self.meta()?;
                let body = self.reader.put_body()?;
                if let PutBody::Inline { len, .. } = body {
                    self.body_at += u64::from(len);
                }
                if tag == 1 { Op::Put(meta, body) } else { Op::MovePut(meta, body) }
            }
            2 | 7 => {
                let key = self.reader.key()?;
                self.body_at += u64::from(key.len);
                if tag == 2 { Op::Body(key) } else { Op::MoveBody(key) }
            }
            3 => Op::Rehead(self.meta()?),
            6 => Op::MoveHead(self.meta()?),
            4 => Op::Ack(self.reader.uuid()?),
            other => return Err(RecordError::Unknown(other)),
        };
        Ok(Item::Op(op, at))
    }

    fn item(&mut self) -> Result<Option<Item<'a>>, RecordError> {
        while !self.reader.is_empty() {
            match self.reader.u8()? {
                NAME => {
                    let name = self.reader.text()?;
                    self.names.push(name);
                }
                FRAME => {
                    self.body_at = 0;
                    return Ok(Some(Item::Frame {
                        offset: self.reader.u32()?,
                        ops_len: self.reader.u32()?,
                        commit: self.reader.u64()?,
                    }));
                }
                tag => return self.op(tag).map(Some),
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Sidecar<'a> {
    type Item = Result<Item<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.item();
        if item.is_err() {
            self.reader.exhaust();
        }
        item.transpose()
    }
}
