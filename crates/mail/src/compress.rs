//! Compression of the content in a message record.
//!
//! Every codec knows the size of what it holds, or is read with a bound:
//! [`decompress`] never makes more than `max` bytes, whatever the data claim,
//! and never allocates more than that either. Damaged data is an error.
//! Contexts of Zstandard are kept by thread: making one costs more than
//! compressing a small message.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use posthaste_model::Codec;
use zstd::{
    bulk::{Compressor, Decompressor},
    zstd_safe,
};

/// The level where configuration names none. Measured on messages as they are
/// sent, level 3 against 1: 3 % smaller for texts and small HTML, 5 % for a
/// newsletter of 90 KB, nothing for files that are compressed themselves, at
/// 35 to 45 % more time; only a table of text in base64 gains (19 %, at 90 %
/// more time). The queue is bound by syncs and the process by its cores.
pub const DEFAULT_LEVEL: i32 = 1;

/// Why content was not compressed or not read. Completes "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// Compressing failed: out of memory.
    #[error("failed to compress the content: {0}")]
    Compress(String),
    /// It is larger than the caller takes.
    #[error("failed to decompress the content: it is larger than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// It is not what this codec has written.
    #[error("failed to decompress the content: it is damaged ({0})")]
    Damaged(String),
}

thread_local! {
    static ZSTD: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static UNZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses. `level` goes from 1 (fast) to 19 (small) for Zstandard, to 9
/// for gzip, and is of no effect for the others; what is outside is taken as
/// the nearest.
///
/// # Errors
/// Out of memory.
pub fn compress(codec: Codec, data: &[u8], level: i32) -> Result<Vec<u8>, CompressError> {
    match codec {
        Codec::None => Ok(data.to_vec()),
        Codec::Zstd => zstd_compress(data, level.clamp(1, 19)),
        Codec::Lz4 => Ok(lz4_flex::compress_prepend_size(data)),
        Codec::Gzip => gzip_compress(data, level.clamp(1, 9).unsigned_abs()),
    }
    .map_err(|error: io::Error| CompressError::Compress(error.to_string()))
}

/// Reads what [`compress`] has written, at most `max` bytes.
///
/// # Errors
/// More than `max` bytes, or damaged.
pub fn decompress(codec: Codec, data: &[u8], max: usize) -> Result<Vec<u8>, CompressError> {
    match codec {
        Codec::None if data.len() > max => Err(CompressError::TooLarge { max }),
        Codec::None => Ok(data.to_vec()),
        Codec::Zstd => zstd_decompress(data, max),
        Codec::Lz4 => lz4_decompress(data, max),
        Codec::Gzip => gzip_decompress(data, max),
    }
}

fn zstd_compress(data: &[u8], level: i32) -> io::Result<Vec<u8>> {
    ZSTD.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some((of_level, compressor)) => {
                if *of_level != level {
                    compressor.set_compression_level(level)?;
                    *of_level = level;
                }
                compressor
            }
            None => &mut kept.insert((level, Compressor::new(level)?)).1,
        };
        compressor.compress(data)
    })
}

fn zstd_decompress(data: &[u8], max: usize) -> Result<Vec<u8>, CompressError> {
    // The frame states its size: our own compressor always writes it.
    let size = match zstd_safe::get_frame_content_size(data) {
        Ok(Some(size)) => size,
        Ok(None) => return Err(CompressError::Damaged("a frame without its size".into())),
        Err(_) => return Err(CompressError::Damaged("not a Zstandard frame".into())),
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > max {
        return Err(CompressError::TooLarge { max });
    }
    UNZSTD
        .with_borrow_mut(|kept| {
            let decompressor = match kept {
                Some(decompressor) => decompressor,
                None => kept.insert(Decompressor::new()?),
            };
            decompressor.decompress(data, size)
        })
        .map_err(damaged)
}

fn lz4_decompress(data: &[u8], max: usize) -> Result<Vec<u8>, CompressError> {
    let (size, block) = lz4_flex::block::uncompressed_size(data)
        .map_err(|e| CompressError::Damaged(e.to_string()))?;
    if size > max {
        return Err(CompressError::TooLarge { max });
    }
    let content = lz4_flex::block::decompress(block, size)
        .map_err(|error| CompressError::Damaged(error.to_string()))?;
    if content.len() == size {
        Ok(content)
    } else {
        Err(CompressError::Damaged("shorter than it says".into()))
    }
}

fn gzip_compress(data: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let mut encoder =
        GzEncoder::new(Vec::with_capacity(data.len() / 2 + 64), Compression::new(level));
    encoder.write_all(data)?;
    encoder.finish()
}

fn gzip_decompress(data: &[u8], max: usize) -> Result<Vec<u8>, CompressError> {
    let mut content = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    // Several members are read as one, so that bytes behind the first are
    // seen as damage and not dropped.
    MultiGzDecoder::new(data).take(limit).read_to_end(&mut content).map_err(damaged)?;
    if content.len() > max { Err(CompressError::TooLarge { max }) } else { Ok(content) }
}

fn damaged(error: io::Error) -> CompressError {
    CompressError::Damaged(error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODECS: [Codec; 4] = [Codec::None, Codec::Zstd, Codec::Lz4, Codec::Gzip];

    #[test]
    fn a_bomb_is_refused() {
        let zeros = vec![0; 1 << 20];
        for codec in CODECS {
            let packed = compress(codec, &zeros, DEFAULT_LEVEL).unwrap();
            let short = zeros.len() - 1;
            assert_eq!(
                decompress(codec, &packed, short),
                Err(CompressError::TooLarge { max: short }),
                "{codec:?}"
            );
            assert_eq!(decompress(codec, &packed, zeros.len()).unwrap(), zeros, "{codec:?}");
        }
    }

    #[test]
    fn damage_is_seen() {
        let data: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
        for codec in [Codec::Zstd, Codec::Lz4, Codec::Gzip] {
            let packed = compress(codec, &data, DEFAULT_LEVEL).unwrap();
            for cut in [0, 1, 3, 10, packed.len() / 2, packed.len() - 1] {
                let read = decompress(codec, &packed[..cut], 1 << 20);
                // Gzip takes no bytes at all as no members at all.
                let nothing = codec == Codec::Gzip && cut == 0;
                assert!(read.is_err() || nothing, "{codec:?} cut at {cut}: {read:?}");
            }
            let longer = [packed.as_slice(), b"more"].concat();
            assert!(decompress(codec, &longer, 1 << 20).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn a_claimed_size_is_not_allocated() {
        let claim = [u32::MAX.to_le_bytes().as_slice(), &[0; 8]].concat();
        assert_eq!(
            decompress(Codec::Lz4, &claim, 1000),
            Err(CompressError::TooLarge { max: 1000 })
        );
    }

    #[test]
    fn levels_can_change_and_be_absurd() {
        let data = b"the same text again and again ".repeat(200);
        for codec in CODECS {
            for level in [i32::MIN, 0, 3, 9, 19, i32::MAX, 3] {
                let packed = compress(codec, &data, level).unwrap();
                assert_eq!(decompress(codec, &packed, data.len()).unwrap(), data);
                assert!(codec == Codec::None || packed.len() < data.len() / 10, "{codec:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn reads_back(data in proptest::collection::vec(any::<u8>(), 0..2000), at in 0..4_usize) {
            let packed = compress(CODECS[at], &data, DEFAULT_LEVEL).unwrap();
            prop_assert_eq!(decompress(CODECS[at], &packed, data.len()).unwrap(), data);
        }

        #[test]
        fn garbage_never_panics(
            data in proptest::collection::vec(any::<u8>(), 0..300),
            magic in prop_oneof![
                Just(&b""[..]),
                Just(&b"\x28\xb5\x2f\xfd"[..]),
                Just(&b"\x1f\x8b\x08\x00"[..]),
                Just(&b"\x40\x00\x00\x00"[..]),
            ],
            at in 0..4_usize,
        ) {
            let data = [magic, &data].concat();
            if let Ok(content) = decompress(CODECS[at], &data, 1000) {
                prop_assert!(content.len() <= 1000);
            }
        }
    }
}
