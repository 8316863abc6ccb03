//! The readers of what stands on the disk, for fuzzers: any bytes may be given
//! to them, and none makes them panic. Each says how much it could read.

use std::{io, path::PathBuf, sync::Arc};

use uuid::Uuid;

use super::{
    disk::DiskFile,
    frame::FRAME_HEADER,
    record::{self, Ops},
    scan::Scan,
    segment::{self, SEGMENT_HEADER},
    sidecar::{Of, Sidecar, SidecarBuilder},
};

/// A file in memory.
struct Bytes(Vec<u8>);

impl DiskFile for Bytes {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(from..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, _: &[io::IoSlice<'_>], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

fn scan(bytes: &[u8]) -> Option<Scan> {
    Scan::new(Arc::new(Bytes(bytes.to_vec())), PathBuf::new(), sequence_of(bytes)).ok()
}

/// The sequence that the header says, damaged or not.
fn sequence_of(bytes: &[u8]) -> u32 {
    let field = bytes.get(16..20).and_then(|field| field.try_into().ok());
    u32::from_le_bytes(field.unwrap_or_default())
}

/// Reads operations.
pub fn record(bytes: &[u8]) -> u64 {
    let ops = bytes.get(FRAME_HEADER..).unwrap_or_default();
    let read = Ops::new(ops).take_while(Result::is_ok).count() as u64;
    read + u64::from(record::check(ops, 0).is_ok())
}

/// Reads a segment as a recovery does.
pub fn segment(bytes: &[u8]) -> u64 {
    let sequence = sequence_of(bytes);
    let header = bytes.first_chunk::<64>();
    let good = header.is_some_and(|header| segment::decode_header(header, sequence).is_ok());
    let Some(mut scan) = scan(bytes) else { return 0 };
    let (mut offset, mut read) = (SEGMENT_HEADER, u64::from(good));
    while let Ok(Some((header, ops))) = scan.frame(offset) {
        read += u64::from(matches!(scan.bodies_are_whole(offset, &ops), Ok(true)));
        if header.is_end() {
            break;
        }
        offset += header.size();
    }
    read += u64::from(matches!(scan.later_commit(offset), Ok(Some(_))));
    read + u64::from(matches!(scan.has_bytes(offset), Ok(true)))
}

/// Reads an index, with a checksum made good, so that more than that is tried.
pub fn sidecar(bytes: &[u8]) -> u64 {
    let mut bytes = bytes.to_vec();
    if let Some((rest, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(rest).to_le_bytes();
    }
    let Some(items) = Sidecar::read(&bytes) else { return 0 };
    items.take_while(Result::is_ok).count() as u64
}

/// The index of a segment, to begin from.
#[must_use]
pub fn sidecar_of(bytes: &[u8]) -> Vec<u8> {
    let (mut builder, mut offset) = (SidecarBuilder::default(), SEGMENT_HEADER);
    if let Some(mut scan) = scan(bytes) {
        while let Ok(Some((header, ops))) = scan.frame(offset) {
            let at = u32::try_from(offset).unwrap_or(u32::MAX);
            if header.is_end() || builder.frame(at, &header, &ops).is_err() {
                break;
            }
            offset += header.size();
        }
    }
    builder.finish(&Of { segment: sequence_of(bytes), queue: Uuid::nil(), end: offset, commit: 1 })
}
