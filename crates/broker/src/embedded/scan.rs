//! Reading the frames of a segment file, through a window.
//!
//! Bounded and without a panic, whatever the bytes: what is no frame is
//! `None`, and what stands behind it can be asked.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    disk::{self, DiskFile},
    frame::{ALIGN, FRAME_HEADER, FRAME_MAGIC, FrameHeader},
    record::{self, Op, Ops, PutBody},
};
use crate::contract::BrokerError;

/// Bytes read at once; what a skipped body does not fit in is not read.
const WINDOW: usize = 256 << 10;

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// File.
    pub path: PathBuf,
    /// Byte in it.
    pub offset: u64,
    /// What is wrong, for the operator.
    pub why: String,
}

impl Damage {
    /// At a place.
    pub fn new(path: &Path, offset: u64, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), offset, why: why.into() }
    }

    /// A file that cannot be used.
    pub fn io(path: &Path, error: &io::Error) -> Self {
        Self::new(path, 0, format!("it could not be used: {error}"))
    }
}

impl From<Damage> for BrokerError {
    fn from(damage: Damage) -> Self {
        Self::Storage(format!(
            "{} at byte {}: {}. Nothing was changed. Restore the file from a copy; or move it \
             away and start again, which gives up the messages in it",
            damage.path.display(),
            damage.offset,
            damage.why
        ))
    }
}

/// A segment that is being read, through a window.
pub struct Scan {
    file: Arc<dyn DiskFile>,
    /// Its path.
    pub path: PathBuf,
    /// Its sequence.
    pub sequence: u32,
    /// Bytes of the file.
    pub len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Scan {
    /// Of an open file.
    pub fn new(file: Arc<dyn DiskFile>, path: PathBuf, sequence: u32) -> Result<Self, Damage> {
        let len = file.len().map_err(|error| Damage::io(&path, &error))?;
        if len > u64::from(u32::MAX) {
            return Err(Damage::new(&path, u64::from(u32::MAX), "no segment is as long"));
        }
        Ok(Self { file, path, sequence, len, window: Vec::new(), window_at: 0 })
    }

    /// The bytes at an offset; fewer when the file ends.
    pub fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], Damage> {
        let have = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len as u64 > have {
            let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.window.resize(len.max(WINDOW).min(left), 0);
            let read = disk::read_full(&*self.file, &mut self.window, offset)
                .map_err(|error| Damage::io(&self.path, &error))?;
            self.window.truncate(read);
            self.window_at = offset;
        }
        let from = usize::try_from(offset - self.window_at).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    /// The frame at an offset and its operations; `None` when there is none.
    pub fn frame(&mut self, offset: u64) -> Result<Option<(FrameHeader, Vec<u8>)>, Damage> {
        let sequence = u64::from(self.sequence);
        let Some(header) = FrameHeader::read(self.bytes(offset, FRAME_HEADER)?, sequence) else {
            return Ok(None);
        };
        let whole = FRAME_HEADER as u64 + u64::from(header.ops_len) + header.body_bytes;
        if offset + whole > self.len {
            return Ok(None);
        }
        let len = header.ops_len as usize;
        let ops = self.bytes(offset + FRAME_HEADER as u64, len)?.to_vec();
        if ops.len() != len || crc32c::crc32c(&ops) != header.ops_crc {
            return Ok(None);
        }
        record::check(&ops, header.body_bytes).map_err(|error| {
            let why = format!(
                "the record cannot be read: {error}. It may have been written by a newer version: \
                 use that one"
            );
            Damage::new(&self.path, offset, why)
        })?;
        Ok(Some((header, ops)))
    }

    /// Whether all bodies of a frame are whole.
    pub fn bodies_are_whole(&mut self, offset: u64, ops: &[u8]) -> Result<bool, Damage> {
        let bodies = offset + (FRAME_HEADER + ops.len()) as u64;
        for op in Ops::new(ops) {
            let (len, crc, at) = match op {
                Ok((Op::Put(_, PutBody::Inline { len, crc }), at)) => (len, crc, at),
                Ok((Op::Body(key), at)) => (key.len, key.crc, at),
                _ => continue,
            };
            let bytes = self.bytes(bodies + at, len as usize)?;
            if bytes.len() != len as usize || crc32c::crc32c(bytes) != crc {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks behind `offset` for a frame of a commit that begins behind it.
    pub fn later_commit(&mut self, offset: u64) -> Result<Option<u64>, Damage> {
        let step = ALIGN as usize;
        let mut at = offset + ALIGN;
        while at + FRAME_HEADER as u64 <= self.len {
            let window = self.bytes(at, WINDOW)?;
            let whole = window.len() - window.len() % step;
            let magic = |place: &[u8]| place.starts_with(&FRAME_MAGIC);
            let Some(found) = window.chunks_exact(step).position(magic) else {
                at += whole.max(step) as u64;
                continue;
            };
            at += (found * step) as u64;
            let sequence = u64::from(self.sequence);
            let header = FrameHeader::read(self.bytes(at, FRAME_HEADER)?, sequence);
            if header.is_some_and(|h| u64::from(h.place.commit_start) > offset) {
                return Ok(Some(at));
            }
            at += ALIGN;
        }
        Ok(None)
    }

    /// Whether there is anything but zeros from here on.
    pub fn has_bytes(&mut self, offset: u64) -> Result<bool, Damage> {
        let mut at = offset;
        while at < self.len {
            let some = self.bytes(at, WINDOW)?;
            if some.is_empty() {
                break;
            }
            if some.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at += some.len() as u64;
        }
        Ok(false)
    }
}
