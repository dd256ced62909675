//! The session API (contract §7): the caller's own sessions, and for admins anybody's, listed and revoked.
//!
//! Opt-in, on the public listener, in GoTrue's conventions. Who asks is taken from the verified token alone; what is
//! revoked is revoked in the store before it is answered. How GoTrue comes to know is for the proxy to do: the
//! answer brings the [`Logout`] along, where there is a token for one.

pub mod caller;
pub mod paging;
pub mod request;
pub mod shown;

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};

use self::{caller::Caller, paging::Paging, request::Asked, shown::Shown};
use crate::{
    audit::{self, By},
    body::Body,
    config::{self, Secret},
    error::{self, Form},
    jwks::Verifier,
    keys::Verdict,
    metrics::Refusal,
    route::Route,
    session::{Listed, SessionId, State, UserId, Wanted, Which},
    sessions::{Budget, Demand, Sessions},
    store,
};

/// One worker's session API.
#[derive(Debug)]
pub struct SessionApi {
    /// Where sessions are.
    pub sessions: Arc<Sessions>,
    /// Signs tokens, where that is allowed.
    pub verifier: Arc<Verifier>,
    /// `jwt.admin_roles`, `revoke.upstream`
    pub config: Arc<config::SessionApi>,
}

/// A request, as far as it matters here. Its body does not.
#[derive(Debug)]
pub struct Request {
    /// One that [`Route::of_session_api`] gave.
    pub route: Route,
    /// Any.
    pub method: Method,
    /// After `path_prefix` was taken off.
    pub path: String,
    /// Raw, without the `?`.
    pub query: String,
    /// The Bearer token and what is known of it; none where none was sent.
    pub bearer: Option<(Secret, Verdict)>,
    /// The form of answers.
    pub form: Form,
    /// `X-Request-Id`, for the audit.
    pub request_id: HeaderValue,
}

/// What comes of a request.
#[derive(Debug)]
pub struct Answered {
    /// For the client.
    pub response: Response<Body>,
    /// For GoTrue, which does not know yet what was revoked.
    pub logout: Option<Logout>,
}

/// A `POST /logout` that tells GoTrue of a revocation.
#[derive(Debug)]
pub struct Logout {
    /// The access token that it is done with: the caller's own, or one signed here (contract §6.4).
    pub token: Secret,
    /// `local`, `others` or `global`.
    pub scope: &'static str,
}

/// Whether a request is a browser's question for permission (CORS), which GoTrue answers for every path.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}

impl SessionApi {
    /// Answers a request: who asks first, then what for, as GoTrue's router has it.
    ///
    /// # Errors
    /// A refusal, which is the answer then.
    pub async fn answer(&self, request: &Request) -> Result<Answered, Refusal> {
        let mut budget = self.sessions.budget();
        let by = By { route: request.route.template(), request_id: request.request_id.as_bytes() };
        let caller = self.admit(request, &mut budget).await.inspect_err(|why| {
            let verdict = request.bearer.as_ref().map_or(&Verdict::Bad, |(_, verdict)| verdict);
            audit::refused(verdict, *why, by);
        })?;
        let Request { route, method, path, query, form, .. } = request;
        let response = match request::read(*route, method, path, query, &caller)? {
            Asked::NotAllowed(methods) => not_allowed(methods, *form),
            Asked::List(user, paging) => {
                let listed =
                    self.sessions.list(user, paging.wanted(), &mut budget).await.map_err(unavailable)?;
                page(*route, user, paging, &listed, caller.session(), *form)
            }
            Asked::Show(user, session) => {
                let listed = self.sessions.list(user, Wanted::One(session), &mut budget).await;
                let listed = listed.map_err(unavailable)?;
                let record = listed.records.first().ok_or(Refusal::NoSuchSession)?;
                json(&Shown::of(record, caller.session()), *form)
            }
            Asked::Revoke(user, which) => {
                let logout = self.revoke(user, which, &caller, &mut budget, by).await?;
                return Ok(Answered { response: error::begun(StatusCode::NO_CONTENT, *form), logout });
            }
        };
        Ok(Answered { response, logout: None })
    }

    /// Whoever asks, if they may: by their token, and by what the store knows of its session.
    async fn admit(&self, request: &Request, budget: &mut Budget) -> Result<Caller, Refusal> {
        let (token, verdict) = request.bearer.as_ref().ok_or(Refusal::NoToken)?;
        let caller = match request.route {
            Route::Sessions | Route::Session => caller::user(verdict, token)?,
            _ => caller::admin(verdict, &self.config.admin_roles)?,
        };
        match self.sessions.of_caller(verdict, budget).await.map_err(unavailable)? {
            Some(State::Revoked) => Err(Refusal::SessionRevoked),
            Some(State::Expired) => Err(Refusal::SessionExpired),
            Some(State::Suspended(_)) => Err(Refusal::UserSuspended),
            // also a token that names no session, as GoTrue takes it
            Some(State::Live(_) | State::Unknown) | None => Ok(caller),
        }
    }

    /// Ends sessions in the store, and says how GoTrue can be told.
    async fn revoke(
        &self,
        user: UserId,
        which: Which,
        caller: &Caller,
        budget: &mut Budget,
        by: By<'_>,
    ) -> Result<Option<Logout>, Refusal> {
        let demand = Demand { user, which: which.clone(), actor: caller.actor() };
        let outcome = self.sessions.revoke(&demand, budget, by).await.map_err(unavailable)?;
        if matches!(which, Which::Live(_)) && outcome.ended() == 0 {
            return Err(Refusal::NoSuchSession);
        }
        if let Some(logout) = caller.logout(&which) {
            return Ok(Some(logout));
        }
        if !self.config.mint {
            return Ok(None); // GoTrue learns of it at the session's next refresh (contract §6.3)
        }
        // the store has just ended it as a session of this user, which GoTrue would not ask
        let (session, scope) = match which {
            Which::Live(session) | Which::One(session) => (Some(session), "local"),
            _ => (None, "global"),
        };
        let token = self.verifier.mint(user, session, self.sessions.clock.seconds());
        Ok(token.map(|token| Logout { token: Secret::new(token), scope }))
    }
}

/// The store must answer here; why it did not is in log and metrics.
fn unavailable(_: store::Error) -> Refusal {
    Refusal::StoreUnavailable
}

fn page(
    route: Route,
    user: UserId,
    paging: Paging,
    listed: &Listed,
    own: Option<SessionId>,
    form: Form,
) -> Response<Body> {
    let sessions = listed.records.iter().map(|record| Shown::of(record, own)).collect();
    let mut response = json(&shown::List { sessions }, form);
    let path = match route {
        Route::AdminUserSessions => format!("/admin/users/{user}/sessions"),
        _ => "/sessions".to_owned(),
    };
    paging.head(&path, listed.total, response.headers_mut());
    response
}

fn json(content: &impl serde::Serialize, form: Form) -> Response<Body> {
    let mut response = error::begun(StatusCode::OK, form);
    *response.body_mut() = Body::full(Bytes::from(serde_json::to_vec(content).unwrap_or_default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// As GoTrue's router says it: a line for each method that there is, and no body.
fn not_allowed(allowed: &[&'static str], form: Form) -> Response<Body> {
    let mut response = error::begun(StatusCode::METHOD_NOT_ALLOWED, form);
    for method in allowed {
        response.headers_mut().append(ALLOW, HeaderValue::from_static(method));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        let request = Request {
            route: Route::Sessions,
            method: Method::GET,
            path: "/sessions".to_owned(),
            query: String::new(),
            bearer: Some((Secret::new("canary"), Verdict::Bad)),
            form: Form::asked_by(&HeaderMap::new()),
            request_id: HeaderValue::from_static("r1"),
        };
        let logout = Logout { token: Secret::new("canary"), scope: "local" };
        let shown = format!("{request:?} {logout:?}");
        assert!(shown.contains("/sessions") && !shown.contains("canary"), "{shown}");
    }
}
