//! The configuration as the parts use it: parsed, checked, typed. Where the values come from
//! (`sidecar.yaml`, flags, environment) is `config::source`'s business, the list of keys with their
//! defaults and descriptions stands in `config::keys`.
//!
//! On their way, values pass `source` (merged as text with their places, each checked against its key's
//! `kind`), `build` (made into the types here), `rules` and `files` (what must fit together); `draft`
//! leads them through.

mod build;
pub mod database;
mod draft;
mod files;
mod key;
pub mod keys;
pub mod kind;
pub mod parse;
pub mod problem;
pub mod reference;
mod rules;
pub mod source;
pub(crate) mod spelling;
pub mod store_url;
mod yaml;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Uri, uri::Authority};
use ipnet::IpNet;

use crate::session;

pub use self::{
    draft::{Draft, Loaded},
    problem::FileError,
};

/// The configuration file that is read when none is named.
pub const FILE: &str = "sidecar.yaml";

/// The whole configuration. Taken apart in `app.rs`; no part sees another's section.
#[derive(Debug, Clone)]
pub struct Config {
    /// `listen`: the public listener.
    pub listen: SocketAddr,
    /// `path_prefix`: taken off every request's path; empty, or `/a/b` without a slash at the end.
    pub path_prefix: String,
    /// `tls.*`: absent for plaintext.
    pub tls: Option<Tls>,
    /// `upstream.*`
    pub upstream: Upstream,
    /// `admin.*`
    pub admin: Admin,
    /// `store.*`: absent for a plain proxy.
    pub store: Option<Store>,
    /// `store.queue_*`
    pub queue: Queue,
    /// `jwt.*`
    pub jwt: Jwt,
    /// `session.*`
    pub session: Session,
    /// `session_api.enabled`, and what it needs: absent where it is off.
    pub session_api: Option<SessionApi>,
    /// `check.*`: absent where it is off.
    pub check: Option<Check>,
    /// `lookup`: Bearer tokens are looked up in the store.
    pub lookup: bool,
    /// `enforce`: revoked sessions are refused here.
    pub enforce: bool,
    /// `database_url` / `database_url_file`, else GoTrue's own: where `auth.sessions` is, for `audit` only.
    pub database_url: Option<SecretSource>,
    /// `logout.expired_grace`: an expired, well-signed token still ends its own session for so long. Zero: never.
    pub expired_grace: Duration,
    /// `limits.*`
    pub limits: Limits,
    /// `forwarded.trusted_proxies`: empty means that every peer is trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// `drain.*`
    pub drain: Drain,
    /// `readiness.require`
    pub readiness: Readiness,
    /// `log.*`
    pub log: Log,
    /// `runtime.workers`: threads that serve requests.
    pub workers: usize,
    /// `reload.interval`: how often certificate and secret files are compared with what is in use.
    pub reload_interval: Duration,
}

/// A value that must not be seen: `Debug` prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value in.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Gives the value out, to the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A secret given in place, or the file that holds it (read again when it changes; one newline at
/// the end is not part of it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a flag, the environment or the YAML file.
    Value(Secret),
    /// In a file of its own.
    File(PathBuf),
}

/// `tls.*`: certificate chain and key, PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// `tls.cert_file`
    pub cert_file: PathBuf,
    /// `tls.key_file`
    pub key_file: PathBuf,
}

/// `upstream.*`: the GoTrue behind us.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// `upstream.url`: where it is.
    pub url: UpstreamUrl,
    /// `upstream.ca_file`: trusted instead of the system's roots, for `https://`.
    pub ca_file: Option<PathBuf>,
    /// `upstream.timeout`: from sending the request to the response head.
    pub timeout: Duration,
    /// `upstream.connect_timeout`
    pub connect_timeout: Duration,
    /// `upstream.idle_timeout`: how long an unused connection is kept.
    pub idle_timeout: Duration,
    /// `upstream.max_connections`: requests above it wait for a free one, within `timeout`.
    pub max_connections: usize,
}

/// An `http://` or `https://` address, possibly with a path that is put before every request's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// `https`.
    pub tls: bool,
    /// Host and port, without user information.
    pub authority: Authority,
    /// Host without brackets, as it is resolved and as SNI names it.
    pub host: String,
    /// The port, with the scheme's default.
    pub port: u16,
    /// Empty, or `/a/b` without a slash at the end.
    pub path: String,
}

/// `admin.*`: the listener for probes and metrics.
#[derive(Clone, Debug)]
pub struct Admin {
    /// `admin.listen`
    pub listen: SocketAddr,
}

/// `store.*`: where sessions are mirrored.
#[derive(Clone, Debug)]
pub struct Store {
    /// `store.url` or `store.url_file`.
    pub target: StoreTarget,
    /// `store.key_prefix`
    pub key_prefix: String,
    /// `store.timeout`: bound on all store calls of one request together.
    pub timeout: Duration,
    /// `store.wait_replicas`: an ending waits until so many replicas have it.
    pub wait_replicas: u32,
    /// `store.ref_key` / `store.ref_key_file`: keys the refresh references; else derived from `jwt.secret`.
    pub ref_key: Option<SecretSource>,
    /// `store.memory_max_sessions`: bound of the embedded store.
    pub memory_max_sessions: usize,
}

/// `store.queue_*` and `store.spool_dir`: bounds on the changes that wait for the store; 0 for none at all.
#[derive(Clone, Debug)]
pub struct Queue {
    /// `store.queue_changes`
    pub changes: usize,
    /// `store.queue_bytes`
    pub bytes: usize,
    /// `store.spool_dir`: where they survive a restart.
    pub spool_dir: Option<PathBuf>,
}

/// Which store.
#[derive(Clone, Debug)]
pub enum StoreTarget {
    /// `memory:`
    Memory,
    /// One of the other forms of [`StoreUrl`](store_url::StoreUrl); checked to be one when it is read.
    Redis(Box<RedisTarget>),
}

/// A Redis, and what is needed to get into it.
#[derive(Clone, Debug)]
pub struct RedisTarget {
    /// `store.url` or `store.url_file`; may carry user and password.
    pub url: SecretSource,
    /// `store.username`: instead of one in the URL.
    pub username: Option<String>,
    /// `store.password` / `store.password_file`: instead of one in the URL.
    pub password: Option<SecretSource>,
    /// `store.sentinel_*`
    pub sentinel: SentinelLogin,
    /// For addresses with TLS.
    pub tls: StoreTls,
}

/// `store.sentinel_*`: as whom Sentinels are asked; without a password, as nobody.
#[derive(Clone, Debug, Default)]
pub struct SentinelLogin {
    /// `store.sentinel_username`
    pub username: Option<String>,
    /// `store.sentinel_password` / `store.sentinel_password_file`
    pub password: Option<SecretSource>,
}

/// TLS to the store.
#[derive(Clone, Debug, Default)]
pub struct StoreTls {
    /// `store.ca_file`: trusted instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// `store.client_cert_file`, `store.client_key_file`: who we are.
    pub client: Option<Tls>,
    /// `store.tls_server_name`: the name that every certificate must have, instead of its server's address.
    pub server_name: Option<String>,
}

impl RedisTarget {
    /// With nothing but its address.
    pub fn at(url: SecretSource) -> Self {
        let (sentinel, tls) = (SentinelLogin::default(), StoreTls::default());
        Self { url, username: None, password: None, sentinel, tls }
    }

    /// The files that it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let secrets = [Some(&self.url), self.password.as_ref(), self.sentinel.password.as_ref()];
        let secrets = secrets.into_iter().flatten().filter_map(|source| match source {
            SecretSource::File(path) => Some(path),
            SecretSource::Value(_) => None,
        });
        let client = self.tls.client.iter().flat_map(|client| [&client.cert_file, &client.key_file]);
        secrets.chain(&self.tls.ca_file).chain(client).map(PathBuf::as_path)
    }
}

/// `jwt.*`: keys that verify GoTrue's access tokens.
#[derive(Clone, Debug)]
pub struct Jwt {
    /// `jwt.secret` / `jwt.secret_file`, else `GOTRUE_JWT_SECRET`: HS256.
    pub secret: Option<SecretSource>,
    /// `jwt.keys` / `jwt.keys_file`, else `GOTRUE_JWT_KEYS`: a JSON array of JWKs.
    pub keys: Option<SecretSource>,
    /// `jwt.jwks`
    pub jwks: Jwks,
}

/// Where public keys are fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jwks {
    /// GoTrue's own `/.well-known/jwks.json`.
    Upstream,
    /// Another address.
    Url(Uri),
    /// Nowhere.
    Off,
}

/// `session.*`
#[derive(Clone, Debug)]
pub struct Session {
    /// `session.ttl`: how long a session that is not refreshed stays known.
    pub ttl: Duration,
    /// `session.idle_timeout`, `session.absolute_timeout`, `session.max_per_user` with `session.max_policy`
    pub limits: session::Limits,
    /// `revoke.upstream: mint`: what ends here is ended in GoTrue with a token that is signed here (contract §6.4).
    pub mint: bool,
}

/// The session API (contract §7).
#[derive(Clone, Debug)]
pub struct SessionApi {
    /// `jwt.admin_roles`: a token with one of them may ask for anybody's sessions.
    pub admin_roles: Vec<String>,
    /// `revoke.upstream: mint`: what is revoked is ended in GoTrue with a token that is signed here (contract §6.4).
    pub mint: bool,
}

/// The check endpoint (contract §8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// `check.unknown`: a session that the store does not know.
    pub unknown: Policy,
    /// `check.keys`: a token without a session.
    pub keys: Policy,
    /// `check.on_store_error`: the store does not answer; to deny is to say that it cannot be decided.
    pub on_store_error: Policy,
    /// `check.max_staleness`: how long an answer of the store is believed.
    pub max_staleness: Duration,
    /// `check.timeout`: bound on everything a decision waits for.
    pub timeout: Duration,
}

/// What to say where neither answer follows from what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// `limits.*`: bounds on what a client can make us hold or wait for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `limits.header_bytes`: of a request head; above: 431.
    pub header_bytes: usize,
    /// `limits.header_read_timeout`: from a head's first byte (or the connection's start) to its end.
    pub header_read_timeout: Duration,
    /// `limits.idle_timeout`: of a kept-alive connection between requests.
    pub idle_timeout: Duration,
    /// `limits.body_timeout`: a body that makes no progress for so long, either way, ends the connection.
    pub body_timeout: Duration,
    /// `limits.connections`: open at once on the public listener; above, new ones wait to be accepted.
    pub connections: usize,
    /// `limits.streams`: concurrent HTTP/2 streams of one connection.
    pub streams: u32,
    /// `limits.request_body_bytes`: of bodies that must be read here; above: 413.
    pub request_body_bytes: usize,
    /// `limits.response_body_bytes`: of answers that are inspected; above, they pass unread and are counted.
    pub response_body_bytes: usize,
}

/// `drain.*`: see the order in `shutdown.rs`.
#[derive(Clone, Debug)]
pub struct Drain {
    /// `drain.delay`: not ready, still accepting.
    pub delay: Duration,
    /// `drain.deadline`: for everything after that.
    pub deadline: Duration,
}

/// `readiness.require`: what must be well for `/readyz` to be 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// GoTrue's `/health` answers.
    pub upstream: bool,
    /// The store answers.
    pub store: bool,
}

/// `log.*`
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// `log.format`
    pub format: LogFormat,
    /// `log.level`
    pub level: LogLevel,
    /// `log.access`: a line for every request.
    pub access: bool,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs somebody now.
    Error,
    /// What needs somebody soon.
    Warn,
    /// Changes of state; the access log.
    Info,
    /// Connections.
    Debug,
    /// Everything.
    Trace,
}
