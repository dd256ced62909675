//! Opens connections to one origin: resolves, connects, and speaks TLS where the address says so.

use std::{io, path::Path, sync::Arc, time::Duration};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::Outgoing;
use crate::config::UpstreamUrl;

/// Why an `https://` origin cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The CA file is missing or is not PEM.
    #[error("CA file {0:?} cannot be read as PEM certificates")]
    CaFile(std::path::PathBuf, #[source] rustls::pki_types::pem::Error),
    /// Neither a CA file nor any root certificate of the system.
    #[error("no root certificates: none in the system's store, and no CA file is set")]
    NoRoots,
    /// The host cannot be a TLS server name.
    #[error("{0:?} is not a name that a certificate can carry")]
    ServerName(String),
    /// rustls refuses the certificates or the protocol set.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

/// Shared by all workers; opens connections to one origin.
#[derive(Debug)]
pub struct Connector {
    host: String,
    port: u16,
    timeout: Duration,
    tls: Option<Tls>,
}

struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Connector {
    /// Prepares connections to `url`. A connection that is not there, TLS included, within `timeout` fails.
    ///
    /// # Errors
    /// [`TlsError`], for `https` only.
    pub fn new(url: &UpstreamUrl, ca_file: Option<&Path>, timeout: Duration) -> Result<Self, TlsError> {
        let tls = if url.tls { Some(Tls::new(&url.host, ca_file)?) } else { None };
        Ok(Self { host: url.host.clone(), port: url.port, timeout, tls })
    }

    /// Opens a connection and drives it in a task of its own until either side closes it.
    ///
    /// # Errors
    /// What the system says; `TimedOut` after `upstream.connect_timeout`.
    pub async fn connect(&self) -> io::Result<SendRequest<Outgoing>> {
        match tokio::time::timeout(self.timeout, self.open()).await {
            Ok(opened) => opened,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn open(&self) -> io::Result<SendRequest<Outgoing>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(stream).await,
            Some(tls) => handshake(tls.connector.connect(tls.name.clone(), stream).await?).await,
        }
    }
}

async fn handshake<S>(stream: S) -> io::Result<SendRequest<Outgoing>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .writev(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = &error as &dyn std::error::Error, "upstream connection ended");
        }
    });
    Ok(sender)
}

impl Tls {
    fn new(host: &str, ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let roots = match ca_file {
            Some(file) => roots_from(file)?,
            None => system_roots()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| TlsError::ServerName(host.to_owned()))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn roots_from(file: &Path) -> Result<RootCertStore, TlsError> {
    let unreadable = |error| TlsError::CaFile(file.to_owned(), error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() {
        return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}
