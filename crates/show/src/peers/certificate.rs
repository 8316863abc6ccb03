//! A self-signed certificate for peers, as PEM files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one for `mx.test` and loopback, in `dir`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn create(dir: &Path) -> Result<Self> {
        let names = ["mx.test", "localhost", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names)?;
        let this = Self { certificate: dir.join("certificate.pem"), key: dir.join("key.pem") };
        fs::write(&this.certificate, made.cert.pem())?;
        fs::write(&this.key, made.signing_key.serialize_pem())?;
        Ok(this)
    }
}
