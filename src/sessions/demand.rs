//! What somebody asks of the store and is told the outcome of: lists, and revocations, which are never put off.

use std::sync::Arc;

use super::{Budget, Sessions, caller};
use crate::{
    audit::{self, Actor, By},
    keys::Verdict,
    metrics::{MirrorEvent, StoreCommand},
    session::{Change, Listed, Outcome, Reason, Sought, State, UserId, Wanted, Which},
    store::{self, About},
};

/// Whose sessions shall end, which, and who wants it.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub which: Which,
    /// Who wants it.
    pub actor: Actor<'a>,
}

impl Sessions {
    /// What is known of the session that somebody acts by; `None` where the token names none.
    ///
    /// # Errors
    /// When the store did not say.
    pub async fn of_caller(
        self: &Arc<Self>,
        verdict: &Verdict,
        budget: &mut Budget,
    ) -> Result<Option<State>, store::Error> {
        match caller(verdict) {
            Some(sought) => self.look(&sought, budget).await.map(Some),
            None => Ok(None),
        }
    }

    /// What is known of a session; one that is sought by its owner counts as seen.
    ///
    /// # Errors
    /// When the store did not say.
    pub async fn state_of(
        self: &Arc<Self>,
        sought: &Sought,
        budget: &mut Budget,
    ) -> Result<State, store::Error> {
        self.look(sought, budget).await
    }

    /// A user's live sessions, or one of them.
    ///
    /// # Errors
    /// When the store did not say.
    pub async fn list(
        self: &Arc<Self>,
        user: UserId,
        wanted: Wanted,
        budget: &mut Budget,
    ) -> Result<Listed, store::Error> {
        let list = self.store.list(user, wanted, self.clock.seconds());
        self.call(StoreCommand::List, self.store.lane_of(user), budget, list).await
    }

    /// Revokes sessions: done, or an error that whoever asked must be told. Never kept for later: nobody would know
    /// whether it holds. An audit line either way.
    ///
    /// # Errors
    /// When the store did not take it; it may have done so all the same.
    pub async fn revoke(
        self: &Arc<Self>,
        demand: &Demand<'_>,
        budget: &mut Budget,
        by: By<'_>,
    ) -> Result<Outcome, store::Error> {
        let now_ms = self.clock.millis();
        let change = change(demand.user, demand.which.clone(), now_ms);
        let changes = std::slice::from_ref(&change);
        let outcome = self.revoke_after_what_waits(changes, &demand.which, budget).await;
        self.metrics.mirrored(MirrorEvent::End, outcome.as_ref().ok());
        if let Ok(outcome) = &outcome {
            self.metrics.sessions_ended(Reason::Revoked, outcome.ended());
        }
        audit::revocation(&change, &outcome, demand.actor, by);
        if let Ok(Outcome::Pending(_)) = outcome {
            self.sweep_beside(demand.user);
        }
        outcome
    }

    /// What waits of the same user must not come after it. Where that finds no room, the revocation does, and the store
    /// remembers what it ended: it does not come back. That does not go for a session which the store has not heard of.
    async fn revoke_after_what_waits(
        self: &Arc<Self>,
        changes: &[Change],
        which: &Which,
        budget: &mut Budget,
    ) -> Result<Outcome, store::Error> {
        let first = |outcomes: Vec<Outcome>| outcomes.into_iter().next().ok_or(store::Error::Protocol);
        let waiting = self.queue.of_users(changes, usize::MAX);
        match self.make_after(&waiting, changes, budget).await.and_then(first) {
            Err(error) if error.about() == About::Room && !waiting.is_empty() => {
                let outcome = self.make_after(&[], changes, budget).await.and_then(first)?;
                let is_known = !matches!(which, Which::Live(_)) || outcome.ended() > 0;
                if is_known { Ok(outcome) } else { Err(error) }
            }
            made => made,
        }
    }
}

/// The change that revokes sessions at `now_ms`, milliseconds since the epoch.
pub fn change(user: UserId, which: Which, now_ms: u64) -> Change {
    let sent_ms = which.sent(now_ms);
    Change::End { user, which, reason: Reason::Revoked, sent_ms, expires_at: None, ended_in_gotrue: false }
}
