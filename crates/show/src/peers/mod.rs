//! Real mail servers and a real browser as peers of the tests, each started
//! privately on loopback.
//!
//! A peer that is not installed is never passed over silently: it is reported
//! as skipped, and with `POSTHASTE_TEST_PEERS=required` (as `make test` sets it)
//! it fails the test. `POSTHASTE_TEST_PEER_LOG` names a file that counts the used
//! and the skipped ones.

mod aiosmtpd;
mod certificate;
mod chromium;
mod postfix;

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

pub use aiosmtpd::{Aiosmtpd, Received};
pub use certificate::Certificate;
pub use chromium::Chromium;
pub use postfix::{Postfix, Purpose};

/// Whether a test may use the peer `name`, given what `missing` says is not
/// there; reports it as used or as skipped.
///
/// # Errors
/// When the peer is missing and peers are required.
pub fn may_use(name: &str, missing: Option<String>) -> Result<bool> {
    match missing {
        None => report(&format!("used {name}")).map(|()| true),
        Some(missing) if std::env::var("POSTHASTE_TEST_PEERS").is_ok_and(|v| v == "required") => {
            bail!("the peer {name} is required and missing: {missing}")
        }
        Some(missing) => report(&format!("skipped {name}: {missing}")).map(|()| false),
    }
}

fn report(line: &str) -> Result<()> {
    if line.starts_with("skipped") {
        // Directly, since the test harness hides what a passing test prints
        // through the macros.
        writeln!(std::io::stderr(), "peer {line}")?;
    }
    if let Some(path) = std::env::var_os("POSTHASTE_TEST_PEER_LOG") {
        let mut log = OpenOptions::new().create(true).append(true).open(&path)?;
        log.write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("cannot write to {}", Path::new(&path).display()))?;
    }
    Ok(())
}

/// The root of the project's tree.
fn project_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
