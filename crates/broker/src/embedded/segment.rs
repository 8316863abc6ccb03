//! Segment files: their names, their header, and reading from them.
//!
//! A header is `magic 8, version 2, zero 6, sequence 8, queue id 16, zero 20,
//! CRC-32C 4`: 64 bytes, then the first frame.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    disk::{self, Disk, DiskFile},
    index::Span,
};

/// Bytes of the header; the first frame begins here.
pub const SEGMENT_HEADER: u64 = 64;
/// Version of the format. In the first, a segment ended with zeros or with
/// the file, files were never used again, and nothing was moved.
pub const VERSION: u16 = 2;
const MAGIC: [u8; 8] = *b"PHQUEUE\n";
/// Files of sealed segments that stay open for reading.
const OPEN_FILES: usize = 128;

/// Path of a segment.
pub fn path(dir: &Path, sequence: u32) -> PathBuf {
    dir.join(format!("{sequence:020}.seg"))
}

/// The sequence in a file's name; `None` when it is not a segment's.
pub fn sequence(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    if name.len() != 20 { None } else { name.parse().ok() }
}

/// Path of a file that waits to become a segment; the number only tells such
/// files apart.
pub fn spare_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:020}.spare"))
}

/// Whether a file waits to become a segment.
pub fn is_spare(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "spare")
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The queue that the segment belongs to.
    pub queue: Uuid,
    /// Version of the format.
    pub version: u16,
}

/// The header's bytes.
pub fn encode_header(sequence: u32, queue: Uuid) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&u64::from(sequence).to_le_bytes());
    bytes[24..40].copy_from_slice(queue.as_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not a header, or a damaged one.
    #[error("its header is damaged or not that of a queue segment")]
    Damaged,
    /// Written by another version.
    #[error(
        "its format version is {0}, and this program knows the versions 1 to {VERSION}: it was \
         written by a newer program, use that one"
    )]
    Version(u16),
    /// It is from another directory.
    #[error("it belongs to another queue: move it back to the directory it came from")]
    Foreign,
    /// The file was renamed.
    #[error("its header says that it is segment {0}: the file was renamed, give it back its name")]
    Renamed(u64),
}

/// Reads a header.
pub fn decode_header(bytes: &[u8; 64], expected: u32) -> Result<Header, HeaderError> {
    let field = |at: usize| {
        let mut value = [0; 8];
        value.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(value)
    };
    if bytes[0..8] != MAGIC {
        return Err(HeaderError::Damaged);
    }
    if crc32c::crc32c(&bytes[..60]).to_le_bytes() != bytes[60..64] {
        return Err(HeaderError::Damaged);
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if !(1..=VERSION).contains(&version) {
        return Err(HeaderError::Version(version));
    }
    if field(16) != u64::from(expected) {
        return Err(HeaderError::Renamed(field(16)));
    }
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[24..40]);
    Ok(Header { queue: Uuid::from_bytes(id), version })
}

/// Writes all of these one after the other.
pub fn write_all(file: &dyn DiskFile, parts: &[&[u8]], offset: u64) -> io::Result<()> {
    // One call takes at most IOV_MAX buffers, 1024 on Linux.
    let mut offset = offset;
    for some in parts.chunks(1024) {
        let mut slices: Vec<io::IoSlice<'_>> = some.iter().map(|p| io::IoSlice::new(p)).collect();
        let mut rest = &mut slices[..];
        io::IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match file.write_at(rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    io::IoSlice::advance_slices(&mut rest, n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Why a part of a message could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadError {
    /// What happened where, for the operator.
    pub why: String,
    /// Whether another try may succeed: then nothing is known to be damaged.
    pub may_pass: bool,
}

impl ReadError {
    /// Something that another try cannot mend.
    pub fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), may_pass: false }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl From<ReadError> for String {
    fn from(error: ReadError) -> Self {
        error.why
    }
}

/// Reads parts of messages back; keeps a bounded number of files open, and the
/// shared bodies that were read last.
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    open: Mutex<VecDeque<(u32, Arc<dyn DiskFile>)>>,
    shared: Mutex<VecDeque<(Span, Bytes)>>,
    shared_bytes: usize,
}

impl Reader {
    /// Reads from the segments of a directory, and keeps about so many bytes
    /// of shared bodies, or a single larger one.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf, shared_bytes: usize) -> Self {
        Self { disk, dir, open: Mutex::default(), shared: Mutex::default(), shared_bytes }
    }

    fn file(&self, segment: u32) -> io::Result<Arc<dyn DiskFile>> {
        let mut open = self.open.lock();
        if let Some((_, file)) = open.iter().find(|(sequence, _)| *sequence == segment) {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&path(&self.dir, segment))?;
        if open.len() >= OPEN_FILES {
            open.pop_front();
        }
        open.push_back((segment, Arc::clone(&file)));
        Ok(file)
    }

    /// Forgets a segment that goes.
    pub fn forget(&self, segment: u32) {
        self.open.lock().retain(|(sequence, _)| *sequence != segment);
        self.shared.lock().retain(|(span, _)| span.segment != segment);
    }

    /// Reads and checks one part of a message. The error says where it is.
    pub fn read(&self, span: Span) -> Result<Bytes, ReadError> {
        if span.len == 0 {
            return Ok(Bytes::new());
        }
        let at = || format!("{} at byte {}", path(&self.dir, span.segment).display(), span.offset);
        let mut bytes = vec![0; span.len as usize];
        let read = self
            .file(span.segment)
            .and_then(|file| disk::read_exact(&*file, &mut bytes, u64::from(span.offset)));
        if let Err(error) = read {
            // What is not there will not come; anything else (no file
            // descriptor, no memory, a disk that fails) may pass.
            let gone = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof);
            return Err(ReadError {
                why: format!("{} could not be read: {error}", at()),
                may_pass: !gone,
            });
        }
        if crc32c::crc32c(&bytes) != span.crc {
            let why = format!("{} is damaged: {} bytes fail their checksum", at(), span.len);
            return Err(ReadError::lasting(why));
        }
        Ok(bytes.into())
    }

    /// The same for a body that others share, who will want it soon.
    pub fn read_shared(&self, span: Span) -> Result<Bytes, ReadError> {
        if let Some((_, bytes)) = self.shared.lock().iter().find(|(kept, _)| *kept == span) {
            return Ok(bytes.clone());
        }
        let bytes = self.read(span)?;
        if self.shared_bytes > 0 {
            let mut shared = self.shared.lock();
            let mut kept: usize = shared.iter().map(|(_, bytes)| bytes.len()).sum();
            while kept + bytes.len() > self.shared_bytes {
                let Some((_, oldest)) = shared.pop_front() else { break };
                kept -= oldest.len();
            }
            shared.push_back((span, bytes.clone()));
        }
        Ok(bytes)
    }
}
