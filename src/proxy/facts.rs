//! What is kept of a request after it was sent on, so that its answer can be judged.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{CONTENT_TYPE, USER_AGENT},
    request::Parts,
};

use crate::{
    audit::By,
    clock::Clock,
    headers::Peer,
    keys::Verdict,
    mirror::{Asked, client_ip},
    route::Route,
    target::Paths,
};

/// One request's facts. Cheap: everything in it is reference-counted or small.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) route: Route,
    pub(super) bearer: Option<Verdict>,
    pub(super) body: Option<Bytes>,
    pub(super) request_id: HeaderValue,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    client_ip: Option<String>,
    sent_ms: u64,
}

/// The headers that a decision may need.
const KEPT: [http::HeaderName; 2] = [USER_AGENT, CONTENT_TYPE];

impl Facts {
    /// Takes them from a head as the client sent it.
    pub(super) fn of(route: Route, head: &Parts, peer: &Peer, request_id: HeaderValue) -> Self {
        let mut facts = Self {
            route,
            bearer: None,
            body: None,
            request_id,
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: HeaderMap::new(),
            client_ip: None,
            sent_ms: 0,
        };
        if facts.may_change_sessions() {
            for name in KEPT {
                if let Some(value) = head.headers.get(&name) {
                    facts.headers.append(name, value.clone());
                }
            }
            facts.client_ip = Some(peer.client_ip(&head.headers, client_ip).to_string());
        }
        facts
    }

    /// GoTrue may change sessions in this request, so it is finished whoever leaves, and its answer
    /// waits for the store.
    pub(super) fn changes_sessions(&self) -> bool {
        !matches!(
            self.route,
            Route::User
                | Route::Health
                | Route::Settings
                | Route::Jwks
                | Route::Authorize
                | Route::Otp
                | Route::Recover
                | Route::Other
        )
    }

    /// Whatever GoTrue answers, it says nothing about a session.
    pub(super) fn says_nothing(&self) -> bool {
        let reads_only =
            matches!(self.route, Route::Health | Route::Settings | Route::Jwks | Route::Authorize);
        self.bearer.is_none() && reads_only
    }

    /// GoTrue looks at the Bearer token: what comes of the request may depend on it. Signing in and refreshing
    /// do not, whatever token stands beside (`internal/api/api.go`), so a token cannot keep anybody from them.
    pub(super) fn asks_for_token(&self) -> bool {
        !matches!(
            self.route,
            Route::Token
                | Route::Signup
                | Route::Verify
                | Route::Callback
                | Route::SamlAcs
                | Route::OauthToken
                | Route::PasskeyVerify
                | Route::Otp
                | Route::Recover
                | Route::Health
                | Route::Settings
                | Route::Jwks
                | Route::Authorize
        )
    }

    /// Changes are worth nothing unless the Bearer token is proven, so its key is worth a wait.
    pub(super) fn needs_proof(&self) -> bool {
        matches!(self.route, Route::Logout | Route::UserUpdate | Route::GrantRevoke | Route::FactorDelete)
    }

    /// Also endpoints that are not known yet.
    pub(super) fn may_change_sessions(&self) -> bool {
        self.changes_sessions() || (self.route == Route::Other && !self.method.is_safe())
    }

    /// The request is sent on now.
    pub(super) fn sending(&mut self, clock: &Clock) {
        self.sent_ms = clock.millis();
    }

    /// As the mirror asks for them.
    pub(super) fn asked(&self, paths: &Paths) -> Asked<'_> {
        Asked {
            route: self.route,
            method: &self.method,
            path: paths.of_gotrue(&self.uri).unwrap_or_default(),
            query: self.uri.query().unwrap_or_default(),
            headers: &self.headers,
            body: self.body.as_deref(),
            bearer: self.bearer.as_ref(),
            client_ip: self.client_ip.as_deref(),
            sent_ms: self.sent_ms,
        }
    }

    /// Whose doing a change is.
    pub(super) fn by(&self) -> By<'_> {
        By { route: self.route.template(), request_id: self.request_id.as_bytes() }
    }
}
