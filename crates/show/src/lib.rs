//! What the end-to-end tests and the cases of `make show` share: starting
//! processes and real peers, asking Posthaste over HTTP, and reading what the
//! system knows about a process.
//!
//! Everything that is started here is stopped by the value that started it,
//! by its process id, when that value is dropped; a panic drops it too.
//! Nothing here is part of the shipped program.

pub mod accept_log;
pub mod http;
pub mod load;
pub mod measure;
pub mod names;
pub mod node;
pub mod peers;
pub mod port;
pub mod process;
pub mod sink;
