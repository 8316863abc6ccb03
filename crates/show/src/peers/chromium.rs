//! Chromium, a real browser for the pages that the API serves.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Virtual time that a page has for its scripts and requests, in milliseconds.
const BUDGET: &str = "--virtual-time-budget=10000";

/// The browser, without a window.
#[derive(Debug)]
pub struct Chromium;

impl Chromium {
    /// What is missing on this machine to use it.
    #[must_use]
    pub fn missing() -> Option<String> {
        program().is_none().then(|| "the package chromium is not installed".to_owned())
    }

    /// Opens a page, lets its scripts run, and gives the document as HTML.
    ///
    /// # Errors
    /// When the browser fails.
    pub fn document(url: &str) -> Result<String> {
        let program = program().context("chromium is not installed")?;
        let profile = tempfile::Builder::new().prefix("posthaste-chromium-").tempdir()?;
        let output = Command::new("timeout")
            .arg("120")
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--disable-dev-shm-usage", BUDGET, "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(url)
            .output()?;
        if !output.status.success() {
            bail!("chromium: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn program() -> Option<PathBuf> {
    let found = Path::new("/usr/bin/chromium");
    found.exists().then(|| found.to_owned())
}
