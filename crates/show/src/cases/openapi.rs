//! `openapi`: schemathesis takes the description at its word, against a real
//! node: what it calls valid must be accepted, what it calls invalid refused,
//! and every answer must be one that it describes.
//!
//! What JSON Schema cannot say is put in by `scripts/openapi/hooks.py`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use posthaste_show::{
    names,
    node::{Node, Settings},
    port,
};
use tokio::process::Command;

use crate::Verdict;

/// The whole run; it takes a minute.
const PATIENCE: Duration = Duration::from_secs(1800);

#[derive(Debug, Args)]
pub struct OpenapiArgs {
    /// Examples of each operation and phase.
    #[arg(long, env = "EXAMPLES", default_value_t = 50)]
    examples: u32,
    /// From which they are made.
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
}

pub async fn run(args: &OpenapiArgs, program: &Path) -> Result<Verdict> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let made = Command::new(root.join("scripts/show-venv")).status().await?;
    if !made.success() {
        bail!("scripts/show-venv ended with {made}");
    }
    let dns = names::all_to_loopback(&[]).await?;
    let settings = Settings::new(program, dns.address(), port::free()?.port());
    let mut node = Node::start(&settings).await?;
    let (report, passed) = schemathesis(args, &root, &node).await?;
    print!("{report}");
    let words = node.process().printed();
    let panics = words.matches("panicked").count();
    if panics > 0 {
        println!("{}", node.process().last_words());
    }
    node.stop().await?;
    let counts = Counts::read(&report)?;
    let violations = counts.violations + panics;
    let line = format!(
        "openapi: {} operations, {} cases, {violations} violations",
        counts.operations, counts.cases
    );
    Ok(Verdict { line, holds: passed && violations == 0 && counts.cases > 0 })
}

async fn schemathesis(args: &OpenapiArgs, root: &Path, node: &Node) -> Result<(String, bool)> {
    // It leaves files where it runs.
    let dir = tempfile::Builder::new().prefix("posthaste-openapi-").tempdir()?;
    let program: PathBuf = root.canonicalize()?.join(".peers/show-venv/bin/st");
    let running = Command::new(program)
        .arg("run")
        .arg(format!("http://{}/openapi.json", node.api()))
        .args(["--max-examples", &args.examples.to_string(), "--seed", &args.seed.to_string()])
        .arg("--no-color")
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", root.canonicalize()?.join("scripts/openapi"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, running).await;
    let output = output.context("schemathesis does not come to an end")??;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    if report.is_empty() {
        bail!("schemathesis said nothing: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((report, output.status.success()))
}

/// What the end of the report says.
#[derive(Debug)]
struct Counts {
    operations: u64,
    cases: u64,
    violations: usize,
}

impl Counts {
    fn read(report: &str) -> Result<Self> {
        let number = |text: &str| text.split([' ', '/']).next()?.parse().ok();
        let find = |before: &str| {
            let mut lines = report.lines().map(str::trim);
            lines.find_map(|line| line.strip_prefix(before)).map(str::trim)
        };
        let operations = find("Tested:").and_then(number);
        let cases_line = report.lines().map(str::trim).find(|line| line.contains(" generated"));
        let cases = cases_line.and_then(number);
        let unique = cases_line.and_then(|line| line.split(" found ").nth(1)).and_then(number);
        Ok(Self {
            operations: operations.context("the report does not say what was tested")?,
            cases: cases.context("the report does not say how many cases there were")?,
            violations: usize::try_from(unique.unwrap_or(0))?,
        })
    }
}
