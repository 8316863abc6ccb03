//! `make show CASE=name`: prints a named figure or proof. The last line is the
//! figure; the exit status is 0 if and only if it holds.
//!
//! The cases run the release binary `posthaste` that lies beside this one.

mod cases;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};

use cases::{bad_input, crash_loop, deferral, load, openapi, queue, queue_child, queue_faults};

/// That of the shipped program, so that memory is what it is there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about = "Prints a named figure or proof")]
struct Cli {
    #[command(subcommand)]
    case: Case,
}

#[derive(Debug, Subcommand)]
enum Case {
    /// List the cases.
    List,
    /// Throughput, CPU time and memory, everything durable, beside Postfix.
    Load(load::LoadArgs),
    /// Kill -9 during load, again and again: nothing lost, few duplicates.
    CrashLoop(crash_loop::CrashLoopArgs),
    /// Everything that is bad input, sent to a real node.
    BadInput(bad_input::BadInputArgs),
    /// schemathesis finds no violation of the API's description.
    Openapi(openapi::OpenapiArgs),
    /// The embedded queue: inserts beside the raw disk, memory, start, space.
    Queue(queue::QueueArgs),
    /// Every message deferred five times: bytes written, space, compaction.
    Deferral(deferral::DeferralArgs),
    /// Faults of the disk under the embedded queue: lost 0, invented 0.
    QueueFaults(queue_faults::QueueFaultsArgs),
    /// A part of a case, in a process of its own.
    #[command(hide = true)]
    QueueChild(queue_child::ChildArgs),
}

/// What a case came to.
#[derive(Debug)]
struct Verdict {
    /// The last line of its report.
    line: String,
    holds: bool,
}

fn main() -> ExitCode {
    match execute() {
        Ok(Some(verdict)) => {
            println!("{}", verdict.line);
            if verdict.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute() -> Result<Option<Verdict>> {
    let case = match Cli::parse().case {
        Case::QueueChild(part) => return queue_child::run(part).map(|()| None),
        case => case,
    };
    // One thread: what generates the load shall leave the cores to the rest.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match case {
            Case::List => {
                list();
                Ok(None)
            }
            Case::Load(args) => load::run(&args, &program()?).await.map(Some),
            Case::BadInput(args) => bad_input::run(&args, &program()?).await.map(Some),
            Case::Openapi(args) => openapi::run(&args, &program()?).await.map(Some),
            Case::Queue(args) => queue::run(&args).await.map(Some),
            Case::Deferral(args) => deferral::run(&args).await.map(Some),
            Case::QueueFaults(args) => queue_faults::run(&args).await.map(Some),
            Case::QueueChild(_) => Ok(None),
            Case::CrashLoop(args) => crash_loop::run(&args, &program()?).await.map(Some),
        }
    })
}

fn list() {
    let cli = Cli::command();
    let is_case = |case: &&clap::Command| case.get_name() != "list" && !case.is_hide_set();
    for case in cli.get_subcommands().filter(is_case) {
        let about = case.get_about().map(ToString::to_string).unwrap_or_default();
        println!("make show CASE={:<12} {about}", case.get_name());
        for argument in case.get_arguments() {
            let (Some(name), Some(help)) = (argument.get_env(), argument.get_help()) else {
                continue;
            };
            println!("{:>24}= {help}", name.display());
        }
    }
}

/// The binary under trial.
fn program() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let program = this.parent().context("no directory")?.join("posthaste");
    if !program.exists() {
        bail!("{} is missing: make show builds it", program.display());
    }
    Ok(program)
}
