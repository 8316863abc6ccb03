//! Bodies that come compressed (RFC 9110 section 8.4).
//!
//! What comes out is bounded like a body that was not compressed, in bytes and
//! in the room that all bodies share, and it is made piece by piece: a bomb is
//! put out when it passes the bound, having cost no more than a plain body.

use std::io::Read;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::{Buf, Bytes, buf::Reader};
use flate2::bufread::MultiGzDecoder;

use crate::{
    body::{Inflight, Received, too_large},
    config::ApiConfig,
    problem::Problem,
};

/// Made at once: about a millisecond.
const PIECE: usize = 128 << 10;
/// 8 MiB, as RFC 9659 has it for HTTP: the memory that a frame may ask for.
const MAX_WINDOW_LOG: u32 = 23;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Reads `Content-Encoding`.
    ///
    /// # Errors
    /// 415 for others, and for several on top of each other.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let value = values.next().map(HeaderValue::as_bytes);
        match (value, values.next()) {
            (None, _) => Ok(Self::Identity),
            (Some(value), None) if value.eq_ignore_ascii_case(b"identity") => Ok(Self::Identity),
            (Some(value), None)
                // RFC 9110 section 8.4.1.3: the two are the same.
                if value.eq_ignore_ascii_case(b"gzip")
                    || value.eq_ignore_ascii_case(b"x-gzip") =>
            {
                Ok(Self::Gzip)
            }
            (Some(value), None) if value.eq_ignore_ascii_case(b"zstd") => Ok(Self::Zstd),
            _ => {
                let detail = "the body may be compressed with gzip or with zstd, and once only";
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                Err(Problem::new(status, "unsupported_encoding", detail).close())
            }
        }
    }

    /// Takes the compression off a body.
    ///
    /// # Errors
    /// 400 when it is broken, 413 when there is too much in it, 503 when there
    /// is no room.
    pub(crate) async fn decode(
        self,
        received: Received,
        config: &ApiConfig,
        inflight: &Inflight,
    ) -> Result<Received, Problem> {
        let source = received.bytes.clone().reader();
        let mut decoder = match self {
            Self::Identity => return Ok(received),
            Self::Gzip => Decoder::Gzip(MultiGzDecoder::new(source)),
            Self::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(source).map_err(|_| broken())?;
                decoder.window_log_max(MAX_WINDOW_LOG).map_err(|_| broken())?;
                Decoder::Zstd(decoder)
            }
        };
        let mut room = inflight.room(1, config.inflight_wait).await?;
        let mut plain = Vec::new();
        let mut piece = vec![0; PIECE];
        loop {
            let read = decoder.read(&mut piece).map_err(|_| broken())?;
            let Some(data) = piece.get(..read).filter(|data| !data.is_empty()) else { break };
            if plain.len() + data.len() > config.body_bytes {
                return Err(too_large(config));
            }
            room.merge(inflight.room(data.len(), config.inflight_wait).await?);
            plain.extend_from_slice(data);
            tokio::task::yield_now().await;
        }
        Ok(Received { bytes: Bytes::from(plain), room })
    }
}

enum Decoder {
    Gzip(MultiGzDecoder<Reader<Bytes>>),
    Zstd(zstd::stream::read::Decoder<'static, Reader<Bytes>>),
}

impl Read for Decoder {
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(piece),
            Self::Zstd(decoder) => decoder.read(piece),
        }
    }
}

fn broken() -> Problem {
    Problem::bad_request("encoding_broken", "the body is not what Content-Encoding says")
}
