//! Makes the changes that the mirror decides on. What the store does not take now waits in the queue, and everything
//! later of that user with it: no change overtakes another of the same user.

use std::{borrow::Cow, sync::Arc};

use super::{Budget, Sessions};
use crate::{
    audit::{self, By},
    metrics::{MirrorEvent, Replayed, StoreCommand},
    mirror::ByRef,
    replay::{Queued, What},
    session::{Change, Evicted, Outcome, Reason, Unrecorded, UserId},
    store::{self, Waited},
};

/// So many changes that wait are sent along with a new one of their user. Of more, the new one waits, too.
const ALONG: usize = 64;

impl Sessions {
    /// Makes changes. The outcomes stand in the order of the changes; none where the store failed.
    pub async fn make(self: &Arc<Self>, changes: &[Change], budget: &mut Budget, by: By<'_>) -> Vec<Outcome> {
        if changes.is_empty() {
            return Vec::new();
        }
        let waiting = self.queue.of_users(changes, ALONG + 1);
        if waiting.len() > ALONG {
            self.keep(changes, &store::Error::Skipped, by);
            return Vec::new();
        }
        match self.make_after(&waiting, changes, budget).await {
            Ok(outcomes) => {
                for (change, outcome) in changes.iter().zip(&outcomes) {
                    self.account(change, outcome, by);
                }
                outcomes
            }
            Err(error) => {
                self.keep(changes, &error, by);
                Vec::new()
            }
        }
    }

    /// Makes changes in one round trip after those that wait of the same users. Gives back the outcomes of `changes`.
    pub(super) async fn make_after(
        self: &Arc<Self>,
        waiting: &[Arc<Queued>],
        changes: &[Change],
        budget: &mut Budget,
    ) -> Result<Vec<Outcome>, store::Error> {
        let lane = changes.first().map_or(0, |change| self.store.lane_of(change.user()));
        let now = self.clock.seconds();
        let waiting: Vec<_> =
            waiting.iter().filter(|queued| self.waited(queued, now) == Waited::InTime).collect();
        let mut all = Cow::Borrowed(changes);
        if !waiting.is_empty() {
            let before = waiting.iter().filter_map(|queued| change_of(queued));
            all = before.chain(changes.iter().cloned()).collect();
        }
        let apply = self.store.apply(&all, now);
        let mut outcomes = self.call(StoreCommand::Apply, lane, budget, apply).await?;
        let new = outcomes.split_off(waiting.len().min(outcomes.len()));
        for (queued, outcome) in waiting.into_iter().zip(outcomes) {
            self.written(queued, &outcome);
        }
        Ok(new)
    }

    /// Makes a change to the session that a refresh token belongs to, if that is known. A session that only the
    /// queue knows is found when the queue has been written.
    pub async fn make_by_ref(self: &Arc<Self>, by_ref: &ByRef, budget: &mut Budget, by: By<'_>) {
        let owner = match self.noted(&by_ref.reference, budget).await {
            Ok(noted) => self.confirmed(noted, by_ref, budget).await,
            Err(error) => Err(error),
        };
        match owner {
            Ok(Some((user, session))) => {
                self.make(&[by_ref.change(user, session)], budget, by).await;
            }
            Ok(None) if self.queue.is_empty() => {}
            Err(error) if !error.may_pass() => {}
            Ok(None) | Err(_) => {
                if !self.queue.put(What::ByRef(by_ref.clone()), by, self.clock.millis()) {
                    self.unrecorded(Unrecorded::StoreFailed, by);
                }
            }
        }
    }

    /// Keeps what could not be made for later; what cannot be kept is lost, counted and audited.
    fn keep(&self, changes: &[Change], error: &store::Error, by: By<'_>) {
        for change in changes {
            let kept =
                error.may_pass() && self.queue.put(What::Change(change.let_go()), by, self.clock.millis());
            if kept {
                self.metrics.mirror_queued(MirrorEvent::of(change));
            } else {
                self.lose(change, error, by);
            }
        }
    }

    pub(super) fn lose(&self, change: &Change, error: &store::Error, by: By<'_>) {
        let full = *error == store::Error::Full;
        self.metrics.mirrored(MirrorEvent::of(change), None);
        self.metrics.unrecorded(if full { Unrecorded::StoreFull } else { Unrecorded::StoreFailed });
        audit::failed(change, error, by);
    }

    /// A change that waited was made; accounted for once, whoever made it.
    pub(super) fn written(self: &Arc<Self>, queued: &Queued, outcome: &Outcome) {
        if !self.queue.take(queued) {
            return;
        }
        self.metrics.replayed(Replayed::Written);
        if let What::Change(change) = &queued.what {
            self.account(change, outcome, queued.by());
        }
    }

    pub(super) fn account(self: &Arc<Self>, change: &Change, outcome: &Outcome, by: By<'_>) {
        self.metrics.mirrored(MirrorEvent::of(change), Some(outcome));
        if let Some(reason) = reason(change, outcome) {
            self.metrics.sessions_ended(reason, outcome.ended());
        }
        audit::changed(change, outcome, by);
        match outcome {
            Outcome::Pending(_) => self.sweep_beside(change.user()),
            Outcome::Evicted(Evicted { more: true, .. }) => self.evict_beside(change, by),
            _ => {}
        }
    }

    /// Goes on, in a task of its own, with a change for which not all could end that are too many. Where the store
    /// fails, the user's next sign-in goes on with it.
    fn evict_beside(self: &Arc<Self>, change: &Change, by: By<'_>) {
        let (sessions, change) = (Arc::clone(self), change.clone());
        let (route, request_id) = (by.route, by.request_id.to_vec());
        self.tasks.spawn(async move {
            while let Some(Outcome::Evicted(evicted)) = sessions.make_quietly(&change).await {
                sessions.metrics.sessions_ended(Reason::Evicted, evicted.sessions.len() as u64);
                audit::evicted(change.user(), &evicted.sessions, By { route, request_id: &request_id });
                if !evicted.more {
                    break;
                }
            }
        });
    }

    /// As [`sweep`](Self::sweep), in a task of its own.
    pub(super) fn sweep_beside(self: &Arc<Self>, user: UserId) {
        let sessions = Arc::clone(self);
        self.tasks.spawn(async move { sessions.sweep(user).await });
    }

    /// Goes on with a sweep that broke off, now that the store answers.
    pub(super) fn go_on_sweeping(self: &Arc<Self>) {
        if let Some(user) = self.unswept.due() {
            let sessions = Arc::clone(self);
            self.tasks.spawn(async move {
                sessions.sweep(user).await;
                sessions.unswept.done();
            });
        }
    }

    /// Deals with what a change to very many sessions left to do. Nobody waits for it, since the change holds
    /// already; so it breaks off where the store fails, and goes on some time after the store has answered again.
    async fn sweep(self: &Arc<Self>, user: UserId) {
        let mut ended = [0; Reason::ALL.len()];
        loop {
            let step = self.store.sweep(user, self.clock.seconds());
            let lane = self.store.lane_of(user);
            let swept = match self.call(StoreCommand::Sweep, lane, &mut self.budget(), step).await {
                Ok(swept) => swept,
                Err(store::Error::Protocol) => break, // as it would every time
                Err(_) => {
                    self.unswept.add(user);
                    break;
                }
            };
            for (reason, count) in swept.ended {
                self.metrics.sessions_ended(reason, count);
                if let Some(sum) = ended.get_mut(reason as usize) {
                    *sum += count;
                }
            }
            if !swept.pending {
                break;
            }
        }
        for (reason, count) in Reason::ALL.into_iter().zip(ended) {
            if count > 0 {
                audit::swept(user, reason, count);
            }
        }
    }
}

pub(super) fn change_of(queued: &Queued) -> Option<Change> {
    match &queued.what {
        What::Change(change) => Some(change.clone()),
        What::ByRef(_) => None,
    }
}

/// Why sessions ended, where some may have.
fn reason(change: &Change, outcome: &Outcome) -> Option<Reason> {
    match (change, outcome) {
        (Change::End { reason, .. }, _) => Some(*reason),
        (_, Outcome::Expired(_)) => Some(Reason::Expired),
        (_, Outcome::Evicted(_)) => Some(Reason::Evicted),
        (_, Outcome::Denied) => Some(Reason::Denied),
        _ => None,
    }
}
