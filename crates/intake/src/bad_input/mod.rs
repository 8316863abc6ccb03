//! Every kind of bad input, as a table: what is sent, and what is answered.
//!
//! For the tests of this crate and of what stands in front of it (feature
//! `cases`). The table holds for default limits, any pool, and a submitter
//! who may send as anybody. Each case has one thing wrong, so that there is
//! one error, and leaves nothing behind.

mod bytes;
mod content;
mod fields;
mod individual;
mod injection;
mod raw;

use posthaste_model::Timestamp;
use serde_json::{Value, json};

/// One bad request and its answer.
#[derive(Debug, Clone)]
pub struct Case {
    /// For the report; unique.
    pub name: String,
    /// The body of the request.
    pub body: Vec<u8>,
    /// Of the answer: 400, 413 or 422.
    pub status: u16,
    /// Of the one entry in `errors`; `None` where there is none, because the
    /// body is not JSON.
    pub pointer: Option<String>,
    /// Of that entry, or of the answer.
    pub code: &'static str,
}

/// All cases, of which some name times around `now`. A few bodies are large:
/// 40 MiB in all.
#[must_use]
pub fn cases(now: Timestamp) -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(fields::cases(now.as_millis() / 1000));
    all.extend(content::cases());
    all.extend(injection::cases());
    all.extend(raw::cases());
    all.extend(individual::cases());
    all.extend(bytes::cases());
    // Names may come twice above: a number makes them unique.
    for (number, case) in all.iter_mut().enumerate() {
        case.name = format!("{number:03} {}", case.name);
    }
    all
}

/// The request that each case spoils.
#[must_use]
pub fn good() -> Value {
    json!({"from": "a@example.com", "to": ["b@example.net"], "text": "hello"})
}

/// A case in which a field of JSON is wrong.
fn case(body: &Value, pointer: &str, code: &'static str) -> Case {
    let bytes = body.to_string().into_bytes();
    let status = match code {
        crate::code::CONTENT_TOO_LARGE | crate::code::ADDRESSES_TOO_LARGE => 413,
        _ => 422,
    };
    let name = format!("{code} at {:?}", pointer.chars().take(60).collect::<String>());
    Case { name, body: bytes, status, pointer: Some(pointer.to_owned()), code }
}

/// [`good`] with one field set.
fn with(field: &str, value: Value) -> Value {
    let mut request = good();
    if let Some(fields) = request.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
    request
}

fn without(field: &str) -> Value {
    let mut request = good();
    if let Some(fields) = request.as_object_mut() {
        fields.remove(field);
    }
    request
}

/// [`good`] with an attachment of which one field is set.
fn attachment(field: &str, value: Value) -> Value {
    let mut one = json!({"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"});
    if let Some(fields) = one.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
    with("attachments", json!([one]))
}

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}
