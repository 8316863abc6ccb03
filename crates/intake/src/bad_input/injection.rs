//! Line ends, NUL and other control characters in every field of one line.

use serde_json::json;

use super::{Case, attachment, case, with};
use crate::{code, json::escaped};

const EVIL: [&str; 6] = [
    "x\r\nBcc: evil@example.net",
    "x\nBcc: evil@example.net",
    "x\rBcc: y",
    "x\0y",
    "x\u{85}y",
    "x\u{7f}y",
];

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for evil in EVIL {
        let header = format!("/headers/{}", escaped(evil));
        for (body, pointer, code) in [
            (with("subject", json!(evil)), "/subject", code::CONTROL_CHARACTER),
            (
                with("from", json!({"email": "a@example.com", "name": evil})),
                "/from/name",
                code::ADDRESS_INVALID,
            ),
            (
                with("from", json!(format!("{evil} <a@example.com>"))),
                "/from",
                code::ADDRESS_INVALID,
            ),
            (
                with("to", json!([{"email": "b@example.net", "name": evil}])),
                "/to/0/name",
                code::ADDRESS_INVALID,
            ),
            (
                with("cc", json!([format!("\"{evil}\" <b@example.net>")])),
                "/cc/0",
                code::ADDRESS_INVALID,
            ),
            (with("to", json!(format!("b@example.net{evil}"))), "/to", code::ADDRESS_INVALID),
            (with("bcc", json!(format!("{evil}@example.net"))), "/bcc", code::ADDRESS_INVALID),
            (
                with("reply_to", json!({"email": "b@example.net", "name": evil})),
                "/reply_to/name",
                code::ADDRESS_INVALID,
            ),
            (
                with("return_path", json!(format!("a{evil}@example.com"))),
                "/return_path",
                code::ADDRESS_INVALID,
            ),
            (with("headers", json!({"X-A": evil})), "/headers/X-A", code::CONTROL_CHARACTER),
            (with("headers", json!({(evil): "x"})), &header, code::HEADER_INVALID),
            (
                attachment("filename", json!(evil)),
                "/attachments/0/filename",
                code::ATTACHMENT_INVALID,
            ),
            (
                attachment("content_type", json!(format!("text/{evil}"))),
                "/attachments/0/content_type",
                code::ATTACHMENT_INVALID,
            ),
            (
                attachment("content_id", json!(evil)),
                "/attachments/0/content_id",
                code::ATTACHMENT_INVALID,
            ),
            (with("tags", json!([evil])), "/tags/0", code::TAG_INVALID),
            (with("pool", json!(evil)), "/pool", code::POOL_INVALID),
        ] {
            let mut case = case(&body, pointer, code);
            case.name = format!("{evil:?} at {pointer:?}");
            all.push(case);
        }
    }
    for field in ["text", "html"] {
        let pointer = format!("/{field}");
        all.push(case(&with(field, json!("a\0b")), &pointer, code::CONTROL_CHARACTER));
    }
    all
}
