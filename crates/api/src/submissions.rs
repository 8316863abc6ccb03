//! What became of submissions and of their messages.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use posthaste_intake::Principal;
use posthaste_model::{IdError, MessageId, SubmissionEvent, SubmissionId, Timestamp};
use posthaste_store::StoreError;
use tokio::time::sleep;

use crate::{
    problem::Problem,
    router::{App, Peer, answer},
    view::{MessageBody, SubmissionBody, json},
};

/// An id younger than this may be accepted and not yet in the store.
const YOUNG: Duration = Duration::from_secs(5);
/// When such an id is looked for again, in milliseconds: a second in all.
const LOOKS: [u64; 6] = [25, 50, 100, 175, 300, 350];

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
