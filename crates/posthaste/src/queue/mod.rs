//! `posthaste queue`: look into the embedded queue of a process at rest, and
//! put right what is in it.
//!
//! The queue's directory belongs to one process, so these commands refuse
//! while one runs. What the broker contract can do is asked of the contract
//! ([`posthaste_broker::Broker`]); only the content of a single message,
//! verification and compaction are matters of the embedded queue alone.
//!
//! Invariants: no message leaves the queue without a record in the evidence
//! that is made durable in the same settlement; a message that cannot be
//! recorded is kept. A message whose attempt has ended and is not settled yet
//! (the journal knows it) is left to the process. An interruption at any point
//! leaves each message either as it was or done.

mod list;
mod moving;
mod name;
mod out;
mod place;
mod progress;
mod purge;
mod row;
mod select;
mod show;
mod take;
mod upkeep;
mod walk;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use posthaste_broker::Broker as _;
use tracing_subscriber::EnvFilter;

use self::{
    name::QueueArg,
    place::{Opened, Place},
    select::SelectArgs,
};
use crate::run::runtime;

/// What to do, and with which queue.
#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(flatten)]
    place: Place,
    /// Print JSON, for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// List the queues, or the messages of one.
    ///
    /// Without QUEUE: every queue with how many messages are ready, how many
    /// wait for their due time, their bytes (a content that several messages
    /// share counts for each), when the oldest was accepted and when the next
    /// is due. With QUEUE: its messages, in the order of their ids, that is of
    /// their acceptance.
    List(list::ListArgs),
    /// Show one message: its record, and its content decompressed.
    Show(show::ShowArgs),
    /// Remove messages for good. Each is recorded in the evidence as
    /// undeliverable, reason "stopped".
    ///
    /// Without --yes it only says how many it would remove. The record goes
    /// through the queue delivery-logs in the same settlement: it is in the
    /// logs once the process has run again. A message whose record cannot be
    /// read has no recipient to record, and is kept.
    Purge(purge::PurgeArgs),
    /// Move messages to another pool, or from quarantine back to a pool.
    ///
    /// A message keeps its id, its attempts and its due time; one that comes
    /// from quarantine is due at once. From quarantine only what can be read
    /// is moved; the rest stays and is named.
    Move(moving::MoveArgs),
    /// Read the whole directory and check every checksum. Changes nothing.
    ///
    /// Exit status 1 when anything is damaged; each place is named with its
    /// file and offset.
    Verify,
    /// Free the space of what is no longer needed, all of it at once. A
    /// running process does the same by itself, bit by bit.
    Compact,
}

/// Does what was asked.
pub fn execute(args: QueueArgs) -> anyhow::Result<ExitCode> {
    // What the queue has to say while it is opened; not its usual notices.
    let filter = EnvFilter::new("warn");
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let json = args.json;
    let site = args.place.site()?;
    runtime()?.block_on(async {
        let opened = match args.command {
            QueueCommand::Verify => return upkeep::verify(&site, json).await,
            // They take messages whose due time has not come.
            QueueCommand::Purge(_) | QueueCommand::Move(_) => site.open_for_taking().await?,
            _ => site.open().await?,
        };
        let done = match &args.command {
            QueueCommand::List(args) => list::execute(args, &opened, json).await,
            QueueCommand::Show(args) => show::execute(args, &opened, json).await,
            QueueCommand::Purge(args) => purge::execute(args, &opened, json).await,
            QueueCommand::Move(args) => moving::execute(args, &opened, json).await,
            QueueCommand::Compact => upkeep::compact(&opened, json).await,
            QueueCommand::Verify => Ok(ExitCode::SUCCESS),
        };
        // A failure of the command says more than one of the closing.
        let closed = opened.queue.close(place::CLOSING).await;
        let code = done?;
        closed?;
        Ok(code)
    })
}
