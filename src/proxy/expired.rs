//! Sessions that have ended, as they are noticed (contract §6.3, §6.5): whose time is over is ended here, and in
//! GoTrue with its own token; refreshes of them are refused before GoTrue renews anything.

use std::sync::Arc;

use super::{Proxy, facts::Facts};
use crate::{
    audit::{self, By},
    config::Secret,
    exchange::Identity,
    keys::Verdict,
    metrics::Refusal,
    session::{Reason, Seconds, Sought},
    session_api::Logout,
    sessions::{Budget, Ended, Sessions, Standing},
};

/// A token of a session, and what it was judged to be.
pub(super) type Shown<'a> = (&'a str, &'a Verdict);

impl Proxy {
    /// Looks the session of a token up beside the request that carries it, if that is due.
    pub(super) fn notice(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (token, verdict): Shown<'_>,
        identity: &Identity,
        facts: &Facts,
    ) {
        let Some(sought) = sessions.due(verdict) else {
            return;
        };
        let (proxy, of, identity) = (Arc::clone(self), Arc::clone(sessions), Arc::clone(identity));
        let (token, route, request_id) = (Secret::new(token), facts.route, facts.request_id.clone());
        sessions.tasks.spawn(async move {
            if of.notice(&sought, &identity).await == Standing::Expired {
                let by = By { route: route.template(), request_id: request_id.as_bytes() };
                proxy.end_expired(&of, &sought, token, by).await;
            }
        });
    }

    /// A lookup has just found a session's time to be over: ends it beside the request, if that is due.
    pub(super) fn noticed_expired(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (token, verdict): Shown<'_>,
        facts: &Facts,
    ) {
        let Some(sought) = sessions.due(verdict) else {
            return;
        };
        let (proxy, of) = (Arc::clone(self), Arc::clone(sessions));
        let (token, route, request_id) = (Secret::new(token), facts.route, facts.request_id.clone());
        sessions.tasks.spawn(async move {
            let by = By { route: route.template(), request_id: request_id.as_bytes() };
            proxy.end_expired(&of, &sought, token, by).await;
        });
    }

    /// Only for a token that verified (contract I2), and GoTrue is told only by whoever ended it.
    async fn end_expired(&self, sessions: &Arc<Sessions>, sought: &Sought, token: Secret, by: By<'_>) {
        let &Sought { user, session, touch: verified, .. } = sought;
        let ended = Ended { user, session, reason: Reason::Expired, in_gotrue: false };
        if verified && sessions.end_for_good(ended, by).await {
            self.complete(sessions, ended, None, token).await;
        }
    }

    /// Ends a session in GoTrue that has ended here, with a token of it, and notes that GoTrue knows.
    pub(super) async fn complete(
        &self,
        sessions: &Arc<Sessions>,
        ended: Ended,
        expires_at: Option<Seconds>,
        token: Secret,
    ) {
        if self.end_in_gotrue(&Logout { token, scope: "local" }).await {
            sessions.ended_in_gotrue(ended, expires_at).await;
        }
    }

    /// As [`complete`](Self::complete), with a token of our own, where `revoke.upstream` allows that (contract §6.4).
    /// The store says that the session is this user's, which GoTrue would not ask.
    pub(super) async fn complete_by_minting(&self, sessions: &Arc<Sessions>, ended: Ended) {
        let now = sessions.clock.seconds();
        let token = self.mint.then(|| self.judge.mint(ended.user, Some(ended.session), now)).flatten();
        if let Some(token) = token {
            self.complete(sessions, ended, None, Secret::new(token)).await;
        }
    }

    /// The session of a refresh, if it is known to have ended and refreshes are judged before GoTrue is asked.
    pub(super) async fn ended_holder(
        &self,
        sessions: &Arc<Sessions>,
        facts: &Facts,
        budget: &mut Budget,
    ) -> Option<Ended> {
        if !sessions.judges_refreshes() {
            return None;
        }
        let token = sessions.mirror.spent(&facts.asked(&self.paths))?;
        let ended = sessions.ended_holder(&token, budget).await?;
        audit::refused_refresh(ended.user, ended.session, refusal(ended), facts.by());
        Some(ended)
    }
}

/// What whoever refreshes is told of a session that has ended.
pub(super) fn refusal(ended: Ended) -> Refusal {
    match ended.reason {
        Reason::Expired => Refusal::RefreshExpired,
        _ => Refusal::RefreshRevoked,
    }
}
