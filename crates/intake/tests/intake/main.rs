//! The intake from outside: what it refuses, what it publishes, when it
//! accepts.

mod acceptance;
mod bad_input;
mod fake_broker;
