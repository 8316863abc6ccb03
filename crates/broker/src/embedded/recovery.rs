//! From the segments on disk to the index.
//!
//! Frames are read in the order of the log and applied. A place that holds no
//! frame is the end of the log, a torn tail, or damage; what stands behind it
//! tells which:
//!
//! - nothing: the end, or (when there are bytes) the torn tail of the last
//!   commit, which was not confirmed. It is cut.
//! - only frames of a commit that begins at or before it: the same, since the
//!   disk may have written the parts of a commit in any order.
//! - a frame of a commit that begins after it, or a later segment: what stood
//!   there was confirmed, so this is damage. The queue is not opened, and
//!   nothing is changed.
//!
//! Bodies are read only in the last segment, where they may be torn too. A
//! damaged body elsewhere is found when it is handed over.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::{
    disk::{self, Disk, DiskFile},
    index::{FrameAt, Index},
    record::{self, ALIGN, FRAME_HEADER, FrameHeader, Op, Ops, PutBody},
    segment::{self, HeaderError, SEGMENT_HEADER},
};
use crate::contract::BrokerError;

/// Bytes read at once; what a skipped body does not fit in is not read.
const WINDOW: usize = 256 << 10;

/// What the writer goes on from.
#[derive(Debug, Clone, Copy)]
pub struct Recovered {
    /// Id of the queue.
    pub queue: Uuid,
    /// Sequence of the next segment.
    pub next_sequence: u32,
    /// Number of the last commit.
    pub commit: u64,
}

/// A segment that is being read, through a window.
struct Scan<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    sequence: u32,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Scan<'a> {
    fn new(file: &'a dyn DiskFile, path: &'a Path, sequence: u32) -> Result<Self, BrokerError> {
        let len = file.len().map_err(|error| failed(path, &error))?;
        if len > u64::from(u32::MAX) {
            return Err(damaged(path, u64::from(u32::MAX), "no segment is as long"));
        }
        Ok(Self { file, path, sequence, len, window: Vec::new(), window_at: 0 })
    }

    /// The bytes at an offset; fewer when the file ends.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8], BrokerError> {
        let have = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len as u64 > have {
            let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            self.window.resize(len.max(WINDOW).min(left), 0);
            let read = disk::read_full(self.file, &mut self.window, offset)
                .map_err(|error| failed(self.path, &error))?;
            self.window.truncate(read);
            self.window_at = offset;
        }
        let from = usize::try_from(offset - self.window_at).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.window.len());
        Ok(self.window.get(from..to).unwrap_or_default())
    }

    /// The frame at an offset and its operations; `None` when there is none.
    fn frame(&mut self, offset: u64) -> Result<Option<(FrameHeader, Vec<u8>)>, BrokerError> {
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
            BrokerError::Storage(format!(
                "the record at byte {offset} of {} cannot be read: {error}. It may have been \
                 written by a newer version: use that one",
                self.path.display()
            ))
        })?;
        Ok(Some((header, ops)))
    }

    /// Whether all bodies of a frame are whole.
    fn bodies_are_whole(&mut self, offset: u64, ops: &[u8]) -> Result<bool, BrokerError> {
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
    fn later_commit(&mut self, offset: u64) -> Result<Option<u64>, BrokerError> {
        let step = ALIGN as usize;
        let mut at = offset + ALIGN;
        while at + FRAME_HEADER as u64 <= self.len {
            let window = self.bytes(at, WINDOW)?;
            let whole = window.len() - window.len() % step;
            let magic = |place: &[u8]| place.starts_with(&record::FRAME_MAGIC);
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
    fn has_bytes(&mut self, offset: u64) -> Result<bool, BrokerError> {
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

fn failed(path: &Path, error: &io::Error) -> BrokerError {
    BrokerError::Storage(format!("{} could not be used: {error}", path.display()))
}

fn damaged(path: &Path, offset: u64, why: &str) -> BrokerError {
    BrokerError::Storage(format!(
        "{} is damaged at byte {offset}: {why}. Nothing was changed. Restore the file from a copy; \
         or move it away and start again, which gives up the messages in it",
        path.display()
    ))
}

/// Recovery at work.
struct Recovery<'a> {
    disk: &'a dyn Disk,
    index: &'a mut Index,
    now: i64,
    queue: Option<Uuid>,
    commit: u64,
    /// The segment before, when this one follows it without a gap: whether
    /// its last commit was whole.
    before: Option<(u32, PathBuf)>,
}

/// Reads the segments of a directory into the index.
///
/// # Errors
/// When a file cannot be read, or is damaged where it was confirmed.
pub fn recover(
    disk: &dyn Disk,
    dir: &Path,
    index: &mut Index,
    now: i64,
) -> Result<Recovered, BrokerError> {
    let files = disk.list(dir).map_err(|error| failed(dir, &error))?;
    let mut segments: Vec<(u32, PathBuf)> = files
        .into_iter()
        .filter_map(|path| segment::sequence(&path).map(|sequence| (sequence, path)))
        .collect();
    segments.sort_unstable();
    let last = segments.last().map(|(sequence, _)| *sequence);
    index.recovering = true;
    let mut recovery = Recovery { disk, index, now, queue: None, commit: 0, before: None };
    for (sequence, path) in segments {
        recovery.segment(sequence, &path, Some(sequence) == last)?;
        recovery.before = Some((sequence, path));
    }
    let (queue, commit) = (recovery.queue, recovery.commit);
    index.recovering = false;
    index.segment_freed = true;
    Ok(Recovered {
        queue: queue.unwrap_or_else(Uuid::now_v7),
        next_sequence: last.map_or(Some(1), |last| last.checked_add(1)).ok_or_else(|| {
            BrokerError::Storage(format!("{} has used up its segments", dir.display()))
        })?,
        commit,
    })
}

impl Recovery<'_> {
    fn segment(&mut self, sequence: u32, path: &Path, last: bool) -> Result<(), BrokerError> {
        let file = self.disk.open(path).map_err(|error| failed(path, &error))?;
        let mut scan = Scan::new(&*file, path, sequence)?;
        match self.header(&mut scan) {
            Ok(()) => {}
            Err(HeaderError::Damaged) if last && !scan.has_bytes(SEGMENT_HEADER)? => {
                // The making of it was interrupted: nothing was confirmed in it.
                tracing::warn!(path = %path.display(), "an unfinished segment is removed");
                drop(file);
                return self.disk.remove(path).map_err(|error| failed(path, &error));
            }
            Err(error @ HeaderError::Damaged) => return Err(damaged(path, 0, &error.to_string())),
            Err(error) => {
                return Err(BrokerError::Storage(format!("{}: {error}", path.display())));
            }
        }
        self.index.segments.entry(sequence).or_default();
        let end = self.frames(&mut scan, last)?;
        if !last {
            return Ok(());
        }
        // The writer goes on in a new segment. This one is cut, so that
        // nothing of its tail is ever read again.
        if scan.len > end {
            if scan.has_bytes(end)? {
                let bytes = scan.len - end;
                tracing::warn!(path = %path.display(), offset = end, bytes, "the torn tail of an unconfirmed commit is cut");
            }
            file.truncate(end)
                .and_then(|()| file.sync_all())
                .map_err(|error| failed(path, &error))?;
        }
        Ok(())
    }

    fn header(&mut self, scan: &mut Scan<'_>) -> Result<(), HeaderError> {
        let sequence = scan.sequence;
        let bytes = scan.bytes(0, 64).unwrap_or_default();
        let bytes: &[u8; 64] = bytes.try_into().map_err(|_| HeaderError::Damaged)?;
        let queue = segment::decode_header(bytes, sequence)?;
        match self.queue {
            Some(known) if known != queue => Err(HeaderError::Foreign),
            _ => {
                self.queue = Some(queue);
                Ok(())
            }
        }
    }

    /// Applies all frames; returns where they end.
    fn frames(&mut self, scan: &mut Scan<'_>, last: bool) -> Result<u64, BrokerError> {
        let mut offset = SEGMENT_HEADER;
        while offset < scan.len {
            let Some((header, ops)) = scan.frame(offset)? else {
                return self.no_frame(scan, offset, last);
            };
            self.check_order(scan, offset, &header)?;
            if last && !scan.bodies_are_whole(offset, &ops)? && scan.later_commit(offset)?.is_none()
            {
                return Ok(offset);
            }
            let at = FrameAt {
                segment: scan.sequence,
                offset: u32::try_from(offset).unwrap_or(u32::MAX),
                ops_len: header.ops_len,
            };
            self.index
                .apply(at, &ops, VecDeque::new(), self.now)
                .map_err(|error| damaged(scan.path, offset, &error.to_string()))?;
            self.commit = header.place.commit;
            offset += header.size();
        }
        Ok(offset)
    }

    fn no_frame(&self, scan: &mut Scan<'_>, at: u64, last: bool) -> Result<u64, BrokerError> {
        if let Some(behind) = scan.later_commit(at)? {
            let why = format!("a later commit stands behind it at byte {behind}");
            return Err(damaged(scan.path, at, &why));
        }
        if !last && scan.has_bytes(at)? {
            return Err(damaged(scan.path, at, "a later segment follows"));
        }
        Ok(at)
    }

    /// Commits are numbered without a gap, but for segments that were removed.
    fn check_order(
        &mut self,
        scan: &Scan<'_>,
        offset: u64,
        header: &FrameHeader,
    ) -> Result<(), BrokerError> {
        let commit = header.place.commit;
        let Some((before, path)) = self.before.take() else {
            let in_order =
                offset == SEGMENT_HEADER || commit == self.commit || commit == self.commit + 1;
            return if in_order {
                Ok(())
            } else {
                Err(damaged(scan.path, offset, "commits are missing before it"))
            };
        };
        if before + 1 == scan.sequence && commit != self.commit + 1 {
            return Err(damaged(&path, 0, "its end is missing"));
        }
        Ok(())
    }
}
