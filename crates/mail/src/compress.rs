//! stub, being written
use posthaste_model::Codec;
/// The level that configuration starts from.
pub const DEFAULT_LEVEL: i32 = 3;
/// Why.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// Over the bound.
    #[error("the content is larger than {max} bytes when decompressed")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// Not what the codec writes.
    #[error("the content cannot be decompressed: {0}")]
    Damaged(String),
    /// Could not compress.
    #[error("the content cannot be compressed: {0}")]
    Encode(String),
}
/// Compresses.
pub fn compress(_codec: Codec, data: &[u8], _level: i32) -> Result<Vec<u8>, CompressError> {
    Ok(data.to_vec())
}
/// Decompresses, at most `max` bytes.
pub fn decompress(_codec: Codec, data: &[u8], _max: usize) -> Result<Vec<u8>, CompressError> {
    Ok(data.to_vec())
}
