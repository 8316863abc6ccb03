//! Compaction: what lives in a mostly dead segment is copied to the end of the
//! log, and the segment is freed.
//!
//! It runs in the commit thread, a step at a time between commits. So nothing
//! is on its way to the disk while a copy is made and made durable, and what
//! the index says is what the log says: a copy can never follow the
//! acknowledgement of what it copies. A crash at any point leaves the message
//! in its old place, or in both, where the later one counts.
//!
//! A step copies at most [`Compactor::step_bytes`], or a single larger body.
//! Beside other work it writes about as many bytes as that (`compact_rate`);
//! with nothing else to do it goes on at once. It begins when the dead share of
//! the sealed segments is beyond `compact_dead`, with the segment that frees
//! most for what is copied.
//!
//! What happens on failure: what cannot be read stays where it is, and its
//! segment is not looked at again until the next start. When a copy cannot be
//! written, compaction pauses; nothing is lost by that.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    consumer::Part,
    disk::Disk,
    frame::FrameHeader,
    handoff::CompactRequest,
    index::{FrameAt, Index, Span},
    needs::Sealed,
    record::{BodyKey, FrameBuilder, Meta, Op, Ops},
    scan::Scan,
    segment::{self, Reader, SEGMENT_HEADER},
    slab::Entry,
    stats::CompactReport,
};
use crate::contract::{BrokerError, FlowKey, QueueName};

/// Operations looked at in one step.
const STEP_OPS: usize = 8192;
/// Bytes of the victim passed in one step.
const STEP_SCAN: u64 = 8 << 20;
/// What a commit gives to compaction beside its share of bytes.
const COMMIT_CREDIT: u64 = 16 << 10;
/// How long it pauses after a failure.
const PAUSE: Duration = Duration::from_secs(10);

/// A segment that is being compacted.
struct Victim {
    scan: Scan,
    offset: u64,
    frame: Option<(FrameHeader, Vec<u8>)>,
    /// Operations of the frame that are done with.
    done: usize,
    unreadable: bool,
}

/// A full compaction that somebody waits for.
struct Full {
    wanted: BTreeSet<u32>,
    report: CompactReport,
    request: CompactRequest,
}

/// What lives in the victim, and where its parts are.
enum Live {
    Message { meta: OwnedMeta, head: Span, body: LiveBody },
    Body { key: BodyKey, span: Span },
}

struct OwnedMeta {
    id: uuid::Uuid,
    queue: QueueName,
    priority: u8,
    due: i64,
    flow_key: FlowKey,
}

enum LiveBody {
    /// Only the head is here.
    Elsewhere,
    Own(Span),
    Shared(BodyKey),
}

/// What a step has found to be copied.
pub struct Step {
    /// The copies.
    pub frame: FrameBuilder,
    /// The victim, when it is through with these.
    pub finished: Option<u32>,
}

/// Compaction at work.
pub struct Compactor {
    index: Arc<Mutex<Index>>,
    reader: Arc<Reader>,
    disk: Arc<dyn Disk>,
    dir: std::path::PathBuf,
    dead_percent: u64,
    rate_percent: u64,
    step_bytes: u64,
    /// Bytes that must die before it is thought of again.
    look_after: u64,
    victim: Option<Victim>,
    full: Option<Full>,
    credit: u64,
    paused: Option<Instant>,
}

impl Compactor {
    /// For a directory with segments of this size.
    pub fn new(
        index: Arc<Mutex<Index>>,
        reader: Arc<Reader>,
        disk: Arc<dyn Disk>,
        config: &super::EmbeddedConfig,
    ) -> Self {
        Self {
            index,
            reader,
            disk,
            dir: config.dir.clone(),
            dead_percent: u64::from(config.compact_dead),
            rate_percent: u64::from(config.compact_rate),
            step_bytes: (config.segment_bytes / 64).clamp(16 << 10, 1 << 20),
            look_after: config.segment_bytes / 4,
            victim: None,
            full: None,
            credit: 0,
            paused: None,
        }
    }

    /// Whether there is something to be done.
    pub fn is_busy(&mut self) -> bool {
        if self.paused.is_some_and(|since| since.elapsed() < PAUSE) {
            return false;
        }
        self.paused = None;
        self.victim.is_some() || self.choose()
    }

    /// A commit of so many bytes was made.
    pub fn earn(&mut self, bytes: u64) {
        self.credit += bytes * self.rate_percent / 100 + COMMIT_CREDIT;
        self.credit = self.credit.min(4 * self.step_bytes);
    }

    /// Whether a step may be made though frames wait.
    pub const fn may_step(&self) -> bool {
        self.credit >= self.step_bytes / 4
    }

    /// Copies were written.
    pub const fn spend(&mut self, bytes: u64) {
        self.credit = self.credit.saturating_sub(bytes);
    }

    /// Everything that can be freed is to be freed.
    pub fn start_full(&mut self, request: CompactRequest) {
        let index = self.index.lock();
        let sealed = index.needs.iter().filter(|(_, segment)| segment.sealed);
        let wanted = sealed.map(|(sequence, _)| sequence).collect();
        let before = index.needs.iter().map(|(_, segment)| segment.bytes).sum();
        drop(index);
        let report = CompactReport { before, ..CompactReport::default() };
        // Who asks again gets the later report; the former one is told.
        if let Some(former) = self.full.replace(Full { wanted, report, request }) {
            let report = Ok(former.report);
            former.request.send(report).ok();
        }
        self.paused = None;
    }

    /// Looks for a segment that is worth it.
    fn choose(&mut self) -> bool {
        let mut index = self.index.lock();
        if self.full.is_none() && (self.dead_percent >= 100 || index.needs.died < self.look_after) {
            return false;
        }
        let Sealed { bytes, dead } = index.needs.sealed();
        let chosen = if let Some(full) = &self.full {
            index.needs.victim(1, |sequence| full.wanted.contains(&sequence))
        } else if dead * 100 > bytes * self.dead_percent {
            index.needs.victim(100, |_| true)
        } else {
            None
        };
        if chosen.is_none() {
            index.needs.died = 0;
        }
        drop(index);
        let Some(sequence) = chosen else {
            self.end_full();
            return false;
        };
        let path = segment::path(&self.dir, sequence);
        let scan =
            self.disk.open(&path).map_err(|error| error.to_string()).and_then(|file| {
                Scan::new(file, path.clone(), sequence).map_err(|damage| damage.why)
            });
        match scan {
            Ok(scan) => {
                let (offset, frame) = (SEGMENT_HEADER, None);
                self.victim = Some(Victim { scan, offset, frame, done: 0, unreadable: false });
                true
            }
            Err(why) => {
                tracing::error!(path = %path.display(), why, "a segment cannot be compacted");
                self.index.lock().needs.segment(sequence).stuck = true;
                false
            }
        }
    }

    fn end_full(&mut self) {
        let Some(mut full) = self.full.take() else { return };
        full.report.after = self.index.lock().needs.iter().map(|(_, segment)| segment.bytes).sum();
        // Who does not wait any more has been dropped.
        full.request.send(Ok(full.report)).ok();
    }

    /// It cannot go on for now.
    pub fn pause(&mut self, error: &BrokerError) {
        tracing::warn!(%error, "compaction pauses");
        self.give_up(error);
        self.paused = Some(Instant::now());
    }

    /// Tells who waits that it does not go on; it is not busy any more.
    pub fn give_up(&mut self, error: &BrokerError) -> bool {
        self.victim = None;
        if let Some(full) = self.full.take() {
            full.request.send(Err(error.clone())).ok();
        }
        false
    }

    /// Finds what lives next, and reads it.
    pub fn step(&mut self) -> Step {
        let mut frame = FrameBuilder::default();
        let Some(mut victim) = self.victim.take() else {
            return Step { frame, finished: None };
        };
        let (mut looked, begin) = (0, victim.offset);
        let bounded = |offset, looked| looked < STEP_OPS && offset < begin + STEP_SCAN;
        while frame.size() < self.step_bytes && bounded(victim.offset, looked) {
            if victim.frame.is_none() && !victim.next_frame() {
                return Step { frame, finished: Some(self.finish(&victim)) };
            }
            let Some((header, ops)) = victim.frame.take() else { continue };
            let Found { live, taken, all } = self.live(&victim, &header, &ops, STEP_OPS - looked);
            looked += taken;
            let mut copied = 0;
            for (op, live) in live {
                if frame.size() >= self.step_bytes {
                    break;
                }
                if let Err(why) = self.copy(&mut frame, live) {
                    tracing::error!(why, "what is damaged cannot be moved: its segment is kept");
                    victim.unreadable = true;
                }
                copied = op + 1;
            }
            let through = frame.size() < self.step_bytes;
            victim.done = if through { victim.done + taken } else { copied };
            if through && all {
                victim.offset += header.size();
                victim.done = 0;
            } else {
                victim.frame = Some((header, ops));
            }
        }
        self.victim = Some(victim);
        Step { frame, finished: None }
    }

    fn finish(&mut self, victim: &Victim) -> u32 {
        let sequence = victim.scan.sequence;
        if let Some(full) = &mut self.full {
            full.wanted.remove(&sequence);
            full.report.segments += 1;
        }
        if victim.unreadable {
            self.index.lock().needs.segment(sequence).stuck = true;
        }
        sequence
    }

    /// The copies of a victim are durable. One that keeps something alive for
    /// all that would be taken again for ever.
    pub fn finished(&self, sequence: u32) {
        let mut index = self.index.lock();
        if index.needs.contains(sequence) && index.needs.segment(sequence).live > 0 {
            index.needs.segment(sequence).stuck = true;
        }
    }

    /// Counts copied bytes for who waits for a full compaction.
    pub const fn copied(&mut self, bytes: u64) {
        if let Some(full) = &mut self.full {
            full.report.copied += bytes;
        }
    }

    fn live(&self, victim: &Victim, header: &FrameHeader, ops: &[u8], max: usize) -> Found {
        let at = FrameAt {
            segment: victim.scan.sequence,
            offset: u32::try_from(victim.offset).unwrap_or(u32::MAX),
            ops_len: header.ops_len,
        };
        let index = self.index.lock();
        let mut found = Found { live: Vec::new(), taken: 0, all: true };
        for (number, op) in Ops::new(ops).enumerate().skip(victim.done) {
            if found.taken >= max {
                found.all = false;
                break;
            }
            found.taken += 1;
            let Ok((op, body_at)) = op else { break };
            if let Some(live) = index.live_here(at, &op, body_at) {
                found.live.push((number, live));
            }
        }
        found
    }

    fn copy(&self, frame: &mut FrameBuilder, live: Live) -> Result<(), String> {
        let (meta, head, body) = match live {
            Live::Body { key, span } => {
                frame.move_body(&key, self.reader.read_shared(span)?);
                return Ok(());
            }
            Live::Message { meta, head, body } => (meta, head, body),
        };
        let head = self.reader.read(head)?;
        let moved = Meta {
            id: meta.id,
            queue: meta.queue.as_str(),
            priority: meta.priority,
            due: meta.due,
            flow_key: meta.flow_key.as_str(),
            head: &head,
            head_at: 0,
            sum: None,
        };
        match body {
            LiveBody::Elsewhere => frame.move_head(&moved),
            LiveBody::Shared(key) => frame.move_ref(&moved, &key),
            LiveBody::Own(span) => frame.move_inline(&moved, self.reader.read(span)?, span.crc),
        }
        Ok(())
    }
}

/// What lives in a part of a frame.
struct Found {
    /// With the number of its operation.
    live: Vec<(usize, Live)>,
    /// Operations looked at.
    taken: usize,
    /// The frame is through.
    all: bool,
}

impl Victim {
    /// Reads the next frame; false at the end.
    fn next_frame(&mut self) -> bool {
        match self.scan.frame(self.offset) {
            Ok(Some((header, ops))) if !header.is_end() => {
                self.frame = Some((header, ops));
                true
            }
            Ok(_) => false,
            Err(damage) => {
                tracing::error!(?damage, "a segment is damaged: it is kept");
                self.unreadable = true;
                false
            }
        }
    }
}

impl Index {
    /// What an operation in a frame still stands for.
    fn live_here(&self, at: FrameAt, op: &Op<'_>, body_at: u64) -> Option<Live> {
        match op {
            Op::Ack(_) => None,
            Op::Body(key) | Op::MoveBody(key) => {
                let body = self.bodies.named(key)?;
                let (segment, offset) = (body.segment, body.offset);
                let span = Span { segment, offset, len: key.len, crc: key.crc };
                let here = segment == at.segment && offset == at.body(body_at);
                here.then_some(Live::Body { key: *key, span })
            }
            Op::Put(meta, _) | Op::MovePut(meta, _) => {
                let slot = self.find(meta.id)?;
                let entry = &self.entries[slot];
                if entry.put_segment != at.segment {
                    return self.head_here(slot, at, meta);
                }
                let body = if entry.has(Entry::SHARED) {
                    LiveBody::Shared(self.shared_key(slot)?)
                } else {
                    // A repetition of it in the same segment has another body.
                    match self.body_part(slot) {
                        Part::At(span) if span.offset == at.body(body_at) => LiveBody::Own(span),
                        _ => return None,
                    }
                };
                Some(Live::Message { meta: self.owned(slot), head: self.head_span(slot), body })
            }
            Op::Rehead(meta) | Op::MoveHead(meta) => {
                let slot = self.find(meta.id)?;
                self.head_here(slot, at, meta)
            }
        }
    }

    fn head_here(&self, slot: u32, at: FrameAt, meta: &Meta<'_>) -> Option<Live> {
        let head = self.head_span(slot);
        // When its put is here too, that is copied with the newest head.
        let here = head.segment == at.segment
            && head.offset == at.head(meta.head_at)
            && self.entries[slot].put_segment != at.segment;
        let body = LiveBody::Elsewhere;
        here.then(|| Live::Message { meta: self.owned(slot), head, body })
    }

    fn owned(&self, slot: u32) -> OwnedMeta {
        let entry = &self.entries[slot];
        let flow = self.flows.flow(entry.flow);
        OwnedMeta {
            id: entry.id,
            queue: self.flows.queues[flow.queue as usize].name.clone(),
            priority: entry.priority,
            due: entry.due,
            flow_key: flow.key.clone(),
        }
    }
}
