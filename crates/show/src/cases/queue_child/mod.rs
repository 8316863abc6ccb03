//! The parts of the queue's cases, each in a process of its own, so that what
//! the system says of that process is the queue's alone.
//!
//! A part says on standard error how far it is, and at its end writes its
//! result to standard output as JSON.

mod deferral;
mod fill;
mod insert;
mod shared;
mod start;
mod work;

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;

pub use self::{
    deferral::Deferred, fill::Filled, insert::Round, shared::SharedBodies, start::Started,
};

#[derive(Debug, Args)]
pub struct ChildArgs {
    /// An empty directory, or the one of the part before.
    #[arg(long)]
    dir: PathBuf,
    #[command(subcommand)]
    part: Part,
}

/// A part, with its sizes.
#[derive(Debug, Clone, Subcommand)]
pub enum Part {
    /// Durable inserts, and the same bytes raw.
    Insert {
        #[arg(long)]
        messages: u64,
        #[arg(long)]
        bytes: usize,
        #[arg(long)]
        rounds: u32,
    },
    /// Many small messages that stay; memory on the way.
    Fill {
        #[arg(long)]
        first: u64,
        #[arg(long)]
        all: u64,
    },
    /// Opens what `fill` has left, and drains it.
    Start,
    /// Large contents that many messages share.
    Shared {
        #[arg(long)]
        submissions: u64,
        #[arg(long)]
        recipients: u64,
        #[arg(long)]
        bytes: usize,
    },
    /// Messages that are deferred again and again.
    Deferral {
        #[arg(long)]
        messages: u64,
        #[arg(long)]
        times: u32,
        #[arg(long)]
        bytes: usize,
    },
}

/// Does a part: the child's side.
pub fn run(args: ChildArgs) -> Result<()> {
    // As the shipped program does.
    rustix::thread::disable_transparent_huge_pages(true)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = args.dir;
    let result = runtime.block_on(async {
        Ok::<_, anyhow::Error>(match args.part {
            Part::Insert { messages, bytes, rounds } => {
                serde_json::to_string(&insert::run(&dir, messages, bytes, rounds).await?)?
            }
            Part::Fill { first, all } => {
                serde_json::to_string(&fill::run(&dir, first, all).await?)?
            }
            Part::Start => serde_json::to_string(&start::run(&dir).await?)?,
            Part::Shared { submissions, recipients, bytes } => {
                let shared = shared::run(&dir, submissions, recipients, bytes).await?;
                serde_json::to_string(&shared)?
            }
            Part::Deferral { messages, times, bytes } => {
                serde_json::to_string(&deferral::run(&dir, messages, times, bytes).await?)?
            }
        })
    })?;
    println!("{result}");
    Ok(())
}

impl Part {
    fn args(&self) -> Vec<String> {
        let (name, sizes) = match self {
            Self::Insert { messages, bytes, rounds } => (
                "insert",
                vec![
                    ("messages", *messages),
                    ("bytes", *bytes as u64),
                    ("rounds", u64::from(*rounds)),
                ],
            ),
            Self::Fill { first, all } => ("fill", vec![("first", *first), ("all", *all)]),
            Self::Start => ("start", vec![]),
            Self::Shared { submissions, recipients, bytes } => (
                "shared",
                vec![
                    ("submissions", *submissions),
                    ("recipients", *recipients),
                    ("bytes", *bytes as u64),
                ],
            ),
            Self::Deferral { messages, times, bytes } => (
                "deferral",
                vec![
                    ("messages", *messages),
                    ("times", u64::from(*times)),
                    ("bytes", *bytes as u64),
                ],
            ),
        };
        let sizes =
            sizes.into_iter().flat_map(|(key, size)| [format!("--{key}"), size.to_string()]);
        [name.to_owned()].into_iter().chain(sizes).collect()
    }

    /// Has the part done by a child, and gives its result.
    pub async fn call<T: DeserializeOwned>(&self, dir: &std::path::Path) -> Result<T> {
        let child = tokio::process::Command::new(std::env::current_exe()?)
            .arg("queue-child")
            .arg("--dir")
            .arg(dir)
            .args(self.args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.wait_with_output().await?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("the part {self:?} ended with {}: {}", output.status, printed.trim());
        }
        serde_json::from_str(&printed).with_context(|| format!("{self:?} printed {printed:?}"))
    }
}
