//! TLS on the public listener (issue item 1, contract §12 "TLS certificates are reloaded when they change").

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{
    certificates,
    raw::Raw,
    sidecar::Sidecar,
    upstream::{Upstream, answer},
};

struct Served {
    folder: TempDir,
    upstream: Upstream,
    sidecar: Sidecar,
}

async fn serve(flags: &[&str]) -> Served {
    let folder = tempfile::tempdir().unwrap();
    certificates::make(folder.path());
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let file = |key: &str, name: &str| format!("--tls-{key}-file={}", folder.path().join(name).display());
    let own = [
        format!("--upstream-url={}", upstream.url),
        file("cert", "cert.pem"),
        file("key", "key.pem"),
        "--reload-interval=100ms".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().copied().chain(own.iter().map(String::as_str)).collect();
    let sidecar = Sidecar::start(&flags);
    Served { folder, upstream, sidecar }
}

/// Connects with the CA of `folder`, offering these protocols.
async fn connect(sidecar: &Sidecar, ca: &Path, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn alpn_chooses_between_http_1_1_and_http_2() {
    let served = serve(&[]).await;
    let ca = served.folder.path().join("ca.pem");
    let request = |version| {
        let uri = format!("https://{}/settings", served.sidecar.address);
        Request::get(uri).version(version).header("host", "a").body(Empty::<Bytes>::new()).unwrap()
    };
    for protocols in [&["http/1.1"][..], &[]] {
        let stream = connect(&served.sidecar, &ca, protocols).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        let got = sender.send_request(request(Version::HTTP_11)).await.unwrap();
        assert_eq!(got.into_body().collect().await.unwrap().to_bytes(), "hello");
        driver.abort();
    }
    let stream = connect(&served.sidecar, &ca, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut head = request(Version::HTTP_2);
    head.headers_mut().clear();
    let got = sender.send_request(head).await.unwrap();
    assert_eq!(got.version(), Version::HTTP_2);
    assert_eq!(got.into_body().collect().await.unwrap().to_bytes(), "hello");
    driver.abort();
    assert_eq!(served.upstream.seen().len(), 3);
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_refused() {
    let served = serve(&[]).await;
    assert!(connect(&served.sidecar, &served.folder.path().join("ca.pem"), &["h3"]).await.is_err());
}

#[tokio::test]
async fn plaintext_and_silence_are_closed() {
    let served = serve(&["--limits-header-read-timeout=300ms"]).await;
    for sent in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "\u{16}"] {
        let mut client = Raw::connect(served.sidecar.address).await;
        client.send(sent).await;
        let (got, _) = client.rest().await;
        assert!(!got.starts_with(b"HTTP/1.1 200"), "{sent:?}");
    }
    assert!(served.upstream.connections().is_empty());
    // and a handshake, for which there is more time, then nothing
    let served = serve(&["--limits-header-read-timeout=2s"]).await;
    let mut silent =
        connect(&served.sidecar, &served.folder.path().join("ca.pem"), &["http/1.1"]).await.unwrap();
    let mut byte = [0; 1];
    let read = silent.read(&mut byte);
    let ended = tokio::time::timeout(Duration::from_secs(10), read).await.expect("closed in time");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(served.upstream.connections().is_empty());
}

const RELOADED: &str = "gotrue_sidecar_config_last_reload_successful";

async fn reloaded(sidecar: &Sidecar, value: f64) {
    let began = std::time::Instant::now();
    while (sidecar.metric(RELOADED).await - value).abs() > 0.5 {
        assert!(began.elapsed() < Duration::from_secs(10), "{RELOADED} never became {value}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_while_connections_go_on() {
    let served = serve(&[]).await;
    let ca = served.folder.path().join("ca.pem");
    let stream = connect(&served.sidecar, &ca, &[]).await.unwrap();
    let (mut before, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let old = served.folder.path().join("old-ca.pem");
    fs::rename(&ca, &old).unwrap();
    certificates::make(served.folder.path());
    let began = std::time::Instant::now();
    while connect(&served.sidecar, &ca, &[]).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "the new certificate is never used");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(connect(&served.sidecar, &old, &[]).await.is_err());
    reloaded(&served.sidecar, 1.0).await;
    let request = Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(before.send_request(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_key_that_does_not_fit_leaves_the_old_pair_in_use() {
    let served = serve(&[]).await;
    let path = |name: &str| served.folder.path().join(name);
    let key = fs::read(path("key.pem")).unwrap();
    let other = tempfile::tempdir().unwrap();
    certificates::make(other.path());
    reloaded(&served.sidecar, 1.0).await;
    for broken in [fs::read(other.path().join("key.pem")).unwrap(), b"no key".to_vec(), Vec::new()] {
        fs::write(path("key.pem"), broken).unwrap();
        reloaded(&served.sidecar, 0.0).await;
        assert!(connect(&served.sidecar, &path("ca.pem"), &[]).await.is_ok());
        fs::write(path("key.pem"), &key).unwrap();
        reloaded(&served.sidecar, 1.0).await;
        assert!(connect(&served.sidecar, &path("ca.pem"), &[]).await.is_ok());
    }
}
