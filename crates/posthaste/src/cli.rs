//! The command line.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{check, config, demo, queue, run, send, sink};

/// A distributed Mail Transfer Agent: submit over HTTP, queue durably,
/// deliver over SMTP, know what became of every message.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the roles that the configuration names, until SIGTERM.
    ///
    /// Without --config it is a working set-up of one machine: REST API on
    /// 127.0.0.1:8025, embedded queue and logs below var/posthaste. SIGTERM or
    /// SIGINT drains: no new work is begun, transactions in flight are
    /// finished and settled. A second one stops at once; nothing that was
    /// accepted is lost either way.
    Run(ConfigArgs),
    /// Say whether a configuration can be used, and what it amounts to.
    Check(ConfigArgs),
    /// Show the whole path on this machine: a test DNS, a receiving server and
    /// Posthaste on loopback; a few mails and the life of each.
    Demo(demo::DemoArgs),
    /// Submit a mail from the command line.
    Send(Box<send::SendArgs>),
    /// Run a receiving SMTP server for trials, with scriptable replies, delays
    /// and drops. It keeps no mail.
    Sink(sink::SinkArgs),
    /// Look into the embedded queue of a stopped process: list, show, purge,
    /// move, verify, compact.
    ///
    /// While a process has the queue open these commands refuse: stop it first.
    /// QUEUE is a queue (pool.default, quarantine, delivery-logs) or the name
    /// of a pool.
    Queue(queue::QueueArgs),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration, TOML or JSON by its extension. Without it the
    /// defaults that config/posthaste.toml shows.
    #[arg(short, long, value_name = "FILE", env = "POSTHASTE_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Does what the command line asks for.
pub fn execute() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run(args) => run::execute(config::load(args.config.as_deref())?),
        Command::Check(args) => check::execute(&args),
        Command::Demo(args) => demo::execute(&args),
        Command::Send(args) => send::execute(&args),
        Command::Sink(args) => sink::execute(args),
        Command::Queue(args) => queue::execute(args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
