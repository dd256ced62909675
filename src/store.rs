//! The session store: what changes to sessions mean, and what is known of one.
//!
//! Two stores with one behaviour: Redis, shared by every replica, and the embedded one. One
//! conformance suite runs against both. The rules that both follow stand in `rules`.

pub mod changes;
mod error;
mod fold;
mod keys;
pub mod memory;
pub mod redis;
mod rules;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::changes::{Changes, Heard};
pub use self::{
    error::{About, Code, Error, OpenError},
    fold::{Fold, fold, may_overtake},
    rules::{Waited, waited},
};
use crate::{
    config::{self, StoreTarget},
    session::{
        Change, Holder, Limits, Listed, Outcome, Reason, RefreshRef, Seconds, SessionId, Sought, State,
        TokenOf, UserId, Wanted,
    },
};

/// Where stores come from: shared by all workers, built once from the configuration.
#[derive(Clone, Debug)]
pub enum Source {
    /// Each worker gets a connection of its own.
    Redis(Box<redis::Source>),
    /// All share one table.
    Memory(Arc<memory::Memory>),
}

impl Source {
    /// Reads the address and the files it needs; nothing is connected to.
    ///
    /// # Errors
    /// When a file cannot be read, or the address or the CA file is not one.
    pub fn new(config: &config::Store, session_ttl: Duration) -> Result<Self, OpenError> {
        Ok(match &config.target {
            StoreTarget::Memory => {
                Self::Memory(Arc::new(memory::Memory::new(config.memory_max_sessions, session_ttl)))
            }
            StoreTarget::Redis(_) => Self::Redis(Box::new(redis::Source::new(config, session_ttl)?)),
        })
    }

    /// Lets Redis deal with at most `step` sessions of a user at once, at least one, instead of 256. The embedded
    /// store deals with all at once.
    #[must_use]
    pub fn with_step(self, step: u32) -> Self {
        match self {
            Self::Redis(source) => Self::Redis(Box::new(source.with_step(step))),
            Self::Memory(_) => self,
        }
    }

    /// Ends sessions that are past these limits, or too many; without this none are.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        match self {
            Self::Redis(source) => Self::Redis(Box::new(source.with_limits(limits))),
            Self::Memory(memory) => {
                memory.limit(limits);
                Self::Memory(memory)
            }
        }
    }

    /// See [`Store::lanes`].
    pub fn lanes(&self) -> usize {
        match self {
            Self::Redis(source) => source.lanes(),
            Self::Memory(_) => 1,
        }
    }

    /// One worker's own store. Redis is connected to at the first call, in the runtime that makes it.
    pub fn connect(&self) -> Store {
        match self {
            Self::Redis(source) => Store::Redis(source.connect()),
            Self::Memory(memory) => Store::Memory(Arc::clone(memory)),
        }
    }

    /// Where changes of sessions are counted; `None` for the embedded store, which is as quick to ask.
    pub fn changes(&self) -> Option<Arc<Changes>> {
        match self {
            Self::Redis(source) => Some(source.changes()),
            Self::Memory(_) => None,
        }
    }

    /// Counts the changes that the store tells of, made by whomever, as long as the future runs. `told` hears whether
    /// it does.
    pub async fn follow_changes(&self, told: impl Fn(Heard)) {
        if let Self::Redis(source) = self {
            source.follow_changes(told).await;
        }
    }

    /// Reads the address and the files again. Connections that are made later use them; those that
    /// stand are left alone.
    ///
    /// # Errors
    /// As [`Source::new`]; what was in use before stays in use.
    pub fn reload(&self) -> Result<(), OpenError> {
        match self {
            Self::Redis(source) => source.reload(),
            Self::Memory(_) => Ok(()),
        }
    }
}

/// One worker's store.
#[derive(Debug)]
pub enum Store {
    /// Shared by every replica.
    Redis(redis::Redis),
    /// In this process only.
    Memory(Arc<memory::Memory>),
}

impl Store {
    /// Makes the next call to a part over a new connection, if the one that stands may be from before an outage that was
    /// noticed then: if it has not done since what it was asked. Behind Sentinels it is also asked again who the master is.
    pub fn renew(&self, lane: usize, since: Instant) {
        match self {
            Self::Redis(redis) => redis.renew(lane, since),
            Self::Memory(_) => {}
        }
    }

    /// Makes all changes of one answer, in their order, each of them atomically; one round trip. The
    /// outcomes are in the same order. Making them again leaves the same state (contract I9).
    ///
    /// # Errors
    /// When at least one of them was not, or may not have been, made; the others were tried all the same.
    pub async fn apply(&self, changes: &[Change], now: Seconds) -> Result<Vec<Outcome>, Error> {
        match self {
            Self::Redis(redis) => redis.apply(changes, now).await,
            Self::Memory(memory) => memory.apply(changes, now),
        }
    }

    /// As [`apply`](Self::apply), for one change.
    ///
    /// # Errors
    /// As there.
    pub async fn apply_one(&self, change: &Change, now: Seconds) -> Result<Outcome, Error> {
        let outcomes = self.apply(std::slice::from_ref(change), now).await?;
        outcomes.into_iter().next().ok_or(Error::Protocol)
    }

    /// What is known of a session; one round trip. One that the store has no record of is revoked all the same if
    /// `began` says that it began before its user's sessions were all revoked. With `touch`, a live record whose
    /// `seen_at` is at least a minute old gets `now` for it, after it was read. Never makes a key.
    ///
    /// # Errors
    /// When the store did not answer, or not with what this program writes.
    pub async fn lookup(&self, sought: &Sought, now: Seconds) -> Result<State, Error> {
        match self {
            Self::Redis(redis) => redis.lookup(sought, now).await,
            Self::Memory(memory) => Ok(memory.lookup(sought, now)),
        }
    }

    /// A user's live sessions, or one of them, also while the user is banned; one round trip. Newest first: exact
    /// for a user with up to 1000 sessions; of more, those refreshed last come first, in blocks of 1000 that are
    /// each in order. Never makes a key.
    ///
    /// # Errors
    /// When the store did not answer, or not with what this program writes.
    pub async fn list(&self, user: UserId, wanted: Wanted, now: Seconds) -> Result<Listed, Error> {
        match self {
            Self::Redis(redis) => redis.list(user, wanted, now).await,
            Self::Memory(memory) => Ok(memory.list(user, wanted, now)),
        }
    }

    /// The session that a refresh token was last seen with, as GoTrue handed it out or took it; `None` for a token that
    /// nobody saw. A note, which may be old: [`names`](Self::names) and [`holder`](Self::holder) say what it is worth. One
    /// round trip, to [`lane_of_token`](Self::lane_of_token).
    ///
    /// # Errors
    /// When the store did not answer, or not with what this program writes.
    pub async fn noted(
        &self,
        token: &RefreshRef,
        now: Seconds,
    ) -> Result<Option<(UserId, SessionId)>, Error> {
        match self {
            Self::Redis(redis) => redis.noted(token).await,
            Self::Memory(memory) => Ok(memory.noted(token, now)),
        }
    }

    /// As which of its refresh tokens that session's own record names one; `None` if the session is not live, or has
    /// another. One round trip.
    ///
    /// # Errors
    /// When the store did not answer, or not with what this program writes.
    pub async fn names(
        &self,
        (user, session): (UserId, SessionId),
        token: &RefreshRef,
        now: Seconds,
    ) -> Result<Option<TokenOf>, Error> {
        match self {
            Self::Redis(redis) => redis.names((user, session), token).await,
            Self::Memory(memory) => Ok(memory.names((user, session), token, now)),
        }
    }

    /// What is known of the session that a refresh token was last seen with. Only for whoever holds that token: the note
    /// says nothing to anybody else. One round trip.
    ///
    /// # Errors
    /// When the store did not answer, or not with what this program writes.
    pub async fn holder(&self, (user, session): (UserId, SessionId), now: Seconds) -> Result<Holder, Error> {
        match self {
            Self::Redis(redis) => redis.holder((user, session), now).await,
            Self::Memory(memory) => Ok(memory.holder((user, session), now)),
        }
    }

    /// Deals with some of the sessions that [`Outcome::Pending`] left; one round trip. Nothing but the room that
    /// they take depends on it.
    ///
    /// # Errors
    /// When the store did not answer, or not with what this program writes.
    pub async fn sweep(&self, user: UserId, now: Seconds) -> Result<Swept, Error> {
        match self {
            Self::Redis(redis) => redis.sweep(user, now).await,
            Self::Memory(_) => Ok(Swept::default()),
        }
    }

    /// What the last audit found, if one has left its result within the last days; one round trip.
    ///
    /// # Errors
    /// When the store did not answer, or not with what this program writes.
    pub async fn last_audit(&self) -> Result<Option<redis::LastAudit>, Error> {
        match self {
            Self::Redis(redis) => redis.last_audit().await,
            Self::Memory(_) => Ok(None), // nobody can look into it
        }
    }

    /// The store did not answer at `now`, and not for some time before: nobody could note which sessions were used.
    /// Idle times count from then on for every store of this process.
    pub fn was_away(&self, now: Seconds) {
        match self {
            Self::Redis(redis) => redis.was_away(now),
            Self::Memory(_) => {} // never is
        }
    }

    /// How many parts it has that can be away while the others work: 1, for a Cluster 64 groups of slots.
    pub fn lanes(&self) -> usize {
        match self {
            Self::Redis(redis) => redis.lanes(),
            Self::Memory(_) => 1,
        }
    }

    /// The part where everything of a user is; below [`lanes`](Self::lanes).
    pub fn lane_of(&self, user: UserId) -> usize {
        match self {
            Self::Redis(redis) => redis.lane_of(user),
            Self::Memory(_) => 0,
        }
    }

    /// The part where it is noted which session a refresh token belongs to.
    pub fn lane_of_token(&self, token: &RefreshRef) -> usize {
        match self {
            Self::Redis(redis) => redis.lane_of_token(token),
            Self::Memory(_) => 0,
        }
    }

    /// Asks each part of the store, by [`lane`](Self::lanes), whether it would take a change. Makes none, and no
    /// key.
    pub async fn ping_each(&self) -> Vec<Result<(), Error>> {
        match self {
            Self::Redis(redis) => redis.ping_each().await,
            Self::Memory(_) => vec![Ok(())],
        }
    }

    /// As [`ping_each`](Self::ping_each), for one part.
    ///
    /// # Errors
    /// When it would not.
    pub async fn ping_lane(&self, lane: usize) -> Result<(), Error> {
        match self {
            Self::Redis(redis) => redis.ping_lane(lane).await,
            Self::Memory(_) => Ok(()),
        }
    }

    /// As [`ping_each`](Self::ping_each), for all parts together.
    ///
    /// # Errors
    /// When one would not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.ping_each().await.into_iter().collect()
    }
}

/// What one step of a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many live sessions ended, and why; also those that ended since the last sweep without being counted.
    pub ended: Vec<(Reason, u64)>,
    /// More is left to do.
    pub pending: bool,
}
