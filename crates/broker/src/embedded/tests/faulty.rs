//! A file system that fails on purpose, around the real one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};

use super::super::disk::{Disk, DiskFile, RealDisk};

/// What is to fail; each stays until it is taken back.
#[derive(Debug, Default, Clone, Copy)]
pub struct Faults {
    /// Let so many bytes of a write through, then there is no room.
    pub write_room: Option<usize>,
    /// Syncs of data fail, after the data was written.
    pub sync: bool,
    /// Cutting fails.
    pub truncate: bool,
    /// There is no room for files larger than this.
    pub largest_file: Option<u64>,
    /// Removing fails.
    pub remove: bool,
    /// Syncs wait.
    pub hold: bool,
}

#[derive(Default)]
struct Switch {
    faults: Mutex<Faults>,
    changed: Condvar,
}

/// The disk; clones share their faults.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Switch>);

struct FaultyFile {
    file: Arc<dyn DiskFile>,
    switch: Arc<Switch>,
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl FaultyDisk {
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.faults.lock());
        self.0.changed.notify_all();
    }

    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { file, switch: Arc::clone(&self.0) })
    }
}

impl Disk for FaultyDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.make_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(RealDisk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(RealDisk.open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.0.faults.lock().remove { Err(broken()) } else { RealDisk.remove(path) }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut faults = self.switch.faults.lock();
        let Some(room) = &mut faults.write_room else {
            return self.file.write_at(bufs, offset);
        };
        let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let some = &all[..all.len().min(*room)];
        if some.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        *room -= some.len();
        self.file.write_at(&[io::IoSlice::new(some)], offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match self.switch.faults.lock().largest_file {
            Some(largest) if len > largest => Err(io::ErrorKind::StorageFull.into()),
            _ => self.file.allocate(len),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.switch.faults.lock().truncate { Err(broken()) } else { self.file.truncate(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut faults = self.switch.faults.lock();
        while faults.hold {
            self.switch.changed.wait(&mut faults);
        }
        if faults.sync { Err(broken()) } else { self.file.sync_data() }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
