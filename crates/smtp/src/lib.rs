//! SMTP as the client and the server of Posthaste speak it (RFC 5321).
//!
//! The protocol itself does no I/O: [`reply`], [`command`], [`content`] and
//! [`server`] turn bytes into meaning and back. [`Session`] is the thin shell
//! that puts the client's side on a socket; the shell of the server's side
//! belongs to whoever listens.
//!
//! Invariants: memory and time are bounded whatever the peer sends; nothing in
//! an address or a message can become a command; a message counts as delivered
//! only by a 2yz reply to its final dot.

mod capabilities;
mod client;
pub mod command;
pub mod content;
mod failure;
mod options;
pub mod reply;
pub mod server;
mod tls;

pub use capabilities::Capabilities;
pub use client::{Session, Transaction};
pub use failure::{Failure, FailureKind, Requirement, Stage};
pub use options::{SessionOptions, Timeouts, TlsMode};
pub use tls::{TlsClient, TlsSetupError};
