//! What is no JSON, and what a writer of JSON does not write: broken text,
//! nesting without end, the same name twice.

use super::{Case, good};
use crate::code;

pub(super) fn cases() -> Vec<Case> {
    let mut all: Vec<Case> =
        not_json().into_iter().map(|(name, body)| syntax(name, body)).collect();
    let base = good().to_string();
    let open = base.trim_end_matches('}');
    for (body, pointer, code) in [
        (format!("{open}, \"text\": \"again\"}}"), "/text", code::DUPLICATE_FIELD),
        (
            format!("{open}, \"headers\": {{\"X-A\": \"1\", \"X-A\": \"2\"}}}}"),
            "/headers/X-A",
            code::DUPLICATE_FIELD,
        ),
        (
            r#"{"from": {"email": "a@example.com", "email": "b@example.com"}, "to": "b@example.net", "text": ""}"#.to_owned(),
            "/from/email",
            code::DUPLICATE_FIELD,
        ),
        (
            format!("{open}, \"x\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
            "/x",
            code::UNKNOWN_FIELD,
        ),
        (
            format!("{open}, \"x\": {}0{}}}", "{\"a\":".repeat(100_000), "}".repeat(100_000)),
            "/x",
            code::UNKNOWN_FIELD,
        ),
        (format!("{open}, \"tags\": {}{}}}", "[".repeat(100), "]".repeat(100)), "/tags/0", code::TYPE_MISMATCH),
    ] {
        all.push(Case {
            name: format!("{code} at {pointer:?}"),
            body: body.into_bytes(),
            status: 422,
            pointer: Some(pointer.to_owned()),
            code,
        });
    }
    all
}

fn syntax(name: &str, body: Vec<u8>) -> Case {
    Case {
        name: name.to_owned(),
        body,
        status: 400,
        pointer: None,
        // That of the answer, which is the API's.
        code: "json_syntax",
    }
}

fn not_json() -> Vec<(&'static str, Vec<u8>)> {
    let base = good().to_string();
    let half = base.as_bytes().get(..base.len() / 2).unwrap_or_default();
    vec![
        ("no body", Vec::new()),
        ("a brace", b"{".to_vec()),
        ("half a request", half.to_vec()),
        ("an open string", b"{\"from\": \"a@b".to_vec()),
        ("no colon", b"{\n\"from\" 5}".to_vec()),
        ("something behind it", b"{} x".to_vec()),
        ("two requests", format!("{base}{base}").into_bytes()),
        ("single quotes", b"{'from': 1}".to_vec()),
        ("a comma too many", b"{\"from\": 1,}".to_vec()),
        ("a comment", b"{} // x".to_vec()),
        ("broken UTF-8 in a value", b"{\"from\": \"\xff\"}".to_vec()),
        ("broken UTF-8 in a name", b"{\"\xff\": 1}".to_vec()),
        ("overlong UTF-8", b"{\"subject\": \"\xc0\xaf\"}".to_vec()),
        ("a surrogate in UTF-8", b"{\"subject\": \"\xed\xa0\x80\"}".to_vec()),
        ("cut UTF-8", b"{\"subject\": \"\xe2\x82\"}".to_vec()),
        ("a lone surrogate", b"{\"subject\": \"\\ud800\"}".to_vec()),
        ("surrogates the wrong way round", b"{\"subject\": \"\\udc00\\ud800\"}".to_vec()),
        ("a bare line end in a string", b"{\"subject\": \"a\nb\"}".to_vec()),
        ("a bare NUL in a string", b"{\"subject\": \"a\0b\"}".to_vec()),
        ("a zero in front", b"{\"priority\": 01}".to_vec()),
        ("a number beyond all", b"{\"priority\": 1e999}".to_vec()),
        ("not a number", b"{\"priority\": NaN}".to_vec()),
        ("infinity", b"{\"delay\": -Infinity}".to_vec()),
        ("hexadecimal", b"{\"priority\": 0x5}".to_vec()),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("UTF-16", base.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a form", b"from=a%40example.com&to=b%40example.net".to_vec()),
        ("lists without end", b"[".repeat(200_000)),
        ("objects without end", b"{\"x\":".repeat(200_000)),
        ("known objects without end", b"{\"to\":".repeat(200_000)),
        ("both without end", b"{\"to\":[[".repeat(200_000)),
        ("zeros", vec![0; 1000]),
    ]
}
