//! Sessions whose time is over (contract §6.5), as they are noticed: ended here, and in GoTrue with their own token.

use std::sync::Arc;

use super::{Proxy, facts::Facts};
use crate::{
    audit::By,
    config::Secret,
    exchange::Identity,
    keys::Verdict,
    session::{Change, Reason, Sought, Which},
    session_api::Logout,
    sessions::{Sessions, Standing},
};

impl Proxy {
    /// Looks the session of a token up beside the request that carries it, if that is due.
    pub(super) fn notice(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (token, verdict): (&str, &Verdict),
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

    /// As [`notice`](Self::notice), of a session that a lookup has just found to be over.
    pub(super) fn noticed_expired(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        (token, verdict): (&str, &Verdict),
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
        if !sought.touch {
            return;
        }
        let change = Change::End {
            user: sought.user,
            which: Which::Live(sought.session),
            reason: Reason::Expired,
            sent_ms: u64::MAX,
            expires_at: None,
            ended_in_gotrue: false,
        };
        let outcomes = sessions.make(&[change], &mut sessions.budget(), by).await;
        if outcomes.iter().any(|outcome| outcome.ended() > 0) {
            self.end_in_gotrue(&Logout { token, scope: "local" }).await;
        }
    }
}
