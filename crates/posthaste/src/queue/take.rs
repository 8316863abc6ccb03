//! Being handed chosen messages, by the broker contract.
//!
//! A subscription hands over what comes next and not what one would like, so
//! flows without a chosen message are blocked, and what else is handed over is
//! held until the end, when it goes back. The bodies of a flow are read up to
//! the last chosen message of it.

use std::time::Duration;

use posthaste_broker::{Broker, Credit, Delivery, QueueName, SubscribeOptions};
use posthaste_model::Timestamp;
use tokio::time::{Instant, timeout};

use super::{progress::Progress, select::Selection};

/// Without bound: what is held costs no memory here, only its bytes while
/// they are looked at.
const OPTIONS: SubscribeOptions = SubscribeOptions {
    credit: Credit { messages: u32::MAX, bytes: u64::MAX },
    flow_messages: u32::MAX,
    exclusive: true,
};
/// How often it is asked what is left while nothing comes.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// What can be read comes sooner; a head that cannot stays in its queue.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message that was chosen, and its due time.
pub type Chosen = (Delivery, Option<Timestamp>);

/// Hands the chosen messages to `settle`, some at a time, and takes those out
/// of `selection.wanted`. What is left there at the end could not be read.
pub async fn take(
    broker: &dyn Broker,
    queue: &QueueName,
    selection: &mut Selection,
    progress: &mut Progress,
    mut settle: impl AsyncFnMut(Vec<Chosen>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut subscription = broker.subscribe(queue, OPTIONS).await?;
    for flow in &selection.other_flows {
        subscription.block(flow);
    }
    let mut came = Instant::now();
    while !selection.wanted.is_empty() && came.elapsed() < PATIENCE {
        let Ok(next) = timeout(LOOK_AGAIN, subscription.next()).await else {
            progress.add(0);
            // What could not be read has gone to quarantine.
            if broker.depth(queue).await?.total() <= selection.others {
                break;
            }
            continue;
        };
        came = Instant::now();
        let mut chosen = Vec::new();
        for delivery in next? {
            if let Some(due) = selection.wanted.remove(&delivery.id) {
                chosen.push((delivery, due));
            }
        }
        if !chosen.is_empty() {
            let count = chosen.len() as u64;
            settle(chosen).await?;
            progress.add(count);
        }
    }
    Ok(())
}
