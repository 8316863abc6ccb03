//! How a queue is named on the command line.

use std::str::FromStr;

use posthaste_broker::QueueName;
use posthaste_model::{
    DELIVERY_LOGS, POOL_QUEUE_PREFIX, PoolName, QUARANTINE, SUBMISSION_LOGS, pool_queue,
};

/// A queue by its name, or a pool's queue by the pool's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueArg(pub QueueName);

impl FromStr for QueueArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let of_its_own = [QUARANTINE, DELIVERY_LOGS, SUBMISSION_LOGS].contains(&text);
        // A pool's name has no dot.
        let name = match text.parse::<PoolName>() {
            Ok(pool) if !of_its_own => pool_queue(&pool),
            _ => text.to_owned(),
        };
        QueueName::new(&name).map(Self).map_err(|error| error.to_string())
    }
}

/// The pool whose queue this is.
pub fn pool_of(queue: &QueueName) -> Option<PoolName> {
    queue.as_str().strip_prefix(POOL_QUEUE_PREFIX)?.parse().ok()
}

/// Whether the queue holds records for the logs: the evidence on its way.
pub fn holds_evidence(queue: &QueueName) -> bool {
    [DELIVERY_LOGS, SUBMISSION_LOGS].contains(&queue.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_may_stand_for_its_queue() {
        let name = |text: &str| text.parse::<QueueArg>().map(|queue| queue.0.to_string());
        assert_eq!(name("default").as_deref(), Ok("pool.default"));
        assert_eq!(name("pool.default").as_deref(), Ok("pool.default"));
        assert_eq!(name("quarantine").as_deref(), Ok("quarantine"));
        assert_eq!(name("delivery-logs").as_deref(), Ok("delivery-logs"));
        assert_eq!(name("held.x").as_deref(), Ok("held.x"));
        assert!(name("a b").is_err());
    }
}
