//! Logouts of our own at GoTrue: with a token that it has just handed out, that its client has sent for this, or
//! that was signed here.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, HOST},
};

use super::Proxy;
use crate::{session_api::Logout, upstream::Outgoing};

/// A client waits no longer than this for GoTrue to come to know of a revocation.
const PATIENCE: Duration = Duration::from_secs(2);

impl Proxy {
    /// Ends sessions in GoTrue that were revoked here, and waits for it, but not for long: whoever signs in after the
    /// answer must not be logged out by it. What becomes of it later is in the log.
    pub(super) async fn tell_gotrue(self: &Arc<Self>, logout: Logout) {
        let Some(sessions) = &self.sessions else { return };
        let proxy = Arc::clone(self);
        let task = sessions.tasks.spawn(async move { proxy.end_in_gotrue(&logout).await });
        let _ = tokio::time::timeout(PATIENCE, task).await;
    }

    /// Ends sessions of an access token in GoTrue; whether it says that it did.
    pub(super) async fn end_in_gotrue(&self, logout: &Logout) -> bool {
        let Ok(request) = self.logout(logout) else {
            return false;
        };
        match self.upstream.send(request).await {
            Ok((response, _)) if response.status() == StatusCode::NO_CONTENT => return true,
            Ok((response, _)) => {
                let status = response.status().as_u16();
                tracing::warn!(status, "GoTrue did not end a session that was revoked here");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "GoTrue did not end a session that was revoked here");
            }
        }
        false
    }

    fn logout(&self, logout: &Logout) -> Result<Request<Outgoing>, http::Error> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", logout.token.reveal()))?;
        bearer.set_sensitive(true);
        Request::builder()
            .method(Method::POST)
            .uri(Uri::try_from(format!("{}/logout?scope={}", self.paths.upstream, logout.scope))?)
            .header(HOST, self.host.clone())
            .header(AUTHORIZATION, bearer)
            .body(Outgoing::Full(None))
    }
}
