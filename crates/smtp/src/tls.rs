//! TLS for client sessions (RFC 3207).
//!
//! Two configurations, shared by all sessions of a process: one takes any
//! certificate, since most mail servers have none that could be checked and
//! encryption without proof of identity beats none (RFC 7435); the other one
//! verifies. Both check that the peer holds the key of its certificate.

use std::{net::SocketAddr, sync::Arc};

use posthaste_model::TlsInfo;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ProtocolVersion, RootCertStore,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_rustls::TlsConnector;

/// The TLS configurations that all sessions of a process share. Cheap to clone.
#[derive(Clone)]
pub struct TlsClient {
    any: Arc<ClientConfig>,
    verified: Arc<ClientConfig>,
}

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsSetupError(#[from] Error);

impl TlsClient {
    /// Verifies by the certificate authorities that browsers trust.
    ///
    /// # Errors
    /// When the cryptography provider lacks what TLS needs.
    pub fn new() -> Result<Self, TlsSetupError> {
        Self::with_roots(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    /// Verifies by the given certificate authorities.
    ///
    /// # Errors
    /// When the cryptography provider lacks what TLS needs.
    pub fn with_roots(roots: RootCertStore) -> Result<Self, TlsSetupError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let any = AnyCertificate(provider.signature_verification_algorithms);
        let any = builder(&provider)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any))
            .with_no_client_auth();
        let verified = builder(&provider)?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { any: Arc::new(any), verified: Arc::new(verified) })
    }

    pub(crate) fn connector(&self, verify: bool) -> TlsConnector {
        Arc::clone(if verify { &self.verified } else { &self.any }).into()
    }
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClient").finish_non_exhaustive()
    }
}

fn builder(
    provider: &Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()
}

/// The name to ask for and to verify: that of the MX host (RFC 7672 is not
/// done yet). A host without a usable name can be asked by its address only.
pub(crate) fn server_name(host: &str, address: SocketAddr) -> ServerName<'static> {
    let name = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(name.to_owned()).unwrap_or_else(|_| ServerName::from(address.ip()))
}

/// What the handshake agreed on.
pub(crate) fn info(connection: &ClientConnection) -> TlsInfo {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    };
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    // rustls names the TLS 1.3 suites TLS13_…; IANA's registry has TLS_….
    let cipher =
        suite.map_or_else(|| "unknown".to_owned(), |name| name.replacen("TLS13_", "TLS_", 1));
    TlsInfo { version: version.to_owned(), cipher }
}

/// Takes any certificate whose key the peer holds.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let address = "192.0.2.1:25".parse().unwrap();
        for (host, expected) in [
            ("mx.example.com", "mx.example.com"),
            ("mx.example.com.", "mx.example.com"),
            ("mx_1.example.com", "mx_1.example.com"),
            ("", "192.0.2.1"),
            ("no name", "192.0.2.1"),
        ] {
            assert_eq!(server_name(host, address).to_str(), expected);
        }
    }

    #[test]
    fn sets_up() {
        assert!(TlsClient::new().is_ok());
    }
}
