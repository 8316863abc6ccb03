//! The SMTP client from end to end: a real queue in a directory, a real DNS
//! server, real SMTP servers on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy.toml's allow-…-in-tests covers #[test] functions, not the helpers of an \
              integration test"
)]

mod faulty;
mod flow;
mod hosts;
mod killed;
mod outcomes;
mod restart;
mod stage;
