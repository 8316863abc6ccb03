//! Taking submissions, and telling what became of them.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use posthaste_intake::{Accepted, JsonError, Principal, Request, Source};
use posthaste_model::{IdError, MessageId, SubmissionEvent, SubmissionId, Timestamp};
use posthaste_store::StoreError;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    body::{Received, receive},
    problem::Problem,
    router::{App, Peer, answer},
    view::{AcceptedBody, MessageBody, SubmissionBody},
};

/// A body above this is read as JSON on a thread where that may take long.
const INLINE_BYTES: usize = 256 << 10;
/// An id younger than this may be accepted and not yet in the store.
const YOUNG: Duration = Duration::from_secs(5);
/// When such an id is looked for again, in milliseconds: a second in all.
const LOOKS: [u64; 6] = [25, 50, 100, 175, 300, 350];

/// `POST /v1/submissions`.
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let started = Instant::now();
    let result = take(&app, peer, &uri, &headers, body, started).await;
    answer(&app, result)
}

async fn take(
    app: &App,
    peer: Peer,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
    started: Instant,
) -> Result<Response, Problem> {
    let (principal, client) = app.authenticate(headers, peer)?;
    check_query(uri)?;
    check_media_type(headers)?;
    let received = receive(body, headers, &app.config, &app.inflight).await?;
    let metrics = &app.state.metrics;
    metrics.bytes.inc_by(received.bytes.len() as u64);
    let intake = &app.state.intake;
    let request = read(app, &received).await?;
    let is_list = request.is_list();
    let source = Source { interface: "http", address: client };
    let accepted = intake.submit(request, &principal, &source, started).await?;
    drop(received);
    metrics.submissions.inc_by(accepted.len() as u64);
    metrics.messages.inc_by(accepted.iter().map(|one| one.messages.len() as u64).sum());
    Ok(accepted_response(&accepted, is_list))
}

/// Reads the JSON, where it is large on another thread.
async fn read(app: &App, received: &Received) -> Result<Request, Problem> {
    let limits = &app.state.intake.config().limits;
    if received.bytes.len() <= INLINE_BYTES {
        return Request::from_json(&received.bytes, limits).map_err(|error| not_json(&error));
    }
    let (bytes, limits) = (received.bytes.clone(), limits.clone());
    match tokio::task::spawn_blocking(move || Request::from_json(&bytes, &limits)).await {
        Ok(read) => read.map_err(|error| not_json(&error)),
        Err(error) => {
            tracing::error!(%error, "failed to read a request");
            Err(Problem::unavailable("the request could not be read", Duration::from_secs(5)))
        }
    }
}

fn not_json(error: &JsonError) -> Problem {
    Problem::bad_request("json_syntax", format!("the body is not JSON: {error}"))
}

fn accepted_response(accepted: &[Accepted], is_list: bool) -> Response {
    let bodies: Vec<_> = accepted.iter().map(AcceptedBody::new).collect();
    match bodies.as_slice() {
        [one] if !is_list => json(StatusCode::ACCEPTED, one),
        all => json(StatusCode::ACCEPTED, &all),
    }
}

/// A parameter that is not known is not ignored: what it asks for would not
/// happen.
fn check_query(uri: &Uri) -> Result<(), Problem> {
    match uri.query() {
        None | Some("") => Ok(()),
        Some(_) => {
            Err(Problem::bad_request("unknown_parameter", "this path has no query parameters"))
        }
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |code, detail: &str| {
        Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, detail).close())
    };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return unsupported(
            "unsupported_media_type",
            "the body must be JSON: Content-Type: application/json",
        );
    }
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case(b"identity") => Ok(()),
        Some(_) => unsupported("unsupported_encoding", "the body must not be compressed"),
    }
}

/// `GET /v1/submissions/{id}`.
pub(crate) async fn submission(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let result = show_submission(&app, peer, &headers, id).await;
    answer(&app, result)
}

async fn show_submission(
    app: &App,
    peer: Peer,
    headers: &HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let (principal, _) = app.authenticate(headers, peer)?;
    let id: SubmissionId = parse_id(id)?;
    let view = find(app, id.time(), || app.state.store.submission(id)).await?;
    if !may_see(&principal, &view.submission) {
        return Err(unknown());
    }
    Ok(json(StatusCode::OK, &SubmissionBody::new(&view)))
}

/// `GET /v1/messages/{id}`.
pub(crate) async fn message(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let result = show_message(&app, peer, &headers, id).await;
    answer(&app, result)
}

async fn show_message(
    app: &App,
    peer: Peer,
    headers: &HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let (principal, _) = app.authenticate(headers, peer)?;
    let id: MessageId = parse_id(id)?;
    let store = &app.state.store;
    let (submission_id, view) = find(app, id.time(), || store.message(id)).await?;
    if principal.sender_domains.is_some() {
        let submission = store.submission(submission_id).await.map_err(|error| failed(&error))?;
        if !submission.is_some_and(|found| may_see(&principal, &found.submission)) {
            return Err(unknown());
        }
    }
    Ok(json(StatusCode::OK, &MessageBody::new(Some(submission_id), &view)))
}

fn parse_id<T: std::str::FromStr<Err = IdError>>(
    id: Result<Path<String>, PathRejection>,
) -> Result<T, Problem> {
    let Ok(Path(id)) = id else { return Err(unknown()) };
    id.parse().map_err(|error: IdError| Problem::not_found(error.to_string()))
}

/// Looks a young id up a few times: its submission may be accepted and still
/// be on its way to the store.
async fn find<T, F: Future<Output = Result<Option<T>, StoreError>>>(
    app: &App,
    made: Option<Timestamp>,
    look: impl Fn() -> F,
) -> Result<T, Problem> {
    if let Some(found) = look().await.map_err(|error| failed(&error))? {
        return Ok(found);
    }
    let now = app.state.clock.now();
    let is_young = made.is_some_and(|made| now.since(made) < YOUNG && made < now.plus(YOUNG));
    if !is_young {
        return Err(unknown());
    }
    for pause in LOOKS {
        sleep(Duration::from_millis(pause)).await;
        if let Some(found) = look().await.map_err(|error| failed(&error))? {
            return Ok(found);
        }
    }
    let detail = "this id is not known; if it was accepted just now, it is not yet indexed";
    Err(Problem::not_found(detail).retry_after(Duration::from_secs(1)))
}

/// The same words whether it does not exist or may not be seen.
fn unknown() -> Problem {
    Problem::not_found("this id is not known")
}

fn failed(error: &StoreError) -> Problem {
    tracing::error!(%error, "failed to read the store");
    Problem::unavailable("the store does not answer", Duration::from_secs(5))
}

/// A token sees what it submitted, and what it could have submitted.
fn may_see(principal: &Principal, submission: &SubmissionEvent) -> bool {
    let is_own = principal.token.is_some() && principal.token == submission.token;
    is_own || principal.may_send_as(submission.sender.domain())
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Our own types with text keys: writing them to memory cannot fail.
    let mut response = Response::new(Body::from(serde_json::to_vec(value).unwrap_or_default()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
