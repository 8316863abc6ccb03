//! Where frames wait for the commit thread, bounded in bytes.
//!
//! A publisher first waits for room, then makes its frame and hands it over
//! without waiting again: from the marks of a settlement to its frame in the
//! queue nothing can come between.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    cache::Payload,
    frame::FrameBytes,
    index::Mark,
    line::{Line, Weigh, Work},
    stats::CompactReport,
};
use crate::contract::BrokerError;

/// Why a frame is not durable.
#[derive(Debug, Clone)]
pub enum Failure {
    /// Nothing of it was taken.
    NotTaken(BrokerError),
    /// It may come back at the next start.
    Unknown(BrokerError),
}

impl Failure {
    /// Either, for who cannot tell them apart.
    pub fn into_error(self) -> BrokerError {
        match self {
            Self::NotTaken(error) | Self::Unknown(error) => error,
        }
    }
}

/// A frame on its way to the disk.
pub struct Frame {
    /// What is written.
    pub bytes: FrameBytes,
    /// For the cache: one for each put, or none.
    pub payloads: VecDeque<Option<Payload>>,
    /// Entries that it settles.
    pub marks: Vec<Mark>,
    /// Who waits for it.
    pub done: oneshot::Sender<Result<(), Failure>>,
    /// Its share of what may wait; given back when it is done.
    pub room: OwnedSemaphorePermit,
}

impl Frame {
    /// Acknowledgements may use the last room on a disk.
    pub fn frees_room(&self) -> bool {
        !self.marks.is_empty()
    }
}

impl Weigh for Frame {
    fn weight(&self) -> u64 {
        self.bytes.size()
    }
}

/// Who waits for a full compaction.
pub type CompactRequest = oneshot::Sender<Result<CompactReport, BrokerError>>;

/// Where frames wait for the commit thread.
pub struct Handoff {
    line: Line<Frame, CompactRequest>,
    room: Arc<Semaphore>,
    room_bytes: u32,
}

impl Handoff {
    /// Room for about so many bytes.
    pub fn new(max_pending_bytes: usize) -> Self {
        let room_bytes = u32::try_from(max_pending_bytes).unwrap_or(u32::MAX).max(1);
        Self {
            line: Line::default(),
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
        }
    }

    /// Waits for room for so many bytes. One frame is always allowed.
    ///
    /// # Errors
    /// When the queue was closed.
    pub async fn room(&self, bytes: u64) -> Result<OwnedSemaphorePermit, BrokerError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, self.room_bytes);
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(bytes).await.map_err(|_| BrokerError::Closed)
    }

    /// Hands a frame over; gives it back when the queue was closed.
    pub fn push(&self, frame: Frame) -> Result<(), Box<Frame>> {
        self.line.push(frame).map_err(Box::new)
    }

    /// Asks for a full compaction.
    ///
    /// # Errors
    /// When the queue was closed, or many ask already.
    pub fn ask(&self, request: CompactRequest) -> Result<(), BrokerError> {
        self.line.ask(request).map_err(|_| BrokerError::Closed)
    }

    /// Bytes that wait now.
    #[cfg(test)]
    pub fn waiting_bytes(&self) -> u64 {
        self.line.weight()
    }

    /// Lets nothing in any more; what waits is still written.
    pub fn close(&self) {
        self.line.close();
        self.room.close();
    }

    /// What waits and will not be written.
    pub fn abandon(&self) -> VecDeque<Frame> {
        self.line.abandon()
    }

    /// What the commit thread does next; see [`Line::take`].
    pub fn take(&self, max_bytes: u64, busy: bool) -> Work<Frame, CompactRequest> {
        self.line.take(max_bytes, busy)
    }
}
