//! Requests to the session API on their way there.

use std::sync::Arc;

use http::{Response, request::Parts};

use super::Proxy;
use crate::{
    body::Body,
    config::Secret,
    error::Form,
    exchange::Exchange,
    keys,
    metrics::Refusal,
    route::Route,
    session_api::{self, Answered, Request, SessionApi},
};

impl Proxy {
    /// What a request is for; paths of the session API are its own where it is on, but for a browser's question
    /// for permission, which GoTrue answers for every path.
    pub(super) fn route(&self, head: &Parts, path: &str) -> Route {
        let own = self
            .session_api
            .as_ref()
            .filter(|_| !session_api::is_preflight(&head.method, &head.headers))
            .and_then(|_| Route::of_session_api(path));
        own.unwrap_or_else(|| Route::of(&head.method, path))
    }

    /// Answers it, in a task of its own: what was revoked is told to GoTrue and the audit, whoever leaves
    /// (contract I6). Its body is left where it is.
    pub(super) async fn answer_here(
        self: &Arc<Self>,
        api: &Arc<SessionApi>,
        route: Route,
        head: &Parts,
        exchange: &mut Exchange,
    ) -> Result<Response<Body>, Refusal> {
        let bearer = match keys::bearer(&head.headers) {
            Some(token) => {
                let now = api.sessions.clock.seconds();
                Some((Secret::new(token), Box::pin(self.judge.verify_fetching(token, now)).await))
            }
            None => None,
        };
        exchange.identify(bearer.as_ref().and_then(|(_, verdict)| verdict.proven()));
        let request = Request {
            route,
            method: head.method.clone(),
            path: self.paths.of_gotrue(&head.uri).unwrap_or_default().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            bearer,
            form: Form::asked_by(&head.headers),
            request_id: exchange.request_id().clone(),
        };
        let (proxy, api) = (Arc::clone(self), Arc::clone(api));
        let tasks = api.sessions.tasks.clone();
        let task = tasks.spawn(Box::pin(async move {
            let Answered { response, logout } = api.answer(&request).await?;
            if let Some(logout) = logout {
                proxy.tell_gotrue(logout).await;
            }
            Ok(response)
        }));
        task.await.unwrap_or(Err(Refusal::StoreUnavailable))
    }
}
