//! Where the parts meet: the only file that knows them all. Builds them from a configuration and binds
//! the sockets; `running` runs them and takes them down in order.
//!
//! Threads: one for each worker, with a runtime, connections to GoTrue and a connection to the store
//! of its own; and the caller's, for signals and what happens every few seconds.

mod errands;
mod keys;
mod running;
mod store_probe;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::HeaderValue;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::errands::Errands;
pub use self::running::Ended;
use crate::{
    access::AccessLog,
    admin,
    breaker::Breaker,
    clock::Clock,
    config::{self, Config},
    exchange::Ledger,
    jwks::Verifier,
    listener::Terms,
    metrics::{self, Metrics},
    mirror::Mirror,
    readiness::Readiness,
    reload::{Purpose, Watched},
    replay::{Queue, SpoolError},
    request_id::RequestIds,
    shutdown::Drain,
    store,
    target::Paths,
    telemetry::LogBuffer,
    tls::{self, Certificate},
    token::RefKey,
    upstream::{Connector, TlsError, Upstream},
    wire::pace::CoarseClock,
    worker::{Mirroring, Setup},
};

/// Why the sidecar does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener's address cannot be had.
    #[error("{key}: expected an address of this host that is free, cannot listen on {address}")]
    Listen {
        /// The key that names it.
        key: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The listener's certificate.
    #[error("tls.cert_file, tls.key_file: expected a certificate chain and its key, PEM")]
    Tls(#[from] tls::Error),
    /// The CA for GoTrue, or its name.
    #[error("upstream.url, upstream.ca_file: no TLS to GoTrue")]
    Upstream(#[from] TlsError),
    /// The store's address or files.
    #[error("store: cannot be set up")]
    Store(#[from] store::OpenError),
    /// The folder of the queue.
    #[error("the queue on disk cannot be used")]
    Spool(#[from] SpoolError),
    /// The configured keys.
    #[error("jwt: no keys")]
    Keys(#[from] keys::Error),
    /// The catalogue of metrics is wrong.
    #[error("metrics cannot be set up")]
    Metrics(#[from] metrics::BuildError),
    /// The system refuses threads, signals or sockets.
    #[error("the system refuses what is needed to run")]
    System(#[source] io::Error),
}

/// A sidecar whose sockets are bound.
#[derive(Debug)]
pub struct App {
    listener: std::net::TcpListener,
    admin: std::net::TcpListener,
    workers: usize,
    setup: Setup,
    drain: Drain,
    errands: Errands,
}

impl App {
    /// Builds every part and binds both listeners. Nothing is connected to yet: GoTrue and the store may
    /// come later. To be called in the runtime that will [`run`](Self::run) it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn build(config: Config, log: Option<LogBuffer>) -> Result<Self, Error> {
        let Config {
            listen,
            path_prefix,
            tls,
            upstream,
            admin,
            store,
            queue,
            jwt,
            session,
            session_api,
            check,
            lookup,
            enforce,
            database_url: _, // for the command `audit`
            expired_grace,
            limits,
            trusted_proxies,
            drain,
            readiness,
            log: log_config,
            workers,
            reload_interval,
        } = config;
        let metrics = Arc::new(Metrics::new()?);
        let readiness = Arc::new(Readiness::new(readiness, store.is_some()));
        let drain = Drain::new(&drain);
        let ledger = ledger(&metrics, log.clone(), log_config);
        let connector =
            Arc::new(Connector::new(&upstream.url, upstream.ca_file.as_deref(), upstream.connect_timeout)?);
        let host = host(&upstream);

        let mut watched = Watched::default();
        let certificate = tls.map(|files| certificate(files, &mut watched)).transpose()?;
        let keys = keys::Configured::read(&jwt, &mut watched)?;
        let ref_key = ref_key(store.as_ref(), &mut watched);
        // without a store nobody asks
        let endpoint = |_| keys::endpoint(&jwt.jwks, &upstream, &connector, &host, &ledger.clock);
        let endpoint = store.as_ref().map(endpoint).transpose()?.flatten();
        let verifier = Arc::new(Verifier::new(keys.ring.clone(), endpoint, Arc::clone(&metrics)));
        let features = Features { queue, session, session_api, check, lookup, enforce, expired_grace };
        let mirroring = match store {
            None => None,
            Some(store) => {
                let source = store_source(&store, &features.session, &mut watched)?;
                let ref_key = keys::reference_key(ref_key.as_ref(), &keys)?;
                Some(mirroring(&store, source, features, ref_key, &metrics)?)
            }
        };
        let tasks = TaskTracker::new();
        let terms = Terms {
            tls: certificate.as_ref().map(Certificate::acceptor).transpose()?,
            limits: limits.clone(),
            trusted_proxies,
            metrics: Arc::clone(&metrics),
            tasks: tasks.clone(),
            places: limits.connections.div_ceil(workers),
        };
        let clock = Arc::clone(&ledger.clock);
        let setup = Setup {
            ledger,
            admin: admin::State::new(&metrics, &readiness, &drain, &clock),
            admin_terms: admin::terms(limits, &metrics, workers),
            connector: Arc::clone(&connector),
            host: host.clone(),
            paths: Paths { prefix: path_prefix, upstream: upstream.url.path.clone() },
            terms,
            verifier: Arc::clone(&verifier),
            mirroring: mirroring.clone(),
            draining: drain.draining(),
            phases: drain.phases(),
            end: CancellationToken::new(),
            upstream_connections: upstream.max_connections.div_ceil(workers),
            upstream: upstream.clone(),
        };
        let errands = Errands {
            metrics,
            readiness,
            upstream: Upstream::new(connector, &upstream, 1, clock),
            upstream_path: upstream.url.path,
            host,
            store: mirroring,
            tasks,
            verifier,
            certificate,
            jwt,
            ref_key,
            watched,
            reload_interval,
            log,
        };
        let (listener, admin) = (bind("listen", listen)?, bind("admin.listen", admin.listen)?);
        Ok(Self { listener, admin, workers, setup, drain, errands })
    }

    /// Lets sessions go by another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        if let Some(mirroring) = &mut self.setup.mirroring {
            mirroring.clock = clock;
        }
        self.errands.store.clone_from(&self.setup.mirroring);
        self
    }

    /// Lets Redis deal with fewer sessions of a user at once, as [`store::Source::with_step`] does.
    #[must_use]
    pub fn with_step(mut self, step: u32) -> Self {
        if let Some(mirroring) = &mut self.setup.mirroring {
            mirroring.source = Arc::new(store::Source::clone(&mirroring.source).with_step(step));
        }
        self.errands.store.clone_from(&self.setup.mirroring);
        self
    }

    /// Where sessions are, for whoever wants to look at them beside the proxy.
    pub fn store(&self) -> Option<Arc<store::Source>> {
        self.setup.mirroring.as_ref().map(|mirroring| Arc::clone(&mirroring.source))
    }

    /// Where the public listener is.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where the admin listener is.
    ///
    /// # Errors
    /// What the system says.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// What ends it: signals in the command, calls in tests.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }
}

/// What the configuration says about sessions.
struct Features {
    queue: config::Queue,
    session: config::Session,
    session_api: Option<config::SessionApi>,
    check: Option<config::Check>,
    lookup: bool,
    enforce: bool,
    expired_grace: Duration,
}

fn mirroring(
    store: &config::Store,
    source: store::Source,
    features: Features,
    ref_key: Option<RefKey>,
    metrics: &Arc<Metrics>,
) -> Result<Mirroring, Error> {
    let Features { queue, session, session_api, check, lookup, enforce, expired_grace } = features;
    Ok(Mirroring {
        breaker: Arc::new(Breaker::new(source.lanes(), Arc::clone(metrics))),
        queue: Arc::new(Queue::open(&queue, Arc::clone(metrics))?),
        session,
        source: Arc::new(source),
        mirror: Mirror::new(ref_key, expired_grace),
        budget: store.timeout,
        session_api: session_api.map(Arc::new),
        check,
        lookup,
        enforce,
        clock: Clock::default(),
    })
}

/// GoTrue's host, for requests of our own.
fn host(upstream: &config::Upstream) -> HeaderValue {
    HeaderValue::from_str(upstream.url.authority.as_str()).unwrap_or(HeaderValue::from_static("gotrue"))
}

/// Without `SO_REUSEPORT`: GoTrue sets it, and with both the kernel would share its port between us.
fn bind(key: &'static str, address: SocketAddr) -> Result<std::net::TcpListener, Error> {
    let bind = || {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?; // only lets us back in while old connections linger
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bind().map_err(|source| Error::Listen { key, address, source })
}

/// Connections that wait to be accepted; the system caps it (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

fn certificate(files: config::Tls, watched: &mut Watched) -> Result<Certificate, Error> {
    for file in [&files.cert_file, &files.key_file] {
        watched.watch(Purpose::Certificate, file.clone());
    }
    Ok(Certificate::load(files)?)
}

fn ref_key(store: Option<&config::Store>, watched: &mut Watched) -> Option<config::SecretSource> {
    let source = store?.ref_key.clone()?;
    watched.watch_secret(Purpose::Keys, &source);
    Some(source)
}

fn store_source(
    store: &config::Store,
    session: &config::Session,
    watched: &mut Watched,
) -> Result<store::Source, store::OpenError> {
    if let config::StoreTarget::Redis(target) = &store.target {
        for file in target.files() {
            watched.watch(Purpose::Store, file.to_owned());
        }
    }
    Ok(store::Source::new(store, session.ttl)?.with_limits(session.limits))
}

fn ledger(metrics: &Arc<Metrics>, log: Option<LogBuffer>, config: config::Log) -> Arc<Ledger> {
    Arc::new(Ledger {
        metrics: Arc::clone(metrics),
        access: log.and_then(|log| AccessLog::new(&config, log)),
        request_ids: RequestIds::new(),
        clock: Arc::new(CoarseClock::new()),
    })
}
