//! The commit thread: the only writer.
//!
//! Publishers and settlers hand it whole frames. It takes all that wait, up to
//! a bound, writes them one after the other, syncs once, applies them to the
//! index, and only then tells those who wait.
//!
//! What happens on failure: when a write or a sync fails, nothing of that
//! commit is confirmed. Its segment is given up: cut behind the last good
//! frame, and never written again, because after a failed sync nobody knows
//! what the pages hold. The next commit begins a new segment. When even the
//! cut fails, what was written might rise again at the next start: its outcome
//! is unknown, and the queue goes down and refuses everything.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use posthaste_model::Clock;
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    disk::{DirLock, Disk, DiskFile},
    handoff::{Failure, Frame, Handoff},
    index::{FrameAt, Index},
    record::{FRAME_HEADER, FrameBuilder, Place},
    segment::{self, Reader, SEGMENT_HEADER},
};
use crate::contract::{BrokerError, LinkState};

/// Size of a segment that is made for acknowledgements when the disk has no
/// room for a whole one: they are what frees the disk.
const SMALL_SEGMENT: u64 = 1 << 20;

struct Current {
    file: Arc<dyn DiskFile>,
    sequence: u32,
    /// End of the last durable frame.
    end: u64,
    len: u64,
    /// Made when the disk had no room for a whole one.
    small: bool,
}

impl Current {
    fn takes(&self, frame: &Frame, end: u64) -> bool {
        end <= self.len && (!self.small || frame.frees_room())
    }
}

/// What the commit thread owns.
pub struct Committer {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Their directory.
    pub dir: PathBuf,
    /// Held as long as the thread runs.
    #[expect(dead_code, reason = "held, not read")]
    pub lock: DirLock,
    /// Id in the headers of the segments.
    pub queue: Uuid,
    /// What is applied.
    pub index: Arc<Mutex<Index>>,
    /// Where the frames come from.
    pub handoff: Arc<Handoff>,
    /// Told of removed segments.
    pub reader: Arc<Reader>,
    /// Told when the queue goes down.
    pub link: watch::Sender<LinkState>,
    /// For due times.
    pub clock: Arc<dyn Clock>,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// Most bytes of one commit.
    pub commit_max_bytes: u64,
    /// Sequence of the next segment.
    pub next_sequence: u32,
    /// Number of the last commit.
    pub commit: u64,
    /// Set when a drained queue could not remove a segment.
    pub removal_failed: bool,
    /// Told when the thread has ended.
    pub ended: watch::Sender<bool>,
}

impl Drop for Committer {
    /// However the thread ends, nobody waits for it any more.
    fn drop(&mut self) {
        let why = "the commit thread has ended";
        self.handoff.close();
        let left = self.handoff.abandon();
        self.fail(left, &Failure::NotTaken(BrokerError::Storage(why.to_owned())));
        self.link.send_if_modified(|link| {
            let up = *link == LinkState::Up;
            if up {
                *link = LinkState::Down(why.to_owned());
            }
            up
        });
        self.ended.send_replace(true);
    }
}

impl Committer {
    /// Runs until the queue is closed and nothing waits.
    pub fn run(mut self) {
        let mut current = None;
        self.remove_useless();
        while let Some(frames) = self.handoff.take(self.commit_max_bytes) {
            self.write_all(&mut current, frames);
            self.remove_useless();
        }
        if let Some(current) = current {
            self.finish(&current);
        }
    }

    fn write_all(&mut self, current: &mut Option<Current>, mut frames: VecDeque<Frame>) {
        while let Some(first) = frames.front() {
            let down = match &*self.link.borrow() {
                LinkState::Up => None,
                LinkState::Down(why) => Some(why.clone()),
            };
            if let Some(why) = down {
                self.fail(frames, &Failure::NotTaken(BrokerError::Storage(why)));
                return;
            }
            let size = first.bytes.size();
            let takes = |open: &Current| open.takes(first, open.end + size);
            if !current.as_ref().is_some_and(takes)
                && let Err(error) = self.roll(current, size, first.frees_room())
            {
                let failure = self.not_taken("a new segment could not be made", &error);
                let (left, failed) = frames.into_iter().partition(Frame::frees_room);
                frames = left;
                if failed.is_empty() {
                    self.fail(std::mem::take(&mut frames), &failure);
                }
                self.fail(failed, &failure);
                continue;
            }
            let Some(open) = current.as_mut() else { return };
            let mut end = open.end;
            let group = frames.iter().take_while(|frame| {
                end += frame.bytes.size();
                open.takes(frame, end)
            });
            let count = group.count();
            let group: VecDeque<Frame> = frames.drain(..count).collect();
            self.commit(current, group);
        }
    }

    fn commit(&mut self, current: &mut Option<Current>, mut group: VecDeque<Frame>) {
        let Some(open) = current.as_mut() else { return };
        let start = u32::try_from(open.end).unwrap_or(u32::MAX);
        let mut left = u32::try_from(group.len()).unwrap_or(u32::MAX);
        for frame in &mut group {
            left -= 1;
            frame.bytes.place(&Place {
                segment: u64::from(open.sequence),
                commit: self.commit + 1,
                commit_start: start,
                commit_left: left,
            });
        }
        if let Err(error) = write(open, &group) {
            let path = segment::path(&self.dir, open.sequence);
            let what = format!("{} could not be written", path.display());
            let failure = self.give_up(open, &what, &error);
            *current = None;
            self.fail(group, &failure);
            return;
        }
        self.commit += 1;
        let now = self.clock.now().as_millis();
        let mut waiters = Vec::with_capacity(group.len());
        let mut index = self.index.lock();
        for frame in group {
            let offset = u32::try_from(open.end).unwrap_or(u32::MAX);
            let ops_len = u32::try_from(frame.bytes.ops().len()).unwrap_or(u32::MAX);
            let at = FrameAt { segment: open.sequence, offset, ops_len };
            if let Err(error) = index.apply(at, frame.bytes.ops(), frame.payloads, now) {
                // Not possible: they were just encoded. The disk has them.
                tracing::error!(%error, "a frame that was written cannot be read");
            }
            open.end += frame.bytes.size();
            waiters.push((frame.done, frame.room));
        }
        drop(index);
        for (done, room) in waiters {
            // Who does not wait any more has been dropped, which is allowed.
            done.send(Ok(())).ok();
            drop(room);
        }
    }

    fn fail(&self, frames: impl IntoIterator<Item = Frame>, failure: &Failure) {
        for frame in frames {
            self.index.lock().unmark(&frame.marks);
            frame.done.send(Err(failure.clone())).ok();
        }
    }

    fn not_taken(&self, what: &str, error: &io::Error) -> Failure {
        let text = format!("{what} in {}: {error}", self.dir.display());
        Failure::NotTaken(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BrokerError::Full(text),
            _ => BrokerError::Storage(text),
        })
    }

    fn give_up(&self, open: &Current, what: &str, error: &io::Error) -> Failure {
        tracing::error!(%error, "{what}: the segment is given up");
        let cut = open.file.truncate(open.end).and_then(|()| open.file.sync_all());
        let Err(cut) = cut else { return self.not_taken(what, error) };
        let why = format!(
            "{what}: {error}; and what was written could not be taken back: {cut}. Nothing is \
             taken any more. Check the disk of {}, then restart",
            self.dir.display()
        );
        tracing::error!("{why}");
        self.link.send_replace(LinkState::Down(why.clone()));
        Failure::Unknown(BrokerError::Storage(why))
    }

    /// Goes on to a new segment. The old one stays in use when that fails.
    fn roll(
        &mut self,
        current: &mut Option<Current>,
        frame: u64,
        frees_room: bool,
    ) -> io::Result<()> {
        let needed = SEGMENT_HEADER + frame;
        let len = self.segment_bytes.max(needed);
        let sequence = self.next_sequence;
        let create = |len| segment::create(&*self.disk, &self.dir, sequence, self.queue, len);
        let (file, len, small) = match create(len) {
            Ok(file) => (file, len, false),
            Err(error) if frees_room && error.kind() == io::ErrorKind::StorageFull => {
                let small = SMALL_SEGMENT.max(needed).min(len);
                (create(small)?, small, true)
            }
            Err(error) => return Err(error),
        };
        self.next_sequence = sequence.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        {
            let mut index = self.index.lock();
            index.segments.entry(sequence).or_default();
            index.segment_freed = true;
        }
        if let Some(old) = current.take() {
            // Gives the reserved room back. When that is lost, so is only room.
            if let Err(error) = old.file.truncate(old.end) {
                tracing::warn!(%error, segment = old.sequence, "a full segment could not be cut");
            }
        }
        *current = Some(Current { file, sequence, end: SEGMENT_HEADER, len, small });
        Ok(())
    }

    /// Ends the segment with an empty frame: it proves that all before it was
    /// confirmed, so that damage there is never taken for a torn tail.
    fn finish(&mut self, open: &Current) {
        let mut bytes = FrameBuilder::default().finish();
        bytes.seal();
        let end = open.end + bytes.size();
        bytes.place(&Place {
            segment: u64::from(open.sequence),
            commit: self.commit + 1,
            commit_start: u32::try_from(open.end).unwrap_or(u32::MAX),
            commit_left: 0,
        });
        let written = if end <= open.len {
            segment::write_all(&*open.file, &[&bytes.buf], open.end)
                .and_then(|()| open.file.truncate(end))
        } else {
            open.file.truncate(open.end)
        };
        if let Err(error) = written.and_then(|()| open.file.sync_all()) {
            tracing::warn!(%error, "the last segment could not be finished; all confirmed is durable");
        }
    }

    /// Removes what nothing needs, one by one: while one cannot be removed, no
    /// other is, since a later one may hold what the earlier one needs.
    fn remove_useless(&mut self) {
        loop {
            let sequence = {
                let mut index = self.index.lock();
                if !index.segment_freed && !self.removal_failed {
                    return;
                }
                let Some(sequence) = index.useless_segment() else {
                    index.segment_freed = false;
                    self.removal_failed = false;
                    return;
                };
                sequence
            };
            let path = segment::path(&self.dir, sequence);
            let removed = match self.disk.remove(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
            if let Err(error) = removed.and_then(|()| self.disk.sync_dir(&self.dir)) {
                if !self.removal_failed {
                    tracing::warn!(%error, path = %path.display(), "a drained segment could not be removed");
                }
                self.removal_failed = true;
                return;
            }
            self.reader.forget(sequence);
            self.index.lock().segments.remove(&sequence);
        }
    }
}

/// Writes and syncs a group at the end of the segment.
fn write(open: &Current, group: &VecDeque<Frame>) -> io::Result<()> {
    const ZEROS: [u8; 8] = [0; 8];
    let mut parts: Vec<&[u8]> = Vec::with_capacity(group.len() * 3);
    for frame in group {
        debug_assert!(frame.bytes.buf.len() >= FRAME_HEADER);
        parts.push(&frame.bytes.buf);
        parts.extend(frame.bytes.bodies.iter().map(|body| &body[..]));
        let padding = frame.bytes.padding();
        if padding > 0 {
            parts.push(&ZEROS[..padding]);
        }
    }
    segment::write_all(&*open.file, &parts, open.end)?;
    open.file.sync_data()
}
