//! The account of one request: opened when its head was read, closed when the last byte of its answer
//! was handed over or the client went away. Closing it counts and logs, exactly once.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

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
    wire::pace::{CoarseClock, Pace, Taking},
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

/// When what happened to a request that was sent on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Sent to GoTrue.
    pub sent: Option<Instant>,
    /// What is needed of the answer is here, or there will be none.
    pub answered: Option<Instant>,
    /// What the answer means for sessions is done; only where the answer waits for that.
    pub acted: Option<Instant>,
}

impl Timing {
    /// GoTrue's share.
    fn upstream(&self) -> Duration {
        match (self.sent, self.answered) {
            (Some(sent), Some(answered)) => answered.duration_since(sent),
            (Some(sent), None) => sent.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Our share, the passing on of the body aside; `None` for what was never sent on.
    fn overhead(&self, started: Instant) -> Option<Duration> {
        let before = self.sent?.duration_since(started);
        let after = self.acted.zip(self.answered).map(|(acted, answered)| acted.duration_since(answered));
        Some(before + after.unwrap_or_default())
    }
}

/// One request's account.
#[derive(Debug)]
pub struct Exchange {
    ledger: Arc<Ledger>,
    pace: Arc<Pace>,
    taking: Taking,
    route: Route,
    method: Method,
    status: Option<StatusCode>,
    bytes: u64,
    completed: bool,
    started: Instant,
    timing: Timing,
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
        let taking = pace.request_begins();
        ledger.metrics.request_begins();
        let request_id = headers.get(headers::X_REQUEST_ID);
        Self {
            taking,
            route,
            method: method.clone(),
            status: None,
            bytes: 0,
            completed: false,
            started: Instant::now(),
            timing: Timing::default(),
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

    /// What is known of its time at GoTrue.
    pub fn timed(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// Notes whose request it is, if that is proven; else whoever finds out later fills it in.
    pub fn identify(&mut self, claims: Option<&Claims>) -> &Identity {
        let known = claims.and_then(|claims| Some((claims.user.id()?, claims.session.id()?)));
        self.identity.insert(Arc::new(known.map_or_else(OnceLock::new, OnceLock::from)))
    }

    /// The status that the client gets, now.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.waits_for_gotrue(false);
    }

    /// Whether the client has got all that GoTrue has sent of the answer so far.
    pub fn waits_for_gotrue(&self, waits: bool) {
        self.pace.answering(&self.taking, waits, self.ledger.clock.get());
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
        self.pace.request_ends(&self.taking, self.ledger.clock.get());
        let took = self.started.elapsed();
        let upstream = self.timing.upstream();
        let metrics = &self.ledger.metrics;
        metrics.request_ends();
        // a client that left before its answer began is counted as nginx does it
        let status = self.status.map_or(499, |status| status.as_u16());
        // without an answer, how much of the time was GoTrue's is not known either
        let overhead = self.status.map(|_| self.timing.overhead(self.started).unwrap_or(took));
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
