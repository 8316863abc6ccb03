//! Reading the body of a request within bounds: of one body's bytes, of all
//! bodies' bytes together, and of time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::{config::ApiConfig, problem::Problem};

/// Bytes that buy a slow client one more second.
const BYTES_A_SECOND: usize = 64 << 10;
/// One permit of the semaphore stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

/// The room that all bodies share.
#[derive(Debug, Clone)]
pub(crate) struct Inflight(Arc<Semaphore>);

impl Inflight {
    /// Room for at least one body of the largest size.
    pub(crate) fn new(config: &ApiConfig) -> Self {
        let bytes = config.inflight_bytes.max(config.body_bytes.saturating_add(PERMIT_BYTES));
        Self(Arc::new(Semaphore::new(permits(bytes).min(Semaphore::MAX_PERMITS))))
    }

    pub(crate) async fn room(
        &self,
        bytes: usize,
        wait: Duration,
    ) -> Result<OwnedSemaphorePermit, Problem> {
        let busy = || Problem::unavailable("too much is in flight", Duration::from_secs(1)).close();
        let permits = u32::try_from(permits(bytes)).map_err(|_| busy())?;
        match timeout(wait, Arc::clone(&self.0).acquire_many_owned(permits)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

const fn permits(bytes: usize) -> usize {
    bytes.div_ceil(PERMIT_BYTES)
}

/// A body, and the room that it takes until this is dropped.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    #[expect(dead_code, reason = "held, not read")]
    pub(crate) room: OwnedSemaphorePermit,
}

/// Reads the whole body.
///
/// # Errors
/// 400 when it ends early, 408 when it is slow, 413 when it is large, 503 when
/// there is no room.
pub(crate) async fn receive(
    mut body: Body,
    headers: &HeaderMap,
    config: &ApiConfig,
    inflight: &Inflight,
) -> Result<Received, Problem> {
    let announced = content_length(headers);
    if announced.is_some_and(|length| length > config.body_bytes) {
        return Err(too_large(config));
    }
    let wait = config.inflight_wait;
    let mut room = inflight.room(announced.unwrap_or(1), wait).await?;
    let started = Instant::now();
    let mut collected = Collected::default();
    loop {
        let earned = Duration::from_secs((collected.len() / BYTES_A_SECOND) as u64);
        let deadline = started + config.body_timeout + earned;
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(too_slow()),
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                let detail = "the body ended before its announced end";
                return Err(Problem::bad_request("body_incomplete", detail).close());
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > config.body_bytes {
            return Err(too_large(config));
        }
        if announced.is_none() {
            // Chunked: the room grows with what comes.
            room.merge(inflight.room(data.len(), wait).await?);
        }
        collected.push(data, announced);
    }
    Ok(Received { bytes: collected.into_bytes(), room })
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(crate) fn too_large(config: &ApiConfig) -> Problem {
    let detail = format!("the body may have {} bytes", config.body_bytes);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail).close()
}

fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body came too slowly").close()
}

/// The frames so far. A body that comes in one is not copied.
#[derive(Default)]
struct Collected {
    first: Bytes,
    all: BytesMut,
}

impl Collected {
    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn push(&mut self, data: Bytes, announced: Option<usize>) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve(announced.unwrap_or(0).max(self.first.len() + data.len()));
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}
