//! Bytes to frames.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{Command, Frame, Headers};

/// Bounds on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the command and all header lines.
    pub head: usize,
    /// Bytes of one header line.
    pub line: usize,
    /// Number of headers.
    pub headers: usize,
    /// Bytes of the body.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // The head of a record travels in a header: 1 MiB by the contract, and
        // as text it grows. The body is the contract's bound, and a little.
        Self { head: 3 << 20, line: 2 << 20, headers: 256, body: 65 << 20 }
    }
}

/// What arrived is not STOMP 1.2, or too large. Completes "the broker sent ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a command that a server sends or this client knows.
    #[error("an unknown command {0:?}")]
    Command(String),
    /// More header bytes than [`Limits::head`].
    #[error("a frame with more than {0} bytes of headers")]
    HeadTooLong(usize),
    /// A longer line than [`Limits::line`].
    #[error("a header line of more than {0} bytes")]
    LineTooLong(usize),
    /// More than [`Limits::headers`].
    #[error("a frame with more than {0} headers")]
    TooManyHeaders(usize),
    /// A larger body than [`Limits::body`].
    #[error("a body of more than {0} bytes")]
    BodyTooLong(usize),
    /// A line without ':', an empty name, a NUL among the headers.
    #[error("a header line that is none: {0:?}")]
    Header(String),
    /// An escape that 1.2 does not define ("must be treated as a fatal protocol error").
    #[error("an undefined escape in {0:?}")]
    Escape(String),
    /// Not UTF-8.
    #[error("headers that are not UTF-8")]
    Encoding,
    /// Not a number.
    #[error("a content-length that is no number: {0:?}")]
    ContentLength(String),
    /// No NUL after the body.
    #[error("a body that does not end where its content-length says")]
    Unterminated,
    /// A body where none is allowed.
    #[error("a {0} with a body")]
    Body(&'static str),
}

/// Bodies up to this size are copied: a slice would hold the whole block that
/// was read for as long as the message is.
const COPY_UP_TO: usize = 1024;

/// Makes frames of bytes, however they are cut.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Up to `scanned` there is no end of the head.
    Head {
        scanned: usize,
    },
    /// The head is read and its bytes are gone.
    Body {
        frame: Frame,
        length: Option<usize>,
        scanned: usize,
    },
    Failed(DecodeError),
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head { scanned: 0 } }
    }

    /// Takes the next frame from the front of `input`; `None`: more bytes are
    /// needed. Line ends between frames (heart-beats) are dropped.
    ///
    /// # Errors
    /// See [`DecodeError`]; from then on always.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        let result = self.step(input);
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
        }
        result
    }

    fn step(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, DecodeError> {
        loop {
            match &mut self.state {
                State::Failed(error) => return Err(error.clone()),
                State::Head { scanned } => {
                    // At 1 a line end may have been cut after its CR.
                    if *scanned <= 1 {
                        skip_line_ends(input);
                        *scanned = 0;
                    }
                    let Some((end, after)) = head_end(input, *scanned) else {
                        if input.len() > self.limits.head {
                            return Err(DecodeError::HeadTooLong(self.limits.head));
                        }
                        *scanned = input.len();
                        return Ok(None);
                    };
                    if end > self.limits.head {
                        return Err(DecodeError::HeadTooLong(self.limits.head));
                    }
                    let frame = head(input.get(..end).unwrap_or_default(), &self.limits)?;
                    let length = self.content_length(&frame)?;
                    input.advance(after);
                    self.state = State::Body { frame, length, scanned: 0 };
                }
                State::Body { frame, length, scanned } => {
                    let Some(body_len) = body_len(input, *length, *scanned, self.limits.body)?
                    else {
                        *scanned = input.len();
                        return Ok(None);
                    };
                    let mut frame =
                        std::mem::replace(frame, Frame::new(Command::Error, Headers::new()));
                    frame.body = take_body(input, body_len);
                    self.state = State::Head { scanned: 0 };
                    if !frame.body.is_empty() && !frame.command.has_body() {
                        return Err(DecodeError::Body(frame.command.as_str()));
                    }
                    return Ok(Some(frame));
                }
            }
        }
    }

    fn content_length(&self, frame: &Frame) -> Result<Option<usize>, DecodeError> {
        let Some(text) = frame.headers.get("content-length") else { return Ok(None) };
        // str::parse would take a '+'.
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(DecodeError::ContentLength(excerpt(text.as_bytes())));
        }
        match text.parse() {
            Ok(length) if length <= self.limits.body => Ok(Some(length)),
            _ => Err(DecodeError::BodyTooLong(self.limits.body)),
        }
    }

    /// How many bytes are still missing from a body of known length: room worth
    /// making in one go. Zero when that is unknown.
    #[must_use]
    pub fn missing(&self, input: &BytesMut) -> usize {
        match &self.state {
            State::Body { length: Some(length), .. } => (length + 1).saturating_sub(input.len()),
            _ => 0,
        }
    }
}

fn skip_line_ends(input: &mut BytesMut) {
    // A CR alone is kept: its LF may come with the next bytes.
    let mut ends = 0;
    loop {
        match input.get(ends..) {
            Some([b'\n', ..]) => ends += 1,
            Some([b'\r', b'\n', ..]) => ends += 2,
            _ => break,
        }
    }
    input.advance(ends);
}

/// Where the last header line ends (its LF included), and where the body starts.
fn head_end(input: &[u8], scanned: usize) -> Option<(usize, usize)> {
    // The blank line may have been cut after its CR.
    let mut at = scanned.saturating_sub(2);
    loop {
        at += memchr::memchr(b'\n', input.get(at..)?)? + 1;
        match input.get(at..)? {
            [b'\n', ..] => return Some((at, at + 1)),
            [b'\r', b'\n', ..] => return Some((at, at + 2)),
            _ => {}
        }
    }
}

fn body_len(
    input: &[u8],
    length: Option<usize>,
    scanned: usize,
    limit: usize,
) -> Result<Option<usize>, DecodeError> {
    match length {
        Some(length) => match input.get(length) {
            Some(0) => Ok(Some(length)),
            Some(_) => Err(DecodeError::Unterminated),
            None => Ok(None),
        },
        None => {
            let found = memchr::memchr(0, input.get(scanned..).unwrap_or_default());
            let length = found.map_or(input.len(), |at| scanned + at);
            if length > limit {
                return Err(DecodeError::BodyTooLong(limit));
            }
            Ok(found.map(|_| length))
        }
    }
}

fn take_body(input: &mut BytesMut, length: usize) -> Bytes {
    let body = if length <= COPY_UP_TO {
        let copy = Bytes::copy_from_slice(input.get(..length).unwrap_or_default());
        input.advance(length);
        copy
    } else {
        input.split_to(length).freeze()
    };
    input.advance(1);
    body
}

/// The head of a frame: `bytes` ends with the LF of its last line.
fn head(bytes: &[u8], limits: &Limits) -> Result<Frame, DecodeError> {
    let mut lines = bytes.split(|&b| b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    let word = lines.next().unwrap_or_default();
    let command = Command::parse(word).ok_or_else(|| DecodeError::Command(excerpt(word)))?;
    let mut headers = Headers::new();
    let mut scratch = [String::new(), String::new()];
    for line in lines.filter(|line| !line.is_empty()) {
        if line.len() > limits.line {
            return Err(DecodeError::LineTooLong(limits.line));
        }
        if headers.len() == limits.headers {
            return Err(DecodeError::TooManyHeaders(limits.headers));
        }
        let colon = memchr::memchr(b':', line);
        let broken = memchr::memchr(0, line).is_some();
        let Some(colon) = colon.filter(|at| *at > 0 && !broken) else {
            return Err(DecodeError::Header(excerpt(line)));
        };
        let text = std::str::from_utf8(line).map_err(|_| DecodeError::Encoding)?;
        let (name, value) = text.split_at_checked(colon).ok_or(DecodeError::Encoding)?;
        let value = value.get(1..).unwrap_or_default();
        if command.escapes() && text.contains('\\') {
            let [plain_name, plain_value] = &mut scratch;
            unescape(name, plain_name)?;
            unescape(value, plain_value)?;
            headers.push(plain_name, plain_value);
        } else {
            headers.push(name, value);
        }
    }
    Ok(Frame::new(command, headers))
}

fn unescape(text: &str, plain: &mut String) -> Result<(), DecodeError> {
    plain.clear();
    let mut parts = text.split('\\');
    plain.push_str(parts.next().unwrap_or_default());
    while let Some(part) = parts.next() {
        let mut chars = part.chars();
        match chars.next() {
            Some('r') => plain.push('\r'),
            Some('n') => plain.push('\n'),
            Some('c') => plain.push(':'),
            // An escaped backslash: what follows it is the next part, as it is.
            None => {
                plain.push('\\');
                let Some(rest) = parts.next() else {
                    return Err(DecodeError::Escape(excerpt(text.as_bytes())));
                };
                plain.push_str(rest);
            }
            Some(_) => return Err(DecodeError::Escape(excerpt(text.as_bytes()))),
        }
        plain.push_str(chars.as_str());
    }
    Ok(())
}

/// What an error shows of bytes that came from outside.
fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(60)).unwrap_or_default()).into_owned()
}
