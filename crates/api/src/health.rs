//! Whether this process lives, whether it can work, and its metrics.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use posthaste_broker::LinkState;
use posthaste_intake::FieldError;
use posthaste_model::SubmissionId;
use prometheus_client::encoding::text::encode;
use tokio::time::timeout;

use crate::{
    problem::Problem,
    router::{App, Peer, answer},
};

/// How long the store may take to answer a question whose answer is "no".
const STORE_TIMEOUT: Duration = Duration::from_secs(1);

/// The process can answer: nothing else is said.
pub(crate) async fn alive() -> Response {
    json(r#"{"status":"alive"}"#)
}

/// Whether a submission would be accepted and a question answered now.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let broker = app.state.broker.link_state().borrow().clone();
    let broker_is_down = match broker {
        LinkState::Up => false,
        LinkState::Down(reason) => {
            tracing::warn!(%reason, "not ready: the broker's link is down");
            true
        }
    };
    let causes = [
        (app.draining.is_cancelled(), "draining", "the process is ending"),
        (broker_is_down, "broker", "the broker's link is down"),
        (!store_answers(&app).await, "store", "the store does not answer"),
    ];
    let pressure = app.state.admission.pressure().await;
    let pressure = pressure.map(|pressure| (true, pressure.code(), pressure.detail()));
    let errors: Vec<_> = causes
        .into_iter()
        .chain(pressure)
        .filter(|(is_cause, ..)| *is_cause)
        .map(|(_, code, detail)| FieldError {
            pointer: String::new(),
            code,
            detail: detail.to_owned(),
        })
        .collect();
    if errors.is_empty() {
        return json(r#"{"status":"ready"}"#);
    }
    let detail = errors.iter().map(|e| e.detail.as_str()).collect::<Vec<_>>().join("; ");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail)
        .with_errors(errors)
        .retry_after(Duration::from_secs(1))
        .into_response()
}

async fn store_answers(app: &App) -> bool {
    // A fresh id is looked for in the current period alone.
    match timeout(STORE_TIMEOUT, app.state.store.submission(SubmissionId::new())).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the store failed");
            false
        }
        Err(_) => {
            tracing::warn!("not ready: the store does not answer in time");
            false
        }
    }
}

/// The metrics in OpenMetrics text. They tell of the traffic: who is not on
/// this machine needs a token.
pub(crate) async fn metrics(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    // So that the gauges are of now also where nobody submits.
    app.state.admission.pressure().await;
    answer(&app, show_metrics(&app, peer, &headers))
}

fn show_metrics(app: &App, peer: Peer, headers: &HeaderMap) -> Result<Response, Problem> {
    if app.config.behind_proxy || !peer.0.to_canonical().is_loopback() {
        app.authenticate(headers, peer)?;
    }
    let mut text = String::with_capacity(16 << 10);
    encode(&mut text, &app.state.registry).map_err(|error| {
        tracing::error!(%error, "failed to write the metrics");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics cannot be shown")
    })?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn json(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
