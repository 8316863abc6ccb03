//! A directory without an open queue: is it whole?

use std::path::Path;

pub use super::scan::Damage as Problem;
use super::{
    disk::{DirLock, Disk, RealDisk},
    index::Index,
    recovery::{Purpose, Recovery, read_file, segments},
    segment::{ReadError, Reader},
    sidecar::{self, Sidecar},
};
use crate::contract::BrokerError;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Segment files read.
    pub segments: u64,
    /// Frames read.
    pub frames: u64,
    /// Live messages, in all queues.
    pub messages: u64,
    /// Live messages whose head or body is damaged or missing.
    pub damaged_messages: u64,
    /// Shared bodies that live.
    pub bodies: u64,
    /// Bytes of the frames.
    pub bytes: u64,
    /// All that is wrong; empty when the directory is whole.
    pub problems: Vec<Problem>,
}

/// Takes the lock on a directory.
///
/// # Errors
/// [`BrokerError::InUse`] when another one has it.
pub fn lock(dir: &Path) -> Result<DirLock, BrokerError> {
    let failed = |error| BrokerError::Storage(format!("{}: {error}", dir.display()));
    DirLock::take(dir).map_err(failed)?.ok_or_else(|| {
        BrokerError::InUse(format!(
            "another process has the queue in {} open. Stop it first, or give this one a \
             directory of its own",
            dir.display()
        ))
    })
}

/// Reads all of a directory and checks every checksum. Changes nothing, and
/// blocks on the disk. Goes on behind what is damaged, so that the report is
/// complete; the messages that it counts are then those that are left.
///
/// # Errors
/// [`BrokerError::InUse`] when a process has the queue open;
/// [`BrokerError::Storage`] when the directory cannot be read at all.
pub fn verify(dir: &Path) -> Result<VerifyReport, BrokerError> {
    let disk = RealDisk;
    let found = segments(&disk, dir)?;
    let _lock = lock(dir)?;
    let mut report = VerifyReport { segments: found.len() as u64, ..VerifyReport::default() };
    let mut index = Index::new(0, 0);
    let last = found.last().map(|(sequence, _)| *sequence);
    let mut recovery = Recovery::new(&disk, &mut index, 0, Purpose::Verify);
    for (sequence, path) in found {
        if let Err(problem) = recovery.segment(sequence, &path, Some(sequence) == last) {
            report.problems.push(problem);
        }
    }
    (report.frames, report.bytes) = (recovery.frames, recovery.bytes);
    recovery.end();
    report.messages = index.entries.live() as u64;
    report.bodies = index.bodies.live() as u64;
    messages(dir, &index, &mut report);
    indexes(&disk, dir, &mut report)?;
    Ok(report)
}

/// Reads the parts of all live messages.
fn messages(dir: &Path, index: &Index, report: &mut VerifyReport) {
    use super::consumer::Part;
    let reader = Reader::new(std::sync::Arc::new(RealDisk), dir.to_owned(), 16 << 20);
    for chunk in 0..index.entries.chunks() {
        for (slot, entry) in index.entries.chunk(chunk) {
            let body = match index.body_part(slot) {
                Part::At(span) => reader.read_shared(span),
                Part::Here(_) => continue,
                Part::Missing => Err(ReadError::lasting("its shared body is missing")),
            };
            if let Err(error) = reader.read(index.head_span(slot)).and(body) {
                let why = error.why;
                report.damaged_messages += 1;
                let offset = u64::from(entry.head_offset);
                let path = super::segment::path(dir, entry.head_segment);
                let why = format!("message {} cannot be read: {why}", entry.id);
                report.problems.push(Problem { path, offset, why });
            }
        }
    }
}

fn indexes(disk: &dyn Disk, dir: &Path, report: &mut VerifyReport) -> Result<(), Problem> {
    for path in disk.list(dir).map_err(|error| Problem::io(dir, &error))? {
        if sidecar::sequence(&path).is_none() {
            continue;
        }
        let bytes = read_file(disk, &path).map_err(|error| Problem::io(&path, &error))?;
        let good = Sidecar::read(&bytes).is_some_and(|mut items| items.all(|item| item.is_ok()));
        if !good {
            let why = "the index is damaged. Nothing is lost by that: the next start makes it anew";
            report.problems.push(Problem::new(&path, 0, why));
        }
    }
    Ok(())
}
