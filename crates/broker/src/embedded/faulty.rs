//! A file system that fails on purpose, around the real one.
//!
//! Its syncs reach no disk: it knows itself what is not durable yet, so that [`FaultyDisk::crash`] can
//! make what a loss of power leaves: renames without a sync of the directory
//! are undone, and writes without a sync are torn.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex, RwLock};

use super::disk::{Disk, DiskFile, RealDisk};

/// What is to fail; each stays until it is taken back.
#[derive(Debug, Default, Clone, Copy)]
pub struct Faults {
    /// Let so many bytes of a write through, then there is no room.
    pub write_room: Option<usize>,
    /// Writes take so many bytes at a time, which is no failure.
    pub short_write: Option<usize>,
    /// Syncs of data fail, after the data was written.
    pub sync: bool,
    /// Cutting fails.
    pub truncate: bool,
    /// There is no room for files larger than this.
    pub largest_file: Option<u64>,
    /// Reading fails.
    pub read: bool,
    /// Removing fails.
    pub remove: bool,
    /// Renaming fails.
    pub rename: bool,
    /// Syncs of the directory fail.
    pub sync_dir: bool,
    /// Syncs wait.
    pub hold: bool,
    /// So many bytes are free.
    pub free: Option<u64>,
}

/// What is not durable.
#[derive(Default)]
struct Unsynced {
    renames: Vec<(PathBuf, PathBuf)>,
    writes: Vec<Write>,
}

struct Write {
    path: Arc<Mutex<PathBuf>>,
    offset: u64,
    len: u64,
    /// What stood there.
    before: Vec<u8>,
}

#[derive(Default)]
struct Switch {
    faults: Mutex<Faults>,
    changed: Condvar,
    /// Held by each change of the disk, so that a copy is of one moment.
    gate: RwLock<()>,
    unsynced: Mutex<Unsynced>,
    names: Mutex<Vec<Arc<Mutex<PathBuf>>>>,
    /// Where copies go, after each change.
    watched: Mutex<Option<Watched>>,
}

struct Watched {
    from: PathBuf,
    to: PathBuf,
    copies: u64,
}

/// The disk; clones share their faults.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Switch>);

struct FaultyFile {
    file: Arc<dyn DiskFile>,
    path: Arc<Mutex<PathBuf>>,
    switch: Arc<Switch>,
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl FaultyDisk {
    /// Changes what is to fail.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.faults.lock());
        self.0.changed.notify_all();
    }

    fn faults(&self) -> Faults {
        *self.0.faults.lock()
    }

    fn wrap(&self, file: Arc<dyn DiskFile>, path: &Path) -> Arc<dyn DiskFile> {
        let path = Arc::new(Mutex::new(path.to_owned()));
        let mut names = self.0.names.lock();
        names.retain(|name| Arc::strong_count(name) > 1);
        names.push(Arc::clone(&path));
        Arc::new(FaultyFile { file, path, switch: Arc::clone(&self.0) })
    }

    /// From here on copies the directory after each change of the disk, into
    /// directories named from 0: what a kill then would leave, and for every
    /// other what a loss of power would.
    pub fn watch(&self, from: &Path, to: &Path) {
        let watched = Watched { from: from.to_owned(), to: to.to_owned(), copies: 0 };
        *self.0.watched.lock() = Some(watched);
    }

    /// Ends that; how many copies there are.
    pub fn watched(&self) -> u64 {
        self.0.watched.lock().take().map_or(0, |watched| watched.copies)
    }

    fn changed(&self) {
        if let Some(watched) = &mut *self.0.watched.lock() {
            let to = watched.to.join(watched.copies.to_string());
            let copied = match watched.copies % 2 {
                0 => self.snapshot(&watched.from, &to),
                _ => self.crash(&watched.from, &to, watched.copies),
            };
            if let Err(error) = copied {
                tracing::error!(%error, "a copy could not be made");
            }
            watched.copies += 1;
        }
    }

    /// Copies the directory as it is at one moment: what a kill leaves.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn snapshot(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _gate = self.0.gate.write();
        copy_dir(from, to)
    }

    /// The same, but what is not durable is lost, or torn as `seed` says.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn crash(&self, from: &Path, to: &Path, seed: u64) -> io::Result<()> {
        let _gate = self.0.gate.write();
        copy_dir(from, to)?;
        let unsynced = self.0.unsynced.lock();
        let place = |path: &Path| path.file_name().map(|name| to.join(name));
        for (number, write) in unsynced.writes.iter().enumerate().rev() {
            let Some(path) = place(&write.path.lock()) else { continue };
            let Ok(file) = RealDisk.open(&path) else { continue };
            let end_of_write = write.offset + write.len;
            let mut at = write.offset;
            while at < end_of_write {
                // A sector is written whole or not at all, or a new one is torn.
                let end = (at + 1).next_multiple_of(512).min(end_of_write);
                let lost = mix(seed ^ mix(at ^ (number as u64) << 40)) % 3;
                let range = (at - write.offset) as usize..(end - write.offset) as usize;
                let mut bytes = vec![0xa5; range.len()];
                if lost == 0 || at < 512 {
                    bytes.fill(0);
                    let before = write.before.get(range.start..).unwrap_or_default();
                    let len = before.len().min(bytes.len());
                    bytes[..len].copy_from_slice(&before[..len]);
                }
                if lost < 2 {
                    file.write_at(&[io::IoSlice::new(&bytes)], at)?;
                }
                at = end;
            }
        }
        for (before, after) in unsynced.renames.iter().rev() {
            if let (Some(before), Some(after)) = (place(before), place(after))
                && after.exists()
            {
                fs::rename(after, before)?;
            }
        }
        Ok(())
    }
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// A number that looks like chance.
pub const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Disk for FaultyDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.make_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let created = {
            let _gate = self.0.gate.read();
            self.wrap(RealDisk.create(path)?, path)
        };
        self.changed();
        Ok(created)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(RealDisk.open(path)?, path))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.faults().remove {
            return Err(broken());
        }
        let removed = {
            let _gate = self.0.gate.read();
            RealDisk.remove(path)
        };
        self.changed();
        removed
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.faults().rename {
            return Err(broken());
        }
        let gate = self.0.gate.read();
        RealDisk.rename(from, to)?;
        for name in &*self.0.names.lock() {
            let mut name = name.lock();
            if *name == from {
                to.clone_into(&mut name);
            }
        }
        self.0.unsynced.lock().renames.push((from.to_owned(), to.to_owned()));
        drop(gate);
        self.changed();
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        if self.faults().sync_dir {
            return Err(broken());
        }
        self.0.unsynced.lock().renames.clear();
        self.changed();
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.faults().free.map_or_else(|| RealDisk.free_bytes(dir), Ok)
    }
}

impl FaultyFile {
    fn changed(&self) {
        FaultyDisk(Arc::clone(&self.switch)).changed();
    }

    fn written(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let gate = self.switch.gate.read();
        let mut before = vec![0; bufs.iter().map(|buf| buf.len()).sum()];
        let stood = self.file.read_at(&mut before, offset)?;
        before.truncate(stood);
        let len = self.file.write_at(bufs, offset)? as u64;
        let write = Write { path: Arc::clone(&self.path), offset, len, before };
        self.switch.unsynced.lock().writes.push(write);
        drop(gate);
        self.changed();
        usize::try_from(len).map_err(|_| io::ErrorKind::WriteZero.into())
    }

    fn synced(&self) {
        let own = self.path.lock().clone();
        self.switch.unsynced.lock().writes.retain(|write| *write.path.lock() != own);
        self.changed();
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.switch.faults.lock().read { Err(broken()) } else { self.file.read_at(buf, offset) }
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let (room, short) = {
            let faults = self.switch.faults.lock();
            (faults.write_room, faults.short_write)
        };
        let Some(most) = room.into_iter().chain(short).min() else {
            return self.written(bufs, offset);
        };
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let some = &all[..all.len().min(most)];
        if some.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(room) = &mut self.switch.faults.lock().write_room {
            *room = room.saturating_sub(some.len());
        }
        self.written(&[io::IoSlice::new(some)], offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match self.switch.faults.lock().largest_file {
            Some(largest) if len > largest => Err(io::ErrorKind::StorageFull.into()),
            _ => self.file.allocate(len),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.switch.faults.lock().truncate {
            return Err(broken());
        }
        {
            let _gate = self.switch.gate.read();
            self.file.truncate(len)?;
        }
        self.changed();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut faults = self.switch.faults.lock();
        while faults.hold {
            self.switch.changed.wait(&mut faults);
        }
        if faults.sync {
            return Err(broken());
        }
        drop(faults);
        self.synced();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.synced();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
