//! The thread that makes the index beside each sealed segment.
//!
//! An index is a help, not a truth: when one cannot be made, that is logged
//! and the next start reads the segment instead. So nothing waits for it, and
//! what comes too fast is left out.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    disk::Disk,
    scan::{Damage, Scan},
    segment::{self, SEGMENT_HEADER},
    sidecar::{self, Of, SidecarBuilder},
};

/// Segments that may wait for it.
const WAITING: usize = 64;

/// See the module. Dropping it ends the thread.
pub struct Indexer {
    sender: Option<SyncSender<Of>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Indexer {
    /// Starts with the segments that were found without an index.
    pub fn start(disk: Arc<dyn Disk>, dir: PathBuf, found: Vec<Of>) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("queue-index".to_owned())
            .spawn(move || run(&*disk, &dir, found, &receiver, &told))?;
        Ok(Self { sender: Some(sender), stop, thread: Some(thread) })
    }

    /// A segment was sealed.
    pub fn index(&self, of: Of) {
        if let Some(sender) = &self.sender
            && sender.try_send(of).is_err()
        {
            tracing::debug!(segment = of.segment, "an index is left out");
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that makes indexes has panicked");
        }
    }
}

fn run(disk: &dyn Disk, dir: &Path, found: Vec<Of>, receiver: &Receiver<Of>, stop: &AtomicBool) {
    let later = std::iter::from_fn(|| receiver.recv().ok());
    for of in found.into_iter().chain(later) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match make(disk, dir, &of) {
            Ok(()) => {}
            // It may have been freed and used again meanwhile.
            Err(Failure::Gone) => {}
            Err(Failure::Damage(damage)) => {
                tracing::warn!(?damage, "the index of a segment could not be made");
            }
            Err(Failure::Io(error)) => {
                tracing::warn!(%error, segment = of.segment, "the index of a segment could not be written");
            }
        }
    }
}

/// Why there is no index.
#[derive(Debug)]
pub enum Failure {
    /// The segment is not the one that was meant.
    Gone,
    /// The segment is damaged.
    Damage(Damage),
    /// The index could not be written.
    Io(io::Error),
}

/// Makes the index of a segment.
pub fn make(disk: &dyn Disk, dir: &Path, of: &Of) -> Result<(), Failure> {
    let path = segment::path(dir, of.segment);
    let file = disk.open(&path).map_err(|_| Failure::Gone)?;
    let mut scan = Scan::new(file, path, of.segment).map_err(Failure::Damage)?;
    let mut builder = SidecarBuilder::default();
    let mut offset = SEGMENT_HEADER;
    while offset < of.end {
        let frame = scan.frame(offset).map_err(Failure::Damage)?;
        let (header, ops) = frame.ok_or(Failure::Gone)?;
        let at = u32::try_from(offset).map_err(|_| Failure::Gone)?;
        builder.frame(at, &header, &ops).map_err(|_| Failure::Gone)?;
        offset += header.size();
    }
    if offset != of.end {
        return Err(Failure::Gone);
    }
    write(disk, dir, of, &builder.finish(of)).map_err(Failure::Io)
}

fn write(disk: &dyn Disk, dir: &Path, of: &Of, bytes: &[u8]) -> io::Result<()> {
    let path = sidecar::path(dir, of.segment);
    let new = path.with_extension("new");
    match disk.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&new)?;
    let written = segment::write_all(&*file, &[bytes], 0).and_then(|()| disk.rename(&new, &path));
    if written.is_err() && disk.remove(&new).is_err() {
        tracing::debug!(path = %new.display(), "a part of an index is left: the next start removes it");
    }
    written
}
