//! Taking submissions: `POST /v1/submissions`.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::Response,
};
use posthaste_intake::{
    Derived, IntakeError, JsonError, Mode, Outcome, Principal, Request, Source, SubmitOptions,
};
use posthaste_model::SubmissionId;
use tokio::time::Instant;

use crate::{
    body::{Received, receive},
    encoding::Encoding,
    evidence,
    idempotency::{self, Key},
    problem::Problem,
    router::{App, Peer, answer},
    view::{AcceptedBody, ItemBody, ResultsBody, json_bytes, json_response},
};

/// A body above this is read as JSON on a thread where that may take long.
const INLINE_BYTES: usize = 256 << 10;

/// The handler.
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
    app: &Arc<App>,
    peer: Peer,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
    started: Instant,
) -> Result<Response, Problem> {
    let (principal, client) = app.authenticate(headers, peer)?;
    let mode = mode(uri)?;
    let key = Key::of(headers)?;
    check_media_type(headers)?;
    let encoding = Encoding::of(headers)?;
    if let Some(pressure) = app.state.admission.pressure().await {
        return Err(Problem::from(pressure).close());
    }
    let received = receive(body, headers, &app.config, &app.inflight).await?;
    app.state.metrics.bytes.inc_by(received.bytes.len() as u64);
    let received = encoding.decode(received, &app.config, &app.inflight).await?;
    let source = Source { interface: "http", address: client };
    let app = Arc::clone(app);
    let job = Job { app, principal, source, mode, started, received };
    match key {
        None => job.run(None).await.result.map(Answered::into_response),
        Some(key) => idempotency::once(key, job).await,
    }
}

/// One request that was read and is to be accepted.
pub(crate) struct Job {
    pub(crate) app: Arc<App>,
    pub(crate) principal: Arc<Principal>,
    source: Source,
    pub(crate) mode: Mode,
    started: Instant,
    pub(crate) received: Received,
}

/// Which ids a job has, and what is known of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repeatable {
    pub(crate) derived: Derived,
    pub(crate) before: Before,
}

/// What may have become of a job's submissions before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing.
    New,
    /// Some may be durable, and even delivered.
    Unknown,
    /// All that can be accepted was.
    Accepted,
}

/// What a job came to.
pub(crate) struct Ran {
    pub(crate) result: Result<Answered, Problem>,
    /// Whether something of it was durable before.
    pub(crate) left_before: bool,
}

/// At least one submission is durable.
pub(crate) struct Answered {
    pub(crate) body: Vec<u8>,
    /// Whether asking again could bring no more.
    pub(crate) is_final: bool,
}

impl Answered {
    pub(crate) fn into_response(self) -> Response {
        json_response(StatusCode::ACCEPTED, self.body)
    }
}

impl Job {
    /// Accepts what can be accepted.
    pub(crate) async fn run(&self, repeatable: Option<Repeatable>) -> Ran {
        let mut left_before = false;
        let result = self.accept(repeatable, &mut left_before).await;
        Ran { result, left_before }
    }

    async fn accept(
        &self,
        repeatable: Option<Repeatable>,
        left_before: &mut bool,
    ) -> Result<Answered, Problem> {
        let request = self.read().await?;
        let is_list = request.is_list();
        let durable = match repeatable {
            None => HashSet::new(),
            Some(repeatable) => self.durable(repeatable, request.len()).await?,
        };
        *left_before = !durable.is_empty();
        let derived = repeatable.map(|repeatable| repeatable.derived);
        let options = SubmitOptions { mode: self.mode, derived };
        let intake = &self.app.state.intake;
        let (principal, source, started) = (&self.principal, &self.source, self.started);
        let outcomes =
            intake.submit_again(request, principal, source, started, &options, &durable).await?;
        self.count(&outcomes, &durable);
        match self.mode {
            Mode::Strict => strict(&outcomes, is_list),
            Mode::Permissive => self.permissive(outcomes),
        }
    }

    async fn durable(
        &self,
        Repeatable { derived, before }: Repeatable,
        items: usize,
    ) -> Result<HashSet<SubmissionId>, Problem> {
        let ids = (0..items).map(|item| derived.submission_id(item));
        match before {
            Before::New => Ok(HashSet::new()),
            Before::Accepted => Ok(ids.collect()),
            Before::Unknown => evidence::durable(&self.app.state, ids.collect()).await,
        }
    }

    fn count(&self, outcomes: &[Outcome], durable: &HashSet<SubmissionId>) {
        let metrics = &self.app.state.metrics;
        for accepted in outcomes.iter().flatten() {
            if !durable.contains(&accepted.submission_id) {
                metrics.submissions.inc();
                metrics.messages.inc_by(accepted.messages.len() as u64);
            }
        }
    }

    /// Reads the JSON, where it is large on another thread.
    async fn read(&self) -> Result<Request, Problem> {
        let limits = &self.app.state.intake.config().limits;
        let bytes = &self.received.bytes;
        if bytes.len() <= INLINE_BYTES {
            return Request::from_json(bytes, limits).map_err(|error| not_json(&error));
        }
        let (bytes, limits) = (bytes.clone(), limits.clone());
        match tokio::task::spawn_blocking(move || Request::from_json(&bytes, &limits)).await {
            Ok(read) => read.map_err(|error| not_json(&error)),
            Err(error) => {
                tracing::error!(%error, "failed to read a request");
                Err(Problem::unavailable("the request could not be read", Duration::from_secs(5)))
            }
        }
    }

    /// One result an item: accepted when at least one is.
    fn permissive(&self, outcomes: Vec<Outcome>) -> Result<Answered, Problem> {
        let mut is_any_accepted = false;
        let mut is_final = true;
        let mut results = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            results.push(match outcome {
                Ok(accepted) => {
                    is_any_accepted = true;
                    ItemBody::accepted(accepted)
                }
                Err(error) => {
                    is_final &= !matches!(error, IntakeError::Unavailable { .. });
                    let problem = Problem::from(error);
                    self.app.state.metrics.refused(problem.codes());
                    ItemBody::Refused(problem)
                }
            });
        }
        if is_any_accepted {
            let body = json_bytes(&ResultsBody { results: &results });
            return Ok(Answered { body, is_final });
        }
        let detail = format!("none of {} submissions was accepted", results.len());
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let results = serde_json::value::to_raw_value(&results).ok();
        Err(Problem::new(status, "nothing_accepted", detail).with_results(results))
    }
}

fn strict(outcomes: &[Outcome], is_list: bool) -> Result<Answered, Problem> {
    let mut bodies = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        match outcome {
            Ok(accepted) => bodies.push(AcceptedBody::new(accepted)),
            // The intake does not do that; nothing would be worse than a 202.
            Err(error) => return Err(error.clone().into()),
        }
    }
    let body = match bodies.as_slice() {
        [one] if !is_list => json_bytes(one),
        all => json_bytes(&all),
    };
    Ok(Answered { body, is_final: true })
}

fn not_json(error: &JsonError) -> Problem {
    Problem::bad_request("json_syntax", format!("the body is not JSON: {error}"))
}

/// Reads the query. A parameter that is not known is not ignored: what it asks
/// for would not happen.
fn mode(uri: &Uri) -> Result<Mode, Problem> {
    let mut mode = None;
    let parameters = uri.query().unwrap_or_default().split('&').filter(|text| !text.is_empty());
    for parameter in parameters {
        let Some(value) = parameter.strip_prefix("mode=") else {
            let detail = "the only query parameter is mode";
            return Err(Problem::bad_request("unknown_parameter", detail).close());
        };
        let given = match value {
            "strict" => Mode::Strict,
            "permissive" => Mode::Permissive,
            _ => return Err(bad_mode()),
        };
        if mode.replace(given).is_some() {
            return Err(bad_mode());
        }
    }
    Ok(mode.unwrap_or_default())
}

fn bad_mode() -> Problem {
    let detail = "mode is strict or permissive, and is there once";
    Problem::bad_request("parameter_invalid", detail).close()
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let detail = "the body must be JSON: Content-Type: application/json";
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(Problem::new(status, "unsupported_media_type", detail).close())
}
