//! Users with more sessions than may be (contract §6.5): a sign-in that is denied, and sessions that made room for one.

use std::sync::Arc;

use http::{Response, header::LOCATION, response};

use super::{Proxy, mirrored::Mirrored};
use crate::{
    audit::By,
    body::Body,
    config::Secret,
    error,
    metrics::Refusal,
    mirror::Decision,
    session::{Change, Outcome, Reason},
    sessions::{Ended, Sessions},
};

impl Mirrored {
    /// GoTrue handed out tokens of a session that its user may not have: the client does not get them, and they are
    /// used to end the session there. Until GoTrue has agreed, a tombstone stands for it.
    pub(super) fn denied(&self, decision: &Decision<'_>, outcomes: &[Outcome]) -> Option<Refusal> {
        let mut made = decision.changes.iter().zip(outcomes);
        let (change, _) = made.find(|(_, outcome)| **outcome == Outcome::Denied)?;
        if let (Change::Record { record, .. }, Some(issued)) = (change, &decision.issued) {
            let (user, session, expires_at) = (record.user, record.session, record.expires_at);
            let ended = Ended { user, session, reason: Reason::Denied, in_gotrue: false };
            let token = Secret::new(issued.access_token());
            let (proxy, sessions) = (Arc::clone(&self.proxy), Arc::clone(&self.sessions));
            let (route, request_id) = (self.facts.route, self.facts.request_id.clone());
            self.sessions.tasks.spawn(async move {
                let by = By { route: route.template(), request_id: request_id.as_bytes() };
                sessions.end_for_good(ended, by).await;
                proxy.complete(&sessions, ended, Some(expires_at), token).await;
            });
        }
        Some(Refusal::TooManySessions)
    }

    /// In the place of a redirect with tokens.
    pub(super) fn redirect(&self, refusal: Refusal, head: &response::Parts) -> Response<Body> {
        self.proxy.ledger.metrics.refused(refusal);
        let location = head.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
        error::redirect(refusal, head.status, location, self.form)
    }
}

impl Proxy {
    /// Ends in GoTrue, one after the other, what ended here for these changes, where tokens are signed for that
    /// (contract §6.4): the store has found each among that user's sessions. Else GoTrue learns of it at their next
    /// refresh (§6.3).
    pub(super) fn complete_evicted(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        changes: &[Change],
        outcomes: &[Outcome],
    ) {
        if !self.mint {
            return;
        }
        for (change, outcome) in changes.iter().zip(outcomes) {
            let Outcome::Evicted(evicted) = outcome else { continue };
            let (proxy, of) = (Arc::clone(self), Arc::clone(sessions));
            let (user, evicted) = (change.user(), evicted.sessions.clone());
            sessions.tasks.spawn(async move {
                for session in evicted {
                    let ended = Ended { user, session, reason: Reason::Evicted, in_gotrue: false };
                    proxy.complete_by_minting(&of, ended).await;
                }
            });
        }
    }
}
