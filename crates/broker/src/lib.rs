//! The message broker as Posthaste sees it, and the embedded one.
//!
//! [`contract`] says what every backend does; [`embedded`] is the durable
//! queue in a directory of its own, the default. `suite` holds the cases that
//! every backend passes.
//!
//! The contract knows bytes, priorities, due times and flow keys. It knows
//! nothing of mail.

pub mod contract;
pub mod embedded;

pub use contract::{
    Body, Broker, BrokerError, Browsed, Credit, Delivery, Depth, FlowKey, LinkState, Listener,
    MessageState, Notice, Publish, PublishOutcome, QueueName, Settlement, SharedBody,
    SubscribeOptions, Subscription, Token,
};
