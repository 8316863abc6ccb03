//! Errors as the client gets them (RFC 9457).
//!
//! `type` is `about:blank`, so that `title` is the phrase of the status
//! (RFC 9457 section 4.2.1); `code` tells causes apart, for programs, and is
//! stable. `errors` names the fields.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use posthaste_intake::{FieldError, IntakeError};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    /// One an item, of a permissive request of which nothing was accepted.
    results: Option<Box<RawValue>>,
    retry_after: Option<Duration>,
    close: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<&'a RawValue>,
}

/// What an item of a permissive request is told: a problem without the parts
/// that a whole answer has.
#[derive(Serialize)]
struct ItemDocument<'a> {
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    pointer: &'a str,
    code: &'static str,
    detail: &'a str,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            results: None,
            retry_after: None,
            close: false,
        }
    }

    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(crate) fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(crate) fn forbidden(code: &'static str, detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(retry_after)
    }

    pub(crate) const fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub(crate) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    pub(crate) fn with_results(mut self, results: Option<Box<RawValue>>) -> Self {
        self.results = results;
        self
    }

    fn entries(&self) -> Vec<Entry<'_>> {
        let entries = self.errors.iter().map(|error| Entry {
            pointer: &error.pointer,
            code: error.code,
            detail: &error.detail,
        });
        entries.collect()
    }

    /// Ends the connection: what is left of the request is not wanted.
    pub(crate) const fn close(mut self) -> Self {
        self.close = true;
        self
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1.
            let challenge = HeaderValue::from_static("Bearer realm=\"posthaste\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.code == "unsupported_encoding" {
            // RFC 9110 section 15.5.16: what would be taken.
            let known = HeaderValue::from_static("gzip, zstd, identity");
            headers.insert(header::ACCEPT_ENCODING, known);
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// The codes for the metrics: that of each field, or our own.
    pub(crate) fn codes(&self) -> impl Iterator<Item = &'static str> {
        let own = self.errors.is_empty().then_some(self.code);
        self.errors.iter().map(|error| error.code).chain(own)
    }
}

impl From<IntakeError> for Problem {
    fn from(error: IntakeError) -> Self {
        let (status, code, errors) = match error {
            IntakeError::Invalid(errors) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_submission", errors)
            }
            IntakeError::Forbidden(errors) => (StatusCode::FORBIDDEN, "not_allowed", errors),
            IntakeError::TooLarge(errors) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", errors),
            IntakeError::Unavailable { detail, retry_after } => {
                let detail = format!("{detail}; whether it was taken is unknown: send it again");
                return Self::unavailable(detail, retry_after);
            }
        };
        let detail = match errors.as_slice() {
            [one] if one.pointer.is_empty() => format!("the request {}", one.detail),
            [one] => one.to_string(),
            several => format!("{} errors; nothing was accepted", several.len()),
        };
        Self::new(status, code, detail).with_errors(errors)
    }
}

impl Serialize for Problem {
    /// As an item of a permissive request has it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = ItemDocument {
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            errors: self.entries(),
        };
        document.serialize(serializer)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            errors: self.entries(),
            results: self.results.as_deref(),
        };
        // Texts and numbers: writing them to memory cannot fail.
        let json = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(json));
        *response.status_mut() = self.status;
        self.write_headers(response.headers_mut());
        response
    }
}
