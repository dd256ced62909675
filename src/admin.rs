//! The admin listener: probes, metrics, the order to drain, and the check for gateways.
//!
//! It has a port of its own and must not be exposed beyond the cluster. No body is ever read. The workers serve
//! it, so that checks are answered where their caches are, and so that a worker that hangs is not alive.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE},
};
use hyper::body::Incoming;
use tokio::{net::TcpStream, runtime::RuntimeMetrics};
use tokio_util::task::TaskTracker;

use crate::{
    body::Body,
    check::{self, Check},
    config::Limits,
    listener::{Answers, Terms},
    metrics::{Format, Metrics},
    readiness::Readiness,
    shutdown::Drain,
    wire::{
        framing::Violation,
        pace::{CoarseClock, Pace, Taking},
    },
};

/// Open at once, shared out among the workers; further ones wait to be accepted. Gateways keep some.
const CONNECTIONS: usize = 1024;
const TEXT: &str = "text/plain; charset=utf-8";

/// What the endpoints show and move.
#[derive(Clone, Debug)]
pub struct State {
    /// `/metrics`
    pub metrics: Arc<Metrics>,
    /// `/readyz`
    pub readiness: Arc<Readiness>,
    /// `/drain`
    pub drain: Drain,
    /// `/check`, where it is on.
    pub check: Option<Arc<Check>>,
    /// The sweep's clock.
    pub clock: Arc<CoarseClock>,
    /// Every runtime of the process, for the count of tasks.
    pub runtimes: Arc<Runtimes>,
}

impl State {
    /// Without `/check`, which each worker has of its own.
    pub fn new(
        metrics: &Arc<Metrics>,
        readiness: &Arc<Readiness>,
        drain: &Drain,
        clock: &Arc<CoarseClock>,
    ) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            readiness: Arc::clone(readiness),
            drain: drain.clone(),
            check: None,
            clock: Arc::clone(clock),
            runtimes: Arc::default(),
        }
    }
}

/// The runtimes of a process, each added by whoever makes it.
#[derive(Debug, Default)]
pub struct Runtimes(Mutex<Vec<RuntimeMetrics>>);

impl Runtimes {
    /// One more.
    pub fn add(&self, runtime: RuntimeMetrics) {
        self.lock().push(runtime);
    }

    /// How many tasks all of them have.
    fn tasks(&self) -> usize {
        self.lock().iter().map(RuntimeMetrics::num_alive_tasks).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RuntimeMetrics>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On what terms each of so many workers has connections: without TLS, and no drain waits for them.
pub fn terms(limits: Limits, metrics: &Arc<Metrics>, workers: usize) -> Terms {
    Terms {
        tls: None,
        limits,
        trusted_proxies: Vec::new(),
        metrics: Arc::clone(metrics),
        tasks: TaskTracker::new(),
        places: CONNECTIONS.div_ceil(workers.max(1)),
    }
}

impl Answers for State {
    type Peer = Caller;

    const DATES: bool = true;

    fn opened(&self, _: &Terms) {}

    fn closed(&self, _: &Terms) {}

    fn peer(&self, stream: &TcpStream, address: SocketAddr, _: &Terms) -> Caller {
        Caller::of(stream, address)
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        caller: &Caller,
        pace: &Arc<Pace>,
    ) -> Response<Body> {
        let _open = Open { taking: pace.request_begins(), pace, clock: &self.clock };
        let violation = pace.violation();
        let mut response = match &self.check {
            Some(check) if check::is_check(request.uri().path()) => match violation {
                None => check.answer(request.headers()).await,
                Some(_) => check.unreadable(),
            },
            _ => violation.map_or_else(|| answer(&request, *caller, self), refused),
        };
        let ends = violation.is_some() || self.drain.draining().begun();
        if ends && request.version() < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A request that is being answered.
struct Open<'a> {
    taking: Taking,
    pace: &'a Pace,
    clock: &'a CoarseClock,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.pace.request_ends(&self.taking, self.clock.get());
    }
}

/// A request whose bytes were not understood.
fn refused(violation: Violation) -> Response<Body> {
    match violation {
        Violation::HeadTooLarge => {
            plain(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is larger than limits.header_bytes")
        }
        Violation::Ambiguous => plain(StatusCode::BAD_REQUEST, "the request is malformed or ambiguous"),
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// From this host or pod.
    Local,
    /// From anywhere else, or it cannot be told.
    Remote,
}

impl Caller {
    fn of(stream: &TcpStream, peer: SocketAddr) -> Self {
        stream.local_addr().map_or(Self::Remote, |local| Self::between(peer.ip(), local.ip()))
    }

    /// A peer that has our own address is in our network namespace.
    fn between(peer: IpAddr, local: IpAddr) -> Self {
        let (peer, local) = (peer.to_canonical(), local.to_canonical());
        if peer.is_loopback() || peer == local { Self::Local } else { Self::Remote }
    }
}

/// Answers one request.
fn answer<B>(request: &Request<B>, caller: Caller, state: &State) -> Response<Body> {
    let path = request.uri().path();
    let allowed = match path {
        "/livez" | "/readyz" | "/metrics" => "GET, HEAD",
        "/drain" => "POST",
        _ => return plain(StatusCode::NOT_FOUND, "there is nothing at this path"),
    };
    match (path, request.method()) {
        ("/livez", &Method::GET | &Method::HEAD) => plain(StatusCode::OK, "ok"),
        ("/readyz", &Method::GET | &Method::HEAD) => readyz(request.uri().query(), &state.readiness),
        ("/metrics", &Method::GET | &Method::HEAD) => metrics(request.headers(), state),
        ("/drain", &Method::POST) => drain(caller, &state.drain),
        _ => {
            let text = format_args!("this path takes {allowed}");
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, text);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            response
        }
    }
}

fn readyz(query: Option<&str>, readiness: &Readiness) -> Response<Body> {
    let report = readiness.report();
    let (status, word) =
        if report.ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    if is_verbose(query) { plain(status, report) } else { plain(status, word) }
}

/// `?verbose`, with or without a value.
fn is_verbose(query: Option<&str>) -> bool {
    let mut parameters = query.unwrap_or_default().split('&');
    parameters.any(|parameter| parameter.split('=').next() == Some("verbose"))
}

fn metrics(headers: &HeaderMap, state: &State) -> Response<Body> {
    let accept: Vec<&str> =
        headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted_by(&accept.join(","));
    state.metrics.tasks(state.runtimes.tasks());
    page(StatusCode::OK, format.content_type(), state.metrics.render(format))
}

fn drain(caller: Caller, drain: &Drain) -> Response<Body> {
    match caller {
        Caller::Local => {
            drain.begin();
            plain(StatusCode::ACCEPTED, "draining")
        }
        Caller::Remote => plain(StatusCode::FORBIDDEN, "only the sidecar's own host may drain it"),
    }
}

/// One line of text, or a few.
fn plain(status: StatusCode, text: impl fmt::Display) -> Response<Body> {
    let text = text.to_string();
    page(status, TEXT, format!("{}\n", text.trim_end()))
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config;

    #[test]
    fn a_caller_on_our_own_address_is_local() {
        for (peer, local, expected) in [
            ("127.0.0.1", "127.0.0.1", Caller::Local),
            ("127.0.0.9", "127.0.0.1", Caller::Local),
            ("::1", "::1", Caller::Local),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", Caller::Local),
            ("10.1.2.3", "10.1.2.3", Caller::Local),
            ("::ffff:10.1.2.3", "10.1.2.3", Caller::Local),
            ("10.1.2.4", "10.1.2.3", Caller::Remote),
            ("::ffff:10.1.2.4", "::ffff:10.1.2.3", Caller::Remote),
            ("10.1.2.4", "127.0.0.1", Caller::Remote),
        ] {
            let found = Caller::between(peer.parse().unwrap(), local.parse().unwrap());
            assert_eq!(found, expected, "{peer} to {local}");
        }
    }

    #[test]
    fn a_remote_caller_does_not_drain() {
        let drain = Drain::new(&config::Drain { delay: Duration::ZERO, deadline: Duration::ZERO });
        assert_eq!(super::drain(Caller::Remote, &drain).status(), StatusCode::FORBIDDEN);
        assert!(!drain.draining().begun());
        assert_eq!(super::drain(Caller::Local, &drain).status(), StatusCode::ACCEPTED);
        assert!(drain.draining().begun());
    }

    #[test]
    fn verbose_is_a_parameter() {
        for (query, expected) in [
            (None, false),
            (Some(""), false),
            (Some("verbose"), true),
            (Some("verbose="), true),
            (Some("a=b&verbose=1"), true),
            (Some("verbosely"), false),
            (Some("a=verbose"), false),
        ] {
            assert_eq!(is_verbose(query), expected, "{query:?}");
        }
    }
}
