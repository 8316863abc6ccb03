//! TLS to a broker: always verified, by the public authorities or by one's own.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::config::Node;

/// A TLS configuration. Cheap to clone.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

/// TLS could not be set up. Completes "TLS cannot be set up: ".
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsSetupError {
    /// The file of authorities is no PEM.
    #[error("the certificates of the authority cannot be read: {0}")]
    Pem(String),
    /// It has none.
    #[error("there is no certificate in what should hold the authority's")]
    Empty,
    /// The cryptography provider lacks something.
    #[error("{0}")]
    Provider(rustls::Error),
}

impl TlsClient {
    /// Verifies by the authorities that browsers trust.
    ///
    /// # Errors
    /// When the cryptography provider lacks what TLS needs.
    pub fn public() -> Result<Self, TlsSetupError> {
        Self::with_roots(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    /// Verifies by the given authorities alone (PEM).
    ///
    /// # Errors
    /// When there is none in it, or one that cannot be read.
    pub fn private(pem: &[u8]) -> Result<Self, TlsSetupError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|e| TlsSetupError::Pem(e.to_string()))?;
            roots.add(certificate).map_err(|e| TlsSetupError::Pem(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(TlsSetupError::Empty);
        }
        Self::with_roots(roots)
    }

    fn with_roots(roots: RootCertStore) -> Result<Self, TlsSetupError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::Provider)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    pub(crate) async fn connect(
        &self,
        node: &Node,
        tcp: TcpStream,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(node.host.clone()).map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, tcp).await
    }
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_up() {
        assert!(TlsClient::public().is_ok());
        assert_eq!(TlsClient::private(b"no pem").err(), Some(TlsSetupError::Empty));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(TlsClient::private(broken), Err(TlsSetupError::Pem(_))));
    }
}
