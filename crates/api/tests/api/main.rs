//! The API over real HTTP on loopback, with a real store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod client;
#[path = "../../../intake/tests/intake/fake_broker.rs"]
mod fake_broker;
mod limits;
mod problems;
mod server;
mod submissions;
