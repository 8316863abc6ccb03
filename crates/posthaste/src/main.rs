//! The `posthaste` program: one binary for every role.
//!
//! `cli` says what can be asked of it, `config` reads the configuration,
//! `run` starts the roles and `supervise` keeps them running. `demo`, `send`
//! and `sink` are for trials; `check` and `queue` are for the operator.

mod check;
mod cli;
mod config;
mod demo;
mod http;
mod life;
mod queue;
mod run;
mod send;
mod sink;
mod supervise;
mod table;

use std::process::ExitCode;

/// The system's allocator keeps freed memory of 5 MiB bodies; this one gives
/// it back and costs less for each message.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("posthaste: {error:#}");
            ExitCode::FAILURE
        }
    }
}
