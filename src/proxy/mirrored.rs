//! Requests that can change sessions: forwarded, their answer read and acted on, then passed on
//! exactly as it came. Runs in a task of its own: what GoTrue has committed is recorded, whoever
//! has left meanwhile (contract I6).

use std::sync::Arc;

use http::{
    HeaderValue, Request, Response, Version,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
    request::Parts,
    response,
};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{Proxy, expired, facts::Facts};
use crate::{
    audit,
    body::{self, Body, Held, Read, Stream, Unread},
    config::Secret,
    error::Form,
    exchange::Timing,
    headers::{self, Peer},
    metrics::Refusal,
    mirror::{Answered, Body as Seen, Decision, Inspection},
    route::Route,
    session::{Change, Origin, Outcome, Reason, Record, Unrecorded},
    sessions::{Budget, Ended, Sessions},
    upstream::Outgoing,
};

/// A request that can change sessions, on its way.
pub(super) struct Mirrored {
    pub(super) proxy: Arc<Proxy>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) facts: Facts,
    pub(super) budget: Budget,
    pub(super) timing: Timing,
    /// The form of errors that the request asks for.
    pub(super) form: Form,
    /// What the client was told already, and why: the exchange goes on only to end a session in GoTrue.
    pub(super) refused: Option<Ended>,
}

impl Mirrored {
    /// The whole way of the request. Returns when the answer can go out.
    pub(super) async fn run(
        mut self,
        head: Parts,
        body: Incoming,
        peer: Peer,
    ) -> (Result<Response<Body>, Refusal>, Timing) {
        let version = head.version;
        let answer = match self.request(head, body, &peer).await {
            Ok(request) => match self.ended().await {
                Some(ended) => return (Err(self.refuse(ended, request, version)), Timing::default()),
                None => self.exchange(request, version).await,
            },
            Err(refusal) => Err(refusal),
        };
        self.timing.acted = Some(Instant::now());
        (answer, self.timing)
    }

    /// The request as GoTrue shall get it, after what must be done before that.
    async fn request(
        &mut self,
        mut head: Parts,
        body: Incoming,
        peer: &Peer,
    ) -> Result<Request<Outgoing>, Refusal> {
        let body = self.read_request(body).await?;
        if head.headers.contains_key(ACCEPT_ENCODING) {
            // the answer must be readable here; in the place of every value there is
            head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let request = self.proxy.outgoing(head, body, peer, &self.facts.request_id)?;
        self.facts.sending(&self.sessions.clock);
        self.before().await;
        Ok(request)
    }

    async fn ended(&mut self) -> Option<Ended> {
        Box::pin(self.proxy.ended_holder(&self.sessions, &self.facts, &mut self.budget)).await
    }

    /// Refuses to renew a session that has ended. Beside the answer it is ended in GoTrue: with
    /// a token of our own where those are made, else with the tokens that this refresh gets, and nobody else
    /// (contract §6.3).
    fn refuse(mut self, ended: Ended, request: Request<Outgoing>, version: Version) -> Refusal {
        let tasks = self.sessions.tasks.clone();
        tasks.spawn(Box::pin(async move {
            self.sessions.end_for_good(ended, self.facts.by()).await;
            (self.refused, self.budget) = (Some(ended), self.sessions.budget());
            if self.proxy.mint {
                self.proxy.complete_by_minting(&self.sessions, ended).await;
            } else {
                drop(self.exchange(request, version).await);
            }
        }));
        expired::refusal(ended)
    }

    async fn exchange(
        &mut self,
        request: Request<Outgoing>,
        version: Version,
    ) -> Result<Response<Body>, Refusal> {
        let (response, lease) = self.proxy.send(request, &mut self.timing).await?;
        let (mut head, incoming) = response.into_parts();
        let stream = self.proxy.patient(Stream::new(incoming, lease), version);
        let inspection = self.facts.asked(&self.proxy.paths).inspection(head.status, &head.headers);
        let (seen, body) = self.read_answer(inspection, &head, stream).await;
        self.timing.answered = Some(Instant::now());
        let refused = self.after(&head, &seen).await;
        headers::for_client(&mut head.headers, version);
        match refused {
            Some(refusal) if head.status.is_redirection() => Ok(self.redirect(refusal, &head)),
            Some(refusal) => Err(refusal),
            None => Ok(super::response(head, body)),
        }
    }

    /// Reads the request's body where a decision depends on it.
    async fn read_request(&mut self, body: Incoming) -> Result<Outgoing, Refusal> {
        if !self.facts.asked(&self.proxy.paths).reads_body() {
            return Ok(Outgoing::Stream(body));
        }
        let limits = &self.proxy.limits;
        match body::read_request(body, limits.request_body_bytes, limits.body_timeout).await {
            Ok(bytes) => {
                self.facts.body = Some(bytes.clone());
                Ok(Outgoing::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
            }
            Err(Unread::TooLarge) => Err(Refusal::BodyTooLarge),
            Err(Unread::Broken(_) | Unread::Stalled) => Err(Refusal::BadFraming),
        }
    }

    /// A logout ends its own session here before GoTrue is asked.
    async fn before(&mut self) {
        if let Some(change) = self.sessions.mirror.before(&self.facts.asked(&self.proxy.paths)) {
            Box::pin(self.sessions.make(&[change], &mut self.budget, self.facts.by())).await;
        }
    }

    /// Reads the answer where it must be read; passes the rest on unread.
    async fn read_answer(
        &self,
        inspection: Inspection,
        head: &response::Parts,
        stream: Stream,
    ) -> (Answer, Body) {
        if inspection == Inspection::Pass {
            return (Answer::Unread, Body::stream(stream));
        }
        if head.headers.contains_key(CONTENT_ENCODING) {
            return (Answer::Lost(Unrecorded::Encoded), Body::stream(stream));
        }
        let limits = &self.proxy.limits;
        match body::read(stream, limits.response_body_bytes, limits.body_timeout).await {
            Read::Whole(whole) => (Answer::of(&whole), Body::held(whole)),
            Read::TooLarge(stream) => (Answer::Lost(Unrecorded::TooLarge), Body::stream(stream)),
            Read::CutOff(stream) => (Answer::Lost(Unrecorded::CutOff), Body::stream(stream)),
        }
    }

    /// Makes what the answer changes; says whether the client must not get it.
    async fn after(&mut self, head: &response::Parts, answer: &Answer) -> Option<Refusal> {
        let answered = Answered {
            status: head.status,
            headers: &head.headers,
            body: answer.seen(),
            now_ms: self.sessions.clock.millis(),
        };
        let asked = self.facts.asked(&self.proxy.paths);
        let mut decision = self.sessions.mirror.after(&asked, &answered);
        decision.changes.iter_mut().for_each(Change::hold);
        if let Some(why) = decision.unrecorded {
            self.sessions.unrecorded(why, self.facts.by());
        }
        let made = self.sessions.make(&decision.changes, &mut self.budget, self.facts.by());
        let outcomes = Box::pin(made).await;
        if let Some(by_ref) = &decision.by_ref {
            Box::pin(self.sessions.make_by_ref(by_ref, &mut self.budget, self.facts.by())).await;
        }
        self.proxy.complete_evicted(&self.sessions, &decision.changes, &outcomes);
        self.denied(&decision, &outcomes).or_else(|| self.revoked(&decision, &outcomes))
    }

    /// GoTrue handed out tokens of a session that was revoked here, or whose time was over: the client does not get
    /// them, and they are used to end the session there, too (contract §6.3).
    fn revoked(&self, decision: &Decision<'_>, outcomes: &[Outcome]) -> Option<Refusal> {
        let refresh = |change: &Change| matches!(change, Change::Record { origin: Origin::Refresh, .. });
        let mut made = decision.changes.iter().zip(outcomes);
        let has_ended = |outcome: &Outcome| matches!(outcome, Outcome::Revoked | Outcome::Expired(_));
        let (ended, outcome) = made.find(|(change, outcome)| refresh(change) && has_ended(outcome))?;
        let (reason, of_refresh, of_session) = match outcome {
            Outcome::Expired(_) => (Reason::Expired, Refusal::RefreshExpired, Refusal::SessionExpired),
            _ => (Reason::Revoked, Refusal::RefreshRevoked, Refusal::SessionRevoked),
        };
        if let (Change::Record { record, .. }, Some(issued)) = (ended, &decision.issued) {
            let &Record { user, session, expires_at, .. } = &**record;
            if self.refused.is_none() {
                audit::refused_refresh(user, session, of_refresh, self.facts.by());
            }
            let (proxy, sessions) = (Arc::clone(&self.proxy), Arc::clone(&self.sessions));
            let (ended, token) =
                (Ended { user, session, reason, in_gotrue: false }, Secret::new(issued.access_token()));
            self.sessions
                .tasks
                .spawn(async move { proxy.complete(&sessions, ended, Some(expires_at), token).await });
        }
        match self.facts.route {
            Route::Token | Route::OauthToken => Some(of_refresh),
            _ => Some(of_session),
        }
    }
}

/// What was read of an answer.
pub(super) enum Answer {
    Whole(bytes::Bytes),
    Unread,
    Lost(Unrecorded),
}

impl Answer {
    pub(super) fn of(held: &Held) -> Self {
        Self::Whole(held.contiguous())
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        match self {
            Self::Whole(bytes) => Seen::Whole(bytes),
            Self::Unread => Seen::Unread,
            Self::Lost(why) => Seen::Lost(*why),
        }
    }
}
