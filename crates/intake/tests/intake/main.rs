//! The intake from outside: what it refuses, what it publishes, when it
//! accepts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod acceptance;
mod bad_input;
mod embedded;
mod fake_broker;
mod individual;
mod options;
mod raw;
