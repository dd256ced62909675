//! The account of one request: opened when its head was read, closed when the last byte of its answer
//! was handed over or the client went away. Closing it counts and logs, exactly once.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::{
    access::{AccessLine, AccessLog},
    headers,
    metrics::{Metrics, UpstreamFailure},
    request_id,
    route::{Route, method_label},
    session::{SessionId, UserId},
    token::Claims,
    wire::pace::{CoarseClock, Pace},
};

/// Who asked, as far as it is known.
pub type Identity = Arc<OnceLock<(UserId, SessionId)>>;

/// Where accounts go.
#[derive(Debug)]
pub struct Ledger {
    /// Counted here …
    pub metrics: Arc<Metrics>,
    /// … and written here, unless `log.access` is off.
    pub access: Option<AccessLog>,
    /// Ids for requests that bring none.
    pub request_ids: request_id::RequestIds,
    /// The sweep's clock.
    pub clock: Arc<CoarseClock>,
}

/// One request's account.
#[derive(Debug)]
pub struct Exchange {
    ledger: Arc<Ledger>,
    pace: Arc<Pace>,
    route: Route,
    method: Method,
    status: Option<StatusCode>,
    bytes: u64,
    completed: bool,
    started: Instant,
    forwarded: Option<Instant>,
    answered: Option<Instant>,
    handed_over: Option<Instant>,
    client: std::net::IpAddr,
    request_id: HeaderValue,
    traceparent: Option<HeaderValue>,
    identity: Option<Identity>,
}

impl Exchange {
    /// Opens the account of a request.
    pub fn begin(
        ledger: &Arc<Ledger>,
        pace: &Arc<Pace>,
        client: std::net::IpAddr,
        route: Route,
        method: &Method,
        headers: &HeaderMap,
    ) -> Self {
        pace.request_begins();
        ledger.metrics.request_begins();
        let request_id = headers.get(headers::X_REQUEST_ID);
        Self {
            route,
            method: method.clone(),
            status: None,
            bytes: 0,
            completed: false,
            started: Instant::now(),
            forwarded: None,
            answered: None,
            handed_over: None,
            client,
            request_id: request_id.cloned().unwrap_or_else(|| ledger.request_ids.next()),
            traceparent: headers.get(headers::TRACEPARENT).cloned(),
            identity: None,
            ledger: Arc::clone(ledger),
            pace: Arc::clone(pace),
        }
    }

    /// The request's id, its own or the one made for it.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// When the request was sent on to GoTrue, and when what is needed of its answer was here.
    pub fn timed(&mut self, sent: Option<Instant>, answered: Option<Instant>) {
        (self.forwarded, self.answered) = (sent, answered);
    }

    /// Notes whose request it is, if that is proven; else whoever finds out later fills it in.
    pub fn identify(&mut self, claims: Option<&Claims>) -> &Identity {
        let known = claims.and_then(|claims| Some((claims.user.id()?, claims.session.id()?)));
        self.identity.insert(Arc::new(known.map_or_else(OnceLock::new, OnceLock::from)))
    }

    /// The status that the client gets.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.handed_over = Some(Instant::now());
    }

    /// So many bytes of the answer's body were handed over.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The answer broke off on its way from GoTrue.
    pub fn broke_off(&self, failure: UpstreamFailure) {
        self.ledger.metrics.upstream_failed(failure);
    }

    /// The answer was handed over to its end.
    pub fn completed(&mut self) {
        self.completed = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.pace.request_ends(self.ledger.clock.get());
        let took = self.started.elapsed();
        let upstream = match (self.forwarded, self.answered) {
            (Some(from), Some(to)) => to.duration_since(from),
            (Some(from), None) => from.elapsed(),
            _ => std::time::Duration::ZERO,
        };
        let metrics = &self.ledger.metrics;
        metrics.request_ends();
        // a client that left before its answer began is counted as nginx does it
        let status = self.status.map_or(499, |status| status.as_u16());
        // without an answer, how much of the time was GoTrue's is not known either
        let overhead = self.handed_over.map(|at| at.duration_since(self.started).saturating_sub(upstream));
        metrics.request(self.route, &self.method, status, took, overhead);
        let Some(access) = &self.ledger.access else { return };
        let identity = self.identity.as_ref().and_then(|identity| identity.get());
        access.write(&AccessLine {
            route: self.route.template(),
            method: method_label(&self.method),
            status,
            duration: took,
            upstream,
            bytes: self.bytes,
            client: self.client,
            request_id: self.request_id.as_bytes(),
            traceparent: self.traceparent.as_ref().map(HeaderValue::as_bytes),
            user: identity.map(|(user, _)| *user),
            session: identity.map(|(_, session)| *session),
            aborted: !self.completed,
        });
    }
}
