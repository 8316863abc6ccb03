//! Bytes to frames and back (STOMP 1.2), without I/O.
//!
//! Contract: [`Decoder`] takes bytes as they come, however they are cut, and
//! gives whole frames; [`encode`] writes a frame that a 1.2 server reads back
//! as it was. Bodies are slices of what was read.
//!
//! Invariants: no input panics; nothing is kept beyond [`Limits`]; a value that
//! would break out of its header line cannot be written.
//!
//! On failure the stream is lost, since there is no way to find the next
//! frame: the decoder stays in its error, and the connection has to end.

mod decode;
mod encode;
mod frame;

pub use decode::{DecodeError, Decoder, Limits};
pub use encode::{EncodeError, encode, encode_ack};
pub use frame::{Command, Frame, Headers};
