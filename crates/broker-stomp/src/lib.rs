//! A STOMP 1.2 client for the ActiveMQ brokers, Artemis and Classic: the ground
//! on which their backend of the broker contract will stand. It is not a
//! backend itself: it knows frames, receipts, credit and acknowledgements, and
//! nothing of due times, lanes or bands.
//!
//! From the wire up:
//!
//! - [`codec`]: bytes to frames and back; pure.
//! - [`dialect`]: what Artemis and Classic want said differently.
//! - [`connection`]: one connection, its two tasks, its receipts and
//!   subscriptions.
//! - [`client`]: a connection that is made anew along the list of nodes.
//! - [`pool`]: several of them for those who publish.
//!
//! What always holds:
//!
//! - A message is durable when its receipt came, and not before. A receipt
//!   that does not come in time makes its message *unknown*, and ends the
//!   connection: publish it again with the same id.
//! - There is no negative acknowledgement: Artemis takes it for an
//!   acknowledgement, Classic moves the message to the dead letters. To give a
//!   message back, publish a copy durably, then acknowledge.
//! - A [`Token`](posthaste_broker::Token) carries the epoch of its connection.
//!   After a reconnect it is an error, never an acknowledgement.
//! - No acknowledgement follows its subscription's end.
//! - Everything has a bound: frames, headers, buffers, windows, and the time
//!   that anything may take.

pub mod client;
pub mod codec;
pub mod config;
pub mod connection;
pub mod dialect;
pub mod error;
pub mod message;
pub mod pool;
pub mod tls;

mod backoff;

pub use client::Client;
pub use config::{ClientConfig, ConnectionOptions, Login, Node, ServerRequirement};
pub use connection::{Confirmation, Connection, Message, StaleToken, Subscription};
pub use dialect::{Destination, Dialect};
pub use error::{LinkError, SettingsError};
pub use message::{Publication, Receive, SendOutcome, Settling};
pub use pool::{Pool, PoolConfig};
pub use tls::TlsClient;
