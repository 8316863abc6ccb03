//! The receiving server of Posthaste (`posthaste sink`) as a process of its
//! own, so that its CPU time is not that of the measured one.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tempfile::TempDir;

use crate::{
    accept_log::{AcceptLog, Accepted},
    measure, port,
    process::Process,
};

/// A running sink; dropping it stops it.
#[derive(Debug)]
pub struct SinkProcess {
    process: Process,
    address: SocketAddr,
    log: AcceptLog,
    // Behind the process, which writes into it to its end.
    _dir: TempDir,
}

impl SinkProcess {
    /// Starts one and waits until it listens. It offers no STARTTLS, so that
    /// what is measured is the queue and SMTP, the same for everybody.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(program: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("posthaste-sink-").tempdir()?;
        let address = port::free()?;
        let log = dir.path().join("accepted");
        let mut command = Command::new(program);
        command.args(["sink", "--no-starttls", "--listen", &address.to_string(), "--accept-log"]);
        command.arg(&log);
        let process = Process::start("the sink", command, &dir.path().join("sink.log"))?;
        if let Err(error) = port::wait(address, Duration::from_secs(10)).await {
            return Err(error.context(process.last_words()));
        }
        Ok(Self { process, address, log: AcceptLog::new(&log), _dir: dir })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has accepted since the last call.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn accepted(&mut self) -> Result<Vec<Accepted>> {
        self.log.read()
    }

    /// Waits until its clients are gone and it has dealt with all that they
    /// had sent, then gives what it has accepted since the last call.
    ///
    /// # Errors
    /// When it does not come to rest within ten seconds.
    pub async fn accepted_to_the_last(&mut self) -> Result<Vec<Accepted>> {
        let end = Instant::now() + Duration::from_secs(10);
        let mut accepted = self.accepted()?;
        loop {
            // A connection that was reset is out of the kernel's table at
            // once, while the sink may still read what it has buffered.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let more = self.accepted()?;
            if more.is_empty() && measure::open_connections(self.address)? == 0 {
                return Ok(accepted);
            }
            accepted.extend(more);
            if Instant::now() > end {
                bail!("the sink does not come to rest; {}", self.process.last_words());
            }
        }
    }
}
