//! TLS on the public listener: a certificate and its key from files, exchanged while connections run.

use std::{io, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::config;

/// Why a certificate cannot be used. Names the file and never shows what is in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not there, or not PEM.
    #[error("{0:?} cannot be read as PEM")]
    Unreadable(std::path::PathBuf, #[source] rustls::pki_types::pem::Error),
    /// The file holds no certificate.
    #[error("{0:?} holds no certificate")]
    Empty(std::path::PathBuf),
    /// The key does not belong to the certificate, or is of a kind that cannot be used.
    #[error("certificate and key do not fit")]
    Mismatch(#[source] rustls::Error),
    /// rustls refuses the protocol set.
    #[error("TLS cannot be set up")]
    Rustls(#[from] rustls::Error),
}

/// The certificate in use. Clones share it.
#[derive(Clone, Debug)]
pub struct Certificate {
    files: config::Tls,
    current: Arc<ArcSwap<CertifiedKey>>,
}

impl Certificate {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn load(files: config::Tls) -> Result<Self, Error> {
        let current = Arc::new(ArcSwap::from_pointee(read(&files)?));
        Ok(Self { files, current })
    }

    /// Reads the files again; new handshakes get what they hold now. On an error the old pair stays.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn reload(&self) -> Result<(), Error> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// What accepts TLS connections with this certificate; HTTP/2 and HTTP/1.1 by ALPN.
    ///
    /// # Errors
    /// [`Error::Rustls`].
    pub fn acceptor(&self) -> Result<TlsAcceptor, Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(&self.current))));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

#[derive(Debug)]
struct Resolver(Arc<ArcSwap<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn read(files: &config::Tls) -> Result<CertifiedKey, Error> {
    let unreadable = |file: &Path| {
        let file = file.to_owned();
        move |error| Error::Unreadable(file, error)
    };
    let chain = CertificateDer::pem_file_iter(&files.cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(&files.cert_file))?;
    if chain.is_empty() {
        return Err(Error::Empty(files.cert_file.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(unreadable(&files.key_file))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(Error::Mismatch)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The protocol that was agreed on is HTTP/2.
pub fn is_h2(stream: &tokio_rustls::server::TlsStream<impl Sized>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// The HTTP/2 preface (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a plaintext client begins with HTTP/2's preface. Looks without taking anything; the
/// caller's timeout bounds the wait.
///
/// # Errors
/// What the system says; `UnexpectedEof` when the client leaves without a word.
pub async fn begins_with_h2_preface(stream: &tokio::net::TcpStream) -> io::Result<bool> {
    let mut first = [0_u8; 24];
    loop {
        match stream.peek(&mut first).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            24 => return Ok(&first == PREFACE),
            read if first.get(..read) != PREFACE.get(..read) => return Ok(false),
            // readiness is level-triggered here: asking again at once would spin
            _ => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    }
}
