//! The SMTP client: takes messages of its pool from the broker, delivers them,
//! and settles what became of them.
//!
//! The path of a message: the owner (`owner.rs`) takes it from the subscription and
//! gives it to the [`schedule`]; when its turn comes a worker makes an attempt
//! over a session that it keeps for its site; [`classify`] says what the
//! server's answer means, [`retry`] when to try again; the outcome is written
//! to the [`journal`], then settled at the broker together with its evidence.
//!
//! Invariants:
//!
//! - Nothing is acknowledged before its record is durable.
//! - An attempt is journalled before it starts and its final reply before
//!   anything else is done with it, so that a killed process does not deliver
//!   again what it knew to be delivered.
//! - Everything is bounded: messages by the window, attempts by the limits,
//!   outcomes by the owner, which starts nothing while too many are unsettled.

mod attempt;
pub mod classify;
mod clear_hosts;
mod client;
mod config;
mod evidence;
mod job;
pub mod journal;
pub mod metrics;
mod owner;
pub mod retry;
mod run;
pub mod schedule;
mod session;
mod settle;
mod source;
mod worker;
mod workers;

pub use config::SmtpClientConfig;
pub use journal::{Journal, JournalError, Recovered};
pub use metrics::Metrics;
pub use retry::RetrySchedule;
pub use run::{DeliveryError, Shared, run};
