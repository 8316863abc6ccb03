//! The API over real HTTP on loopback, with a real store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod admission;
mod client;
mod compressed;
mod docs;
#[path = "../../../intake/tests/intake/fake_broker.rs"]
mod fake_broker;
mod idempotency;
mod limits;
mod node;
mod permissive;
mod pools;
mod problems;
mod server;
mod submissions;
