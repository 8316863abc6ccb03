//! `posthaste run`: the roles that the configuration names, until a signal.

mod assemble;
mod convert;

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

pub use assemble::Posthaste;
pub use convert::token_patterns;

use crate::config::{Config, LogFormat};

/// Runs until a signal, then drains.
pub fn execute(config: Config) -> anyhow::Result<ExitCode> {
    init_log(&config);
    runtime()?.block_on(async {
        let drain = config.drain_timeout.0;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            hostname = config.hostname,
            data_dir = %config.data_dir.display(),
            "starting"
        );
        raise_file_limit();
        let posthaste = Posthaste::start(config).await?;
        let mut stop = StopSignals::new()?;
        stop.next().await;
        info!("stopping: transactions in flight are finished within {drain:?}");
        tokio::select! {
            stopped = posthaste.stop() => {
                stopped?;
                info!("stopped: all that was in flight is settled, or on disk for the next start");
                Ok(ExitCode::SUCCESS)
            }
            () = stop.next() => {
                warn!("stopped at once by a second signal; what was accepted is safe");
                // Without waiting for tasks: the queue and the journal are made for it.
                std::process::exit(130);
            }
        }
    })
}

/// Takes all the file descriptors that the system allows: sessions, clients
/// and segments together are soon more than the usual 1024.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!(files = limit.maximum, "limit of open files"),
        Err(error) => {
            warn!(%error, files = limit.current, "the limit of open files could not be raised");
        }
    }
}

/// SIGTERM and SIGINT.
pub struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    pub fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("failed to listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The runtime that every role of the process shares.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")
}

/// Sends the process's log to standard error.
pub fn init_log(config: &Config) {
    let filter = EnvFilter::try_new(&config.log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn all_the_files_that_the_system_allows() {
        super::raise_file_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
