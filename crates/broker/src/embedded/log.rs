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

use std::{collections::VecDeque, io, sync::Arc, time::Instant};

use parking_lot::Mutex;
use posthaste_model::Clock;
use tokio::sync::watch;

use super::{
    compaction::{Compactor, Step},
    disk::DirLock,
    files::{Current, Files, Room},
    frame::{FrameBytes, Place},
    handoff::{Failure, Frame, Handoff},
    index::{FrameAt, Index},
    indexing::Indexer,
    line::{Weigh, Work},
    segment::{self, Reader, SEGMENT_HEADER},
    sidecar::Of,
    stats::Counters,
};
use crate::contract::{BrokerError, LinkState};

/// What the commit thread owns.
pub struct Committer {
    /// Files.
    pub files: Files,
    /// Held as long as the thread runs.
    #[expect(dead_code, reason = "held, not read")]
    pub lock: DirLock,
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
    /// Most bytes of one commit.
    pub commit_max_bytes: u64,
    /// The segment that is written to.
    pub open: Option<Current>,
    /// Number of the last commit.
    pub commit: u64,
    /// Set when a drained queue could not remove a segment.
    pub removal_failed: bool,
    /// Copies what lives out of mostly dead segments.
    pub compactor: Compactor,
    /// Told of sealed segments.
    pub indexer: Indexer,
    /// What happened.
    pub counters: Arc<Counters>,
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
        self.free_useless();
        loop {
            let busy = match self.down() {
                None => self.compactor.is_busy(),
                Some(why) => self.compactor.give_up(&BrokerError::Storage(why)),
            };
            match self.handoff.take(self.commit_max_bytes, busy) {
                Work::Items(frames) => {
                    let bytes = frames.iter().map(Weigh::weight).sum();
                    self.write_all(frames);
                    self.free_useless();
                    self.compactor.earn(bytes);
                    if busy && self.compactor.may_step() && self.down().is_none() {
                        self.compact();
                    }
                }
                Work::Asked(request) => {
                    self.seal();
                    self.compactor.start_full(request);
                }
                Work::Nothing => self.compact(),
                Work::Closed => break,
            }
        }
        if let Some(open) = self.open.take() {
            self.finish(&open);
        }
    }

    fn down(&self) -> Option<String> {
        match &*self.link.borrow() {
            LinkState::Up => None,
            LinkState::Down(why) => Some(why.clone()),
        }
    }

    fn write_all(&mut self, mut frames: VecDeque<Frame>) {
        while let Some(first) = frames.front() {
            if let Some(why) = self.down() {
                self.fail(frames, &Failure::NotTaken(BrokerError::Storage(why)));
                return;
            }
            let room = if first.frees_room() { Room::Settle } else { Room::Publish };
            if let Err(failure) = self.make_room(first.bytes.size(), room) {
                let (left, failed) = frames.into_iter().partition(Frame::frees_room);
                frames = left;
                if failed.is_empty() {
                    self.fail(std::mem::take(&mut frames), &failure);
                }
                self.fail(failed, &failure);
                continue;
            }
            let Some(open) = &self.open else { return };
            let mut end = open.end;
            let group = frames.iter().take_while(|frame| {
                end += frame.bytes.size();
                open.takes(frame.frees_room(), end)
            });
            let count = group.count();
            let group: VecDeque<Frame> = frames.drain(..count).collect();
            self.commit(group);
        }
    }

    /// Makes sure that the open segment takes a frame of this size.
    fn make_room(&mut self, size: u64, room: Room) -> Result<(), Failure> {
        let frees_room = room == Room::Settle;
        if self.open.as_ref().is_some_and(|open| open.takes(frees_room, open.end + size)) {
            return Ok(());
        }
        // The old segment stays in use when there is no file for a new one.
        let prepared = self
            .files
            .prepare(size, room)
            .map_err(|error| self.not_taken("a new segment could not be made", &error))?;
        if let Err(failure) = self.end_open() {
            self.files.discard(&prepared);
            return Err(failure);
        }
        let open = self
            .files
            .begin(prepared)
            .map_err(|error| self.not_taken("a new segment could not be named", &error))?;
        {
            let mut index = self.index.lock();
            index.needs.segment(open.sequence);
            index.needs.freed = true;
        }
        self.open = Some(open);
        Ok(())
    }

    /// Ends the open segment, as it is or by giving it up.
    fn end_open(&mut self) -> Result<(), Failure> {
        let Some(open) = self.open.take() else { return Ok(()) };
        self.index.lock().needs.segment(open.sequence).sealed = true;
        if let Err(error) = self.files.seal(&open, self.commit, false) {
            // Without its end it would count as damaged: it is cut instead.
            if let failure @ Failure::Unknown(_) = self.give_up(&open, "its end", &error) {
                return Err(failure);
            }
        }
        self.index_later(&open);
        Ok(())
    }

    /// What is written from here on goes to a new segment.
    fn seal(&mut self) {
        let worth_it = self.open.as_ref().is_some_and(|open| open.end > SEGMENT_HEADER);
        if worth_it && self.down().is_none() && self.end_open().is_err() {
            tracing::warn!("the open segment could not be ended before the compaction");
        }
    }

    fn index_later(&self, open: &Current) {
        let (segment, end, commit) = (open.sequence, open.end, self.commit);
        self.indexer.index(Of { segment, queue: self.files.queue, end, commit });
    }

    /// Places, writes and syncs frames at the end of the open segment.
    fn write<'a>(
        &mut self,
        count: usize,
        frames: impl Iterator<Item = &'a mut FrameBytes>,
    ) -> Result<(), Failure> {
        let Some(open) = &self.open else { return Err(Failure::NotTaken(BrokerError::Closed)) };
        let start = u32::try_from(open.end).unwrap_or(u32::MAX);
        let mut left = u32::try_from(count).unwrap_or(u32::MAX);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(count * 3);
        for frame in frames {
            left -= 1;
            frame.place(&Place {
                segment: u64::from(open.sequence),
                commit: self.commit + 1,
                commit_start: start,
                commit_left: left,
            });
            frame.parts(&mut parts);
        }
        let written =
            segment::write_all(&*open.file, &parts, open.end).and_then(|()| open.file.sync_data());
        let Err(error) = written else {
            self.commit += 1;
            self.counters.commits.add(1);
            return Ok(());
        };
        let path = segment::path(&self.files.dir, open.sequence);
        let what = format!("{} could not be written", path.display());
        let Some(open) = self.open.take() else { return Ok(()) };
        self.index.lock().needs.segment(open.sequence).sealed = true;
        let failure = self.give_up(&open, &what, &error);
        self.index_later(&open);
        Err(failure)
    }

    fn commit(&mut self, mut group: VecDeque<Frame>) {
        let frames = group.iter_mut().map(|frame| &mut frame.bytes);
        if let Err(failure) = self.write(frames.len(), frames) {
            self.fail(group, &failure);
            return;
        }
        let Some(open) = &mut self.open else { return };
        let now = self.clock.now().as_millis();
        let mut waiters = Vec::with_capacity(group.len());
        let mut index = self.index.lock();
        for frame in group {
            apply(&mut index, open, &frame.bytes, frame.payloads, now);
            self.counters.bytes_written.add(frame.bytes.size());
            waiters.push((frame.done, frame.room));
        }
        drop(index);
        for (done, room) in waiters {
            // Who does not wait any more has been dropped, which is allowed.
            done.send(Ok(())).ok();
            drop(room);
        }
    }

    /// One step of compaction.
    fn compact(&mut self) {
        let started = Instant::now();
        let Step { frame, finished } = self.compactor.step();
        if !frame.is_empty() {
            let mut bytes = frame.finish();
            bytes.seal();
            let size = bytes.size();
            let written = self
                .make_room(size, Room::Compact)
                .and_then(|()| self.write(1, std::iter::once(&mut bytes)));
            if let Err(failure) = written {
                self.compactor.pause(&failure.into_error());
                return;
            }
            if let Some(open) = &mut self.open {
                let now = self.clock.now().as_millis();
                apply(&mut self.index.lock(), open, &bytes, VecDeque::new(), now);
            }
            self.counters.bytes_written.add(size);
            self.counters.compaction_bytes.add(size);
            self.compactor.spend(size);
            self.compactor.copied(size);
        }
        if let Some(sequence) = finished {
            self.compactor.finished(sequence);
            self.counters.compactions.add(1);
            self.free_useless();
        }
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.compaction_micros.add(micros);
    }

    fn fail(&self, frames: impl IntoIterator<Item = Frame>, failure: &Failure) {
        for frame in frames {
            self.index.lock().unmark(&frame.marks);
            frame.done.send(Err(failure.clone())).ok();
        }
    }

    fn not_taken(&self, what: &str, error: &io::Error) -> Failure {
        let text = format!("{what} in {}: {error}", self.files.dir.display());
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
            self.files.dir.display()
        );
        tracing::error!("{why}");
        self.link.send_replace(LinkState::Down(why.clone()));
        Failure::Unknown(BrokerError::Storage(why))
    }

    /// Ends the last segment: that proves that all before was confirmed, so
    /// that damage there is never taken for a torn tail.
    fn finish(&mut self, open: &Current) {
        self.index.lock().needs.segment(open.sequence).sealed = true;
        if let Err(error) = self.files.seal(open, self.commit, true) {
            tracing::warn!(%error, "the last segment could not be ended; all confirmed is durable");
        }
        self.index_later(open);
    }

    /// Frees what nothing needs, one by one: while one cannot be freed, no
    /// other is, since a later one may hold what the earlier one needs.
    fn free_useless(&mut self) {
        loop {
            let sequence = {
                let mut index = self.index.lock();
                if !index.needs.freed && !self.removal_failed {
                    return;
                }
                let Some(sequence) = index.needs.useless() else {
                    index.needs.freed = false;
                    self.removal_failed = false;
                    return;
                };
                sequence
            };
            self.reader.forget(sequence);
            if let Err(error) = self.files.free(sequence) {
                if !self.removal_failed {
                    let path = segment::path(&self.files.dir, sequence);
                    tracing::warn!(%error, path = %path.display(), "a drained segment could not be freed");
                }
                self.removal_failed = true;
                return;
            }
            self.index.lock().needs.remove(sequence);
        }
    }
}

/// Applies a frame that was written at the end of the open segment.
fn apply(
    index: &mut Index,
    open: &mut Current,
    frame: &FrameBytes,
    payloads: VecDeque<Option<super::cache::Payload>>,
    now: i64,
) {
    let at = FrameAt {
        segment: open.sequence,
        offset: u32::try_from(open.end).unwrap_or(u32::MAX),
        ops_len: u32::try_from(frame.ops().len()).unwrap_or(u32::MAX),
    };
    if let Err(error) = index.apply(at, frame.ops(), payloads, now) {
        // Not possible: they were just encoded. The disk has them.
        tracing::error!(%error, "a frame that was written cannot be read");
    }
    index.needs.segment(open.sequence).bytes += frame.size();
    open.end += frame.size();
}
