//! aiosmtpd, a receiving server in Python: offers SMTPUTF8 and STARTTLS, no
//! PIPELINING. It runs `scripts/peers/aiosmtpd_peer.py` in the virtual
//! environment that `make test` makes.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use super::{Certificate, project_root};
use crate::{port, process::Process};

/// A mail that it took.
#[derive(Debug, Clone)]
pub struct Received {
    /// `mail_from`, `recipients`, `options`, `ehlo`, `extended` and `tls`.
    pub envelope: Value,
    /// The bytes as they came.
    pub content: Vec<u8>,
}

/// A running aiosmtpd; dropping it stops it.
#[derive(Debug)]
pub struct Aiosmtpd {
    process: Process,
    dir: TempDir,
    address: SocketAddr,
}

impl Aiosmtpd {
    /// What is missing on this machine to start one.
    #[must_use]
    pub fn missing() -> Option<String> {
        let python = python();
        let tried = Command::new(&python).args(["-c", "import aiosmtpd"]).output();
        let works = tried.is_ok_and(|output| output.status.success());
        (!works).then(|| format!("{} has no aiosmtpd (scripts/test makes it)", python.display()))
    }

    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("posthaste-aiosmtpd-").tempdir()?;
        let address = port::free()?;
        let certificate = Certificate::create(dir.path())?;
        let mails = dir.path().join("mails");
        fs::create_dir(&mails)?;
        let mut command = Command::new(python());
        command.arg(project_root().join("scripts/peers/aiosmtpd_peer.py"));
        command.arg("--port").arg(address.port().to_string());
        command.arg("--directory").arg(mails);
        command.arg("--certificate").arg(certificate.certificate);
        command.arg("--key").arg(certificate.key);
        let process = Process::start("aiosmtpd", command, &dir.path().join("log"))?;
        let listens = port::wait(address, Duration::from_secs(20)).await;
        listens.with_context(|| process.last_words())?;
        Ok(Self { process, dir, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The mails that it took so far, in their order.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn mails(&self) -> Result<Vec<Received>> {
        let mut envelopes = Vec::new();
        for entry in fs::read_dir(self.dir.path().join("mails"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                envelopes.push(path);
            }
        }
        envelopes.sort();
        let read = |path: &PathBuf| {
            let envelope = serde_json::from_slice(&fs::read(path)?)?;
            Ok(Received { envelope, content: fs::read(path.with_extension("eml"))? })
        };
        envelopes.iter().map(read).collect()
    }

    /// Waits until it has taken at least `count` mails.
    ///
    /// # Errors
    /// When it has not within twenty seconds.
    pub async fn wait_for_mails(&self, count: usize) -> Result<Vec<Received>> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mails = self.mails()?;
            if mails.len() >= count {
                return Ok(mails);
            }
            if Instant::now() > end {
                let words = self.process.last_words();
                bail!("{} of {count} mails arrived at aiosmtpd; {words}", mails.len());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn python() -> PathBuf {
    match std::env::var_os("POSTHASTE_TEST_PYTHON") {
        Some(path) => path.into(),
        None => project_root().join(".peers/venv/bin/python"),
    }
}
