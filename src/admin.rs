//! The admin listener: probes, metrics, and the order to drain.
//!
//! It has a port of its own and must not be exposed beyond the cluster. It holds little: few
//! connections, short ones, and no body is ever read.

use std::{convert::Infallible, fmt, future::ready, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::RuntimeMetrics,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    metrics::{Format, Metrics},
    readiness::Readiness,
    shutdown::Drain,
};

/// Open at once; further ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// From a connection's start or the last answer to the end of the next head.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a head.
const HEADER_BYTES: usize = 16 * 1024;
/// A connection ends after this, so that one whose peer does not read does not stay.
const LIFETIME: Duration = Duration::from_secs(60);
/// For the answer that is under way when a connection must end.
const GRACE: Duration = Duration::from_secs(1);
/// Between attempts to accept when the system refuses, as it does without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TEXT: &str = "text/plain; charset=utf-8";

/// What the endpoints show and move.
#[derive(Debug)]
pub struct State {
    /// `/metrics`
    pub metrics: Arc<Metrics>,
    /// `/readyz`
    pub readiness: Arc<Readiness>,
    /// `/drain`
    pub drain: Drain,
    /// Every runtime of the process, for the count of tasks.
    pub runtimes: Vec<RuntimeMetrics>,
}

/// Answers on `listener` until `stop`; then ends within a second.
pub async fn serve(listener: TcpListener, state: State, stop: CancellationToken) {
    let state = Arc::new(state);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let conversations = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        if let Some((stream, place)) = accepted {
            conversations.spawn(converse(stream, place, Arc::clone(&state), stop.clone()));
        }
    }
    drop(listener);
    conversations.close();
    // whoever is not done by then is cut off with the process
    let _ = timeout(GRACE, conversations.wait()).await;
}

/// The next connection and its place among the few; `None` where the system has none to give.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    if let Ok((stream, _)) = listener.accept().await {
        return Some((stream, place));
    }
    sleep(ACCEPT_PAUSE).await;
    None
}

/// Serves one connection.
async fn converse(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    state: Arc<State>,
    stop: CancellationToken,
) {
    let caller = Caller::of(&stream);
    let service =
        service_fn(move |request: Request<_>| ready(Ok::<_, Infallible>(answer(&request, caller, &state))));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // an error is the peer's: it left, was slow, or sent no HTTP and was told so
        _ = connection.as_mut() => return,
        () = sleep(LIFETIME) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// From this host or pod.
    Local,
    /// From anywhere else, or it cannot be told.
    Remote,
}

impl Caller {
    fn of(stream: &TcpStream) -> Self {
        match (stream.peer_addr(), stream.local_addr()) {
            (Ok(peer), Ok(local)) => Self::between(peer.ip(), local.ip()),
            _ => Self::Remote,
        }
    }

    /// A peer that has our own address is in our network namespace.
    fn between(peer: IpAddr, local: IpAddr) -> Self {
        let (peer, local) = (peer.to_canonical(), local.to_canonical());
        if peer.is_loopback() || peer == local { Self::Local } else { Self::Remote }
    }
}

/// Answers one request.
fn answer<B>(request: &Request<B>, caller: Caller, state: &State) -> Response<Full<Bytes>> {
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

fn readyz(query: Option<&str>, readiness: &Readiness) -> Response<Full<Bytes>> {
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

fn metrics(headers: &HeaderMap, state: &State) -> Response<Full<Bytes>> {
    let accept: Vec<&str> =
        headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted_by(&accept.join(","));
    state.metrics.tasks(state.runtimes.iter().map(RuntimeMetrics::num_alive_tasks).sum());
    page(StatusCode::OK, format.content_type(), state.metrics.render(format))
}

fn drain(caller: Caller, drain: &Drain) -> Response<Full<Bytes>> {
    match caller {
        Caller::Local => {
            drain.begin();
            plain(StatusCode::ACCEPTED, "draining")
        }
        Caller::Remote => plain(StatusCode::FORBIDDEN, "only the sidecar's own host may drain it"),
    }
}

/// One line of text, or a few.
fn plain(status: StatusCode, text: impl fmt::Display) -> Response<Full<Bytes>> {
    let text = text.to_string();
    page(status, TEXT, format!("{}\n", text.trim_end()))
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
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
