//! Files of the journal: their names, how they are made and read.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    JournalError,
    error::failed,
    record::{self, FRAME_HEAD, Record},
};

/// First bytes of every file: what it is and the version of its format.
pub(super) const MAGIC: [u8; 8] = *b"PHJRNL\x01\n";

/// Keeps other processes out while the file is open.
pub(super) fn lock(dir: &Path) -> Result<fs::File, JournalError> {
    let path = dir.join("lock");
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(JournalError::InUse(dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(failed(&path)(error)),
    }
}

/// Begins a file.
pub(super) fn create(dir: &Path, number: u64) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    let options = options.append(true).create(true).mode(0o600);
    let mut file = options.open(path(dir, number))?;
    // One is here already when its making failed half-way before.
    file.set_len(0)?;
    file.write_all(&MAGIC)?;
    Ok(file)
}

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub file: u64,
    pub offset: u64,
    pub len: u32,
}

pub(super) fn path(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("{file:016x}.journal"))
}

/// The numbers of the files in `dir`, ascending.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut files = vec![];
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".journal"));
        if let Some(number) = number.and_then(|digits| u64::from_str_radix(digits, 16).ok()) {
            files.push(number);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// What was found in a file beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scanned {
    /// Bytes at the end that are no whole record: a write that was cut.
    pub torn: u64,
    /// Bytes between records that are none: damage.
    pub damaged: u64,
}

/// Calls `each` with the records of a file in order. What is no record is
/// stepped over to the next sound frame, so that damage costs only what it hit.
pub(super) fn scan(
    dir: &Path,
    file: u64,
    mut each: impl FnMut(Location, Record),
) -> io::Result<Scanned> {
    let mut bytes = vec![];
    fs::File::open(path(dir, file))?.read_to_end(&mut bytes)?;
    let mut scanned = Scanned::default();
    if bytes.len() < MAGIC.len() {
        scanned.torn = bytes.len() as u64;
        return Ok(scanned);
    }
    if bytes[..MAGIC.len()] != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it does not begin as a journal of this version does",
        ));
    }
    let mut at = MAGIC.len();
    let mut unread = 0u64;
    while at < bytes.len() {
        let found = record::frame_at(&bytes[at..])
            .and_then(|payload| Some((payload.len(), record::decode(payload)?)));
        let Some((payload, record)) = found else {
            unread += 1;
            at += 1;
            continue;
        };
        scanned.damaged += std::mem::take(&mut unread);
        let len = FRAME_HEAD + payload;
        // A frame is shorter than MAX_PAYLOAD plus its head.
        let location =
            Location { file, offset: at as u64, len: u32::try_from(len).unwrap_or(u32::MAX) };
        each(location, record);
        at += len;
    }
    scanned.torn = unread;
    Ok(scanned)
}

/// The bytes of a frame.
pub(super) fn read_frame(dir: &Path, location: Location) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path(dir, location.file))?;
    file.seek(SeekFrom::Start(location.offset))?;
    let mut bytes = vec![0; location.len as usize];
    file.read_exact(&mut bytes)?;
    if record::frame_at(&bytes).is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the record is damaged"));
    }
    Ok(bytes)
}
