//! Requests in which something around the body is wrong.

use std::io::Write;

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use posthaste_intake::bad_input;

/// What is sent, and what must come.
#[derive(Debug)]
pub struct Exchange {
    pub name: String,
    pub parts: Vec<Vec<u8>>,
    /// Whether the sender says that no more comes.
    pub ends_early: bool,
    /// Whether the answer comes when the server has waited.
    pub is_slow: bool,
    pub expected: Expected,
}

#[derive(Debug)]
pub enum Expected {
    /// A problem with this code.
    Problem(u16, &'static str),
    /// A status alone: what is no HTTP is refused before there is a request.
    Status(u16),
    /// The end of the connection.
    Closed,
}

use Expected::{Closed, Problem, Status};

const JSON: &str = "Content-Type: application/json\r\n";
/// Above the body's bound.
const LARGE: usize = (32 << 20) + 1;

pub fn exchanges() -> Result<Vec<Exchange>> {
    let mut all = media_types();
    all.extend(paths());
    all.extend(keys());
    all.extend(ends());
    all.extend(sizes()?);
    all.extend(not_http());
    Ok(all)
}

fn exchange(name: impl Into<String>, parts: Vec<Vec<u8>>, expected: Expected) -> Exchange {
    Exchange { name: name.into(), parts, ends_early: false, is_slow: false, expected }
}

/// A submission that is good but for its header fields.
fn post(fields: &str) -> Vec<u8> {
    request("POST /v1/submissions", fields, bad_input::good().to_string().as_bytes())
}

fn request(line: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn head(fields: &str) -> Vec<u8> {
    format!("POST /v1/submissions HTTP/1.1\r\nHost: localhost\r\n{JSON}{fields}\r\n").into_bytes()
}

fn media_types() -> Vec<Exchange> {
    let mut all = Vec::new();
    for kind in [
        "",
        "Content-Type: \r\n",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/jsonx\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=x\r\n",
        "Content-Type: text/html, application/json\r\n",
    ] {
        let expected = Problem(415, "unsupported_media_type");
        all.push(exchange(format!("{kind:?}"), vec![post(kind)], expected));
    }
    for encoding in ["br", "deflate", "gzip, gzip", "chunked", "", "*"] {
        let fields = format!("{JSON}Content-Encoding: {encoding}\r\n");
        let expected = Problem(415, "unsupported_encoding");
        all.push(exchange(format!("encoding {encoding:?}"), vec![post(&fields)], expected));
    }
    for encoding in ["gzip", "zstd"] {
        let fields = format!("{JSON}Content-Encoding: {encoding}\r\n");
        let expected = Problem(400, "encoding_broken");
        all.push(exchange(format!("not {encoding}"), vec![post(&fields)], expected));
    }
    all
}

fn paths() -> Vec<Exchange> {
    let body = bad_input::good().to_string();
    let cases = [
        ("POST /v1/submissions/", 404, "not_found"),
        ("POST /v1/submission", 404, "not_found"),
        ("POST /v2/submissions", 404, "not_found"),
        ("POST /v1/../v1/submissions", 404, "not_found"),
        ("GET /v1/submissions/nonsense", 404, "not_found"),
        ("GET /v1/messages/%00", 404, "not_found"),
        ("PUT /v1/submissions", 405, "method_not_allowed"),
        ("BREW /v1/submissions", 405, "method_not_allowed"),
        ("POST /v1/pools", 405, "method_not_allowed"),
        ("POST /v1/submissions?dry_run=1", 400, "unknown_parameter"),
        ("POST /v1/submissions?mode=lenient", 400, "parameter_invalid"),
        ("POST /v1/submissions?mode=strict&mode=permissive", 400, "parameter_invalid"),
    ];
    cases
        .map(|(line, status, code)| {
            exchange(line, vec![request(line, JSON, body.as_bytes())], Problem(status, code))
        })
        .into()
}

fn keys() -> Vec<Exchange> {
    let long = "x".repeat(257);
    let keys = ["", " ", "a b", "a\tb", "\u{fc}", &long];
    let mut all = Vec::new();
    for key in keys {
        let fields = format!("{JSON}Idempotency-Key: {key}\r\n");
        let expected = Problem(400, "idempotency_key_invalid");
        let name: String = format!("key {key:?}").chars().take(40).collect();
        all.push(exchange(name, vec![post(&fields)], expected));
    }
    let twice = format!("{JSON}Idempotency-Key: a\r\nIdempotency-Key: a\r\n");
    all.push(exchange("two keys", vec![post(&twice)], Problem(400, "idempotency_key_invalid")));
    all
}

/// Bodies that are slow, or end before their end.
fn ends() -> Vec<Exchange> {
    let body = bad_input::good().to_string();
    let longer = format!("Content-Length: {}\r\n", body.len() + 1);
    let whole = [head(&longer), body.clone().into_bytes()];
    let chunk = format!("{:x}\r\n{body}\r\n", body.len()).into_bytes();
    let chunked = head("Transfer-Encoding: chunked\r\n");
    let incomplete = || Problem(400, "body_incomplete");
    let early = |name: &str, parts: Vec<Vec<u8>>| Exchange {
        ends_early: true,
        ..exchange(name, parts, incomplete())
    };
    let slow = |name: &str, parts: Vec<Vec<u8>>, expected| Exchange {
        is_slow: true,
        ..exchange(name, parts, expected)
    };
    vec![
        early("a body that ends a byte early", whole.to_vec()),
        early("no body where one was announced", vec![head(&longer)]),
        early("chunks without the last", vec![chunked.clone(), chunk.clone()]),
        early("half a chunk", vec![chunked.clone(), chunk[..20].to_vec()]),
        exchange("a chunk without a size", vec![chunked.clone(), b"x\r\n".to_vec()], incomplete()),
        exchange(
            "a chunk without its end",
            vec![chunked.clone(), [&chunk[..chunk.len() - 2], b"xx"].concat()],
            incomplete(),
        ),
        slow("a body that stops", whole.to_vec(), Problem(408, "body_timeout")),
        slow("chunks that stop", vec![chunked, chunk], Problem(408, "body_timeout")),
        slow("a head that stops", vec![b"POST /v1/subm".to_vec()], Closed),
        slow("nothing", vec![], Closed),
    ]
}

fn sizes() -> Result<Vec<Exchange>> {
    let zeros = vec![0; 256 << 20];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&zeros)?;
    let bombs = [("gzip", gzip.finish()?), ("zstd", zstd::encode_all(&*zeros, 1)?)];
    drop(zeros);
    let large = || Problem(413, "body_too_large");
    let mut all = vec![
        exchange(
            "announced too large",
            vec![head(&format!("Content-Length: {LARGE}\r\n"))],
            large(),
        ),
        exchange(
            "announced beyond all",
            vec![head("Content-Length: 18446744073709551612\r\n")],
            large(),
        ),
        exchange(
            "announced beyond any number",
            vec![head("Content-Length: 18446744073709551616\r\n")],
            Status(400),
        ),
        exchange(
            "chunks without end",
            vec![
                head("Transfer-Encoding: chunked\r\n"),
                format!("{LARGE:x}\r\n").into_bytes(),
                vec![b' '; LARGE],
            ],
            large(),
        ),
    ];
    for (encoding, bomb) in bombs {
        let fields = format!("{JSON}Content-Encoding: {encoding}\r\n");
        let parts = vec![request("POST /v1/submissions", &fields, &bomb)];
        all.push(exchange(format!("a bomb of {encoding}"), parts, large()));
    }
    Ok(all)
}

fn not_http() -> Vec<Exchange> {
    let body = bad_input::good().to_string();
    let long = format!("X: {}\r\n", "x".repeat(40_000));
    let many = "X: y\r\n".repeat(200);
    let negative = head("Content-Length: -1\r\n");
    let two = head("Content-Length: 5\r\nContent-Length: 6\r\n");
    let folded = format!("{JSON}X: a\r\n b\r\n");
    let space = format!("{JSON}X : a\r\n");
    let nul = format!("{JSON}X: a\0b\r\n");
    vec![
        exchange("SMTP", vec![b"EHLO localhost\r\nMAIL FROM:<>\r\n\r\n".to_vec()], Status(400)),
        exchange(
            "a TLS hello",
            vec![b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()],
            Status(400),
        ),
        exchange("a long head", vec![post(&format!("{JSON}{long}"))], Status(431)),
        exchange("many header fields", vec![post(&format!("{JSON}{many}"))], Status(431)),
        exchange("a negative length", vec![negative, body.clone().into_bytes()], Status(400)),
        exchange("two lengths", vec![two, body.into_bytes()], Status(400)),
        exchange("a folded header field", vec![post(&folded)], Status(400)),
        exchange("a space before the colon", vec![post(&space)], Status(400)),
        exchange("a NUL in a header field", vec![post(&nul)], Status(400)),
    ]
}
