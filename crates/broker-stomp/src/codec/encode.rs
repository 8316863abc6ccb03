//! Frames to bytes.

use bytes::{BufMut, BytesMut};

use super::frame::{Command, Frame};

/// A frame cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// CONNECT does not escape: the value would become a header of its own.
    #[error(
        "the header {0:?} has a character that CONNECT cannot carry (line break, NUL, or ':' in the name)"
    )]
    Unescapable(String),
    /// A header without a name.
    #[error("a header has no name")]
    EmptyName,
    /// A body where none is allowed.
    #[error("{0} has no body")]
    Body(&'static str),
}

/// Writes the head of a frame, and its body and end unless `body_apart`: then
/// the caller writes the body and a NUL itself.
///
/// `content-length` is written for each frame that may have a body, also when it is
/// empty: without it the ActiveMQ brokers make a text message of it.
///
/// # Errors
/// See [`EncodeError`]. Nothing is written then.
pub fn encode(frame: &Frame, out: &mut BytesMut, body_apart: bool) -> Result<(), EncodeError> {
    if !frame.body.is_empty() && !frame.command.has_body() {
        return Err(EncodeError::Body(frame.command.as_str()));
    }
    check(frame)?;
    let escapes = frame.command.escapes();
    out.reserve(64 + frame.headers.bytes() + if body_apart { 0 } else { frame.body.len() });
    out.put_slice(frame.command.as_str().as_bytes());
    out.put_u8(b'\n');
    for (name, value) in frame.headers.iter().filter(|(name, _)| *name != "content-length") {
        put(out, name, escapes);
        out.put_u8(b':');
        put(out, value, escapes);
        out.put_u8(b'\n');
    }
    if frame.command.has_body() {
        out.put_slice(b"content-length:");
        put_number(out, frame.body.len());
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    if !body_apart {
        out.put_slice(&frame.body);
        out.put_u8(0);
    }
    Ok(())
}

/// Writes an ACK. Apart because there is one for each message.
pub fn encode_ack(id: &str, receipt: Option<u64>, out: &mut BytesMut) {
    out.put_slice(b"ACK\nid:");
    put(out, id, true);
    if let Some(receipt) = receipt {
        out.put_slice(b"\nreceipt:");
        out.put_slice(receipt.to_string().as_bytes());
    }
    out.put_slice(b"\n\n\0");
}

fn check(frame: &Frame) -> Result<(), EncodeError> {
    for (name, value) in frame.headers.iter() {
        if name.is_empty() {
            return Err(EncodeError::EmptyName);
        }
        // A NUL has no escape, and a server may take it for the frame's end.
        let broken = if frame.command == Command::Connect || frame.command == Command::Connected {
            name.contains(['\n', '\r', ':', '\0']) || value.contains(['\n', '\r', '\0'])
        } else {
            name.contains('\0') || value.contains('\0')
        };
        if broken {
            return Err(EncodeError::Unescapable(name.to_owned()));
        }
    }
    Ok(())
}

/// "Value Encoding". The ':' is escaped in values too: Artemis drops it otherwise.
fn put(out: &mut BytesMut, text: &str, escapes: bool) {
    let bytes = text.as_bytes();
    let special = |b: &u8| matches!(b, b'\r' | b'\n' | b':' | b'\\');
    if !escapes || !bytes.iter().any(special) {
        out.put_slice(bytes);
        return;
    }
    for &byte in bytes {
        match byte {
            b'\r' => out.put_slice(b"\\r"),
            b'\n' => out.put_slice(b"\\n"),
            b':' => out.put_slice(b"\\c"),
            b'\\' => out.put_slice(b"\\\\"),
            _ => out.put_u8(byte),
        }
    }
}

fn put_number(out: &mut BytesMut, number: usize) {
    out.put_slice(number.to_string().as_bytes());
}
