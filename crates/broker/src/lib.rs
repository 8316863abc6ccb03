//! The message broker as Posthaste sees it, and the embedded one.
//!
//! [`contract`] says what every backend does; [`embedded`] is the durable
//! queue in a directory of its own, the default. The feature `suite` adds the cases
//! that every backend passes, for the tests of other backends.
//!
//! The contract knows bytes, priorities, due times and flow keys. It knows
//! nothing of mail.

pub mod contract;
pub mod embedded;
#[cfg(any(test, feature = "suite"))]
pub mod suite;

pub use contract::{
    Body, Broker, BrokerError, Browsed, Credit, Delivery, Depth, FlowKey, LinkState, Listener,
    MessageState, Notice, Publish, PublishOutcome, QueueName, Settlement, SharedBody,
    SubscribeOptions, Subscription, Token,
};
