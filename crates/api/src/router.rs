//! Which handler answers what, and what all of them have in common.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use posthaste_intake::Principal;
use tokio_util::sync::CancellationToken;

use crate::{
    body::Inflight,
    config::{ApiConfig, ApiState},
    docs, health,
    metrics::Counted,
    pools,
    problem::Problem,
    submissions, submit,
};

const SUBMISSIONS: &str = "/v1/submissions";
const SUBMISSION: &str = "/v1/submissions/{id}";
const MESSAGE: &str = "/v1/messages/{id}";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";
const POOLS: &str = "/v1/pools";
const OPENAPI: &str = "/openapi.json";
const DOCS: &str = "/docs";
/// All of them.
pub(crate) const ROUTES: [&str; 9] =
    [SUBMISSIONS, SUBMISSION, MESSAGE, POOLS, HEALTHZ, READYZ, METRICS, OPENAPI, DOCS];
/// As the metrics call every path that is none of ours: what clients choose
/// must not make series.
const OTHER: &str = "other";

/// What the handlers share.
pub(crate) struct App {
    pub(crate) config: ApiConfig,
    pub(crate) state: ApiState,
    pub(crate) inflight: Inflight,
    /// Cancelled when the process is to end.
    pub(crate) draining: CancellationToken,
}

/// The address at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

impl App {
    /// Who asks, and from where.
    ///
    /// # Errors
    /// 401 and 403.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Peer,
    ) -> Result<(Arc<Principal>, IpAddr), Problem> {
        let client = self.client(headers, peer);
        Ok((self.config.auth.principal(headers, client)?, client))
    }

    /// The client's address; behind a proxy the last that it names, since that
    /// is the one which the proxy itself has seen. What cannot be read is
    /// nobody's address, and so not this machine's.
    fn client(&self, headers: &HeaderMap, Peer(peer): Peer) -> IpAddr {
        let named = headers.get_all("x-forwarded-for").iter().next_back();
        let client = match named {
            Some(named) if self.config.behind_proxy => {
                let last = named.to_str().ok().and_then(|named| named.rsplit(',').next());
                last.and_then(forwarded).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
            }
            _ => peer,
        };
        client.to_canonical()
    }
}

/// An address, with or without a port.
fn forwarded(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()
}

pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(SUBMISSIONS, post(submit::submit))
        .route(SUBMISSION, get(submissions::submission))
        .route(MESSAGE, get(submissions::message))
        .route(HEALTHZ, get(health::alive))
        .route(READYZ, get(health::ready))
        .route(METRICS, get(health::metrics))
        .route(POOLS, get(pools::pools))
        .route(OPENAPI, get(docs::openapi))
        .route(DOCS, get(docs::reader))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_such_path)
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

async fn no_such_path() -> Result<Response, Problem> {
    Err(Problem::not_found("there is nothing at this path"))
}

async fn method_not_allowed() -> Result<Response, Problem> {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Err(Problem::new(status, "method_not_allowed", "this path does not know this method"))
}

/// Counts and times every request.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let metrics = &app.state.metrics;
    let started = Instant::now();
    let counted = Counted::new(&metrics.inflight);
    let route = route(request.extensions().get::<MatchedPath>());
    let response = next.run(request).await;
    metrics.answered(route, response.status().as_u16(), started.elapsed());
    drop(counted);
    response
}

fn route(matched: Option<&MatchedPath>) -> &'static str {
    let matched = matched.map_or("", MatchedPath::as_str);
    ROUTES.into_iter().find(|route| *route == matched).unwrap_or(OTHER)
}

/// The answer of a handler; an error is counted by its code.
pub(crate) fn answer(app: &App, result: Result<Response, Problem>) -> Response {
    match result {
        Ok(response) => response,
        Err(problem) => {
            app.state.metrics.refused(problem.codes());
            problem.into_response()
        }
    }
}
