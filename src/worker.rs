//! One thread that serves requests, with a runtime of its own and everything a request needs close
//! by: connections to GoTrue, a connection to the store, no locks that another thread holds.

use std::{io, sync::Arc, thread::JoinHandle};

use http::HeaderValue;
use tokio::{
    net::TcpListener,
    runtime::{self, RuntimeMetrics},
    sync::watch,
    time::MissedTickBehavior,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{
    admin,
    breaker::Breaker,
    check::Check,
    clock::Clock,
    config,
    exchange::Ledger,
    jwks::{Judge, Verifier},
    listener::{Connections, Terms},
    metrics::Metrics,
    mirror::Mirror,
    proxy::Proxy,
    replay::Queue,
    session_api::SessionApi,
    sessions::{Seen, Sessions, Unswept},
    shutdown::{Draining, Phase},
    store,
    target::Paths,
    upstream::{Connector, Upstream},
};

/// What a worker is made of. Everything in it is shared, or a worker's share.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where requests are accounted for.
    pub ledger: Arc<Ledger>,
    /// Opens connections to GoTrue.
    pub connector: Arc<Connector>,
    /// `upstream.*`
    pub upstream: config::Upstream,
    /// GoTrue's host, for requests of our own.
    pub host: HeaderValue,
    /// Prefixes of paths.
    pub paths: Paths,
    /// On what terms connections are had.
    pub terms: Terms,
    /// What the admin listener's endpoints show and move.
    pub admin: admin::State,
    /// On what terms its connections are had.
    pub admin_terms: Terms,
    /// Judges Bearer tokens.
    pub verifier: Arc<Verifier>,
    /// What sessions need, where there is a store.
    pub mirroring: Option<Mirroring>,
    /// Whether a drain has begun.
    pub draining: Draining,
    /// How far it is.
    pub phases: watch::Receiver<Phase>,
    /// The last word: the runtime may end.
    pub end: CancellationToken,
    /// Connections to GoTrue, at most: this worker's share.
    pub upstream_connections: usize,
}

/// What sessions need.
#[derive(Clone, Debug)]
pub struct Mirroring {
    /// Opens this worker's store.
    pub source: Arc<store::Source>,
    /// Whether it is worth asking.
    pub breaker: Arc<Breaker>,
    /// What could not be written yet.
    pub queue: Arc<Queue>,
    /// `session.*`
    pub session: config::Session,
    /// Decides.
    pub mirror: Mirror,
    /// `store.timeout`
    pub budget: std::time::Duration,
    /// `lookup`
    pub lookup: bool,
    /// `enforce`
    pub enforce: bool,
    /// `session_api.*`, where it is on.
    pub session_api: Option<Arc<config::SessionApi>>,
    /// `check.*`, where it is on.
    pub check: Option<config::Check>,
    /// The time that sessions go by.
    pub clock: Clock,
}

/// A worker that runs.
#[derive(Debug)]
pub struct Worker {
    /// Ends with its runtime.
    pub thread: JoinHandle<()>,
    /// What its runtime does.
    pub runtime: RuntimeMetrics,
}

impl Mirroring {
    /// One thread's way to the store, over a connection of its own.
    pub fn sessions(self, metrics: Arc<Metrics>, tasks: TaskTracker) -> Sessions {
        let Self { source, breaker, queue, session, mirror, budget, lookup, enforce, clock, .. } = self;
        Sessions {
            store: source.connect(),
            connected_at: (0..breaker.lanes()).map(|lane| breaker.openings(lane).into()).collect(),
            breaker,
            queue,
            session_ttl: session.ttl.as_secs(),
            mirror,
            budget,
            lookup,
            enforce,
            limits: session.limits,
            seen: Seen::default(),
            unswept: Unswept::default(),
            clock,
            metrics,
            tasks,
        }
    }
}

/// One worker's clones of the sockets.
#[derive(Debug)]
pub struct Listeners {
    /// `listen`
    pub public: std::net::TcpListener,
    /// `admin.listen`
    pub admin: std::net::TcpListener,
}

/// Starts a worker that accepts from `listeners`.
///
/// # Errors
/// When the system gives no thread or no runtime.
pub fn start(index: usize, listeners: Listeners, setup: Setup) -> io::Result<Worker> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let metrics = runtime.metrics();
    let starting = setup.terms.tasks.token(); // so that a drain does not find nothing to wait for yet
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        if let Err(error) = runtime.block_on(serve(listeners, setup, starting)) {
            tracing::error!(error = &error as &dyn std::error::Error, "a worker cannot serve");
        }
        runtime.shutdown_background(); // a name that is still being looked up holds up no end
    })?;
    Ok(Worker { thread, runtime: metrics })
}

async fn serve(listeners: Listeners, setup: Setup, starting: TaskTrackerToken) -> io::Result<()> {
    let listener = TcpListener::from_std(listeners.public)?;
    let admin_listener = TcpListener::from_std(listeners.admin)?;
    let Setup { ledger, terms, admin_terms, mut phases, end, .. } = setup.clone();
    let (proxy, admin) = parts(setup);
    let admin = Arc::new(Connections::new(Arc::new(admin), admin_terms, Arc::clone(&ledger.clock)));
    // to the very end: whoever asks how far the drain is gets an answer
    tokio::spawn(Arc::clone(&admin).serve(admin_listener, CancellationToken::new()));
    let (tasks, stop) = (terms.tasks.clone(), CancellationToken::new());
    let connections = Arc::new(Connections::new(Arc::clone(&proxy), terms, Arc::clone(&ledger.clock)));
    tasks.spawn(Arc::clone(&connections).accept(listener, stop.clone()));
    drop(starting);
    let mut tick = tokio::time::interval(connections.sweep_interval());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ledger.clock.set();
    loop {
        tokio::select! {
            _ = tick.tick() => {
                connections.sweep();
                proxy.upstream.close_idle();
            }
            Ok(()) = phases.changed() => {}
            () = end.cancelled() => return Ok(()),
        }
        match *phases.borrow() {
            Phase::Serving => {}
            Phase::Announced => {
                connections.announce();
                admin.announce();
            }
            Phase::Closing | Phase::Aborted => {
                stop.cancel();
                connections.close();
            }
        }
    }
}

/// What answers the requests of either listener.
fn parts(setup: Setup) -> (Arc<Proxy>, admin::State) {
    let Setup { ledger, connector, host, paths, verifier, draining, .. } = setup;
    let Terms { limits, metrics, tasks, .. } = setup.terms;
    let api = setup.mirroring.as_ref().and_then(|mirroring| mirroring.session_api.clone());
    let checks = setup.mirroring.as_ref().and_then(|it| Some((it.check?, it.source.changes())));
    let mint = setup.mirroring.as_ref().is_some_and(|mirroring| mirroring.session.mint);
    let sessions = setup.mirroring.map(|mirroring| Arc::new(mirroring.sessions(metrics, tasks)));
    let session_api = sessions.as_ref().zip(api).map(|(sessions, config)| {
        let (sessions, verifier) = (Arc::clone(sessions), Arc::clone(&verifier));
        Arc::new(SessionApi { sessions, verifier, config })
    });
    let check = sessions.as_ref().zip(checks).map(|(sessions, (config, changes))| {
        Arc::new(Check::new(config, sessions, Arc::clone(&verifier), changes))
    });
    let upstream =
        Upstream::new(connector, &setup.upstream, setup.upstream_connections, Arc::clone(&ledger.clock));
    let judge = Judge::new(verifier);
    let proxy = Proxy { ledger, upstream, host, paths, limits, draining, sessions, judge, session_api, mint };
    (Arc::new(proxy), admin::State { check, ..setup.admin })
}
