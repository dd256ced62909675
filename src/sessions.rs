//! The proxy's hand on the store: looks sessions up, and makes the changes that the mirror decides on.
//! Bounds what that may cost a request.

mod demand;
mod ended;
mod making;
mod replaying;
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
    ended::Ended,
    unavailable::{Reader, Without, without_store},
    unswept::Unswept,
};
use crate::{
    audit::{self, By},
    breaker::{Breaker, Permit, Sign},
    clock::Clock,
    exchange::Identity,
    keys::Verdict,
    metrics::{Metrics, StoreCommand, StoreResult},
    mirror::{ByRef, Mirror},
    replay::Queue,
    session::{Limits, RefreshRef, Seconds, SessionId, Sought, State, Unrecorded, UserId},
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
    /// How often each lane of the breaker had opened when the connection was made: see [`Breaker::openings`].
    pub connected_at: Box<[AtomicU64]>,
    /// What could not be written yet; shared by all workers.
    pub queue: Arc<Queue>,
    /// `session.ttl`, seconds.
    pub session_ttl: Seconds,
    /// What exchanges mean.
    pub mirror: Mirror,
    /// `store.timeout`
    pub budget: Duration,
    /// `lookup`
    pub lookup: bool,
    /// `enforce`
    pub enforce: bool,
    /// When the time of sessions is over; the store judges by it.
    pub limits: Limits,
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
    /// The session's time is over.
    Expired,
    /// The user is banned for now.
    Suspended,
    /// Nobody can say, and it matters.
    Unavailable,
}

impl Standing {
    fn without_store(reader: Reader) -> Self {
        match without_store(reader) {
            Without::LeftToGotrue | Without::TokenDecides => Self::Open,
            Without::Unavailable => Self::Unavailable,
        }
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
            Ok(State::Expired) => Standing::Expired,
            Ok(State::Suspended(_)) => Standing::Suspended,
            Ok(State::Unknown) => {
                self.seen.note_missing(sought.session, self.clock.seconds());
                Standing::Open
            }
            Ok(State::Live(_)) => Standing::Open,
            Err(_) => Standing::without_store(Reader::Enforce),
        }
    }

    /// The caller's session, if it is to be looked at beside the request: at most once a minute, because all that
    /// does is to note that it was seen, or that its time is over.
    pub fn due(&self, verdict: &Verdict) -> Option<Sought> {
        caller(verdict).filter(|sought| self.seen.is_due(sought.session, self.clock.seconds()))
    }

    /// Looks a session up beside the request that named it: nothing waits for it.
    pub async fn notice(self: &Arc<Self>, sought: &Sought, identity: &Identity) -> Standing {
        let &Sought { user, session, .. } = sought;
        match self.look(sought, &mut self.budget()).await {
            // a token that could not be verified is believed as far as its session is known
            Ok(State::Live(_) | State::Suspended(_)) => drop(identity.set((user, session))),
            Ok(State::Unknown) => self.seen.note_missing(session, self.clock.seconds()),
            Ok(State::Revoked) => return Standing::Revoked,
            Ok(State::Expired) => return Standing::Expired,
            Err(_) => {
                self.seen.forget(session);
                return Standing::without_store(Reader::Lookup);
            }
        }
        Standing::Open
    }

    /// Whether the store was found not to know the caller's session. Says so once: whoever asks is to tell it.
    pub fn lacks(&self, verdict: &Verdict) -> bool {
        caller(verdict).is_some_and(|sought| self.seen.take_missing(sought.session))
    }

    async fn look(self: &Arc<Self>, sought: &Sought, budget: &mut Budget) -> Result<State, store::Error> {
        let lookup = self.store.lookup(sought, self.clock.seconds());
        self.call(StoreCommand::Lookup, self.store.lane_of(sought.user), budget, lookup).await
    }

    /// The session that a refresh token was last seen with, if anybody saw it.
    async fn noted(
        self: &Arc<Self>,
        token: &RefreshRef,
        budget: &mut Budget,
    ) -> Result<Option<(UserId, SessionId)>, store::Error> {
        let noted = self.store.noted(token, self.clock.seconds());
        self.call(StoreCommand::Resolve, self.store.lane_of_token(token), budget, noted).await
    }

    /// The session that was noted for a refresh token, if what was told of the token is about it. Another part of the store
    /// is asked than for the note, and may be away while that one works.
    async fn confirmed(
        self: &Arc<Self>,
        noted: Option<(UserId, SessionId)>,
        by_ref: &ByRef,
        budget: &mut Budget,
    ) -> Result<Option<(UserId, SessionId)>, store::Error> {
        let Some(noted) = noted else {
            return Ok(None);
        };
        let (lane, now) = (self.store.lane_of(noted.0), self.clock.seconds());
        let names = self.store.names(noted, &by_ref.reference, now);
        let token = self.call(StoreCommand::Resolve, lane, budget, names).await?;
        Ok(token.filter(|token| by_ref.is_about(*token)).map(|_| noted))
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
        let in_haste = self.in_haste(budget);
        let Some(permit) = self.leave(lane, budget) else {
            self.metrics.store_skipped(command);
            return Err(store::Error::Skipped);
        };
        let result = self.timed(command, budget, call).await;
        let hardly_asked = in_haste && result.as_ref().err() == Some(&store::Error::Timeout);
        permit.tell(if hardly_asked { Sign::Nothing } else { Sign::of(&result) });
        if result.is_ok() {
            self.go_on_sweeping();
        }
        result
    }

    /// One store call within what is left of the budget, whatever the breaker says.
    async fn timed<T>(
        &self,
        command: StoreCommand,
        budget: &mut Budget,
        call: impl Future<Output = Result<T, store::Error>>,
    ) -> Result<T, store::Error> {
        let began = Instant::now();
        let result = tokio::time::timeout(budget.0, call).await.unwrap_or(Err(store::Error::Timeout));
        let took = began.elapsed();
        budget.0 = budget.0.saturating_sub(took);
        let error = result.as_ref().err();
        self.metrics.store_command(command, error.map_or(StoreResult::Ok, store::Error::result), took);
        result
    }

    /// What comes too late only because little of the budget was left says nothing about the store.
    fn in_haste(&self, budget: &Budget) -> bool {
        budget.0 < self.budget / 2
    }

    /// Leave to call a part of the store within a budget, over a connection that is not from before an outage.
    fn leave(&self, lane: usize, budget: &Budget) -> Option<Permit<'_>> {
        let permit =
            if self.in_haste(budget) { self.breaker.ask_in_haste(lane)? } else { self.breaker.ask(lane)? };
        if self.connected_at.get(lane).is_some_and(|at| at.load(Relaxed) != self.breaker.openings(lane)) {
            self.renew_after_outage();
        }
        Some(permit)
    }

    /// Connections that were made before the breaker opened may be half open, and nobody has waited long enough on them
    /// to know. All at once: several lanes may lead to one server.
    fn renew_after_outage(&self) {
        for (lane, at) in self.connected_at.iter().enumerate() {
            let openings = self.breaker.openings(lane);
            if at.swap(openings, Relaxed) != openings {
                self.store.renew(lane, self.breaker.failing_since(lane));
            }
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
