//! `Idempotency-Key`: the same request twice is one request.
//!
//! A key belongs to the token that sent it and stands for one body and mode.
//! It is claimed in the control data before the work begins, with a seed and a
//! time from which all ids of the request are derived, and answered when the
//! work is done. What happens when the process dies in between:
//!
//! - before the claim is durable: nothing was done, a repetition is new;
//! - before the messages are durable: nothing was accepted; a repetition takes
//!   the claim over when its lease ends, and publishes with the same ids;
//! - after it, before the answer is kept: the same, but the record of the
//!   submission is found (`evidence`), nothing is published again, and the
//!   same ids are answered;
//! - after that: the repetition gets the kept answer.
//!
//! The work is a task of its own, so that it comes to its end, and the key to
//! its answer, when the client does not wait.
//!
//! A request that is refused leaves no key: it can be mended and sent with the
//! same one.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    digest::{Context, SHA256},
    rand,
};
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use posthaste_intake::{Derived, Mode};
use posthaste_model::Timestamp;
use posthaste_store::{Claim, ClaimRequest, Claimed, KeptAnswer, StoreError};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    problem::Problem,
    router::App,
    submit::{Answered, Before, Job, Ran, Repeatable},
    view::json_response,
};

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key in characters.
const MAX_KEY: usize = 256;
/// How long a key is kept.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// A lease is renewed so often within its time.
const RENEWALS: u32 = 3;
/// Largest answer that is kept; a larger one is made again from the ids that
/// follow from the seed.
const MAX_ANSWER: usize = 64 << 10;

/// A key as the client sent it.
#[derive(Debug)]
pub(crate) struct Key(String);

impl Key {
    /// Reads the header field; `None` without one.
    ///
    /// # Errors
    /// 400 when it is empty, too long, not visible ASCII, or there twice.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let key = value.to_str().unwrap_or_default();
        let is_visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if key.is_empty() || key.len() > MAX_KEY || !is_visible || values.next().is_some() {
            let detail =
                "Idempotency-Key has 1 to 256 visible characters of ASCII, and is there once";
            return Err(Problem::bad_request("idempotency_key_invalid", detail).close());
        }
        Ok(Some(Self(key.to_owned())))
    }

    /// Of one token. Lengths first, so that no two pairs are the same bytes.
    fn hash(&self, token: Option<&str>) -> [u8; 32] {
        let token = token.map(|token| token.len().to_string() + ":" + token);
        hash(&[token.unwrap_or_default().as_bytes(), b"\0", self.0.as_bytes()])
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Runs a job once for its key, however often it is sent.
///
/// # Errors
/// 409 while it is being run, 422 when the key stands for another request, 503
/// when that cannot be told; what the job itself came to.
pub(crate) async fn once(key: Key, job: Job) -> Result<Response, Problem> {
    match tokio::spawn(claim_and_run(key, job)).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, "the work on a submission failed");
            Err(unavailable())
        }
    }
}

async fn claim_and_run(key: Key, job: Job) -> Result<Response, Problem> {
    let app = Arc::clone(&job.app);
    let now = app.state.clock.now();
    let claimed = app.state.control.claim(request(&key, &job, now)?).await;
    match claimed.map_err(|error| failed(&error))? {
        Claimed::Fresh(claim) => work(&app, &job, &claim, Before::New).await,
        Claimed::TakenOver(claim) => work(&app, &job, &claim, Before::Unknown).await,
        Claimed::InFlight { until } => {
            let detail = "a request with this key is being worked on";
            Err(Problem::new(StatusCode::CONFLICT, "idempotency_key_in_flight", detail)
                .retry_after(until.since(now).min(app.config.key_lease)))
        }
        Claimed::OtherRequest => {
            let detail = "this key was used with another body or mode";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(Problem::new(status, "idempotency_key_reused", detail))
        }
        Claimed::Answered { claim, answer } => replay(&job, &claim, answer).await,
    }
}

fn request(key: &Key, job: &Job, now: Timestamp) -> Result<ClaimRequest, Problem> {
    let (mut seed, mut holder) = ([0; 16], [0; 8]);
    rand::fill(&mut seed).and_then(|()| rand::fill(&mut holder)).map_err(|_| unavailable())?;
    let mode: &[u8] = match job.mode {
        Mode::Strict => b"strict\0",
        Mode::Permissive => b"permissive\0",
    };
    Ok(ClaimRequest {
        key: key.hash(job.principal.token.as_deref()),
        fingerprint: hash(&[mode, &job.received.bytes]),
        seed,
        holder: u64::from_le_bytes(holder),
        now,
        lease: job.app.config.key_lease,
        keep: KEEP,
    })
}

/// Runs the job under its claim, and settles the claim.
async fn work(app: &App, job: &Job, claim: &Claim, before: Before) -> Result<Response, Problem> {
    let repeatable = Repeatable { derived: derived(claim), before };
    let Ran { result, left_before } = tokio::select! {
        ran = job.run(Some(repeatable)) => ran,
        never = keep_lease(app, claim) => match never {},
    };
    let settled = match &result {
        Ok(Answered { body, is_final: true }) => {
            let body = (body.len() <= MAX_ANSWER).then(|| body.clone());
            let answer = KeptAnswer { status: StatusCode::ACCEPTED.as_u16(), body };
            app.state.control.answer(claim, answer).await
        }
        // Nothing is left of what was refused; of what is unknown there may be.
        Err(problem) if problem.status.is_client_error() && !left_before => {
            app.state.control.release(claim).await
        }
        Ok(_) | Err(_) => app.state.control.renew(claim, app.state.clock.now()).await,
    };
    match settled {
        Ok(true) => {}
        // Another took it over, and has come or will come to the same.
        Ok(false) => tracing::warn!("an idempotency key was lost: its lease had ended"),
        // The answer stands all the same; a repetition takes the claim over.
        Err(error) => tracing::error!(%error, "failed to settle an idempotency key"),
    }
    result.map(Answered::into_response)
}

async fn keep_lease(app: &App, claim: &Claim) -> std::convert::Infallible {
    let lease = app.config.key_lease.max(Duration::from_millis(RENEWALS.into()));
    let mut ticks = interval(lease / RENEWALS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let until = app.state.clock.now().plus(lease);
        if let Err(error) = app.state.control.renew(claim, until).await {
            tracing::error!(%error, "failed to renew the lease of an idempotency key");
        }
    }
}

/// Answers as before.
async fn replay(job: &Job, claim: &Claim, answer: KeptAnswer) -> Result<Response, Problem> {
    let body = match answer.body {
        Some(body) => body,
        None => {
            let before = Before::Accepted;
            job.run(Some(Repeatable { derived: derived(claim), before })).await.result?.body
        }
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::ACCEPTED);
    let mut response = json_response(status, body);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

const fn derived(claim: &Claim) -> Derived {
    Derived { seed: claim.seed, time: claim.time }
}

fn failed(error: &StoreError) -> Problem {
    tracing::error!(%error, "failed to claim an idempotency key");
    unavailable()
}

fn unavailable() -> Problem {
    let detail = "the request with this key could not be worked on; send it again";
    Problem::unavailable(detail, Duration::from_secs(5))
}
