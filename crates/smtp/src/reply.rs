//! Replies of a server (RFC 5321 section 4.2): a parser without I/O.
//!
//! It is fed with what has arrived, takes whole lines and remembers where it
//! is between calls. Whatever a server sends, its memory stays within
//! [`MAX_REPLY_LEN`], and a reply that breaks a limit or is not one is a
//! [`ReplyError`]; after that the stream cannot be trusted any more.
//!
//! Lenient where servers are known to be sloppy and nothing can go wrong by it:
//! a bare LF ends a line, the text may be missing, may be in any encoding.
//! Strict in what decides: three digits, one code for all lines.

use posthaste_model::{EnhancedCode, SmtpReply};

/// Longest line in bytes with its end. RFC 5321 section 4.5.3.1.5 allows 512.
pub const MAX_LINE_LEN: usize = 4 * 1024;
/// Most lines of one reply.
pub const MAX_LINES: usize = 128;
/// Most bytes of one reply.
pub const MAX_REPLY_LEN: usize = 64 * 1024;

/// Why bytes are not a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// No line end within [`MAX_LINE_LEN`].
    #[error("a reply line is longer than 4096 bytes")]
    LineTooLong,
    /// More than [`MAX_LINES`].
    #[error("a reply has more than 128 lines")]
    TooManyLines,
    /// More than [`MAX_REPLY_LEN`].
    #[error("a reply is longer than 64 KiB")]
    TooLong,
    /// The line does not begin with a code of 200 to 599.
    #[error("a reply does not begin with a code: {0:?}")]
    NoCode(String),
    /// Neither space nor hyphen after the code.
    #[error("a reply has neither space nor hyphen after its code: {0:?}")]
    Separator(String),
    /// The lines of one reply have different codes.
    #[error("the lines of a reply have different codes, {0} and {1}")]
    CodeMismatch(u16, u16),
}

/// What a call of [`ReplyParser::advance`] came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// So many bytes of the input are used up.
    pub consumed: usize,
    /// The reply, when it is complete. The rest of the input is the next one.
    pub reply: Option<SmtpReply>,
}

/// Parses replies, one after the other.
#[derive(Debug, Default)]
pub struct ReplyParser {
    code: Option<u16>,
    enhanced: Option<EnhancedCode>,
    text: String,
    lines: usize,
    bytes: usize,
}

impl ReplyParser {
    /// A parser at the beginning of a reply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether some lines of a reply have been read and others are to come.
    #[must_use]
    pub const fn is_amid(&self) -> bool {
        self.code.is_some()
    }

    /// Takes lines from `input` up to the end of one reply. The caller drops
    /// what was consumed and comes again with the rest and what follows it.
    ///
    /// # Errors
    /// When the input is not a reply or breaks a limit.
    pub fn advance(&mut self, input: &[u8]) -> Result<Step, ReplyError> {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let window = rest.get(..MAX_LINE_LEN).unwrap_or(rest);
            let Some(end) = memchr::memchr(b'\n', window) else {
                if window.len() == MAX_LINE_LEN {
                    return Err(ReplyError::LineTooLong);
                }
                return Ok(Step { consumed, reply: None });
            };
            consumed += end + 1;
            self.count(end + 1)?;
            let line = window.get(..end).unwrap_or_default();
            if self.line(line.trim_ascii_end())? {
                return Ok(Step { consumed, reply: self.take() });
            }
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), ReplyError> {
        self.lines += 1;
        self.bytes += bytes;
        if self.lines > MAX_LINES {
            return Err(ReplyError::TooManyLines);
        }
        if self.bytes > MAX_REPLY_LEN {
            return Err(ReplyError::TooLong);
        }
        Ok(())
    }

    /// Reads one line without its end; `true` when it is the last of its reply.
    fn line(&mut self, line: &[u8]) -> Result<bool, ReplyError> {
        let code = code(line).ok_or_else(|| ReplyError::NoCode(excerpt(line)))?;
        match self.code {
            Some(first) if first != code => return Err(ReplyError::CodeMismatch(first, code)),
            Some(_) => self.text.push('\n'),
            None => self.code = Some(code),
        }
        let last = match line.get(3) {
            None | Some(b' ') => true,
            Some(b'-') => false,
            Some(_) => return Err(ReplyError::Separator(excerpt(line))),
        };
        self.push_text(line.get(4..).unwrap_or_default(), code);
        Ok(last)
    }

    /// Every line of a reply repeats the enhanced code (RFC 2034 section 4);
    /// it is kept once. One whose class contradicts the code is mere text.
    fn push_text(&mut self, text: &[u8], code: u16) {
        let (enhanced, rest) = split_enhanced(text, code);
        let text = match (enhanced, self.enhanced) {
            (Some(found), None) => {
                self.enhanced = Some(found);
                rest
            }
            (Some(found), Some(first)) if found == first => rest,
            _ => text,
        };
        self.text.extend(String::from_utf8_lossy(text).chars().map(printable));
    }

    fn take(&mut self) -> Option<SmtpReply> {
        let done = std::mem::take(self);
        done.code.map(|code| SmtpReply { code, enhanced: done.enhanced, text: done.text })
    }
}

/// The reply goes to logs, terminals and databases: nothing in it may act there.
fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }
}

fn code(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    (200..600).contains(&code).then_some(code)
}

fn split_enhanced(text: &[u8], code: u16) -> (Option<EnhancedCode>, &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let enhanced = std::str::from_utf8(word)
        .ok()
        .and_then(|word| word.parse::<EnhancedCode>().ok())
        .filter(|enhanced| u16::from(enhanced.class) == code / 100);
    (enhanced, rest.trim_ascii_start())
}

fn excerpt(line: &[u8]) -> String {
    String::from_utf8_lossy(line.get(..80).unwrap_or(line)).chars().map(printable).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(code: u16, enhanced: &str, text: &str) -> SmtpReply {
        SmtpReply { code, enhanced: enhanced.parse().ok(), text: text.into() }
    }

    /// All replies of `input`, fed in pieces of `chunk` bytes.
    fn read(input: &[u8], chunk: usize) -> Result<Vec<SmtpReply>, ReplyError> {
        let mut parser = ReplyParser::new();
        let mut buffer = Vec::new();
        let mut replies = Vec::new();
        for piece in input.chunks(chunk) {
            buffer.extend_from_slice(piece);
            loop {
                let step = parser.advance(&buffer)?;
                buffer.drain(..step.consumed);
                match step.reply {
                    Some(reply) => replies.push(reply),
                    None => break,
                }
            }
        }
        Ok(replies)
    }

    #[test]
    fn replies() {
        for (input, expected) in [
            ("250 OK\r\n", vec![reply(250, "", "OK")]),
            ("250 OK\n", vec![reply(250, "", "OK")]),
            ("250 OK  \r\r\n", vec![reply(250, "", "OK")]),
            ("250\r\n", vec![reply(250, "", "")]),
            ("250 \r\n", vec![reply(250, "", "")]),
            ("250-\r\n250\r\n", vec![reply(250, "", "\n")]),
            ("250-a\r\n250-b\r\n250 c\r\n", vec![reply(250, "", "a\nb\nc")]),
            ("250-a\n250 b\n", vec![reply(250, "", "a\nb")]),
            ("250 2.1.5 OK\r\n", vec![reply(250, "2.1.5", "OK")]),
            ("550 5.7.26\r\n", vec![reply(550, "5.7.26", "")]),
            ("550-5.1.1 no\r\n550 5.1.1 such\r\n", vec![reply(550, "5.1.1", "no\nsuch")]),
            ("550-no\r\n550 5.1.1 such\r\n", vec![reply(550, "5.1.1", "no\nsuch")]),
            ("550-5.1.1 no\r\n550 5.7.1 such\r\n", vec![reply(550, "5.1.1", "no\n5.7.1 such")]),
            // The class contradicts the code, or it is no enhanced code at all.
            ("550 4.1.1 no\r\n", vec![reply(550, "", "4.1.1 no")]),
            ("354 3.0.0 go\r\n", vec![reply(354, "", "3.0.0 go")]),
            ("550 5.1 no\r\n", vec![reply(550, "", "5.1 no")]),
            ("550 5.1.1234 no\r\n", vec![reply(550, "", "5.1.1234 no")]),
            ("550 192.0.2.1 no\r\n", vec![reply(550, "", "192.0.2.1 no")]),
            ("250  two\r\n", vec![reply(250, "", " two")]),
            ("599 odd\r\n200 odd\r\n", vec![reply(599, "", "odd"), reply(200, "", "odd")]),
            ("250 a\r\n354 b\r\n", vec![reply(250, "", "a"), reply(354, "", "b")]),
            ("250 a\r\n250 b", vec![reply(250, "", "a")]),
            ("250-a\r\n", vec![]),
            (
                "250 \x1b[2J\0\u{7f}x\ty\r\n",
                vec![reply(250, "", "\u{fffd}[2J\u{fffd}\u{fffd}x\ty")],
            ),
            ("250 a\rb\r\n", vec![reply(250, "", "a\u{fffd}b")]),
        ] {
            for chunk in [1, 2, 3, 1000] {
                assert_eq!(
                    read(input.as_bytes(), chunk),
                    Ok(expected.clone()),
                    "{input:?}/{chunk}"
                );
            }
        }
        let latin1 = read(b"550 caf\xe9\r\n", 100);
        assert_eq!(latin1, Ok(vec![reply(550, "", "caf\u{fffd}")]));
    }

    #[test]
    fn not_replies() {
        use ReplyError::*;
        for (input, expected) in [
            ("\r\n", NoCode(String::new())),
            ("OK\r\n", NoCode("OK".into())),
            ("25\r\n", NoCode("25".into())),
            ("25x no\r\n", NoCode("25x no".into())),
            ("+50 no\r\n", NoCode("+50 no".into())),
            (" 250 no\r\n", NoCode(" 250 no".into())),
            ("150 no\r\n", NoCode("150 no".into())),
            ("600 no\r\n", NoCode("600 no".into())),
            ("000 no\r\n", NoCode("000 no".into())),
            ("250-a\r\n\r\n", NoCode(String::new())),
            ("250-a\r\nb\r\n", NoCode("b".into())),
            ("2500 no\r\n", Separator("2500 no".into())),
            ("250_no\r\n", Separator("250_no".into())),
            ("250\tno\r\n", Separator("250\tno".into())),
            ("250-a\r\n251 b\r\n", CodeMismatch(250, 251)),
        ] {
            for chunk in [1, 1000] {
                assert_eq!(read(input.as_bytes(), chunk), Err(expected.clone()), "{input:?}");
            }
        }
    }

    #[test]
    fn limits() {
        let line = |n: usize| format!("250 {}\r\n", "x".repeat(n - 6)).into_bytes();
        assert!(read(&line(MAX_LINE_LEN), 100).is_ok());
        assert_eq!(read(&line(MAX_LINE_LEN + 1), 100), Err(ReplyError::LineTooLong));
        let endless = vec![b'x'; MAX_LINE_LEN];
        assert_eq!(read(&endless, 1), Err(ReplyError::LineTooLong));

        let lines = |n: usize, text: &str| format!("250-{text}\r\n").repeat(n).into_bytes();
        assert_eq!(read(&lines(MAX_LINES, "a"), 100), Ok(vec![]));
        assert_eq!(read(&lines(MAX_LINES + 1, "a"), 100), Err(ReplyError::TooManyLines));
        assert_eq!(read(&lines(17, &"x".repeat(4000)), 100), Err(ReplyError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_bounds(
            input in prop::collection::vec(any::<u8>(), 0..400),
            chunk in 1usize..50,
        ) {
            let whole = read(&input, 1000);
            prop_assert_eq!(&read(&input, chunk), &whole);
        }

        #[test]
        fn nearly_replies_are_read_within_bounds(
            lines in prop::collection::vec("[245][0-5][0-9][ \\-x]([245]\\.[0-9]{1,3}\\.[0-9]{1,4} )?\\PC{0,20}(\r\n|\n|\r)", 0..20),
            chunk in 1usize..50,
        ) {
            let input = lines.concat();
            let whole = read(input.as_bytes(), 100_000);
            for reply in whole.iter().flatten() {
                prop_assert!((200..600).contains(&reply.code));
                prop_assert!(!reply.text.contains(['\r', '\0']));
                if let Some(enhanced) = reply.enhanced {
                    prop_assert_eq!(u16::from(enhanced.class), reply.code / 100);
                }
            }
            prop_assert_eq!(read(input.as_bytes(), chunk), whole);
        }
    }
}
