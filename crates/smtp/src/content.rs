//! The content between DATA and its final dot (RFC 5321 section 4.5.2):
//! [`WireContent`] writes it with dot-stuffing, [`ContentReader`] reads it back.
//! Both are without I/O and work over pieces cut anywhere.
//!
//! Only CRLF ends a line on the wire (RFC 5321 section 2.3.8). Software that
//! takes a bare LF or CR for a line end, and software that does not, see two
//! different ends of a message: that is how mail is smuggled. So the writer
//! turns a bare CR or LF into CRLF, and the reader takes nothing but
//! `CRLF . CRLF` for the end.

/// Largest piece that [`WireContent`] gives at once: bounds the time between
/// two chances to do something else.
pub const MAX_PIECE: usize = 64 * 1024;

/// The pieces of a message as they go over the wire: dots stuffed, ended by
/// CRLF and the final dot. Pieces are slices of the message, whole runs
/// wherever nothing is to be inserted: nothing is copied here.
#[derive(Debug, Clone)]
pub struct WireContent<'a> {
    parts: std::slice::Iter<'a, &'a [u8]>,
    rest: &'a [u8],
    inserted: Option<&'static [u8]>,
    line_start: bool,
    /// A CR at the end of a piece: what follows decides whether it is bare.
    held_cr: bool,
    ended: bool,
}

impl<'a> WireContent<'a> {
    /// The message that `parts` make together.
    #[must_use]
    pub fn new(parts: &'a [&'a [u8]]) -> Self {
        Self {
            parts: parts.iter(),
            rest: &[],
            inserted: None,
            line_start: true,
            held_cr: false,
            ended: false,
        }
    }

    /// Takes a run of `len` bytes from the rest, and drops `skip` after it.
    fn run(&mut self, len: usize, skip: usize) -> &'a [u8] {
        let (run, rest) = self.rest.split_at_checked(len).unwrap_or((self.rest, &[]));
        self.rest = rest.get(skip..).unwrap_or_default();
        run
    }

    /// The longest run from here that needs no insertion. It may be empty.
    fn next_run(&mut self) -> &'a [u8] {
        let block = self.rest.get(..MAX_PIECE).unwrap_or(self.rest);
        let mut at = 0;
        while let Some(found) = memchr::memchr2(b'\r', b'\n', block.get(at..).unwrap_or_default()) {
            let end = at + found;
            match (block.get(end), block.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    at = end + 2;
                    if block.get(at) == Some(&b'.') {
                        self.line_start = true;
                        return self.run(at, 0);
                    }
                }
                (Some(b'\r'), None) => {
                    self.held_cr = true;
                    return self.run(end, 1);
                }
                _ => {
                    self.inserted = Some(b"\r\n");
                    self.line_start = true;
                    return self.run(end, 1);
                }
            }
        }
        self.line_start = at == block.len();
        self.run(block.len(), 0)
    }

    fn end(&mut self) -> Option<&'a [u8]> {
        if self.ended {
            return None;
        }
        self.ended = true;
        let complete = self.line_start || self.held_cr;
        let last: &[u8] = match (self.held_cr, complete) {
            (true, _) => b"\r\n.\r\n",
            (false, true) => b".\r\n",
            // "The final CRLF is added when it is missing": section 4.1.1.4.
            (false, false) => b"\r\n.\r\n",
        };
        Some(last)
    }
}

impl<'a> Iterator for WireContent<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            if let Some(inserted) = self.inserted.take() {
                return Some(inserted);
            }
            let Some(first) = self.rest.first() else {
                match self.parts.next() {
                    Some(part) => self.rest = part,
                    None => return self.end(),
                }
                continue;
            };
            if self.held_cr {
                self.held_cr = false;
                self.line_start = true;
                let skip = usize::from(*first == b'\n');
                self.rest = self.rest.get(skip..).unwrap_or_default();
                return Some(b"\r\n");
            }
            if self.line_start && *first == b'.' {
                self.line_start = false;
                return Some(b".");
            }
            let run = self.next_run();
            if !run.is_empty() {
                return Some(run);
            }
        }
    }
}

/// Where a [`ContentReader`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// After CRLF, or at the beginning.
    LineStart,
    /// After a dot that begins a line.
    Dot,
    /// After such a dot and a CR.
    DotCr,
    /// After a CR.
    Cr,
    /// Anywhere else.
    Text,
}

/// Reads the content up to the final dot and takes the stuffed dots out.
#[derive(Debug, Clone)]
pub struct ContentReader {
    at: At,
    len: u64,
    max: usize,
}

impl ContentReader {
    /// A reader that keeps `max` bytes at most. More is counted, not kept.
    #[must_use]
    pub const fn new(max: usize) -> Self {
        Self { at: At::LineStart, len: 0, max }
    }

    /// Bytes of the content so far, with those that were not kept.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there was no content so far.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there was more than may be kept.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.len > self.max as u64
    }

    /// Reads from `input` into `content`. Gives the bytes consumed, and whether
    /// the final dot was among them; what follows it is no content.
    pub fn advance(&mut self, input: &[u8], content: &mut Vec<u8>) -> (usize, bool) {
        let mut i = 0;
        while let Some(byte) = input.get(i) {
            match (self.at, byte) {
                (At::Text, _) => {
                    let rest = input.get(i..).unwrap_or_default();
                    let cr = memchr::memchr(b'\r', rest);
                    let end = cr.map_or(rest.len(), |cr| cr + 1);
                    self.keep(rest.get(..end).unwrap_or_default(), content);
                    self.at = if cr.is_some() { At::Cr } else { At::Text };
                    i += end;
                }
                (At::Cr, b'\n') => {
                    self.keep(b"\n", content);
                    self.at = At::LineStart;
                    i += 1;
                }
                (At::LineStart, b'.') => {
                    self.at = At::Dot;
                    i += 1;
                }
                (At::Dot, b'\r') => {
                    self.at = At::DotCr;
                    i += 1;
                }
                (At::DotCr, b'\n') => return (i + 1, true),
                (At::DotCr, _) => {
                    self.keep(b"\r", content);
                    self.at = At::Cr;
                }
                (At::Cr | At::LineStart | At::Dot, _) => self.at = At::Text,
            }
        }
        (i, false)
    }

    fn keep(&mut self, bytes: &[u8], content: &mut Vec<u8>) {
        self.len += bytes.len() as u64;
        if !self.is_over() {
            content.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stuff(parts: &[&[u8]]) -> Vec<u8> {
        WireContent::new(parts).collect::<Vec<_>>().concat()
    }

    fn unstuff(wire: &[u8], chunk: usize) -> (Vec<u8>, usize) {
        let mut reader = ContentReader::new(usize::MAX);
        let mut content = Vec::new();
        let mut used = 0;
        for piece in wire.chunks(chunk) {
            let (consumed, ended) = reader.advance(piece, &mut content);
            used += consumed;
            if ended {
                assert_eq!(reader.len(), content.len() as u64);
                return (content, used);
            }
            assert_eq!(consumed, piece.len());
        }
        panic!("no end in {:?}", String::from_utf8_lossy(wire));
    }

    /// What the other side must see: line ends made CRLF, the last one added.
    fn normal(message: &[u8]) -> Vec<u8> {
        let mut normal = Vec::new();
        let mut bytes = message.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\r' => {
                    bytes.next_if_eq(&b'\n');
                    normal.extend_from_slice(b"\r\n");
                }
                b'\n' => normal.extend_from_slice(b"\r\n"),
                other => normal.push(other),
            }
        }
        if !normal.is_empty() && !normal.ends_with(b"\r\n") {
            normal.extend_from_slice(b"\r\n");
        }
        normal
    }

    #[test]
    fn stuffed() {
        for (message, wire) in [
            ("", ".\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            ("..\r\n", "...\r\n.\r\n"),
            ("a\r\n.b\r\n", "a\r\n..b\r\n.\r\n"),
            ("a.\r\n b.c\r\n", "a.\r\n b.c\r\n.\r\n"),
            ("\r\n.\r\n", "\r\n..\r\n.\r\n"),
            ("\r\n\r\n", "\r\n\r\n.\r\n"),
            // Bare line ends are line ends of no one after this.
            ("a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r.\rb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r\r\n.b", "a\r\n\r\n..b\r\n.\r\n"),
            ("a\n\r.b", "a\r\n\r\n..b\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
            ("a\n", "a\r\n.\r\n"),
            ("\r", "\r\n.\r\n"),
        ] {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            assert_eq!(text(stuff(&[message.as_bytes()])), wire, "{message:?}");
            // One byte a part: every boundary there is.
            let bytes: Vec<&[u8]> = message.as_bytes().chunks(1).collect();
            assert_eq!(text(stuff(&bytes)), wire, "{message:?} in bytes");
        }
    }

    #[test]
    fn nothing_is_cut_or_copied_without_need() {
        let message = b"Subject: x\r\n\r\nno dots here.\r\nnone.\r\n";
        let parts: [&[u8]; 2] = [b"To: a\r\n", message];
        let pieces: Vec<_> = WireContent::new(&parts).collect();
        assert_eq!(pieces, [parts[0], parts[1], b".\r\n"]);
        assert!(std::ptr::eq(pieces[1], parts[1]));
    }

    #[test]
    fn large_messages_come_in_bounded_pieces() {
        for line in ["x".repeat(76) + "\r\n", "\r\n".into(), ".\r\n".into(), "x".into()] {
            let message = line.repeat(200_000 / line.len());
            let parts: [&[u8]; 1] = [message.as_bytes()];
            assert!(WireContent::new(&parts).all(|piece| piece.len() <= MAX_PIECE));
            let (content, _) = unstuff(&stuff(&parts), 1000);
            assert!(content == normal(message.as_bytes()), "{line:?}");
        }
    }

    #[test]
    fn only_one_end_is_an_end() {
        for (wire, content, used) in [
            (".\r\nQUIT", "", 3),
            ("a\r\n.\r\n.\r\n", "a\r\n", 6),
            ("a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", 10),
            ("a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", 11),
            ("a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n", 11),
            ("a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", 11),
            ("a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", 11),
            ("a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", 10),
            ("a\r\n..\r\n.\r\n", "a\r\n.\r\n", 10),
            ("a\r\n.b\r\n.\r\n", "a\r\nb\r\n", 10),
            ("a\r\r\n.\r\n", "a\r\r\n", 7),
        ] {
            for chunk in [1, 2, 3, 100] {
                let (read, consumed) = unstuff(wire.as_bytes(), chunk);
                assert_eq!(String::from_utf8(read).unwrap(), content, "{wire:?}");
                assert_eq!(consumed, used, "{wire:?}");
            }
        }
    }

    #[test]
    fn what_is_over_the_limit_is_counted_and_not_kept() {
        let mut reader = ContentReader::new(10);
        let mut content = Vec::new();
        let wire = format!("{}\r\n.\r\n", "x".repeat(100));
        assert_eq!(reader.advance(wire.as_bytes(), &mut content), (wire.len(), true));
        assert!(reader.is_over() && content.len() <= 10);
        assert_eq!(reader.len(), 102);
    }

    proptest! {
        #[test]
        fn what_is_stuffed_reads_back(
            message in "([\r\n.]|\r\n\\.|\r\n|a){0,40}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            chunk in 1usize..12,
        ) {
            let message = message.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
            cuts.sort_unstable();
            let mut parts = Vec::new();
            let mut from = 0;
            for cut in cuts {
                parts.push(&message[from..cut]);
                from = cut;
            }
            parts.push(&message[from..]);
            let mut wire = stuff(&parts);
            let len = wire.len();
            wire.extend_from_slice(b"QUIT\r\n");
            let (content, used) = unstuff(&wire, chunk);
            prop_assert_eq!(used, len);
            prop_assert_eq!(content, normal(message));
        }
    }
}
