//! Bodies that come compressed, and what they could do to a server.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use posthaste_api::ApiConfig;
use serde_json::json;

use crate::{
    client::Answer,
    server::{Server, mail},
};

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::encode_all(body, 3).unwrap()
}

async fn post(server: &Server, encoding: &str, body: &[u8]) -> Answer {
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", encoding)];
    server.ask("POST", "/v1/submissions", &headers, body).await
}

#[tokio::test]
async fn both_are_taken() {
    let server = Server::start(ApiConfig::default()).await;
    let mut body = mail();
    body["attachments"] = json!([{"content": "QUJD".repeat(1 << 20)}]);
    for body in [mail().to_string(), body.to_string()] {
        let body = body.as_bytes();
        let halves = [gzip(&body[..20]), gzip(&body[20..])].concat();
        let frames = [zstd(&body[..20]), zstd(&body[20..])].concat();
        for (encoding, compressed) in [
            ("gzip", gzip(body)),
            ("x-gzip", gzip(body)),
            ("GZIP", halves),
            ("zstd", zstd(body)),
            ("Zstd", frames),
            ("identity", body.to_vec()),
        ] {
            let answer = post(&server, encoding, &compressed).await;
            assert_eq!(answer.status, 202, "{encoding}: {answer:?}");
        }
    }
    assert_eq!(server.broker.batches().len(), 12);
}

#[tokio::test]
async fn a_bomb_is_put_out_at_the_bound() {
    // Room for one body of the largest size: a bomb that took more, or did
    // not give back what it took, would leave none for the next.
    let config = ApiConfig {
        body_bytes: 1 << 20,
        inflight_bytes: 3 << 20,
        inflight_wait: std::time::Duration::from_millis(200),
        ..ApiConfig::default()
    };
    let server = Server::start(config).await;
    let zeros = vec![0; 256 << 20];
    let bombs = [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros))];
    drop(zeros);
    for (encoding, bomb) in &bombs {
        assert!(bomb.len() < 1 << 20);
        for _ in 0..3 {
            let answer = post(&server, encoding, bomb).await;
            assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
        }
    }
    // The bound is that of what comes out.
    let padded =
        |bytes: usize| format!("{}{}", mail(), " ".repeat(bytes - mail().to_string().len()));
    for (bytes, status) in [(1 << 20, 202), ((1 << 20) + 1, 413)] {
        assert_eq!(post(&server, "gzip", &gzip(padded(bytes).as_bytes())).await.status, status);
        assert_eq!(post(&server, "zstd", &zstd(padded(bytes).as_bytes())).await.status, status);
    }
}

#[tokio::test]
async fn what_is_broken_is_a_bad_request() {
    let server = Server::start(ApiConfig::default()).await;
    let body = mail().to_string();
    let (gzipped, zstandard) = (gzip(body.as_bytes()), zstd(body.as_bytes()));
    let with_tail = |bytes: &[u8]| [bytes, b"more"].concat();
    let mut flipped = gzipped.clone();
    let crc = flipped.len() - 6;
    flipped[crc] ^= 1;
    // A frame that asks for a window of 128 MiB.
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(body.as_bytes()).unwrap();
    let wide = wide.finish().unwrap();
    for (encoding, body) in [
        ("gzip", body.as_bytes()),
        ("gzip", b"\x1f\x8b"),
        ("gzip", &gzipped[..gzipped.len() / 2]),
        ("gzip", &gzipped[..gzipped.len() - 1]),
        ("gzip", &with_tail(&gzipped)),
        ("gzip", &flipped),
        ("gzip", &zstandard),
        ("zstd", body.as_bytes()),
        ("zstd", &zstandard[..zstandard.len() - 1]),
        ("zstd", &with_tail(&zstandard)),
        ("zstd", &gzipped),
        ("zstd", &wide),
    ] {
        let answer = post(&server, encoding, body).await;
        assert_eq!(answer.status, 400, "{encoding}: {answer:?}");
        assert_eq!(answer.problem(), "encoding_broken");
    }
    for encoding in ["br", "deflate", "compress", "gzip, zstd", "gzip, gzip", "", "*"] {
        let answer = post(&server, encoding, &gzipped).await;
        assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported_encoding"));
        assert_eq!(answer.header("accept-encoding"), "gzip, zstd, identity");
    }
    assert!(server.nothing_was_published());
}
