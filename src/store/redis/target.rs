//! From the configuration's address and files to a client that can be connected.

use std::{fs, path::Path, time::Duration};

use ::redis::{
    Client, ConnectionAddr, IntoConnectionInfo, TlsCertificates,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{
    config::{SecretSource, StoreTarget},
    store::OpenError,
};

/// A peer that is gone without a word is noticed within about this.
const GONE: Duration = Duration::from_secs(2);

/// Reads what the target names.
///
/// # Errors
/// When a file cannot be read, or the address or the CA file cannot be used.
pub(super) fn client(target: &StoreTarget) -> Result<Client, OpenError> {
    let StoreTarget::Redis { url, password, ca_file } = target else {
        return Err(OpenError::Url);
    };
    let text = secret("store.url_file", url)?;
    let info = text.as_str().into_connection_info().map_err(|_| OpenError::Url)?;
    let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
    if let Some(password) = password {
        settings = settings.set_password(secret("store.password_file", password)?);
    }
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp_settings());
    let client = match (info.addr(), ca_file) {
        (ConnectionAddr::TcpTls { insecure: true, .. }, _) => return Err(OpenError::Url),
        (ConnectionAddr::TcpTls { .. }, Some(path)) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(certificates(path)?) };
            Client::build_with_tls(info, certificates)
        }
        _ => Client::open(info),
    };
    client.map_err(|_| OpenError::Url)
}

fn secret(key: &'static str, source: &SecretSource) -> Result<String, OpenError> {
    match source.read() {
        Ok(secret) => Ok(secret.reveal().to_owned()),
        Err(source) => Err(OpenError::Secret { key, source }),
    }
}

fn certificates(path: &Path) -> Result<Vec<u8>, OpenError> {
    let pem = fs::read(path).map_err(|source| OpenError::CaUnreadable { path: path.to_owned(), source })?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(pem),
        _ => Err(OpenError::CaContent { path: path.to_owned() }),
    }
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(GONE).with_interval(Duration::from_secs(1)).with_retries(2);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(GONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn target(url: &str) -> StoreTarget {
        StoreTarget::Redis { url: SecretSource::Value(Secret::new(url)), password: None, ca_file: None }
    }

    #[test]
    fn every_form_of_address_is_taken() {
        for url in [
            "redis://127.0.0.1",
            "redis://user:password@redis.local:6380/3",
            "rediss://redis.local",
            "redis://[::1]:6379/0?protocol=resp3",
            "redis+unix:///run/redis.sock?db=2&user=u&pass=p",
        ] {
            assert!(client(&target(url)).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_address_that_is_wrong_is_not_shown() {
        for url in [
            "redis://user:canary@",
            "redis://:canary@host:port",
            "redis://:canary@host/database",
            "rediss://:canary@host#insecure",
            "http://:canary@host",
            "canary",
        ] {
            let error = client(&target(url)).expect_err(url);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("redis+unix://") && !shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        fs::write(&empty, "no certificate").unwrap();
        let with = |ca_file: &Path| StoreTarget::Redis {
            url: SecretSource::Value(Secret::new("rediss://redis.local")),
            password: None,
            ca_file: Some(ca_file.to_owned()),
        };
        let missing = client(&with(Path::new("/does/not/exist"))).unwrap_err().to_string();
        assert!(missing.starts_with("store.ca_file: ") && missing.contains("/does/not/exist"), "{missing}");
        let content = client(&with(&empty)).unwrap_err().to_string();
        assert!(content.contains("PEM") && content.contains("empty.pem"), "{content}");
        let no_password = StoreTarget::Redis {
            url: SecretSource::Value(Secret::new("redis://redis.local")),
            password: Some(SecretSource::File(folder.path().join("missing"))),
            ca_file: None,
        };
        let missing = client(&no_password).unwrap_err().to_string();
        assert!(missing.starts_with("store.password_file: "), "{missing}");
    }
}
