//! The pools, and what waits in each.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use posthaste_broker::{BrokerError, QueueName};
use posthaste_model::{POOL_QUEUE_PREFIX, PoolName, pool_queue};
use serde::Serialize;

use crate::{
    problem::Problem,
    router::{App, Peer, answer},
    view::json,
};

#[derive(Serialize)]
struct PoolsBody {
    pools: Vec<PoolBody>,
}

#[derive(Serialize)]
struct PoolBody {
    name: PoolName,
    /// In the configuration, and not made by its first use.
    declared: bool,
    depth: DepthBody,
}

#[derive(Serialize)]
struct DepthBody {
    ready: u64,
    delayed: u64,
    unacknowledged: u64,
}

/// `GET /v1/pools`.
pub(crate) async fn pools(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let result = show(&app, peer, &headers).await;
    answer(&app, result)
}

async fn show(app: &App, peer: Peer, headers: &HeaderMap) -> Result<Response, Problem> {
    let (principal, _) = app.authenticate(headers, peer)?;
    let declared = &app.state.intake.config().pools;
    let mut names: BTreeSet<PoolName> = declared.known.iter().cloned().collect();
    names.insert(PoolName::default());
    let queues = app.state.broker.queues().await.map_err(|error| failed(&error))?;
    let pools = queues.iter().filter_map(|queue| queue.as_str().strip_prefix(POOL_QUEUE_PREFIX));
    // A queue of that name which is no pool's is none of ours.
    names.extend(pools.filter_map(|name| name.parse().ok()));
    let mut pools = Vec::with_capacity(names.len());
    for name in names.into_iter().filter(|name| principal.may_use(name)) {
        let queue = QueueName::new(&pool_queue(&name)).map_err(|error| failed(&error))?;
        let depth = app.state.broker.depth(&queue).await.map_err(|error| failed(&error))?;
        let depth = DepthBody {
            ready: depth.ready,
            delayed: depth.delayed,
            unacknowledged: depth.unacknowledged,
        };
        pools.push(PoolBody { declared: declared.is_known(&name), name, depth });
    }
    Ok(json(StatusCode::OK, &PoolsBody { pools }))
}

fn failed(error: &BrokerError) -> Problem {
    tracing::error!(%error, "failed to read the depth of the pools");
    Problem::unavailable("the broker does not answer", Duration::from_secs(5))
}
