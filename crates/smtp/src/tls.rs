//! TLS for client sessions.

/// The TLS configurations that all sessions of a process share.
#[derive(Clone)]
pub struct TlsClient {}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsSetupError(String);

impl TlsClient {
    /// With the certificate authorities that browsers trust.
    ///
    /// # Errors
    /// When the cryptography provider has no usable cipher suites.
    pub fn new() -> Result<Self, TlsSetupError> {
        Ok(Self {})
    }
}
