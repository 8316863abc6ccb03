//! The client session on real sockets, against peers that are scripted.

#![expect(clippy::unwrap_used, clippy::panic, reason = "that is how a test fails")]

mod cases;
mod hostile;
mod peer;
mod session;
