//! The bytes of a frame around its operations. No I/O.
//!
//! A frame is `header, operations, bodies, padding to 8`. The checksum of the
//! operations is made by the publisher; the header's, which covers it, by the
//! commit thread, because only that one knows where and in which commit the
//! frame is written.
//!
//! A frame without operations is the *end* of its segment: nothing behind it
//! is read, so that what an earlier use of the file has left there does not
//! matter. It bears the number of the last commit before it.

use bytes::Bytes;

use super::record::FrameBuilder;

/// Bytes of a frame header.
pub const FRAME_HEADER: usize = 48;
/// Bytes of the frame that ends a segment.
pub const END_FRAME: u64 = FRAME_HEADER as u64;
/// Frames begin at multiples of it.
pub const ALIGN: u64 = 8;
/// Largest frame; offsets in a segment fit in 32 bits.
pub const MAX_FRAME: u64 = 2 << 30;
/// First bytes of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"PHf1";

/// The frame that ends a segment at this offset, after this commit.
pub fn end_frame(segment: u32, commit: u64, offset: u64) -> Vec<u8> {
    let mut bytes = FrameBuilder::default().finish();
    bytes.seal();
    bytes.place(&Place {
        segment: u64::from(segment),
        commit,
        commit_start: u32::try_from(offset).unwrap_or(u32::MAX),
        commit_left: 0,
    });
    bytes.buf
}

/// A frame that waits to be given its place in the log.
#[derive(Debug)]
pub struct FrameBytes {
    /// Header and operations.
    pub buf: Vec<u8>,
    /// The bodies, in order.
    pub bodies: Vec<Bytes>,
    /// Bytes of all bodies.
    pub body_bytes: u64,
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

    /// All that is written, one after the other.
    pub fn parts<'a>(&'a self, parts: &mut Vec<&'a [u8]>) {
        const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
        parts.push(&self.buf);
        parts.extend(self.bodies.iter().map(|body| &body[..]));
        parts.extend(ZEROS.get(..self.padding()).filter(|zeros| !zeros.is_empty()));
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
        let bytes = bytes.get(..FRAME_HEADER)?;
        if !bytes.starts_with(&FRAME_MAGIC) {
            return None;
        }
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (ops_len, body_bytes) = (u32_at(4)?, u64_at(8)?);
        let place = Place {
            segment: u64_at(16)?,
            commit: u64_at(24)?,
            commit_start: u32_at(32)?,
            commit_left: u32_at(36)?,
        };
        let (ops_crc, header_crc) = (u32_at(40)?, u32_at(44)?);
        let header = Self { place, ops_len, body_bytes, ops_crc };
        let valid = header_crc == crc32c::crc32c(bytes.get(..44)?)
            && place.segment == segment
            && u64::from(ops_len) <= MAX_FRAME
            && body_bytes <= MAX_FRAME;
        valid.then_some(header)
    }

    /// Whether it is the end of its segment.
    pub const fn is_end(&self) -> bool {
        self.ops_len == 0
    }

    /// Bytes in the file, with the padding.
    pub fn size(&self) -> u64 {
        (FRAME_HEADER as u64 + u64::from(self.ops_len) + self.body_bytes).next_multiple_of(ALIGN)
    }
}
