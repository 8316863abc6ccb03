//! Messages that the submitter has built.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Case, case, long};
use crate::code;

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let good = "From: a@example.com\r\nSubject: S\r\n\r\nhello\r\n";
    for (field, value, pointer) in [
        ("from", json!("a@example.com"), "/from"),
        ("reply_to", json!("a@example.com"), "/reply_to"),
        ("subject", json!(""), "/subject"),
        ("text", json!(""), "/text"),
        ("html", json!("x"), "/html"),
        ("headers", json!({"X-A": "1"}), "/headers"),
        ("attachments", json!([{"content": ""}]), "/attachments"),
        ("substitutions", json!({}), "/substitutions"),
        ("to", json!([{"email": "b@example.net", "substitutions": {}}]), "/to"),
    ] {
        all.push(case(&raw_with(good, field, value), pointer, code::NOT_WITH_RAW));
    }
    for field in ["to", "cc", "bcc"] {
        all.push(case(
            &raw_with(good, field, json!("b@")),
            &format!("/{field}"),
            code::ADDRESS_INVALID,
        ));
    }
    all.push(case(&raw_with(good, "to", json!([])), "/to", code::REQUIRED));
    for (given, code) in [
        (json!(5), code::TYPE_MISMATCH),
        (json!(["x"]), code::TYPE_MISMATCH),
        (json!("From: a@example.com"), code::BASE64_INVALID),
        (json!("RnJvbTogYUBleGFtcGxlLmNvbQ"), code::BASE64_INVALID),
        (json!("RnJv\nbTog"), code::BASE64_INVALID),
        (json!(""), code::RAW_INVALID),
    ] {
        all.push(case(&json!({"to": "b@example.net", "raw": given}), "/raw", code));
    }
    for raw in broken() {
        let mut case = case(&self::raw(&raw), "/raw", code::RAW_INVALID);
        let start: String = raw.chars().take(60).collect();
        case.name = format!("raw {start:?}");
        all.push(case);
    }
    let latin = STANDARD.encode(b"From: a@example.com\r\nX: \xe4\r\n\r\n");
    all.push(case(&json!({"to": "b@example.net", "raw": latin}), "/raw", code::RAW_INVALID));
    all
}

fn raw(text: &str) -> Value {
    json!({"to": "b@example.net", "raw": STANDARD.encode(text)})
}

fn raw_with(text: &str, field: &str, value: Value) -> Value {
    let mut request = raw(text);
    if let Some(fields) = request.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
    request
}

fn broken() -> Vec<String> {
    let from = "From: a@example.com\r\n";
    vec![
        "hello".to_owned(),
        "\r\n\r\nhello".to_owned(),
        "Subject: no author\r\n\r\nx".to_owned(),
        format!("{from}{from}\r\nx"),
        format!("{from}FROM: b@example.com\r\n\r\nx"),
        "From: a@example.com, b@example.com\r\n\r\n".to_owned(),
        "From: Friends: a@example.com;\r\n\r\n".to_owned(),
        "From: <>\r\n\r\n".to_owned(),
        "From: a@\r\n\r\n".to_owned(),
        "From: \r\n\r\n".to_owned(),
        format!("{from}Sender: nonsense\r\n\r\n"),
        format!("{from}Subject: a\r\nSubject: b\r\n\r\n"),
        format!("{from}To: a@b.example\r\nTo: b@b.example\r\n\r\n"),
        format!("{from}Bcc : hidden@example.net\r\n\r\n"),
        format!("{from}X: y\r\n \r\nBcc: hidden@example.net\r\n\r\n"),
        format!("{from}no field\r\n\r\n"),
        format!("From a@example.com Tue Nov 24 16:00:00 2026\r\n{from}\r\n"),
        format!("{from}\r\nbare LF\nhere\r\n"),
        format!("{from}\r\n.\n\r\nMAIL FROM:<x@example.com>\r\n"),
        format!("{from}\r\nbare CR\rhere\r\n"),
        format!("{from}\r\nat the end\r"),
        format!("{from}\r\na NUL\0\r\n"),
        format!("{from}X: a NUL\0\r\n\r\n"),
        format!("{from}\r\n{}\r\n", long(999)),
        format!("{from}X: {}\r\n\r\n", long(999)),
        format!("{from}{}\r\n", "X: y\r\n".repeat(1001)),
    ]
}
