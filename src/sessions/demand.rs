//! What somebody asks of the store and is told the outcome of: lists, and revocations, which are never put off.

use std::sync::Arc;

use super::{Budget, Sessions, caller};
use crate::{
    audit::{self, Actor, By},
    keys::Verdict,
    metrics::{MirrorEvent, StoreCommand},
    session::{Change, Listed, Outcome, Reason, Sought, State, UserId, Wanted, Which},
    store,
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
        let waiting = self.queue.of_users(changes); // what waits of this user must not come after it
        let outcomes = self.make_after(&waiting, changes, budget).await;
        let outcome = outcomes.and_then(|outcomes| outcomes.into_iter().next().ok_or(store::Error::Protocol));
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
}

/// The change that revokes sessions at `now_ms`, milliseconds since the epoch. One that is named ends whenever it
/// began: clocks of replicas differ.
pub fn change(user: UserId, which: Which, now_ms: u64) -> Change {
    let named = matches!(which, Which::One(_) | Which::Live(_));
    Change::End {
        user,
        which,
        reason: Reason::Revoked,
        sent_ms: if named { u64::MAX } else { now_ms },
        expires_at: None,
        ended_in_gotrue: false,
    }
}
