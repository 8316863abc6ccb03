//! Numbers, ids, texts and the parts of operations as bytes, both ways.
//!
//! Integers are little-endian. Reading is bounded and never panics.

use uuid::Uuid;

use super::record::{BodyKey, Meta, PutBody, RecordError};

const BODY_INLINE: u8 = 0;
const BODY_REF: u8 = 1;

/// Writes bytes.
#[derive(Debug, Default)]
pub struct RecordWriter {
    /// So far.
    pub bytes: Vec<u8>,
}

impl RecordWriter {
    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// A number.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A number.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// An id.
    pub fn uuid(&mut self, id: Uuid) {
        self.bytes.extend_from_slice(id.as_bytes());
    }

    /// A text of at most 255 bytes, which who calls has checked.
    pub fn text(&mut self, text: &str) {
        self.u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// What a put and a rehead have in common.
    pub fn meta(&mut self, meta: &Meta<'_>) {
        self.uuid(meta.id);
        self.u8(meta.priority);
        self.u64(meta.due.cast_unsigned());
        self.text(meta.queue);
        self.text(meta.flow_key);
        self.u32(u32::try_from(meta.head.len()).unwrap_or(0));
        self.bytes.extend_from_slice(meta.head);
    }

    /// The name of a shared body.
    pub fn key(&mut self, key: &BodyKey) {
        self.uuid(key.id);
        self.u32(key.len);
        self.u32(key.crc);
    }

    /// Where the body of a put is.
    pub fn put_body(&mut self, body: &PutBody) {
        match body {
            PutBody::Inline { len, crc } => {
                self.u8(BODY_INLINE);
                self.u32(*len);
                self.u32(*crc);
            }
            PutBody::Ref(key) => {
                self.u8(BODY_REF);
                self.key(key);
            }
        }
    }

    /// All of it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Of these bytes.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether all was read.
    pub const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Reads nothing more.
    pub const fn exhaust(&mut self) {
        self.at = self.bytes.len();
    }

    /// So many bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let end = self.at.checked_add(len).ok_or(RecordError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(RecordError::Short)?;
        self.at = end;
        Ok(taken)
    }

    /// So many bytes, as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N)?.try_into().map_err(|_| RecordError::Short)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, RecordError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A number.
    pub fn u32(&mut self) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number.
    pub fn u64(&mut self) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// An id.
    pub fn uuid(&mut self) -> Result<Uuid, RecordError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// A short text.
    pub fn text(&mut self) -> Result<&'a str, RecordError> {
        let len = self.u8()?;
        std::str::from_utf8(self.take(usize::from(len))?).map_err(|_| RecordError::Text)
    }

    /// The name of a shared body.
    pub fn key(&mut self) -> Result<BodyKey, RecordError> {
        Ok(BodyKey { id: self.uuid()?, len: self.u32()?, crc: self.u32()? })
    }

    /// What a put and a rehead have in common.
    pub fn meta(&mut self) -> Result<Meta<'a>, RecordError> {
        let id = self.uuid()?;
        let priority = self.u8()?.min(9);
        let due = i64::from_le_bytes(self.array()?);
        let queue = self.text()?;
        let flow_key = self.text()?;
        let len = self.u32()?;
        let head_at = u32::try_from(self.at).map_err(|_| RecordError::Short)?;
        let head = self.take(usize::try_from(len).map_err(|_| RecordError::Short)?)?;
        Ok(Meta { id, queue, priority, due, flow_key, head, head_at, sum: None })
    }

    /// Where the body of a put is.
    pub fn put_body(&mut self) -> Result<PutBody, RecordError> {
        match self.u8()? {
            BODY_INLINE => Ok(PutBody::Inline { len: self.u32()?, crc: self.u32()? }),
            BODY_REF => Ok(PutBody::Ref(self.key()?)),
            other => Err(RecordError::Unknown(other)),
        }
    }
}
