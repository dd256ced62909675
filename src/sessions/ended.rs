//! Sessions that have ended, and whoever still comes with their tokens.

use std::sync::Arc;

use super::{Budget, Sessions};
use crate::{
    audit::By,
    metrics::StoreCommand,
    session::{Change, Holder, Outcome, Reason, RefreshRef, Seconds, SessionId, State, UserId, Which},
};

/// A session that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub session: SessionId,
    /// `Expired`, or `Revoked` for every other reason.
    pub reason: Reason,
    /// GoTrue is known to have ended it, too.
    pub in_gotrue: bool,
}

impl Sessions {
    /// Whether refreshes are judged before GoTrue is asked: it costs them two round trips more (contract §5), so only
    /// where it is asked for, or where time ends sessions.
    pub fn judges_refreshes(&self) -> bool {
        self.enforce || self.limits.end_by_time()
    }

    /// The session of a refresh token, if it has ended and GoTrue may not know. What GoTrue has ended it refuses in
    /// its own words (contract I1). A token that nobody saw, a session without record and tombstone, a banned user
    /// and a store that does not answer are GoTrue's to judge.
    pub async fn ended_holder(self: &Arc<Self>, token: &RefreshRef, budget: &mut Budget) -> Option<Ended> {
        let noted = self.noted(token, budget).await.ok()??;
        let (lane, holder) = (self.store.lane_of(noted.0), self.store.holder(noted, self.clock.seconds()));
        let holder = self.call(StoreCommand::Resolve, lane, budget, holder).await.ok()?;
        let Holder { user, session, state, ended_in_gotrue: in_gotrue } = holder;
        if in_gotrue {
            return None;
        }
        let reason = match state {
            State::Revoked => Reason::Revoked,
            State::Expired => Reason::Expired,
            State::Live(_) | State::Suspended(_) | State::Unknown => return None,
        };
        Some(Ended { user, session, reason, in_gotrue })
    }

    /// Makes sure that a session stays ended: by a tombstone that lives as long as a session may from now on, unless
    /// GoTrue has ended it too. Whether it had not been ended before: only its time was over.
    pub async fn end_for_good(self: &Arc<Self>, ended: Ended, by: By<'_>) -> bool {
        let change = ending(ended, None);
        match self.make_quietly(&change).await {
            Some(outcome) if outcome.ended() > 0 => {
                self.account(&change, &outcome, by);
                true
            }
            _ => false, // the next to ask finds it as it is
        }
    }

    /// GoTrue has ended it, too; `expires_at` is when the last access token expires that it issued.
    pub async fn ended_in_gotrue(self: &Arc<Self>, ended: Ended, expires_at: Option<Seconds>) {
        self.make_quietly(&ending(Ended { in_gotrue: true, ..ended }, expires_at)).await;
    }

    /// A change that nobody waits for, such as an ending that mostly changes nothing but a tombstone. Whoever wants it told
    /// has to see to that.
    pub(super) async fn make_quietly(self: &Arc<Self>, change: &Change) -> Option<Outcome> {
        let apply = self.store.apply_one(change, self.clock.seconds());
        self.call(StoreCommand::Apply, self.store.lane_of(change.user()), &mut self.budget(), apply)
            .await
            .ok()
    }
}

fn ending(ended: Ended, expires_at: Option<Seconds>) -> Change {
    Change::End {
        user: ended.user,
        which: Which::One(ended.session),
        reason: ended.reason,
        sent_ms: u64::MAX,
        expires_at,
        ended_in_gotrue: ended.in_gotrue,
    }
}
