//! From the configuration's address and files to clients that can be connected.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use ::redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisFuture, TlsCertificates,
    io::{
        AsyncDNSResolver,
        tcp::{TcpSettings, socket2::TcpKeepalive},
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    config::{
        RedisTarget, Secret, SecretSource, StoreTls,
        store_url::{Address, RedisUrl, Shape, StoreUrl},
    },
    store::OpenError,
};

/// A peer that is gone without a word is noticed within about this.
const GONE: Duration = Duration::from_secs(2);

/// What the configuration's address and files said when they were read.
pub(super) struct Target {
    /// Which shape of Redis it is.
    pub(super) shape: Shape,
    /// Those in the address; at least one.
    pub(super) addresses: Vec<Address>,
    login: RedisConnectionInfo,
    sentinel_login: RedisConnectionInfo,
    tls: Option<Tls>,
    read: Read,
}

/// As what a server is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It holds data.
    Server,
    /// It holds data, and tells of changes: in the third version of the protocol only.
    Teller,
    /// It knows where the master is.
    Sentinel,
}

#[derive(Clone)]
struct Tls {
    /// Some address, with the certificates that the client has parsed.
    parsed: ConnectionAddr,
    server_name: Option<String>,
}

/// Everything that was read, to tell whether it is still the same.
#[derive(Clone, PartialEq)]
struct Read {
    url: Secret,
    password: Option<Secret>,
    sentinel_password: Option<Secret>,
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Target {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// When a file cannot be read, or the address or a certificate cannot be used.
    pub(super) fn read(config: &RedisTarget) -> Result<Self, OpenError> {
        let read = Read {
            url: secret("store.url_file", &config.url)?,
            password: optional("store.password_file", config.password.as_ref())?,
            sentinel_password: optional("store.sentinel_password_file", config.sentinel.password.as_ref())?,
            ca: config.tls.ca_file.as_deref().map(certificates).transpose()?,
            client: client_certificate(&config.tls)?,
        };
        let Some(StoreUrl::Redis(url)) = StoreUrl::parse(read.url.reveal()) else {
            return Err(OpenError::Url);
        };
        let RedisUrl { shape, tls, addresses, login } = *url;
        if shape == Shape::Cluster && login.db() != 0 {
            return Err(OpenError::ClusterDatabase);
        }
        let tls = tls.then(|| tls_of(&config.tls, &read)).transpose()?;
        let login = login.set_skip_set_lib_name();
        let sentinel_login = RedisConnectionInfo::default().set_skip_set_lib_name();
        Ok(Self {
            shape,
            addresses,
            login: with(login, config.username.as_deref(), read.password.as_ref()),
            sentinel_login: with(
                sentinel_login,
                config.sentinel.username.as_deref(),
                read.sentinel_password.as_ref(),
            ),
            tls,
            read,
        })
    }

    /// Whether both were read from the same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.read == other.read
    }

    /// A client of the server at that address, and who resolves its name if that is not its own.
    pub(super) fn client(
        &self,
        address: &Address,
        role: Role,
    ) -> Result<(Client, Option<Elsewhere>), ::redis::RedisError> {
        let login = match role {
            Role::Server => self.login.clone(),
            Role::Teller => self.login.clone().set_protocol(ProtocolVersion::RESP3),
            Role::Sentinel => self.sentinel_login.clone(),
        };
        let (address, elsewhere) = self.place(address);
        let info = address.into_connection_info()?.set_redis_settings(login);
        Ok((Client::open(info.set_tcp_settings(tcp_settings()))?, elsewhere))
    }

    fn place(&self, address: &Address) -> (ConnectionAddr, Option<Elsewhere>) {
        match (address, &self.tls) {
            (Address::Unix(path), _) => (ConnectionAddr::Unix(path.clone()), None),
            (Address::Tcp { host, port }, None) => (ConnectionAddr::Tcp(host.clone(), *port), None),
            (Address::Tcp { host, port }, Some(tls)) => {
                let elsewhere = tls.server_name.as_ref().map(|_| Elsewhere(host.clone()));
                let mut address = tls.parsed.clone();
                if let ConnectionAddr::TcpTls { host: name, port: to, .. } = &mut address {
                    tls.server_name.as_ref().unwrap_or(host).clone_into(name);
                    *to = *port;
                }
                (address, elsewhere)
            }
        }
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Resolves every name to where this one is: the client takes the name in the certificate for the host.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere(String);

impl AsyncDNSResolver for Elsewhere {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((self.0.as_str(), port)).await?;
            let found: Vec<SocketAddr> = found.collect();
            Ok(Box::new(found.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

fn with(login: RedisConnectionInfo, user: Option<&str>, password: Option<&Secret>) -> RedisConnectionInfo {
    let login = match user {
        Some(user) => login.set_username(user),
        None => login,
    };
    match password {
        Some(password) => login.set_password(password.reveal()),
        None => login,
    }
}

fn secret(key: &'static str, source: &SecretSource) -> Result<Secret, OpenError> {
    source.read().map_err(|source| OpenError::Secret { key, source })
}

fn optional(key: &'static str, source: Option<&SecretSource>) -> Result<Option<Secret>, OpenError> {
    source.map(|source| secret(key, source)).transpose()
}

fn pem(key: &'static str, path: &Path) -> Result<Vec<u8>, OpenError> {
    fs::read(path).map_err(|source| OpenError::PemUnreadable { key, path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<u8>, OpenError> {
    certificates_in("store.ca_file", path)
}

fn certificates_in(key: &'static str, path: &Path) -> Result<Vec<u8>, OpenError> {
    let pem = pem(key, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(read) if !read.is_empty() => Ok(pem),
        _ => Err(OpenError::PemContent { key, expected: "PEM certificates", path: path.to_owned() }),
    }
}

fn client_certificate(tls: &StoreTls) -> Result<Option<(Vec<u8>, Vec<u8>)>, OpenError> {
    let Some(files) = &tls.client else {
        return Ok(None);
    };
    let chain = certificates_in("store.client_cert_file", &files.cert_file)?;
    let key = pem("store.client_key_file", &files.key_file)?;
    if PrivateKeyDer::from_pem_slice(&key).is_err() {
        let path = files.key_file.clone();
        return Err(OpenError::PemContent {
            key: "store.client_key_file",
            expected: "a PEM private key",
            path,
        });
    }
    Ok(Some((chain, key)))
}

/// Lets the client parse the certificates once; the address is replaced by each server's.
fn tls_of(config: &StoreTls, read: &Read) -> Result<Tls, OpenError> {
    let client_tls =
        read.client.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    let certificates = TlsCertificates { client_tls, root_cert: read.ca.clone() };
    let client =
        Client::build_with_tls("rediss://host", certificates).map_err(|_| OpenError::Certificates)?;
    let parsed = client.get_connection_info().addr().clone();
    Ok(Tls { parsed, server_name: config.server_name.clone() })
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(GONE).with_interval(Duration::from_secs(1)).with_retries(2);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(GONE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls as Pair;

    fn at(url: &str) -> RedisTarget {
        RedisTarget::at(SecretSource::Value(Secret::new(url)))
    }

    #[test]
    fn every_form_of_address_is_taken() {
        for url in [
            "redis://127.0.0.1",
            "redis://user:password@redis.local:6380/3",
            "rediss://redis.local",
            "redis://[::1]:6379/0?protocol=resp3",
            "redis+unix:///run/redis.sock?db=2&user=u&pass=p",
            "redis+sentinel://a,b/mymaster/3",
            "rediss+cluster://a,b",
        ] {
            let target = Target::read(&at(url)).unwrap();
            assert!(target.client(&target.addresses[0], Role::Server).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_address_that_is_wrong_is_not_shown() {
        for url in [
            "redis://user:canary@",
            "redis://:canary@host:port",
            "redis://:canary@host/database",
            "rediss://:canary@host#insecure",
            "redis+sentinel://:canary@host",
            "http://:canary@host",
            "canary",
            "memory:",
        ] {
            let error = Target::read(&at(url)).expect_err(url);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("redis+unix://") && !shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn the_name_in_the_certificate_is_not_where_to_connect() {
        let mut config = at("rediss://192.0.2.1:7");
        config.tls.server_name = Some("redis.internal".to_owned());
        let target = Target::read(&config).unwrap();
        let (client, elsewhere) = target.client(&target.addresses[0], Role::Server).unwrap();
        assert_eq!(client.get_connection_info().addr().to_string(), "redis.internal:7");
        assert_eq!(elsewhere.unwrap().0, "192.0.2.1");
    }

    #[test]
    fn sentinels_are_not_told_the_servers_password() {
        let mut config = at("redis+sentinel://user:canary@a/m");
        let login = |config: &RedisTarget| {
            let target = Target::read(config).unwrap();
            let (client, _) = target.client(&target.addresses[0], Role::Sentinel).unwrap();
            let info = client.get_connection_info().redis_settings().clone();
            (info.username().map(str::to_owned), info.password().map(str::to_owned))
        };
        assert_eq!(login(&config), (None, None));
        config.sentinel.password = Some(SecretSource::Value(Secret::new("theirs")));
        config.sentinel.username = Some("asker".to_owned());
        assert_eq!(login(&config), (Some("asker".to_owned()), Some("theirs".to_owned())));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        let missing = folder.path().join("missing");
        fs::write(&empty, "no certificate").unwrap();
        let refusal = |change: &dyn Fn(&mut RedisTarget)| {
            let mut config = at("rediss://redis.local");
            change(&mut config);
            Target::read(&config).unwrap_err().to_string()
        };
        let said = refusal(&|it| it.tls.ca_file = Some("/does/not/exist".into()));
        assert!(said.starts_with("store.ca_file: ") && said.contains("/does/not/exist"), "{said}");
        let said = refusal(&|it| it.tls.ca_file = Some(empty.clone()));
        assert!(said.contains("PEM") && said.contains("empty.pem"), "{said}");
        let pair = || Pair { cert_file: empty.clone(), key_file: empty.clone() };
        let said = refusal(&|it| it.tls.client = Some(pair()));
        assert!(said.starts_with("store.client_cert_file: expected PEM certificates in "), "{said}");
        let said = refusal(&|it| it.password = Some(SecretSource::File(missing.clone())));
        assert!(said.starts_with("store.password_file: "), "{said}");
        let said = refusal(&|it| it.sentinel.password = Some(SecretSource::File(missing.clone())));
        assert!(said.starts_with("store.sentinel_password_file: "), "{said}");
    }
}
