//! SMTP, written with care by us: replies, commands, dot-stuffing, the client
//! session and the server session.

mod capabilities;
mod client;
mod failure;
mod options;
mod tls;

pub use capabilities::Capabilities;
pub use client::{Session, Transaction};
pub use failure::{Failure, FailureKind, Requirement, Stage};
pub use options::{SessionOptions, Timeouts, TlsMode};
pub use tls::{TlsClient, TlsSetupError};
