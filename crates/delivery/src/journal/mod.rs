//! The journal: what became of attempts, on this machine's disk, until it is
//! settled at the broker.
//!
//! Purpose: between the remote server's final reply and its settlement lies
//! the moment in which a killed process would forget that it has delivered.
//! [`Journal::start`] is written before an attempt, [`Journal::finish`] as soon
//! as its outcome is known, [`Journal::settled`] when the broker has it. After
//! a restart a message that comes again is settled from here instead of being
//! delivered again ([`Journal::standing`]), and attempts without an outcome are
//! reported as interrupted ([`Journal::interrupted`]).
//!
//! One journal a process; a lock keeps a second process out. The file format
//! is in `record.rs`. Files are deleted oldest first when no record in them is
//! needed; what hinders the oldest for long is copied to the newest, so that
//! the disk space is bounded by a few files and what is not settled.
//!
//! What it survives: an append is one `write`, not synced. It survives a
//! killed process. A power failure can take the last seconds: then messages
//! whose outcomes were lost *and* not yet settled are delivered again. What was
//! settled is durable at the broker and needs no journal.
//!
//! On failure: a start that cannot be written is an error, and the attempt
//! must not begin. An outcome that cannot be written is kept in memory until
//! it is settled. A torn end is cut. Damage in the middle is logged with its
//! place and skipped to the next sound record. A file that is no journal of
//! this version is refused. Outcomes that nobody asked for are dropped after a
//! week with a warning: their message was settled just before the end, which
//! the journal could not note any more.

mod error;
mod file;
mod index;
mod reader;
mod record;
mod replay;

use std::{
    collections::HashMap,
    fs, io,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use posthaste_model::{AttemptId, Clock, MessageId, SystemClock, Timestamp};

pub use self::{
    error::JournalError,
    reader::{JournalledAttempt, read},
    record::{Final, Next, Start},
};
use self::{
    error::failed,
    file::{Location, MAGIC},
    index::Index,
    record::Record,
};

/// The bounds of a journal.
#[derive(Clone)]
pub struct JournalOptions {
    /// Bytes after which a new file is begun.
    pub file_bytes: u64,
    /// Files after which the oldest is emptied by copying.
    pub files: usize,
    /// How long an outcome that nobody asks for is kept.
    pub keep: Duration,
    /// How many outcomes are kept over a restart.
    pub outcomes: usize,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            files: 4,
            keep: Duration::from_secs(7 * 86_400),
            outcomes: 100_000,
            clock: Arc::new(SystemClock),
        }
    }
}

/// What was found when the journal was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Outcomes that were not settled.
    pub outcomes: usize,
    /// Attempts without an outcome: the process ended in their midst.
    pub interrupted: usize,
    /// Bytes of damage that were skipped.
    pub damaged: u64,
}

/// How an attempt of a message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The journal knows of none.
    Unknown,
    /// One is running in this process.
    Running,
    /// It has ended and is to be settled.
    Ended(Final),
}

/// See the module.
pub struct Journal {
    dir: PathBuf,
    options: JournalOptions,
    inner: Mutex<Inner>,
    /// Held while the journal lives.
    _lock: fs::File,
}

struct Inner {
    writer: fs::File,
    file: u64,
    len: u64,
    index: Index,
    interrupted: Vec<Start>,
    /// Outcomes that could not be written.
    unwritten: HashMap<AttemptId, Final>,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `dir`, which is made if need be. Blocks.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(dir: &Path) -> Result<(Self, Recovered), JournalError> {
        Self::open_with(dir, JournalOptions::default())
    }

    /// The same with bounds of one's own.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open_with(
        dir: &Path,
        options: JournalOptions,
    ) -> Result<(Self, Recovered), JournalError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir))?;
        let lock = file::lock(dir)?;
        let files = file::list(dir).map_err(failed(dir))?;
        let mut found = replay::replay(dir, &files)?;
        let number = files.last().map_or(1, |last| last + 1);
        let writer = file::create(dir, number).map_err(failed(&file::path(dir, number)))?;
        found.index.add_file(number);
        let mut inner = Inner {
            writer,
            file: number,
            len: MAGIC.len() as u64,
            index: found.index,
            interrupted: found.interrupted,
            unwritten: HashMap::new(),
            buffer: vec![],
        };
        inner.drop_old(&options);
        for file in files {
            inner.empty_oldest(dir, file)?;
        }
        let recovered = Recovered {
            outcomes: inner.index.attempts().filter(|(_, a)| a.outcome.is_some()).count(),
            interrupted: inner.interrupted.len(),
            damaged: found.damaged,
        };
        let journal = Self { dir: dir.to_owned(), options, inner: Mutex::new(inner), _lock: lock };
        Ok((journal, recovered))
    }

    /// Notes that an attempt begins.
    ///
    /// # Errors
    /// When it could not be written: the attempt must not begin.
    pub fn start(&self, start: &Start) -> Result<(), JournalError> {
        let mut inner = self.inner.lock();
        let at = self.append(&mut inner, |out| record::put_start(out, start))?;
        inner.index.started(start.attempt_id, (start.message_id, start.number), start.time, at);
        Ok(())
    }

    /// Notes how an attempt ended.
    ///
    /// # Errors
    /// When it could not be written: this process knows it all the same until
    /// it is settled, but one that is killed before that will have forgotten it.
    pub fn finish(&self, outcome: &Final) -> Result<(), JournalError> {
        let mut inner = self.inner.lock();
        let id = outcome.attempt_id;
        let written = self.append(&mut inner, |out| record::put_final(out, outcome));
        inner.interrupted.retain(|start| start.attempt_id != id);
        let of = (outcome.message_id, outcome.number);
        match written {
            Ok(at) => {
                inner.index.finished(id, of, outcome.time, at);
                Ok(())
            }
            Err(error) => {
                // Else its message would seem to be running for ever.
                if inner.index.name(id, of) {
                    inner.unwritten.insert(id, outcome.clone());
                }
                Err(error)
            }
        }
    }

    /// Notes that the broker has these outcomes durably. Ids that are not
    /// known are passed over.
    ///
    /// # Errors
    /// When it could not be written: after a restart they seem unsettled,
    /// which costs memory and nothing else.
    pub fn settled(&self, attempts: &[AttemptId]) -> Result<(), JournalError> {
        let mut inner = self.inner.lock();
        let known: Vec<_> =
            attempts.iter().copied().filter(|id| inner.index.get(*id).is_some()).collect();
        if known.is_empty() {
            return Ok(());
        }
        let written = self.append(&mut inner, |out| record::put_settled(out, &known));
        for id in &known {
            inner.index.remove(*id);
            inner.unwritten.remove(id);
        }
        if !inner.interrupted.is_empty() {
            inner.interrupted.retain(|start| !known.contains(&start.attempt_id));
        }
        written.map(drop)
    }

    /// An attempt was given up without an outcome (its task ended): it is
    /// among the interrupted ones from now on.
    pub fn abandon(&self, start: Start) {
        let mut inner = self.inner.lock();
        let unfinished =
            inner.index.get(start.attempt_id).is_some_and(|attempt| attempt.outcome.is_none());
        if unfinished {
            inner.index.forget_message(start.attempt_id);
            inner.interrupted.push(start);
        }
    }

    /// Attempts that were interrupted and are not settled yet.
    #[must_use]
    pub fn interrupted(&self) -> Vec<Start> {
        self.inner.lock().interrupted.clone()
    }

    /// How attempt `number` of a message stands.
    ///
    /// # Errors
    /// When its outcome cannot be read any more.
    pub fn standing(&self, message_id: MessageId, number: u32) -> Result<Standing, JournalError> {
        let inner = self.inner.lock();
        let found = inner.index.of_message(message_id, number);
        let Some(attempt) = found.and_then(|id| inner.index.get(id)) else {
            return Ok(Standing::Unknown);
        };
        let Some(at) = attempt.outcome else {
            let unwritten = found.and_then(|id| inner.unwritten.get(&id));
            return Ok(unwritten.cloned().map_or(Standing::Running, Standing::Ended));
        };
        let frame = file::read_frame(&self.dir, at);
        let path = file::path(&self.dir, at.file);
        match frame.map(|frame| record::frame_at(&frame).and_then(record::decode)) {
            Ok(Some(Record::Final(outcome))) => Ok(Standing::Ended(outcome)),
            Ok(_) => Err(failed(&path)(io::ErrorKind::InvalidData.into())),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Bytes of the newest file and a bound on the others.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let inner = self.inner.lock();
        let others = inner.index.files().saturating_sub(1) as u64;
        inner.len + others * self.options.file_bytes
    }

    fn append(
        &self,
        inner: &mut Inner,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Location, JournalError> {
        let path = file::path(&self.dir, inner.file);
        inner.buffer.clear();
        put(&mut inner.buffer);
        let at = inner.write_buffer().map_err(failed(&path))?;
        if inner.len >= self.options.file_bytes {
            self.rotate(inner);
        }
        Ok(at)
    }

    /// Begins a new file and gets rid of old ones. What fails is tried again
    /// with the next append: the record at hand is written already.
    fn rotate(&self, inner: &mut Inner) {
        let next = inner.file + 1;
        match file::create(&self.dir, next) {
            Ok(writer) => {
                inner.writer = writer;
                inner.file = next;
                inner.len = MAGIC.len() as u64;
                inner.index.add_file(next);
            }
            Err(error) => {
                tracing::error!(%error, "the journal cannot begin a new file and goes on with the old one");
                return;
            }
        }
        while let Some((oldest, needed)) = inner.index.oldest() {
            let too_many = inner.index.files() > self.options.files;
            if oldest == inner.file || (needed > 0 && !too_many) {
                break;
            }
            if needed > 0 {
                inner.drop_old(&self.options);
            }
            if let Err(error) = inner.empty_oldest(&self.dir, oldest) {
                tracing::error!(%error, "an old file of the journal cannot be removed");
                break;
            }
        }
    }
}

impl Inner {
    fn write_buffer(&mut self) -> io::Result<Location> {
        let offset = self.len;
        if let Err(error) = self.writer.write_all(&self.buffer) {
            // A reader steps over what was written of it, but it is better
            // not there.
            if let Err(cut) = self.writer.set_len(offset) {
                tracing::error!(error = %cut, "a torn record cannot be cut from the journal");
                self.len = self.writer.metadata().map_or(offset, |data| data.len());
            }
            return Err(error);
        }
        self.len += self.buffer.len() as u64;
        let len = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        Ok(Location { file: self.file, offset, len })
    }

    /// Copies what is needed of the oldest file to the newest and deletes it.
    fn empty_oldest(&mut self, dir: &Path, oldest: u64) -> Result<(), JournalError> {
        let from = file::path(dir, oldest);
        let here = |at: &Option<Location>| at.is_some_and(|at| at.file == oldest);
        let needed: Vec<_> = self
            .index
            .attempts()
            .filter(|(_, a)| here(&a.start) || here(&a.outcome))
            .map(|(id, attempt)| (id, attempt.clone()))
            .collect();
        let of = |attempt: &index::Attempt| (attempt.message_id, attempt.number);
        for (id, attempt) in &needed {
            if let Some(at) = attempt.start.filter(|at| at.file == oldest) {
                let at = self.copy(dir, at)?;
                let was_forgotten =
                    self.index.of_message(attempt.message_id, attempt.number) != Some(*id);
                self.index.started(*id, of(attempt), attempt.time, at);
                if was_forgotten {
                    self.index.forget_message(*id);
                }
            }
            if let Some(at) = attempt.outcome.filter(|at| at.file == oldest) {
                let at = self.copy(dir, at)?;
                self.index.finished(*id, of(attempt), attempt.time, at);
            }
        }
        if !needed.is_empty() {
            // The deletion may reach the disk before the copy does.
            self.writer.sync_data().map_err(failed(&file::path(dir, self.file)))?;
        }
        match fs::remove_file(&from) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&from)(error)),
            _ => {
                self.index.remove_file(oldest);
                Ok(())
            }
        }
    }

    fn copy(&mut self, dir: &Path, from: Location) -> Result<Location, JournalError> {
        self.buffer = file::read_frame(dir, from).map_err(failed(&file::path(dir, from.file)))?;
        self.write_buffer().map_err(failed(&file::path(dir, self.file)))
    }

    /// Drops outcomes that are too old or too many.
    fn drop_old(&mut self, options: &JournalOptions) {
        let now = options.clock.now();
        let mut ended: Vec<(Timestamp, AttemptId)> = self
            .index
            .attempts()
            .filter(|(_, attempt)| attempt.outcome.is_some())
            .map(|(id, attempt)| (attempt.time, id))
            .collect();
        ended.sort_unstable_by(|a, b| b.cmp(a));
        let mut dropped = 0usize;
        for (position, (time, id)) in ended.into_iter().enumerate() {
            if position >= options.outcomes || now.since(time) > options.keep {
                self.index.remove(id);
                dropped += 1;
            }
        }
        if dropped > 0 {
            tracing::warn!(dropped, "outcomes that nobody asked for were dropped from the journal");
        }
    }
}

#[cfg(test)]
mod tests;
