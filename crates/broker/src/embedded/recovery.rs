//! From the files on disk to the index.
//!
//! Segments are taken in their order. One that is sealed is read from the
//! index beside it (`sidecar`), or from its frames when there is none. A place
//! that holds no frame is the end of the log, a torn tail, or damage; what
//! stands behind it tells which:
//!
//! - in a segment before the last: damage, unless the file ends there or an
//!   end frame stands there. In the former version of the format zeros were an
//!   end too.
//! - a frame of a commit that begins after it: what stood there was confirmed,
//!   so this is damage.
//! - nothing, or only frames of a commit that begins at or before it: the end,
//!   or the torn tail of the last commit, which was not confirmed; the disk may
//!   have written the parts of a commit in any order. It is cut. So is what an
//!   earlier use of the file has left, which is no frame of this segment.
//!
//! Damage means that the queue is not opened, and nothing is changed. Commits
//! are numbered without a gap, so that a segment whose end is missing shows in
//! the next one.
//!
//! Bodies are read only in the last segment, where they may be torn too. A
//! damaged body or head elsewhere is found when it is handed over.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    disk::{self, Disk},
    frame::{self, END_FRAME, FrameHeader},
    index::{FrameAt, Index},
    scan::{Damage, Scan},
    segment::{self, Header, HeaderError, SEGMENT_HEADER},
    sidecar::{self, Item, Of, Sidecar},
};
use crate::contract::BrokerError;

/// What the writer goes on from.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// Id of the queue.
    pub queue: Option<Uuid>,
    /// The last segment.
    pub last: Option<u32>,
    /// Number of the last commit.
    pub commit: u64,
    /// Segments of the former version: to be upgraded.
    pub old: Vec<Of>,
    /// Segments without a good index beside them.
    pub unindexed: Vec<Of>,
    /// Segments read from the index beside them.
    pub indexes_used: u64,
}

/// Whether anything is changed, and what is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To go on: the tail is cut, indexes are used.
    Open,
    /// To look: nothing is changed, and every frame is read.
    Verify,
}

/// The segments of a directory, in their order.
pub fn segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u32, PathBuf)>, Damage> {
    let files = disk.list(dir).map_err(|error| Damage::io(dir, &error))?;
    let mut segments: Vec<(u32, PathBuf)> = files
        .into_iter()
        .filter_map(|path| segment::sequence(&path).map(|sequence| (sequence, path)))
        .collect();
    segments.sort_unstable();
    Ok(segments)
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
    let segments = segments(disk, dir)?;
    let last = segments.last().map(|(sequence, _)| *sequence);
    let mut recovery = Recovery::new(disk, index, now, Purpose::Open);
    for (sequence, path) in segments {
        recovery.segment(sequence, &path, Some(sequence) == last)?;
    }
    let recovered = Recovered { last, ..recovery.end() };
    Ok(recovered)
}

/// Recovery at work.
pub struct Recovery<'a> {
    disk: &'a dyn Disk,
    index: &'a mut Index,
    now: i64,
    purpose: Purpose,
    found: Recovered,
    /// The segment before.
    before: Option<(u32, PathBuf)>,
    /// The last commit that is known, when nothing is missing since.
    known: Option<u64>,
    /// Frames read.
    pub frames: u64,
    /// Bytes read of them.
    pub bytes: u64,
}

impl<'a> Recovery<'a> {
    /// Into an empty index.
    pub fn new(disk: &'a dyn Disk, index: &'a mut Index, now: i64, purpose: Purpose) -> Self {
        index.recovering = true;
        let found = Recovered::default();
        Self { disk, index, now, purpose, found, before: None, known: None, frames: 0, bytes: 0 }
    }

    /// All segments were read.
    pub fn end(self) -> Recovered {
        self.index.recovering = false;
        self.index.end_of_frame();
        self.index.needs.freed = true;
        self.index.needs.died = u64::MAX;
        self.found
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// When it cannot be read or is damaged. The next one can still be read.
    pub fn segment(&mut self, sequence: u32, path: &Path, last: bool) -> Result<(), Damage> {
        if self.before.as_ref().is_none_or(|(before, _)| before.checked_add(1) != Some(sequence)) {
            self.known = None;
        }
        let read = self.read(sequence, path, last);
        self.before = Some((sequence, path.to_owned()));
        if read.is_err() {
            self.known = None;
        }
        read
    }

    fn read(&mut self, sequence: u32, path: &Path, last: bool) -> Result<(), Damage> {
        let file = self.disk.open(path).map_err(|error| Damage::io(path, &error))?;
        let mut scan = Scan::new(Arc::clone(&file), path.to_owned(), sequence)?;
        let header = match self.header(&mut scan)? {
            Ok(header) => header,
            Err(HeaderError::Damaged) if last && !scan.has_bytes(SEGMENT_HEADER)? => {
                // The making of it was interrupted: nothing was confirmed in it.
                if self.purpose == Purpose::Verify {
                    return Ok(());
                }
                tracing::warn!(path = %path.display(), "an unfinished segment is removed");
                drop((scan, file));
                return self.disk.remove(path).map_err(|error| Damage::io(path, &error));
            }
            Err(error) => return Err(Damage::new(path, 0, error.to_string())),
        };
        self.index.needs.segment(sequence).sealed = true;
        if !last && self.purpose == Purpose::Open && self.apply_sidecar(&scan, &header)? {
            self.found.indexes_used += 1;
            return Ok(());
        }
        let (end, ended) = self.frames(&mut scan, header.version, last)?;
        let of = Of { segment: sequence, queue: header.queue, end, commit: self.found.commit };
        self.index.needs.segment(sequence).bytes = end - SEGMENT_HEADER;
        if header.version < segment::VERSION {
            self.found.old.push(of);
        }
        self.found.unindexed.push(of);
        if !last || ended || self.purpose == Purpose::Verify {
            return Ok(());
        }
        // The writer goes on in a new segment. This one gets an end, so that
        // nothing of its tail is ever read again.
        if scan.has_bytes(end)? {
            tracing::info!(path = %path.display(), offset = end, "the last segment is cut behind its last whole commit");
        }
        let frame = frame::end_frame(sequence, of.commit, end);
        file.truncate(end)
            .and_then(|()| segment::write_all(&*file, &[&frame], end))
            .and_then(|()| file.sync_all())
            .map_err(|error| Damage::io(path, &error))
    }

    fn header(&mut self, scan: &mut Scan) -> Result<Result<Header, HeaderError>, Damage> {
        let sequence = scan.sequence;
        let Ok(bytes) = <&[u8; 64]>::try_from(scan.bytes(0, 64)?) else {
            return Ok(Err(HeaderError::Damaged));
        };
        let header = segment::decode_header(bytes, sequence);
        if let Ok(header) = &header {
            match self.found.queue {
                Some(known) if known != header.queue => return Ok(Err(HeaderError::Foreign)),
                _ => self.found.queue = Some(header.queue),
            }
        }
        Ok(header)
    }

    /// Applies what the index beside a segment says; false when there is no
    /// good one.
    fn apply_sidecar(&mut self, scan: &Scan, header: &Header) -> Result<bool, Damage> {
        let path = sidecar::path(scan.path.parent().unwrap_or(Path::new("")), scan.sequence);
        let bytes = match read_file(self.disk, &path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "an index could not be read: its segment is");
                }
                return Ok(false);
            }
        };
        let Some(sidecar) = Sidecar::read(&bytes) else {
            tracing::warn!(path = %path.display(), "an index is damaged: its segment is read");
            return Ok(false);
        };
        let of = sidecar.of;
        if of.queue != header.queue || of.segment != scan.sequence || of.end < SEGMENT_HEADER {
            return Ok(false);
        }
        if scan.len < of.end {
            return Err(Damage::new(&scan.path, scan.len, "its end is missing"));
        }
        let damaged = |error: super::record::RecordError| Damage::new(&path, 0, error.to_string());
        let mut at = FrameAt { segment: scan.sequence, offset: 0, ops_len: 0 };
        for item in sidecar {
            match item.map_err(damaged)? {
                Item::Frame { offset, ops_len, commit } => {
                    self.index.end_of_frame();
                    self.order(scan, u64::from(offset), commit)?;
                    at = FrameAt { offset, ops_len, ..at };
                }
                Item::Op(op, body_at) => self.index.apply_op(at, op, body_at, None, self.now),
            }
        }
        self.index.needs.segment(scan.sequence).bytes = of.end - SEGMENT_HEADER;
        self.known = Some(of.commit);
        self.found.commit = of.commit;
        Ok(true)
    }

    /// Applies all frames; returns where they end, and whether an end frame
    /// says so.
    fn frames(&mut self, scan: &mut Scan, version: u16, last: bool) -> Result<(u64, bool), Damage> {
        let mut offset = SEGMENT_HEADER;
        while offset < scan.len {
            let Some((header, ops)) = scan.frame(offset)? else {
                self.no_frame(scan, offset, version, last)?;
                break;
            };
            self.frames += 1;
            self.bytes += header.size();
            if header.is_end() {
                self.end_frame(scan, offset, &header)?;
                return Ok((offset, true));
            }
            self.order(scan, offset, header.place.commit)?;
            let whole = !last || scan.bodies_are_whole(offset, &ops)?;
            if !whole && scan.later_commit(offset)?.is_none() {
                break;
            }
            let at = FrameAt {
                segment: scan.sequence,
                offset: u32::try_from(offset).unwrap_or(u32::MAX),
                ops_len: header.ops_len,
            };
            self.index
                .apply(at, &ops, VecDeque::new(), self.now)
                .map_err(|error| Damage::new(&scan.path, offset, error.to_string()))?;
            offset += header.size();
        }
        Ok((offset, false))
    }

    /// In the former version it had a number of its own.
    fn end_frame(&mut self, scan: &Scan, offset: u64, header: &FrameHeader) -> Result<(), Damage> {
        let commit = header.place.commit;
        if self.known.is_some_and(|known| commit != known && commit != known + 1) {
            return Err(Damage::new(&scan.path, offset, "commits are missing before its end"));
        }
        self.known = Some(commit);
        self.found.commit = commit;
        Ok(())
    }

    fn no_frame(&self, scan: &mut Scan, at: u64, version: u16, last: bool) -> Result<(), Damage> {
        if let Some(behind) = scan.later_commit(at)? {
            let why =
                format!("it is damaged: a later commit stands behind this place, at byte {behind}");
            return Err(Damage::new(&scan.path, at, why));
        }
        // An upgrade that was interrupted may have left a torn end frame, which
        // is smaller than any other.
        let former = version < 2 && (scan.len - at <= END_FRAME || !scan.has_bytes(at)?);
        if !last && !former {
            let why = "it is damaged: its end is missing here, and a later segment follows";
            return Err(Damage::new(&scan.path, at, why));
        }
        Ok(())
    }

    /// Commits are numbered without a gap, but for segments that were removed.
    fn order(&mut self, scan: &Scan, offset: u64, commit: u64) -> Result<(), Damage> {
        if let Some(known) = self.known {
            let first = offset == SEGMENT_HEADER;
            if first && commit != known + 1 {
                let path = self.before.as_ref().map_or(&scan.path, |(_, path)| path);
                return Err(Damage::new(path, 0, "it is damaged: its end is missing"));
            }
            if commit != known && commit != known + 1 {
                let why = "it is damaged: commits are missing before this place";
                return Err(Damage::new(&scan.path, offset, why));
            }
        }
        self.known = Some(commit);
        self.found.commit = commit;
        Ok(())
    }
}

/// All bytes of a file.
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    disk::read_exact(&*file, &mut bytes, 0)?;
    Ok(bytes)
}
