//! The client against a scripted broker on real sockets.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic")]

mod connecting;
mod failing_over;
mod peer;
mod pooling;
mod streaming;
