//! A small HTTP client for the API of a running Posthaste.

use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, body::Bytes, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 64 << 20;

/// Speaks to one server.
#[derive(Debug)]
pub struct ApiClient {
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    base: String,
    token: Option<String>,
}

impl ApiClient {
    /// `base` is `http://host:port`.
    pub fn new(base: &str, token: Option<String>) -> anyhow::Result<Self> {
        let uri: Uri = base.parse().with_context(|| format!("{base:?} is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            bail!("{base:?}: the server must be given as http://HOST:PORT");
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// Sends a request with an optional JSON body; gives status and JSON.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            None => Bytes::new(),
            Some(value) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                serde_json::to_vec(value)?.into()
            }
        };
        let exchange = async {
            let response = self.client.request(request.body(Full::new(bytes))?).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
            let value = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
            anyhow::Ok((status, value))
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .with_context(|| format!("{} did not answer within {TIMEOUT:?}", self.base))?
            .with_context(|| format!("failed to call {}{path}", self.base))
    }

    /// Submits one submission or an array of them.
    pub async fn submit(&self, submission: &Value) -> anyhow::Result<Value> {
        let (status, answer) = self.call(Method::POST, "/v1/submissions", Some(submission)).await?;
        if status == StatusCode::ACCEPTED {
            return Ok(answer);
        }
        bail!("the submission was refused with {status}:\n{}", problem(&answer))
    }

    /// What is known of a submission; `None` when nothing is, yet.
    pub async fn submission(&self, id: &str) -> anyhow::Result<Option<Value>> {
        match self.call(Method::GET, &format!("/v1/submissions/{id}"), None).await? {
            (StatusCode::OK, answer) => Ok(Some(answer)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, answer) => bail!("asked for {id}, got {status}:\n{}", problem(&answer)),
        }
    }
}

/// An RFC 9457 answer as text.
fn problem(answer: &Value) -> String {
    let mut text = answer["detail"].as_str().or(answer["title"].as_str()).unwrap_or("").to_owned();
    for error in answer["errors"].as_array().into_iter().flatten() {
        let part = |key: &str| error[key].as_str().unwrap_or("").to_owned();
        text.push_str(&format!("\n  {}: {}", part("pointer"), part("detail")));
    }
    text
}
