//! The files of the queue: new segments, their end, and their second life.
//!
//! A segment is made under the name of a spare file, `….spare`, with its
//! header durable; then the segment before it is ended, and only then is it
//! given its name. So a segment under its name is whole, and all but the last
//! have an end. A freed segment becomes a spare file again: writing into a file
//! that was written before needs no metadata to be synced. What it held is not
//! read again, because frames bear the sequence of their segment.
//!
//! Each rename is durable before the next step. A spare file is never needed:
//! when anything about one fails, it is removed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    disk::{Disk, DiskFile},
    frame::{END_FRAME, end_frame},
    reserve::Reserve,
    segment::{self, SEGMENT_HEADER},
    sidecar,
    stats::Counters,
};

/// Size of a segment that is made for acknowledgements when the disk has no
/// room for a whole one: they are what frees the disk.
const SMALL_SEGMENT: u64 = 1 << 20;

/// The segment that is written to.
pub struct Current {
    /// Its file.
    pub file: Arc<dyn DiskFile>,
    /// Its sequence.
    pub sequence: u32,
    /// End of the last durable frame.
    pub end: u64,
    /// Bytes of the file.
    len: u64,
    /// Made when the disk had no room for a whole one.
    small: bool,
}

impl Current {
    /// Whether it takes frames that end there, besides its own end.
    pub fn takes(&self, frees_room: bool, end: u64) -> bool {
        end + END_FRAME <= self.len && (!self.small || frees_room)
    }
}

/// What a new segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// For new messages: not from the reserve.
    Publish,
    /// For acknowledgements, which free room: even a small one is good.
    Settle,
    /// For compaction, which frees room later.
    Compact,
}

/// A file that waits to become a segment.
pub struct Prepared {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
    small: bool,
    recycled: bool,
}

/// What makes, ends and frees segments.
pub struct Files {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The directory.
    pub dir: PathBuf,
    /// Id in the headers.
    pub queue: Uuid,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Sequence of the next segment.
    pub next_sequence: u32,
    /// Freed files.
    pub spares: Vec<PathBuf>,
    /// Most of them.
    pub max_spares: usize,
    /// What publishes leave alone.
    pub reserve: Arc<Reserve>,
    /// What happened.
    pub counters: Arc<Counters>,
}

impl Files {
    /// Takes over the spare files of a directory, and removes what is left of
    /// segments that are gone.
    pub fn tidy(&mut self, needed: impl Fn(u32) -> bool) -> io::Result<()> {
        for path in self.disk.list(&self.dir)? {
            let orphan = sidecar::sequence(&path).is_some_and(|sequence| !needed(sequence));
            let unfinished = path.extension().is_some_and(|extension| extension == "new");
            if segment::is_spare(&path) && self.is_good_spare(&path) {
                self.spares.push(path);
            } else if orphan || unfinished || segment::is_spare(&path) {
                self.disk.remove(&path)?;
            }
        }
        self.counters.spares.set(self.spares.len() as u64);
        Ok(())
    }

    fn is_good_spare(&self, path: &Path) -> bool {
        self.spares.len() < self.max_spares
            && self.disk.open(path).and_then(|file| file.len()).ok() == Some(self.segment_bytes)
    }

    fn remove_spare(&self, path: &Path) {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a spare file could not be removed");
            }
            _ => {}
        }
    }

    /// A file for a segment that takes a frame of this size.
    pub fn prepare(&mut self, frame: u64, room: Room) -> io::Result<Prepared> {
        let needed = SEGMENT_HEADER + frame + END_FRAME;
        let len = self.segment_bytes.max(needed);
        let spare = if len == self.segment_bytes { self.spares.pop() } else { None };
        self.counters.spares.set(self.spares.len() as u64);
        if let Some(path) = spare {
            match self.disk.open(&path).and_then(|file| self.write_header(file)) {
                Ok(file) => return Ok(Prepared { path, file, len, small: false, recycled: true }),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a spare file could not be used");
                    self.remove_spare(&path);
                }
            }
        }
        self.reserve.look_again();
        let allowed = self.reserve.allows(len);
        let full = || io::Error::new(io::ErrorKind::StorageFull, self.reserve.why());
        let whole = match room {
            Room::Publish if !allowed => return Err(full()),
            Room::Settle if !allowed => Err(full()),
            _ => self.make(len),
        };
        match whole {
            Ok((path, file)) => Ok(Prepared { path, file, len, small: false, recycled: false }),
            Err(error) if room == Room::Settle && error.kind() == io::ErrorKind::StorageFull => {
                let len = SMALL_SEGMENT.max(needed).min(len);
                let (path, file) = self.make(len)?;
                Ok(Prepared { path, file, len, small: true, recycled: false })
            }
            Err(error) => Err(error),
        }
    }

    fn write_header(&self, file: Arc<dyn DiskFile>) -> io::Result<Arc<dyn DiskFile>> {
        let header = segment::encode_header(self.next_sequence, self.queue);
        segment::write_all(&*file, &[&header], 0)?;
        file.sync_data()?;
        Ok(file)
    }

    fn make(&self, len: u64) -> io::Result<(PathBuf, Arc<dyn DiskFile>)> {
        let path = segment::spare_path(&self.dir, self.next_sequence);
        // One that a failure has left.
        self.remove_spare(&path);
        let file = self.disk.create(&path)?;
        let filled = file
            .allocate(len)
            .and_then(|()| self.write_header(Arc::clone(&file)))
            .and_then(|_| file.sync_all());
        match filled {
            Ok(()) => Ok((path, file)),
            Err(error) => {
                self.remove_spare(&path);
                Err(error)
            }
        }
    }

    /// Gives a file back that did not become a segment.
    pub fn discard(&self, prepared: &Prepared) {
        self.remove_spare(&prepared.path);
    }

    /// Gives a prepared file its name. The segment before has an end now.
    pub fn begin(&mut self, prepared: Prepared) -> io::Result<Current> {
        let sequence = self.next_sequence;
        let path = segment::path(&self.dir, sequence);
        let named =
            self.disk.rename(&prepared.path, &path).and_then(|()| self.disk.sync_dir(&self.dir));
        if let Err(error) = named {
            self.remove_spare(&path);
            self.remove_spare(&prepared.path);
            return Err(error);
        }
        self.next_sequence = sequence.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        let kind = if prepared.recycled { &self.counters.recycled } else { &self.counters.created };
        kind.add(1);
        let Prepared { file, len, small, .. } = prepared;
        Ok(Current { file, sequence, end: SEGMENT_HEADER, len, small })
    }

    /// Ends a segment. Its file keeps its size when it may be used again.
    pub fn seal(&self, open: &Current, commit: u64, last: bool) -> io::Result<()> {
        let end = end_frame(open.sequence, commit, open.end);
        segment::write_all(&*open.file, &[&end], open.end)?;
        let used = open.end + END_FRAME;
        let wasted = open.len.saturating_sub(used);
        if last || open.len != self.segment_bytes || wasted > self.segment_bytes / 4 {
            open.file.truncate(used)?;
            return open.file.sync_all();
        }
        open.file.sync_data()
    }

    /// Frees a segment that nothing needs, durably. Its file becomes a spare
    /// one, when few are there and it has the size.
    pub fn free(&mut self, sequence: u32) -> io::Result<()> {
        let path = segment::path(&self.dir, sequence);
        let mut spare = None;
        if self.is_good_spare(&path) {
            let to = segment::spare_path(&self.dir, sequence);
            self.disk.rename(&path, &to)?;
            spare = Some(to);
        } else {
            match self.disk.remove(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        self.disk.sync_dir(&self.dir)?;
        self.spares.extend(spare);
        self.counters.spares.set(self.spares.len() as u64);
        // It is worth nothing any more, and found again at the next start.
        match self.disk.remove(&sidecar::path(&self.dir, sequence)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, sequence, "the index of a freed segment is left");
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes a segment of the former version one of this: an end frame where
    /// zeros ended it, then the header. After each step it is a good segment of
    /// the one or the other version.
    pub fn upgrade(&self, of: &sidecar::Of) -> io::Result<()> {
        let file = self.disk.open(&segment::path(&self.dir, of.segment))?;
        file.truncate(of.end)?;
        let end = end_frame(of.segment, of.commit, of.end);
        segment::write_all(&*file, &[&end], of.end)?;
        file.sync_all()?;
        let header = segment::encode_header(of.segment, of.queue);
        segment::write_all(&*file, &[&header], 0)?;
        file.sync_all()
    }
}
