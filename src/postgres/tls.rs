//! TLS by rustls, with its ring provider given by hand: the process-wide default belongs to the application.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Code, HfError, Result};

/// When TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Never,
    IfOffered,
    Always,
}

/// What is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Nothing,
    Chain,
    /// Chain and host name.
    Full,
}

/// PEM, here or in a file.
#[derive(Clone)]
pub(super) enum Pem {
    Text(String),
    File(PathBuf),
}

#[derive(Clone)]
pub(super) struct TlsPlan {
    pub(super) usage: Use,
    pub(super) level: Level,
    /// Trusted roots; `None` means those of the system.
    pub(super) roots: Option<Vec<Pem>>,
    /// Certificate chain and key of the client.
    pub(super) identity: Option<(Pem, Pem)>,
    pub(super) server_name: Option<String>,
}

impl TlsPlan {
    pub(super) fn off() -> Self {
        Self { usage: Use::Never, level: Level::Nothing, roots: None, identity: None, server_name: None }
    }

    pub(super) fn driver_mode(&self) -> SslMode {
        match self.usage {
            Use::Never => SslMode::Disable,
            Use::IfOffered => SslMode::Prefer,
            Use::Always => SslMode::Require,
        }
    }
}

/// Makes the TLS side of connections. Reads certificate files and the system's roots: call it where blocking is allowed.
pub(super) fn connector(plan: &TlsPlan) -> Result<Connector> {
    Ok(Connector { inner: MakeRustlsConnect::new(client_config(plan)?), server_name: plan.server_name.clone() })
}

/// Connects with the host's name, or with the one that the caller gave.
#[derive(Clone)]
pub(super) struct Connector {
    inner: MakeRustlsConnect,
    server_name: Option<String>,
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> std::result::Result<Self::TlsConnect, Self::Error> {
        <MakeRustlsConnect as MakeTlsConnect<Socket>>::make_tls_connect(
            &mut self.inner,
            self.server_name.as_deref().unwrap_or(host),
        )
    }
}

fn invalid(what: &str, why: &str) -> HfError {
    HfError::new(Code::InvalidArgument, format!("TLS to PostgreSQL: {what} {why}"))
}

pub(super) fn client_config(plan: &TlsPlan) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier::new(plan, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("the protocol versions", &format!("cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match &plan.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain = certificates(cert, "the client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&bytes(key, "the private key")?)
                .map_err(|_| invalid("the private key", "is not an unencrypted PEM key"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|_| invalid("the client certificate", "does not go with its private key"))
        }
    }
}

fn bytes(pem: &Pem, what: &str) -> Result<Vec<u8>> {
    match pem {
        Pem::Text(text) => Ok(text.clone().into_bytes()),
        Pem::File(path) => std::fs::read(path).map_err(|error| HfError::io(&format!("read {what}"), path, &error)),
    }
}

fn certificates(pem: &Pem, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(pem, what)?).collect();
    let all = all.map_err(|_| invalid(what, "is not valid PEM"))?;
    if all.is_empty() { Err(invalid(what, "holds no PEM certificate")) } else { Ok(all) }
}

/// Reading the system's roots takes tens of milliseconds, so the process does it once.
fn system_roots() -> Result<Arc<RootCertStore>> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    });
    if roots.is_empty() {
        return Err(invalid("the system", "has no trusted root certificates; give the server's own with `ssl.ca`"));
    }
    Ok(Arc::clone(roots))
}

/// Verifies as much of the server's certificate as the plan says.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that the caller trusts as they are: a self-signed server certificate given as its own root, which
    /// web rules would refuse.
    pinned: Vec<CertificateDer<'static>>,
    name: bool,
}

impl Verifier {
    fn new(plan: &TlsPlan, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let mut pinned = Vec::new();
        if let Some(roots) = &plan.roots {
            for pem in roots {
                pinned.extend(certificates(pem, "the trusted root (ca)")?);
            }
        }
        let chain = if plan.level == Level::Nothing {
            None
        } else {
            let roots = if plan.roots.is_none() {
                system_roots()?
            } else {
                let mut store = RootCertStore::empty();
                store.add_parsable_certificates(pinned.iter().cloned());
                if store.is_empty() {
                    return Err(invalid("the trusted root (ca)", "holds no usable certificate"));
                }
                Arc::new(store)
            };
            let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
            Some(built.map_err(|error| invalid("the trusted roots", &format!("cannot be used: {error}")))?)
        };
        Ok(Self { provider: Arc::clone(provider), chain, pinned, name: plan.level == Level::Full })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        if self.pinned.iter().any(|pinned| pinned == leaf) {
            if self.name {
                let parsed = rustls::server::ParsedCertificate::try_from(leaf)?;
                rustls::client::verify_server_name(&parsed, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            // The name is looked at last: the chain was good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Tells whether a failed handshake was the network's fault rather than the certificates'.
pub(super) fn is_network_trouble(source: &io::Error) -> bool {
    matches!(
        source.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::TimedOut
    )
}
