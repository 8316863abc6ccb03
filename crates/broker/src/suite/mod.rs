//! The cases that every broker backend passes.
//!
//! A backend brings a [`Bench`] and calls [`crate::suite!`] with an expression
//! that makes one; each case becomes a test of its own:
//!
//! ```ignore
//! posthaste_broker::suite!(MyBench::start().await);
//! ```
//!
//! A case that a backend cannot honour by its nature is told so by
//! [`Abilities`] and asserts the weaker promise instead; none is skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "these are tests that other crates' tests include"
)]

pub mod bodies;
pub mod due;
pub mod flow;
pub mod order;
pub mod publish;
pub mod settle;
pub mod subscribe;
pub mod topic;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use posthaste_model::Timestamp;
use uuid::Uuid;

use crate::contract::{
    Body, Broker, Credit, Delivery, FlowKey, Publish, PublishOutcome, QueueName, Settlement,
    SubscribeOptions, Subscription, Token,
};

/// Longest time that anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a backend does beyond what all do.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    /// A settlement, and a batch, are one: there are never two copies either.
    pub atomic: bool,
    /// Flows are held apart: a cap and a block of one never hold up another.
    pub native_flows: bool,
    /// A shared body is stored once.
    pub shared_bodies: bool,
    /// Priorities are strict over all ten, not by bands.
    pub strict_priority: bool,
}

/// A backend on a bench.
#[async_trait]
pub trait Bench: Send {
    /// What it does beyond what all do.
    fn abilities(&self) -> Abilities;
    /// The broker.
    fn broker(&self) -> Arc<dyn Broker>;
    /// A queue or topic that no other case uses.
    fn name(&self, name: &str) -> QueueName {
        QueueName::new(&format!("suite.{name}")).unwrap()
    }
    /// Kills the broker without warning and starts it again. What
    /// [`Bench::broker`] gave before is dead.
    async fn crash(&mut self);
    /// The wall-clock time that the broker goes by.
    fn now(&self) -> Timestamp;
    /// Lets so much time pass for the broker.
    async fn pass(&self, time: Duration);
}

/// Credit that bounds nothing.
pub const AMPLE: SubscribeOptions = SubscribeOptions {
    credit: Credit { messages: 100_000, bytes: 1 << 40 },
    flow_messages: 100_000,
    exclusive: false,
};

/// Options with so many messages of credit.
#[must_use]
pub fn credit(messages: u32) -> SubscribeOptions {
    SubscribeOptions { credit: Credit { messages, ..AMPLE.credit }, ..AMPLE }
}

/// A message whose body is its text.
#[must_use]
pub fn message(queue: &QueueName, text: &str) -> Publish {
    Publish {
        queue: queue.clone(),
        id: Uuid::now_v7(),
        priority: 4,
        due: None,
        flow_key: FlowKey::new("example.net"),
        head: Bytes::from(format!("head of {text}")),
        body: Body::Inline(Bytes::from(text.to_owned())),
    }
}

/// The same in another flow.
#[must_use]
pub fn in_flow(queue: &QueueName, flow: &str, text: &str) -> Publish {
    Publish { flow_key: FlowKey::new(flow), ..message(queue, text) }
}

/// Publishes, and all of it must be durable.
pub async fn publish(bench: &dyn Bench, batch: Vec<Publish>) {
    let count = batch.len();
    let outcomes = bench.broker().publish(batch).await.expect("publish");
    assert_eq!(outcomes, vec![PublishOutcome::Durable; count]);
}

/// Takes so many messages, and not one more than comes along with them.
pub async fn take(subscription: &mut dyn Subscription, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(PATIENCE, subscription.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} of {count} came", taken.len()));
        taken.extend(next.expect("next"));
    }
    assert_eq!(taken.len(), count, "more came than there should be");
    taken
}

/// Nothing may come.
pub async fn nothing(subscription: &mut dyn Subscription) {
    if let Ok(next) = tokio::time::timeout(Duration::from_millis(150), subscription.next()).await {
        panic!("came although nothing may: {:?}", texts(&next.expect("next")));
    }
}

/// The bodies as text.
#[must_use]
pub fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|d| String::from_utf8_lossy(&d.body).into_owned()).collect()
}

/// The tokens.
#[must_use]
pub fn tokens(deliveries: &[Delivery]) -> Vec<Token> {
    deliveries.iter().map(|d| d.token).collect()
}

/// Acknowledges, and every token must be valid.
pub async fn acknowledge(bench: &dyn Bench, deliveries: &[Delivery]) {
    for chunk in deliveries.chunks(Settlement::MAX_TOKENS) {
        let settlement = Settlement { tokens: tokens(chunk), publishes: Vec::new() };
        for result in bench.broker().settle(settlement).await.expect("settle") {
            result.expect("a valid token");
        }
    }
}

/// A copy of a delivered message with the same id and body, due later.
#[must_use]
pub fn deferral(queue: &QueueName, delivery: &Delivery, due: Option<Timestamp>) -> Publish {
    Publish {
        queue: queue.clone(),
        id: delivery.id,
        priority: delivery.priority,
        due,
        flow_key: delivery.flow_key.clone(),
        head: Bytes::from_static(b"deferred"),
        body: Body::Kept(delivery.token),
    }
}

/// Subscribes.
pub async fn subscribe(
    bench: &dyn Bench,
    queue: &QueueName,
    options: SubscribeOptions,
) -> Box<dyn Subscription> {
    bench.broker().subscribe(queue, options).await.expect("subscribe")
}

/// Total of what a queue holds.
pub async fn total(bench: &dyn Bench, queue: &QueueName) -> u64 {
    bench.broker().depth(queue).await.expect("depth").total()
}

/// Makes a test of each case. See [`crate::suite`].
#[macro_export]
macro_rules! suite {
    ($bench:expr) => {
        $crate::suite! { @cases $bench;
            order: first_in_first_out, higher_priority_first, flows_take_turns,
                order_over_a_large_backlog;
            due: past_now_and_later, never_early, survives_a_crash, order_of_due_times;
            publish: an_invalid_one_is_rejected_alone, a_repeated_id_is_one_message,
                confirmed_survives_a_crash, depth_and_queues, browse_in_order_of_ids,
                purge_leaves_what_is_held;
            bodies: every_size, all_bytes, shared_by_many, a_large_body_for_a_thousand;
            settle: acknowledged_is_gone, stale_tokens_are_refused, one_stale_among_many,
                a_deferral_keeps_the_body, an_outcome_is_recorded, a_move_to_another_queue,
                a_replacement_with_the_same_id, a_copy_with_another_id,
                a_dead_copy_is_not_published, a_crash_between_leaves_one_copy,
                a_cancelled_settlement_is_whole_or_nothing, nonsense_is_refused;
            subscribe: a_dropped_one_returns_all, twenty_five_dropped, two_share,
                credit_bounds_what_is_held, bytes_bound_but_one_is_allowed, credit_changes,
                cancelled_next_loses_nothing, exclusive_hands_over, a_stopped_consumer_costs_nothing;
            flow: a_blocked_flow_waits, a_cap_holds_one_flow, a_slow_flow_holds_up_no_other;
            topic: all_listeners_hear, a_lagging_listener_hears_of_the_gap, close_ends_all;
        }
    };
    (@cases $bench:expr; $($module:ident: $($case:ident),+;)+) => {
        $(mod $module {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let mut bench = $bench;
                $crate::suite::$module::$case(&mut bench).await;
            })+
        })+
    };
}
