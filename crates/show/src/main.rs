//! `make show CASE=name`: prints a named figure or proof. The last line is the
//! figure; the exit status is 0 if and only if it holds.
//!
//! The cases run the release binary `posthaste` that lies beside this one.

mod cases;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};

use cases::{bad_input, crash_loop, load, openapi};

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
    let case = Cli::parse().case;
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
            Case::CrashLoop(args) => crash_loop::run(&args, &program()?).await.map(Some),
        }
    })
}

fn list() {
    for case in Cli::command().get_subcommands().filter(|case| case.get_name() != "list") {
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
