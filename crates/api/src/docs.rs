//! The description of the API for programs, and a reader of it for people.
//! Both are in the binary: neither needs a network.

use axum::{
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};

/// `OpenAPI` 3.1, kept by hand; tests hold it equal to the routes and to the
/// fields of a submission.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");
const READER: &str = include_str!("docs.html");
/// The page loads nothing but the description.
const POLICY: &str = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; \
                      script-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
const NOSNIFF: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");

/// `GET /openapi.json`.
pub(crate) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json"), NOSNIFF], OPENAPI).into_response()
}

/// `GET /docs`.
pub(crate) async fn reader() -> Response {
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    ([kind, (header::CONTENT_SECURITY_POLICY, POLICY), NOSNIFF], READER).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::router::ROUTES;

    #[test]
    fn every_route_is_described_and_no_other() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let paths: BTreeSet<_> =
            document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(paths, BTreeSet::from(ROUTES));
    }
}
