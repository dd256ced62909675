//! One request from head to answer: classified, looked up, forwarded, and what it means for sessions
//! acted on. [`Proxy::handle`] cannot fail: an error becomes an answer here and nowhere else.

mod cap;
mod expired;
mod facts;
mod logout;
mod mirrored;
mod session_api;

use std::sync::Arc;

use http::{
    HeaderValue, Method, Request, Response, Version,
    header::{CONNECTION, CONTENT_ENCODING, HOST},
    request::Parts,
    response,
};
use hyper::body::Incoming;
use tokio::time::Instant;

use self::{
    facts::Facts,
    mirrored::{Answer, Mirrored},
};
use crate::{
    audit,
    body::{self, Body, Stream},
    config::Limits,
    error::{self, Form},
    exchange::{Exchange, Ledger, Timing},
    headers::{self, Peer},
    jwks::Judge,
    keys,
    metrics::{Refusal, UpstreamFailure},
    mirror::{self, Answered, Inspection},
    route::Route,
    session::Unrecorded,
    session_api::SessionApi,
    sessions::{Sessions, Standing},
    shutdown::Draining,
    target::Paths,
    upstream::{self, Lease, Outgoing, Upstream},
    wire::{framing::Violation, pace::Pace},
};

/// Everything a worker needs to answer requests.
#[derive(Debug)]
pub struct Proxy {
    /// Where requests are accounted for.
    pub ledger: Arc<Ledger>,
    /// GoTrue.
    pub upstream: Upstream,
    /// GoTrue's host, for requests of our own.
    pub host: HeaderValue,
    /// Prefixes of paths, ours and GoTrue's.
    pub paths: Paths,
    /// `limits.*`
    pub limits: Limits,
    /// Says whether answers shall end their connections.
    pub draining: Draining,
    /// Only with a store; without one this is a plain proxy.
    pub sessions: Option<Arc<Sessions>>,
    /// Judges Bearer tokens; asked only with a store.
    pub judge: Judge,
    /// Only where it is on.
    pub session_api: Option<Arc<SessionApi>>,
    /// `revoke.upstream: mint`: sessions that end here are ended in GoTrue with tokens that are signed here.
    pub mint: bool,
}

impl Proxy {
    /// Answers one request of `peer`, whose connection's bytes are watched by `pace`.
    pub async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: &Peer,
        pace: &Arc<Pace>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let (form, version) = (Form::asked_by(&head.headers), head.version);
        let path = self.paths.of_gotrue(&head.uri);
        let route = path.map_or(Route::Other, |path| self.route(&head, path));
        let mut exchange = Exchange::begin(&self.ledger, pace, peer.ip, route, &head.method, &head.headers);
        let answered = match pace.violation() {
            Some(violation) => Err(violation.into()),
            // boxed: hyper keeps room for the whole future in every connection, idle ones too
            None => Box::pin(self.answer(route, head, body, peer, &mut exchange)).await,
        };
        let ends = self.draining.begun() || answered.as_ref().is_err_and(|refusal| ends_connection(*refusal));
        let mut response = answered.unwrap_or_else(|refusal| {
            self.ledger.metrics.refused(refusal);
            error::answer(refusal, form)
        });
        if version < Version::HTTP_2 && ends {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        exchange.answered(response.status());
        response.map(|body| body.ending(exchange))
    }

    async fn answer(
        self: &Arc<Self>,
        route: Route,
        head: Parts,
        body: Incoming,
        peer: &Peer,
        exchange: &mut Exchange,
    ) -> Result<Response<Body>, Refusal> {
        let Some(sessions) = &self.sessions else {
            return self.pass(head, body, peer, exchange).await;
        };
        if let Some(api) = self.session_api.as_ref().filter(|_| route.is_of_session_api()) {
            return self.answer_here(api, route, &head, exchange).await;
        }
        let mut facts = Facts::of(route, &head, peer, exchange.request_id().clone());
        let mut budget = sessions.budget();
        if let Some(token) = keys::bearer(&head.headers) {
            let now = sessions.clock.seconds();
            let verdict = if facts.needs_proof() {
                Box::pin(self.judge.verify_fetching(token, now)).await
            } else {
                self.judge.verify(token, now)
            };
            let identity = exchange.identify(verdict.proven());
            if sessions.enforce && facts.asks_for_token() {
                admitted(Box::pin(sessions.standing(&verdict, &mut budget)).await).inspect_err(|why| {
                    audit::refused(&verdict, *why, facts.by());
                    if *why == Refusal::SessionExpired {
                        self.noticed_expired(sessions, (token, &verdict), &facts);
                    }
                })?;
            } else if sessions.lookup {
                self.notice(sessions, (token, &verdict), identity, &facts);
            }
            facts.bearer = Some(verdict);
        }
        if facts.says_nothing() {
            return self.pass(head, body, peer, exchange).await;
        }
        if !facts.may_change_sessions() {
            let mut timing = Timing::default();
            let answer = self.relay(sessions, facts, head, body, peer, &mut timing).await;
            exchange.timed(timing);
            return answer;
        }
        if !facts.changes_sessions() {
            let task = sessions.tasks.spawn(Box::pin(self.clone().finish(
                Arc::clone(sessions),
                facts,
                head,
                body,
                peer.clone(),
            )));
            let (answer, timing) = task.await.map_err(|_| Refusal::UpstreamUnreachable)?;
            exchange.timed(timing);
            return answer;
        }
        let request = Mirrored {
            proxy: Arc::clone(self),
            sessions: Arc::clone(sessions),
            facts,
            budget,
            timing: Timing::default(),
            form: Form::asked_by(&head.headers),
            refused: None,
        };
        // boxed: it is large, and is moved several times on its way into a task
        let task = sessions.tasks.spawn(Box::pin(request.run(head, body, peer.clone())));
        let (answer, timing) = task.await.map_err(|_| Refusal::UpstreamUnreachable)?;
        exchange.timed(timing);
        answer
    }

    /// Streams a request and its answer; nothing else.
    async fn pass(
        &self,
        head: Parts,
        body: Incoming,
        peer: &Peer,
        exchange: &mut Exchange,
    ) -> Result<Response<Body>, Refusal> {
        let version = head.version;
        let mut timing = Timing::default();
        let answered = self.stream(head, body, peer, exchange.request_id(), &mut timing).await;
        exchange.timed(timing);
        let (mut head, stream) = answered?;
        headers::for_client(&mut head.headers, version);
        Ok(response(head, Body::stream(stream)))
    }

    /// As [`relay`](Self::relay), in a task of its own, for endpoints that may turn out to hand out
    /// tokens: whoever leaves before the answer comes (contract I6).
    async fn finish(
        self: Arc<Self>,
        sessions: Arc<Sessions>,
        facts: Facts,
        head: Parts,
        body: Incoming,
        peer: Peer,
    ) -> (Result<Response<Body>, Refusal>, Timing) {
        let mut timing = Timing::default();
        let answer = self.relay(&sessions, facts, head, body, &peer, &mut timing).await;
        (answer, timing)
    }

    /// Streams a request that is not known to change sessions. What its answer tells all the same is
    /// acted on beside it.
    async fn relay(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        mut facts: Facts,
        head: Parts,
        body: Incoming,
        peer: &Peer,
        timing: &mut Timing,
    ) -> Result<Response<Body>, Refusal> {
        let version = head.version;
        facts.sending(&sessions.clock);
        let (mut head, stream) = self.stream(head, body, peer, &facts.request_id, timing).await?;
        let inspection = facts.asked(&self.paths).inspection(head.status, &head.headers);
        let body = if inspection == Inspection::Pass {
            self.settle(sessions, facts, &head, &Answer::Unread);
            Body::stream(stream)
        } else if head.headers.contains_key(CONTENT_ENCODING) {
            self.settle(sessions, facts, &head, &Answer::Lost(Unrecorded::Encoded));
            Body::stream(stream)
        } else {
            self.tee(sessions, facts, &head, stream)
        };
        headers::for_client(&mut head.headers, version);
        Ok(response(head, body))
    }

    /// Passes an answer on while a copy of it is read, to its end even if the client leaves.
    fn tee(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        facts: Facts,
        head: &response::Parts,
        stream: Stream,
    ) -> Body {
        let (body, copied) =
            body::tee(stream.with_patience(self.limits.body_timeout), self.limits.response_body_bytes);
        let (proxy, of) = (Arc::clone(self), Arc::clone(sessions));
        let mut kept = Response::new(());
        *kept.status_mut() = head.status;
        *kept.headers_mut() = head.headers.clone();
        sessions.tasks.spawn(async move {
            let answer = match copied.await {
                Ok(copy) => Answer::of(&copy),
                Err(why) => Answer::Lost(why),
            };
            proxy.settle(&of, facts, &kept.into_parts().0, &answer);
        });
        body
    }

    /// Makes what an answer changes, without anybody waiting for it.
    fn settle(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        facts: Facts,
        head: &response::Parts,
        answer: &Answer,
    ) {
        let asked = facts.asked(&self.paths);
        let answered = Answered {
            status: head.status,
            headers: &head.headers,
            body: answer.seen(),
            now_ms: sessions.clock.millis(),
        };
        let decision = sessions.mirror.after(&asked, &answered);
        if let Some(why) = decision.unrecorded {
            sessions.unrecorded(why, facts.by());
        }
        let (mut changes, by_ref) = (decision.changes, decision.by_ref);
        if facts.route == Route::User && facts.bearer.as_ref().is_some_and(|bearer| sessions.lacks(bearer)) {
            changes.extend(mirror::witnessed(&asked, &answered));
        }
        if changes.is_empty() && by_ref.is_none() {
            return;
        }
        let (proxy, of) = (Arc::clone(self), Arc::clone(sessions));
        sessions.tasks.spawn(async move {
            let mut budget = of.budget();
            let outcomes = of.make(&changes, &mut budget, facts.by()).await;
            proxy.complete_evicted(&of, &changes, &outcomes);
            if let Some(by_ref) = by_ref {
                of.make_by_ref(&by_ref, &mut budget, facts.by()).await;
            }
        });
    }

    /// Sends a request on and takes its answer as it comes.
    async fn stream(
        &self,
        head: Parts,
        body: Incoming,
        peer: &Peer,
        request_id: &HeaderValue,
        timing: &mut Timing,
    ) -> Result<(response::Parts, Stream), Refusal> {
        let version = head.version;
        let request = self.outgoing(head, Outgoing::Stream(body), peer, request_id)?;
        let (response, lease) = self.send(request, timing).await?;
        let (head, body) = response.into_parts();
        Ok((head, self.patient(Stream::new(body, lease), version)))
    }

    /// HTTP/2 streams need a timer each where the connection's pace cannot tell them apart.
    fn patient(&self, stream: Stream, version: Version) -> Stream {
        if version == Version::HTTP_2 { stream.with_patience(self.limits.body_timeout) } else { stream }
    }

    /// The request as GoTrue shall get it.
    fn outgoing(
        &self,
        mut head: Parts,
        body: Outgoing,
        peer: &Peer,
        request_id: &HeaderValue,
    ) -> Result<Request<Outgoing>, Refusal> {
        if head.method == Method::CONNECT {
            return Err(Refusal::BadFraming);
        }
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        headers::for_upstream(&mut head.headers, head.version, authority, peer)
            .map_err(|_| Refusal::BadFraming)?;
        if !head.headers.contains_key(HOST) {
            head.headers.insert(HOST, self.host.clone()); // HTTP/1.0 needs none, HTTP/1.1 does
        }
        if !head.headers.contains_key(headers::X_REQUEST_ID) {
            head.headers.insert(headers::X_REQUEST_ID, request_id.clone());
        }
        head.uri = self.paths.rewrite(head.uri).map_err(|_| Refusal::WrongPrefix)?;
        head.version = Version::HTTP_11;
        head.extensions.clear();
        Ok(Request::from_parts(head, body))
    }

    /// Sends it, and tells metrics and the log what became of it.
    async fn send(
        &self,
        request: Request<Outgoing>,
        timing: &mut Timing,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        timing.sent = Some(Instant::now());
        let sent = self.upstream.send(request).await;
        timing.answered = Some(Instant::now());
        sent.map_err(|error| {
            if let Some(failure) = failure(&error) {
                self.ledger.metrics.upstream_failed(failure);
            }
            tracing::debug!(error = &error as &dyn std::error::Error, "no answer from GoTrue");
            error.into()
        })
    }
}

/// After a request that was not understood nothing more is.
fn ends_connection(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::BadFraming | Refusal::HeadTooLarge)
}

/// The answer as the client gets it.
fn response(mut head: response::Parts, body: Body) -> Response<Body> {
    head.version = Version::HTTP_11;
    head.extensions.clear();
    Response::from_parts(head, body)
}

fn admitted(standing: Standing) -> Result<(), Refusal> {
    match standing {
        Standing::Open => Ok(()),
        Standing::Revoked => Err(Refusal::SessionRevoked),
        Standing::Expired => Err(Refusal::SessionExpired),
        Standing::Suspended => Err(Refusal::UserSuspended),
        Standing::Unavailable => Err(Refusal::StoreUnavailable),
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::HeadTooLarge => Self::HeadTooLarge,
            Violation::Ambiguous => Self::BadFraming,
        }
    }
}

impl From<upstream::Error> for Refusal {
    fn from(error: upstream::Error) -> Self {
        match error {
            upstream::Error::Timeout => Self::UpstreamTimeout,
            upstream::Error::ClientBody(_) => Self::BadFraming,
            upstream::Error::Connect(_)
            | upstream::Error::Reset(_)
            | upstream::Error::Switching
            | upstream::Error::Protocol(_) => Self::UpstreamUnreachable,
        }
    }
}

/// What metrics call it; a client's own mistake is none of GoTrue's failures.
fn failure(error: &upstream::Error) -> Option<UpstreamFailure> {
    match error {
        upstream::Error::Connect(_) => Some(UpstreamFailure::Connect),
        upstream::Error::Timeout => Some(UpstreamFailure::Timeout),
        upstream::Error::Reset(_) => Some(UpstreamFailure::Reset),
        upstream::Error::Switching | upstream::Error::Protocol(_) => Some(UpstreamFailure::Protocol),
        upstream::Error::ClientBody(_) => None,
    }
}
