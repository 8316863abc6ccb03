//! Whether a submission was accepted before: by its record.
//!
//! The record of a submission is durable together with its messages. It lies
//! in the queue of the submission logs until a logger has written it to the
//! store, and is in one of the two at any time: whoever looks into the queue
//! first and then into the store cannot miss it.
//!
//! With a broker that takes a batch in parts the record alone may be durable;
//! there it has to be published after the messages.

use std::{collections::HashSet, time::Duration};

use posthaste_broker::{BrokerError, QueueName};
use posthaste_model::{SUBMISSION_LOGS, SubmissionId};
use uuid::Uuid;

use crate::{config::ApiState, problem::Problem};

/// Records of one look into the queue.
const LOOK: usize = 1000;

/// Those of `ids` whose record is there.
///
/// # Errors
/// 503 when that cannot be said.
pub(crate) async fn durable(
    state: &ApiState,
    ids: Vec<SubmissionId>,
) -> Result<HashSet<SubmissionId>, Problem> {
    let mut found = queued(state, &ids).await.map_err(|error| {
        tracing::error!(%error, "failed to look for a submission in the queue");
        unknown()
    })?;
    for id in ids {
        if found.contains(&id) {
            continue;
        }
        let submission = state.store.submission(id).await.map_err(|error| {
            tracing::error!(%error, "failed to look for a submission in the store");
            unknown()
        })?;
        if submission.is_some() {
            found.insert(id);
        }
    }
    Ok(found)
}

async fn queued(
    state: &ApiState,
    ids: &[SubmissionId],
) -> Result<HashSet<SubmissionId>, BrokerError> {
    let wanted: HashSet<Uuid> = ids.iter().map(|id| Uuid::from(*id)).collect();
    let mut found = HashSet::new();
    let (Some(first), Some(last)) = (wanted.iter().min(), wanted.iter().max()) else {
        return Ok(found);
    };
    let queue = QueueName::new(SUBMISSION_LOGS)?;
    let mut after = Uuid::from_u128(first.as_u128().saturating_sub(1));
    loop {
        let browsed = state.broker.browse(&queue, Some(after), LOOK).await?;
        found.extend(
            browsed
                .iter()
                .map(|one| one.id)
                .filter(|id| wanted.contains(id))
                .map(SubmissionId::from),
        );
        match browsed.last() {
            Some(one) if browsed.len() == LOOK && one.id < *last => after = one.id,
            _ => break,
        }
    }
    Ok(found)
}

fn unknown() -> Problem {
    let detail = "whether this request was accepted before cannot be told now";
    Problem::unavailable(detail, Duration::from_secs(5))
}
