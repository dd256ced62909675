//! The proxy's hand on the store: looks sessions up, and makes the changes that the mirror decides on.
//! Bounds what that may cost a request.

mod demand;
mod unavailable;
mod unswept;

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use self::{
    demand::{Demand, change},
    unavailable::{Reader, Without, without_store},
    unswept::Unswept,
};
use crate::{
    audit::{self, By},
    breaker::{Breaker, Sign},
    clock::Clock,
    exchange::Identity,
    keys::Verdict,
    metrics::{Metrics, MirrorEvent, StoreCommand},
    mirror::{ByRef, Mirror},
    session::{Change, Outcome, Reason, Seconds, SessionId, Sought, State, Unrecorded, UserId},
    store::{self, Store},
};

/// A session that was just looked up is left alone for so long where a lookup decides nothing:
/// `seen_at` is not written more often either.
const SEEN_FOR: Seconds = 60;
/// So many sessions are remembered as seen, by each worker.
const SEEN_MAX: usize = 16_384;

/// One worker's way to the store, and what is done with it.
#[derive(Debug)]
pub struct Sessions {
    /// Where sessions are.
    pub store: Store,
    /// Whether it is worth asking; shared by all workers.
    pub breaker: Arc<Breaker>,
    /// How often the breaker had opened when the connection was made: see [`Breaker::openings`].
    pub connected_at: AtomicU64,
    /// What exchanges mean.
    pub mirror: Mirror,
    /// `store.timeout`
    pub budget: Duration,
    /// `lookup`
    pub lookup: bool,
    /// `enforce`
    pub enforce: bool,
    /// Sessions that were looked up within the last minute.
    pub seen: Seen,
    /// Sweeps that broke off.
    pub unswept: Unswept,
    /// The time.
    pub clock: Clock,
    /// Where changes are counted.
    pub metrics: Arc<Metrics>,
    /// Work that a drain waits for.
    pub tasks: TaskTracker,
}

/// What one request's store calls may still cost it, all together.
#[derive(Debug)]
pub struct Budget(Duration);

/// What the store says of whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// GoTrue decides.
    Open,
    /// The session was revoked here.
    Revoked,
    /// The user is banned for now.
    Suspended,
    /// Nobody can say, and it matters.
    Unavailable,
}

impl Budget {
    /// For something that may take so long.
    pub fn new(limit: Duration) -> Self {
        Self(limit)
    }
}

impl Sessions {
    /// A fresh budget for one request.
    pub fn budget(&self) -> Budget {
        Budget(self.budget)
    }

    /// Looks the caller's session up and waits for it: for `enforce`.
    pub async fn standing(self: &Arc<Self>, verdict: &Verdict, budget: &mut Budget) -> Standing {
        let Some(sought) = caller(verdict) else {
            return Standing::Open;
        };
        match self.look(&sought, budget).await {
            Ok(State::Revoked) => Standing::Revoked,
            Ok(State::Suspended(_)) => Standing::Suspended,
            Ok(State::Unknown) => {
                self.seen.note_missing(sought.session, self.clock.seconds());
                Standing::Open
            }
            Ok(State::Live(_)) => Standing::Open,
            Err(_) => match without_store(Reader::Enforce) {
                Without::LeftToGotrue | Without::TokenDecides => Standing::Open,
                Without::Unavailable => Standing::Unavailable,
            },
        }
    }

    /// Looks the caller's session up beside the request: nothing waits for it. At most once a minute
    /// for a session, because all it does is to note that it was seen.
    pub fn notice(self: &Arc<Self>, verdict: &Verdict, identity: &Identity) {
        let Some(sought) = caller(verdict) else {
            return;
        };
        let Sought { user, session, .. } = sought;
        if !self.seen.is_due(session, self.clock.seconds()) {
            return;
        }
        let (sessions, identity) = (Arc::clone(self), Arc::clone(identity));
        self.tasks.spawn(async move {
            let mut budget = sessions.budget();
            match sessions.look(&sought, &mut budget).await {
                // a token that could not be verified is believed as far as its session is known
                Ok(State::Live(_) | State::Suspended(_)) => drop(identity.set((user, session))),
                Ok(State::Unknown) => sessions.seen.note_missing(session, sessions.clock.seconds()),
                Ok(State::Revoked) => {}
                Err(_) => sessions.seen.forget(session),
            }
        });
    }

    /// Whether the store was found not to know the caller's session. Says so once: whoever asks is to tell it.
    pub fn lacks(&self, verdict: &Verdict) -> bool {
        caller(verdict).is_some_and(|sought| self.seen.take_missing(sought.session))
    }

    async fn look(self: &Arc<Self>, sought: &Sought, budget: &mut Budget) -> Result<State, store::Error> {
        let lookup = self.store.lookup(sought, self.clock.seconds());
        self.call(StoreCommand::Lookup, self.store.lane_of(sought.user), budget, lookup).await
    }

    /// Makes changes. The outcomes stand in the order of the changes; none where the store failed.
    pub async fn make(self: &Arc<Self>, changes: &[Change], budget: &mut Budget, by: By<'_>) -> Vec<Outcome> {
        if changes.is_empty() {
            return Vec::new();
        }
        let lane = changes.first().map_or(0, |change| self.store.lane_of(change.user()));
        let apply = self.store.apply(changes, self.clock.seconds());
        match self.call(StoreCommand::Apply, lane, budget, apply).await {
            Ok(outcomes) => {
                for (change, outcome) in changes.iter().zip(&outcomes) {
                    self.account(change, *outcome, by);
                }
                outcomes
            }
            Err(error) => {
                let why =
                    if error == store::Error::Full { Unrecorded::StoreFull } else { Unrecorded::StoreFailed };
                for change in changes {
                    self.metrics.mirrored(MirrorEvent::of(change), None);
                    self.metrics.unrecorded(why);
                    audit::failed(change, &error, by);
                }
                Vec::new()
            }
        }
    }

    /// Makes a change to the session that a refresh token belongs to, if that is known.
    pub async fn make_by_ref(self: &Arc<Self>, by_ref: &ByRef, budget: &mut Budget, by: By<'_>) {
        let owner = self.store.session_of(&by_ref.reference, self.clock.seconds());
        let lane = self.store.lane_of_token(&by_ref.reference);
        if let Ok(Some((user, session))) = self.call(StoreCommand::Resolve, lane, budget, owner).await {
            self.make(&[by_ref.change(user, session)], budget, by).await;
        }
    }

    fn account(self: &Arc<Self>, change: &Change, outcome: Outcome, by: By<'_>) {
        self.metrics.mirrored(MirrorEvent::of(change), Some(outcome));
        if let Change::End { reason, .. } = change {
            self.metrics.sessions_ended(*reason, outcome.ended());
        }
        audit::changed(change, outcome, by);
        if let Outcome::Pending(_) = outcome {
            self.sweep_beside(change.user());
        }
    }

    /// As [`sweep`](Self::sweep), in a task of its own.
    fn sweep_beside(self: &Arc<Self>, user: UserId) {
        let sessions = Arc::clone(self);
        self.tasks.spawn(async move { sessions.sweep(user).await });
    }

    /// Goes on with a sweep that broke off, now that the store answers.
    fn go_on_sweeping(self: &Arc<Self>) {
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

    /// Counts an answer that was not mirrored.
    pub fn unrecorded(&self, why: Unrecorded, by: By<'_>) {
        self.metrics.unrecorded(why);
        audit::unrecorded(why, by);
    }

    /// One store call within what is left of the budget; none where the breaker holds it back.
    async fn call<T>(
        self: &Arc<Self>,
        command: StoreCommand,
        lane: usize,
        budget: &mut Budget,
        call: impl Future<Output = Result<T, store::Error>>,
    ) -> Result<T, store::Error> {
        let Some(permit) = self.breaker.ask(lane) else {
            self.metrics.store_skipped(command);
            return Err(store::Error::Skipped);
        };
        self.renew_after_outage();
        let began = Instant::now();
        let result = tokio::time::timeout(budget.0, call).await.unwrap_or(Err(store::Error::Timeout));
        let took = began.elapsed();
        budget.0 = budget.0.saturating_sub(took);
        let error = result.as_ref().err();
        self.metrics.store_command(command, error.map_or("ok", store::Error::cause), took);
        // what came too late only because little of the budget was left says nothing about the store
        let hardly_asked = result.as_ref().err() == Some(&store::Error::Timeout) && took < self.budget / 2;
        permit.tell(if hardly_asked { Sign::Nothing } else { Sign::of(&result) });
        if result.is_ok() {
            self.go_on_sweeping();
        }
        result
    }

    /// Connections that were made before the breaker opened may be half open, and nobody has waited long enough
    /// on this one to know.
    fn renew_after_outage(&self) {
        let openings = self.breaker.openings();
        if self.connected_at.swap(openings, Relaxed) != openings {
            self.store.renew();
        }
    }
}

/// The session a token names, and whether it may be touched: only for a token that verifies.
fn caller(verdict: &Verdict) -> Option<Sought> {
    let (claims, touch) = match verdict {
        Verdict::Good(claims) => (claims, true),
        Verdict::NoKeys(claims) | Verdict::UnknownKey(claims) => (claims, false),
        Verdict::Expired(_) | Verdict::Bad => return None,
    };
    Some(Sought { user: claims.user.id()?, session: claims.session.id()?, began: claims.began(), touch })
}

/// Sessions that were looked up lately.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<SessionId, Sight>>);

/// When, and whether the store did not know it.
#[derive(Clone, Copy, Debug)]
struct Sight {
    at: Seconds,
    missing: bool,
}

impl Seen {
    /// Whether the session should be looked up now; if so, not again for a minute.
    fn is_due(&self, session: SessionId, now: Seconds) -> bool {
        let mut seen = self.lock();
        if seen.get(&session).is_some_and(|sight| now.saturating_sub(sight.at) < SEEN_FOR) {
            return false;
        }
        note(&mut seen, session, Sight { at: now, missing: false });
        true
    }

    fn note_missing(&self, session: SessionId, now: Seconds) {
        note(&mut self.lock(), session, Sight { at: now, missing: true });
    }

    fn take_missing(&self, session: SessionId) -> bool {
        self.lock().get_mut(&session).is_some_and(|sight| std::mem::take(&mut sight.missing))
    }

    fn forget(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Sight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room where there is none: of what is too old to matter, else of everything.
fn note(seen: &mut HashMap<SessionId, Sight>, session: SessionId, sight: Sight) {
    if seen.len() >= SEEN_MAX {
        seen.retain(|_, old| sight.at.saturating_sub(old.at) < SEEN_FOR);
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
    }
    seen.insert(session, sight);
}
