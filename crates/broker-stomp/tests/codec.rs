//! The codec as tables, and against bytes that nobody foresaw.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use bytes::{Bytes, BytesMut};
use posthaste_broker_stomp::codec::{
    Command, DecodeError, Decoder, EncodeError, Frame, Headers, Limits, encode, encode_ack,
};
use proptest::prelude::*;

fn decode_all(bytes: &[u8], limits: Limits) -> Result<Vec<Frame>, DecodeError> {
    let mut decoder = Decoder::new(limits);
    let mut input = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.decode(&mut input)? {
        frames.push(frame);
    }
    Ok(frames)
}

/// The same, with the bytes arriving in pieces.
fn decode_cut(bytes: &[u8], piece: usize, limits: Limits) -> Result<Vec<Frame>, DecodeError> {
    let mut decoder = Decoder::new(limits);
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        input.extend_from_slice(piece);
        while let Some(frame) = decoder.decode(&mut input)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn small() -> Limits {
    Limits { head: 64, line: 32, headers: 3, body: 16 }
}

fn frame(command: Command, headers: &[(&str, &str)], body: &'static [u8]) -> Frame {
    Frame::new(command, headers.iter().copied().collect()).with_body(Bytes::from_static(body))
}

#[test]
fn reads() {
    use Command::{Connected, Error, Message, Receipt};
    let cases: &[(&[u8], &[Frame])] = &[
        (b"", &[]),
        (b"\n\r\n\n", &[]),
        (b"RECEIPT\nreceipt-id:1\n\n\0", &[frame(Receipt, &[("receipt-id", "1")], b"")]),
        (b"RECEIPT\r\nreceipt-id:1\r\n\r\n\0", &[frame(Receipt, &[("receipt-id", "1")], b"")]),
        (
            b"\n\nRECEIPT\n\n\0\n\r\nRECEIPT\n\n\0\n",
            &[frame(Receipt, &[], b""), frame(Receipt, &[], b"")],
        ),
        (b"MESSAGE\n\nbody\0", &[frame(Message, &[], b"body")]),
        (
            b"MESSAGE\ncontent-length:3\n\na\0b\0",
            &[frame(Message, &[("content-length", "3")], b"a\0b")],
        ),
        (b"MESSAGE\ncontent-length:0\n\n\0", &[frame(Message, &[("content-length", "0")], b"")]),
        (b"ERROR\n\n\n\0", &[frame(Error, &[], b"\n")]),
        // Escapes.
        (
            b"MESSAGE\na\\cb:\\r\\n\\c\\\\n\\\\\n\n\0",
            &[frame(Message, &[("a:b", "\r\n:\\n\\")], b"")],
        ),
        // None in CONNECTED.
        (b"CONNECTED\na:\\c\\t\n\n\0", &[frame(Connected, &[("a", "\\c\\t")], b"")]),
        // A ':' that was not escaped, blanks, an empty value.
        (
            b"MESSAGE\na:b:c\nd: e \nf:\n\n\0",
            &[frame(Message, &[("a", "b:c"), ("d", " e "), ("f", "")], b"")],
        ),
        ("MESSAGE\nä:ö\n\n\0".as_bytes(), &[frame(Message, &[("ä", "ö")], b"")]),
    ];
    for (bytes, frames) in cases {
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(decode_all(bytes, Limits::default()).as_deref(), Ok(*frames), "{shown:?}");
        for piece in 1..8 {
            let cut = decode_cut(bytes, piece, Limits::default());
            assert_eq!(cut.as_deref(), Ok(*frames), "{shown:?} in pieces of {piece}");
        }
    }
}

#[test]
fn the_first_of_a_repeated_header_counts() {
    let frames = decode_all(b"MESSAGE\na:1\na:2\nb:3\n\n\0", Limits::default()).unwrap();
    assert_eq!(frames[0].headers.get("a"), Some("1"));
    assert_eq!(frames[0].headers.len(), 3);
    assert_eq!(frames[0].headers.get("A"), None);
}

#[test]
fn refuses() {
    let cases: &[(&[u8], DecodeError)] = &[
        (b"NONSENSE\n\n\0", DecodeError::Command("NONSENSE".into())),
        (b"\rRECEIPT\n\n\0", DecodeError::Command("\rRECEIPT".into())),
        (b" \n\n\0", DecodeError::Command(" ".into())),
        (b"RECEIPT\nno colon\n\n\0", DecodeError::Header("no colon".into())),
        (b"RECEIPT\n:v\n\n\0", DecodeError::Header(":v".into())),
        (b"RECEIPT\na:\0\n\n\0", DecodeError::Header("a:\0".into())),
        (b"RECEIPT\na:\\t\n\n\0", DecodeError::Escape("\\t".into())),
        (b"RECEIPT\na:x\\\n\n\0", DecodeError::Escape("x\\".into())),
        (b"RECEIPT\na:\\\\\\\n\n\0", DecodeError::Escape("\\\\\\".into())),
        (b"RECEIPT\na:\xff\n\n\0", DecodeError::Encoding),
        (b"RECEIPT\n\nx\0", DecodeError::Body("RECEIPT")),
        (b"MESSAGE\ncontent-length:x\n\n\0", DecodeError::ContentLength("x".into())),
        (b"MESSAGE\ncontent-length:+1\n\n\0", DecodeError::ContentLength("+1".into())),
        (b"MESSAGE\ncontent-length:\n\n\0", DecodeError::ContentLength(String::new())),
        (b"MESSAGE\ncontent-length:1\n\nab\0", DecodeError::Unterminated),
        (b"MESSAGE\ncontent-length:17\n\n", DecodeError::BodyTooLong(16)),
        (b"ERROR\ncontent-length:99999999999\n\n", DecodeError::BodyTooLong(16)),
        (b"MESSAGE\n\n12345678901234567", DecodeError::BodyTooLong(16)),
        (b"MESSAGE\na:1\nb:1\nc:1\nd:1\n\n\0", DecodeError::TooManyHeaders(3)),
        (b"RECEIPT\na:1234567890123456789012345678901\n\n\0", DecodeError::LineTooLong(32)),
        (
            b"RECEIPT\na:1234567890123456789012345678901234567890123456789012345678901234",
            DecodeError::HeadTooLong(64),
        ),
    ];
    for (bytes, error) in cases {
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(decode_all(bytes, small()).as_ref(), Err(error), "{shown:?}");
        assert_eq!(decode_cut(bytes, 1, small()).as_ref(), Err(error), "{shown:?}, cut");
    }
}

#[test]
fn an_error_stays() {
    let mut decoder = Decoder::new(Limits::default());
    let mut input = BytesMut::from(&b"NONSENSE\n\n\0RECEIPT\n\n\0"[..]);
    let error = decoder.decode(&mut input).unwrap_err();
    assert_eq!(decoder.decode(&mut input), Err(error));
}

#[test]
fn a_large_body_is_a_slice_of_what_was_read() {
    let mut bytes = BytesMut::from(&b"MESSAGE\ncontent-length:100000\n\n"[..]);
    bytes.resize(bytes.len() + 100_000, b'x');
    bytes.extend_from_slice(b"\0");
    let range = bytes.as_ptr_range();
    let frame = Decoder::new(Limits::default()).decode(&mut bytes).unwrap().unwrap();
    assert_eq!(frame.body.len(), 100_000);
    assert!(range.contains(&frame.body.as_ptr()));
}

#[test]
fn writes() {
    let cases: &[(Frame, &[u8])] = &[
        (
            frame(Command::Send, &[("destination", "q")], b"a\0b"),
            b"SEND\ndestination:q\ncontent-length:3\n\na\0b\0",
        ),
        (frame(Command::Send, &[("content-length", "9")], b""), b"SEND\ncontent-length:0\n\n\0"),
        (frame(Command::Begin, &[("transaction", "t")], b""), b"BEGIN\ntransaction:t\n\n\0"),
        (
            frame(Command::Subscribe, &[("a:b", "c:d\r\ne\\")], b""),
            b"SUBSCRIBE\na\\cb:c\\cd\\r\\ne\\\\\n\n\0",
        ),
        (frame(Command::Connect, &[("login", "a:b\\")], b""), b"CONNECT\nlogin:a:b\\\n\n\0"),
    ];
    for (frame, bytes) in cases {
        let mut out = BytesMut::new();
        encode(frame, &mut out, false).unwrap();
        assert_eq!(out, bytes, "{frame:?}");
    }
    let mut out = BytesMut::new();
    encode_ack("a:1", None, &mut out);
    encode_ack("b", Some(7), &mut out);
    assert_eq!(out, &b"ACK\nid:a\\c1\n\n\0ACK\nid:b\nreceipt:7\n\n\0"[..]);
}

#[test]
fn does_not_write() {
    let unescapable = |name: &str| EncodeError::Unescapable(name.into());
    for (frame, error) in [
        (frame(Command::Connect, &[("a", "b\nc")], b""), unescapable("a")),
        (frame(Command::Connect, &[("a", "b\rc")], b""), unescapable("a")),
        (frame(Command::Connect, &[("a:b", "c")], b""), unescapable("a:b")),
        (frame(Command::Send, &[("a", "\0")], b""), unescapable("a")),
        (frame(Command::Send, &[("", "b")], b""), EncodeError::EmptyName),
        (frame(Command::Ack, &[], b"x"), EncodeError::Body("ACK")),
    ] {
        let mut out = BytesMut::new();
        assert_eq!(encode(&frame, &mut out, false), Err(error));
        assert!(out.is_empty());
    }
}

#[test]
fn a_passcode_is_not_shown() {
    let frame = frame(Command::Connect, &[("login", "me"), ("passcode", "secret")], b"");
    let shown = format!("{frame:?}");
    assert!(shown.contains("me") && !shown.contains("secret"), "{shown}");
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let text = "[^\0]{0,12}";
    let headers = proptest::collection::vec(("[^\0]{1,12}", text), 0..6);
    let body = proptest::collection::vec(any::<u8>(), 0..3000);
    (headers, body).prop_map(|(headers, body)| {
        let headers: Headers = headers
            .iter()
            .filter(|(name, _)| name != "content-length")
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Frame::new(Command::Message, headers).with_body(body.into())
    })
}

/// As it is written: the content length is the encoder's own.
fn written(frames: &[Frame]) -> (BytesMut, Vec<Frame>) {
    let mut bytes = BytesMut::new();
    let mut expected = frames.to_vec();
    for frame in &mut expected {
        encode(frame, &mut bytes, false).unwrap();
        bytes.extend_from_slice(b"\n");
        let length = frame.body.len().to_string();
        frame.headers.push("content-length", &length);
    }
    (bytes, expected)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        frames in proptest::collection::vec(any_frame(), 1..4),
        piece in 1_usize..5000,
    ) {
        let (bytes, expected) = written(&frames);
        prop_assert_eq!(decode_cut(&bytes, piece, Limits::default()), Ok(expected));
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        piece in 1_usize..300,
    ) {
        let whole = decode_all(&bytes, small());
        let cut = decode_cut(&bytes, piece, small());
        // However they are cut, the result is the same, but for where a bound is noticed first.
        if let Ok(frames) = whole {
            prop_assert_eq!(cut, Ok(frames));
        }
    }

    #[test]
    fn mutated_frames_are_survived(
        frames in proptest::collection::vec(any_frame(), 1..3),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..8),
        piece in 1_usize..300,
    ) {
        let (bytes, _) = written(&frames);
        let mut bytes = bytes.to_vec();
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        let limits = Limits { head: 200, line: 100, headers: 5, body: 2000 };
        for frame in decode_cut(&bytes, piece, limits).unwrap_or_default() {
            prop_assert!(frame.headers.len() <= 5 && frame.body.len() <= 2000);
        }
    }
}
