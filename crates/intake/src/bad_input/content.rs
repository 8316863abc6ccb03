//! What a message is made of: texts, header fields, attachments.

use serde_json::{Map, Value, json};

use super::{Case, attachment, case, long, with, without};
use crate::code;

pub(super) fn cases() -> Vec<Case> {
    let table = [
        // Content.
        (without("text"), "", code::REQUIRED),
        (with("subject", json!(long(999))), "/subject", code::TOO_LONG),
        (with("text", json!(long((25 << 20) + 1))), "", code::CONTENT_TOO_LARGE),
        // Header fields.
        (with("headers", json!(many_headers(101))), "/headers", code::TOO_MANY),
        (with("headers", json!({"X-A": vec!["v"; 101]})), "/headers/X-A", code::TOO_MANY),
        (with("headers", json!({"X-A": long(9000)})), "/headers/X-A", code::TOO_LONG),
        (with("headers", json!({"X-A": long(1000)})), "/headers/X-A", code::HEADER_INVALID),
        (
            with("headers", json!({"List-Unsubscribe": "<https://ü.example>"})),
            "/headers/List-Unsubscribe",
            code::HEADER_INVALID,
        ),
        (
            with("headers", json!({"Sender": "a@example.com, b@example.com"})),
            "/headers/Sender",
            code::HEADER_INVALID,
        ),
        (
            with("headers", json!({"References": ["<a@b>", "<c@d>"]})),
            "/headers/References/1",
            code::HEADER_INVALID,
        ),
        (
            with("headers", json!({"DKIM-Signature": "v=1"})),
            "/headers/DKIM-Signature",
            code::HEADER_RESERVED,
        ),
        (with("headers", json!(["X"])), "/headers", code::TYPE_MISMATCH),
        (with("headers", json!({"X-A": 5})), "/headers/X-A", code::TYPE_MISMATCH),
        (with("headers", json!({"X-A": null})), "/headers/X-A", code::TYPE_MISMATCH),
        (with("headers", json!({"X-A": ["ok", 5]})), "/headers/X-A/1", code::TYPE_MISMATCH),
        (
            with("headers", json!({"X-A": ["ok", "a\nb"]})),
            "/headers/X-A/1",
            code::CONTROL_CHARACTER,
        ),
        (with("headers", json!({"X-A": "x", "x-a": "y"})), "/headers/x-a", code::DUPLICATE_FIELD),
        (with("headers", json!({"X A": "x"})), "/headers/X A", code::HEADER_INVALID),
        (with("headers", json!({"": "x"})), "/headers/", code::HEADER_INVALID),
        (with("headers", json!({"X:": "x"})), "/headers/X:", code::HEADER_INVALID),
        (with("headers", json!({"X-Ü": "x"})), "/headers/X-Ü", code::HEADER_INVALID),
        (with("headers", json!({"bcc": "c@example.net"})), "/headers/bcc", code::HEADER_RESERVED),
        (
            with("headers", json!({"Message-ID": "<x@y>"})),
            "/headers/Message-ID",
            code::HEADER_RESERVED,
        ),
        (
            with("headers", json!({"Content-Type": "x/y"})),
            "/headers/Content-Type",
            code::HEADER_RESERVED,
        ),
        (with("headers", json!({"X-A": long(70_000)})), "/headers", code::TOO_LONG),
        // Attachments.
        (
            with("attachments", json!(vec![json!({"content": ""}); 101])),
            "/attachments",
            code::TOO_MANY,
        ),
        (
            attachment("content_type", json!("message/rfc822\u{e4}")),
            "/attachments/0/content_type",
            code::ATTACHMENT_INVALID,
        ),
        (with("attachments", json!({})), "/attachments", code::TYPE_MISMATCH),
        (with("attachments", json!([5])), "/attachments/0", code::TYPE_MISMATCH),
        (with("attachments", json!([{}])), "/attachments/0/content", code::REQUIRED),
        (attachment("content", json!(null)), "/attachments/0/content", code::REQUIRED),
        (attachment("content", json!("aGVsbG8")), "/attachments/0/content", code::BASE64_INVALID),
        (
            attachment("content", json!("aGVs\nbG8=")),
            "/attachments/0/content",
            code::BASE64_INVALID,
        ),
        (attachment("content", json!("aGVsbG8= ")), "/attachments/0/content", code::BASE64_INVALID),
        (attachment("content", json!("-_-_")), "/attachments/0/content", code::BASE64_INVALID),
        (attachment("content", json!("aGVsbG9=")), "/attachments/0/content", code::BASE64_INVALID),
        (attachment("content", json!(null)), "/attachments/0/content", code::REQUIRED),
        (attachment("content", json!(5)), "/attachments/0/content", code::TYPE_MISMATCH),
        (
            attachment("content_type", json!("text")),
            "/attachments/0/content_type",
            code::ATTACHMENT_INVALID,
        ),
        (
            attachment("content_type", json!("text/plain\r\nX: y")),
            "/attachments/0/content_type",
            code::ATTACHMENT_INVALID,
        ),
        (attachment("filename", json!("")), "/attachments/0/filename", code::ATTACHMENT_INVALID),
        (
            attachment("filename", json!("a\r\nb")),
            "/attachments/0/filename",
            code::ATTACHMENT_INVALID,
        ),
        (
            attachment("filename", json!(long(300))),
            "/attachments/0/filename",
            code::ATTACHMENT_INVALID,
        ),
        (
            attachment("content_id", json!("a>\r\nX: y")),
            "/attachments/0/content_id",
            code::ATTACHMENT_INVALID,
        ),
        (
            with(
                "attachments",
                json!([{"content": "", "content_id": "a"}, {"content": "", "content_id": "a"}]),
            ),
            "/attachments/1/content_id",
            code::ATTACHMENT_INVALID,
        ),
        (attachment("data", json!("")), "/attachments/0/data", code::UNKNOWN_FIELD),
    ];
    table.iter().map(|(body, pointer, code)| case(body, pointer, code)).collect()
}

fn many_headers(count: usize) -> Map<String, Value> {
    (0..count).map(|n| (format!("X-{n}"), json!("v"))).collect()
}
