//! Writes what waits, once the store is back: user by user, each user's changes in order. What other replicas wrote
//! meanwhile stands as if all had been written when it happened: the store's own rules see to that (contract I3, I9).

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use super::{Sessions, making::change_of};
use crate::{
    breaker::Sign,
    metrics::{QueuedKind, Replayed, StoreCommand},
    replay::{Queued, What},
    session::{Change, Outcome, Seconds, Sought, State, Unrecorded},
    store::{self, About, Waited, may_overtake, waited},
};

/// So many changes of one user are written in one round trip.
const BATCH: usize = 64;
/// So many users may find a part of the store full before what it has no room for is left alone for a while.
const FULL: usize = 16;
/// Between tries, when nothing could be written: growing from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(1));

/// What came of an attempt to write.
enum Went {
    /// It is written, or need not be any more.
    Done,
    /// The store has no room for it, and may have for others.
    NoRoom,
    /// The store does not work.
    Stopped,
}

/// What came of asking the store.
enum Tried<T> {
    Made(T),
    /// Made, but not by as many servers as it should be.
    Unsafe,
    NoRoom,
    /// It works, and refuses this.
    Refused(store::Error),
    Stopped,
}

impl Sessions {
    /// Writes what waits, whenever there is something and the store can be asked. Also the one who tries, once the
    /// probe was answered, so that the breaker closes without waiting for a request. Never returns.
    pub async fn replay(self: &Arc<Self>) {
        let mut pause = PAUSES.0;
        loop {
            self.go_on_sweeping(); // with what it has begun: no request comes by
            tokio::select! {
                () = self.queue.filled() => {}
                () = self.breaker.turned() => self.try_lanes().await,
                () = tokio::time::sleep(PAUSES.1) => continue,
            }
            let before = self.queue.len();
            self.write_all().await;
            if self.queue.is_empty() {
                continue;
            }
            pause = if self.queue.len() < before { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.breaker.turned() => {}
            }
        }
    }

    /// Where nothing waits, something that changes nothing finds out whether the store works again.
    async fn try_lanes(self: &Arc<Self>) {
        if !self.queue.is_empty() {
            return;
        }
        let permits: Vec<_> =
            (0..self.breaker.lanes()).map(|lane| self.leave(lane, &self.budget())).collect();
        for (permit, answer) in permits.into_iter().zip(self.store.ping_each().await) {
            if let Some(permit) = permit {
                permit.tell(Sign::of(&answer));
            }
        }
    }

    async fn write_all(self: &Arc<Self>) {
        // parts of the store that do not work, and that are full: users in others need not wait for them
        let (mut away, mut full) = (HashSet::new(), HashMap::<usize, usize>::new());
        let mut after = 0;
        while away.len() < self.breaker.lanes() {
            let batch = self.queue.next(after, BATCH);
            let Some(first) = batch.first() else { break };
            let lane = self.lane_of(first);
            if away.contains(&lane) {
                after = first.id;
                continue;
            }
            let is_full = full.get(&lane).is_some_and(|users| *users >= FULL);
            let mut went = if is_full && batch.iter().any(|queued| queued.kind() == QueuedKind::Creation) {
                Went::NoRoom
            } else {
                self.write(&batch).await
            };
            if let Went::NoRoom = went {
                *full.entry(lane).or_default() += 1;
                after = first.id;
                went = self.write_ahead(first).await;
            }
            if let Went::Stopped = went {
                after = first.id;
                away.insert(lane);
            }
        }
        if away.len() >= self.breaker.lanes() {
            return;
        }
        // what comes meanwhile has its turn after the changes that came meanwhile
        let (mut after, last) = (0, self.queue.last_id());
        while let Some(queued) = self.queue.next_unresolved(after).filter(|queued| queued.id <= last) {
            after = queued.id;
            let lane = self.lane_of(&queued);
            if !away.contains(&lane)
                && let Went::Stopped = self.resolve(&queued).await
            {
                away.insert(lane);
            }
        }
    }

    /// Writes of a user for whose sign-ins or refreshes there is no room what a full store takes all the same, as far as
    /// it may overtake those.
    async fn write_ahead(self: &Arc<Self>, of: &Queued) -> Went {
        let What::Change(change) = &of.what else { return Went::Done };
        let mut waiting = self.queue.of_users(std::slice::from_ref(change), usize::MAX);
        waiting.retain(|queued| matches!(&queued.what, What::Change(change) if may_overtake(change)));
        for batch in waiting.chunks(BATCH) {
            if let stopped @ Went::Stopped = self.write(batch).await {
                return stopped;
            }
        }
        Went::Done
    }

    fn lane_of(&self, queued: &Queued) -> usize {
        match &queued.what {
            What::Change(change) => self.store.lane_of(change.user()),
            What::ByRef(by_ref) => self.store.lane_of_token(&by_ref.reference),
        }
    }

    /// Writes changes of one user.
    async fn write(self: &Arc<Self>, batch: &[Arc<Queued>]) -> Went {
        let Some(batch) = self.worth_writing(batch).await else {
            return Went::Stopped;
        };
        let changes: Vec<Change> = batch.iter().filter_map(|queued| change_of(queued)).collect();
        match self.try_changes(&changes).await {
            Tried::Made(outcomes) => {
                for (queued, outcome) in batch.into_iter().zip(outcomes) {
                    self.written(queued, &outcome);
                }
                Went::Done
            }
            Tried::Unsafe => {
                for queued in batch {
                    self.written_unsafely(queued);
                }
                Went::Done
            }
            Tried::NoRoom => Went::NoRoom,
            Tried::Stopped => Went::Stopped,
            Tried::Refused(_) => self.write_one_by_one(&batch).await,
        }
    }

    /// One of them is refused, and must not hold up the others. It gets another chance, for the store may have been
    /// on the verge of coming back.
    async fn write_one_by_one(self: &Arc<Self>, batch: &[&Arc<Queued>]) -> Went {
        for queued in batch {
            let changes: Vec<Change> = change_of(queued).into_iter().collect();
            let mut tried = self.try_changes(&changes).await;
            if let Tried::Refused(_) = tried {
                tried = self.try_changes(&changes).await;
            }
            match tried {
                Tried::Made(outcomes) => outcomes.iter().for_each(|it| self.written(queued, it)),
                Tried::Unsafe => self.written_unsafely(queued),
                Tried::NoRoom => return Went::NoRoom,
                Tried::Stopped => return Went::Stopped,
                Tried::Refused(error) => self.refused(queued, &error),
            }
        }
        Went::Done
    }

    async fn try_changes(&self, changes: &[Change]) -> Tried<Vec<Outcome>> {
        let Some(first) = changes.first() else {
            return Tried::Made(Vec::new());
        };
        let apply = self.store.apply(changes, self.clock.seconds());
        self.attempt(StoreCommand::Apply, self.store.lane_of(first.user()), apply).await
    }

    /// Whether the store works and what it was asked is at fault is asked of the store at once.
    async fn attempt<T>(
        &self,
        command: StoreCommand,
        lane: usize,
        call: impl Future<Output = Result<T, store::Error>>,
    ) -> Tried<T> {
        let Some(permit) = self.leave(lane, &self.budget()) else {
            return Tried::Stopped;
        };
        let result = self.timed(command, &mut self.budget(), call).await;
        let suspect = match &result {
            Ok(_) | Err(store::Error::Replicas) => false,
            Err(error) => matches!(error, store::Error::Other(_)) || error.about() == About::Change,
        };
        let ping = self.store.ping_lane(lane);
        let at_fault = suspect
            && Sign::of(&self.timed(StoreCommand::Ping, &mut self.budget(), ping).await) == Sign::Works;
        permit.tell(if at_fault { Sign::Works } else { Sign::of(&result) });
        match result {
            Ok(made) => Tried::Made(made),
            Err(store::Error::Replicas) => Tried::Unsafe,
            Err(error) if at_fault => Tried::Refused(error),
            Err(error) if error.about() == About::Room => Tried::NoRoom,
            Err(_) => Tried::Stopped,
        }
    }

    /// Finds out whose refresh token it was, now that the store knows all that was recorded before. `Stopped` where the
    /// part that has a note of it does not work.
    async fn resolve(self: &Arc<Self>, queued: &Arc<Queued>) -> Went {
        let What::ByRef(by_ref) = &queued.what else { return Went::Done };
        let (token, now) = (&by_ref.reference, self.clock.seconds());
        let noted = self.store.noted(token, now);
        let tried = self.attempt(StoreCommand::Resolve, self.store.lane_of_token(token), noted).await;
        let noted = match self.answer(queued, tried) {
            Ok(noted) => noted,
            Err(went) => return went,
        };
        let mut owner = None;
        if let Some(session) = noted {
            let names = self.store.names(session, token, now);
            let tried = self.attempt(StoreCommand::Resolve, self.store.lane_of(session.0), names).await;
            let Ok(token) = self.answer(queued, tried) else {
                return Went::Done; // if it waits, then for that user's part, and no other does
            };
            owner = token.filter(|token| by_ref.is_about(*token)).map(|_| session);
        }
        // where there was no room for its record, the store does not know it yet
        let owner = owner.or_else(|| self.queue.holder(by_ref));
        if let Some((user, session)) = owner {
            // from here on it is like any other change of that user; a drain must find one of the two waiting
            self.make(&[by_ref.change(user, session)], &mut self.budget(), queued.by()).await;
        }
        let result = if owner.is_some() { Replayed::Written } else { Replayed::Unresolved };
        self.given_up(queued, result);
        Went::Done
    }

    /// The answer to a question about a change; one that cannot be answered ever is given up.
    fn answer<T>(&self, queued: &Queued, tried: Tried<T>) -> Result<T, Went> {
        match tried {
            Tried::Made(answer) => Ok(answer),
            Tried::Refused(error) => {
                self.refused(queued, &error);
                Err(Went::Done)
            }
            Tried::Unsafe | Tried::NoRoom | Tried::Stopped => Err(Went::Stopped),
        }
    }

    /// It was made, but a server may take it with it.
    fn written_unsafely(&self, queued: &Queued) {
        if let What::Change(change) = &queued.what {
            self.lose(change, &store::Error::Replicas, queued.by());
        }
        self.given_up(queued, Replayed::Written);
    }

    /// A store that works will not take it.
    fn refused(&self, queued: &Queued, error: &store::Error) {
        let kind = queued.kind().as_str();
        tracing::error!(kind, cause = error.cause(), "the store refuses a change that waited: it is lost");
        match &queued.what {
            What::Change(change) => self.lose(change, error, queued.by()),
            What::ByRef(_) => self.unrecorded(Unrecorded::StoreFailed, queued.by()),
        }
        self.given_up(queued, Replayed::Refused);
    }

    /// It need not be written any more.
    fn given_up(&self, queued: &Queued, result: Replayed) {
        if self.queue.take(queued) {
            self.metrics.replayed(result);
        }
    }

    /// Without those that waited too long; `None` where the store does not say.
    async fn worth_writing<'a>(self: &Arc<Self>, batch: &'a [Arc<Queued>]) -> Option<Vec<&'a Arc<Queued>>> {
        let now = self.clock.seconds();
        let mut worth = Vec::with_capacity(batch.len());
        for queued in batch {
            let is = match self.waited(queued, now) {
                Waited::InTime => true,
                Waited::Long => self.may_be_there(queued).await?,
                Waited::TooLong => false,
            };
            if is {
                worth.push(queued);
            } else {
                self.given_up(queued, Replayed::Expired);
            }
        }
        Some(worth)
    }

    /// Whether the store knows the session of a record, or that it has ended: else the record would make it anew. What ends meanwhile
    /// leaves a tombstone, so the record need not be written in the same moment. `None` where the store does not say.
    async fn may_be_there(self: &Arc<Self>, queued: &Queued) -> Option<bool> {
        let What::Change(Change::Record { record, .. }) = &queued.what else { return Some(true) };
        match self.look(&Sought::of(record.user, record.session), &mut self.budget()).await {
            // of a banned user's the store says no more
            Ok(State::Unknown | State::Suspended(_)) => Some(false),
            Ok(State::Live(_) | State::Revoked | State::Expired) => Some(true),
            Err(error) => (error.about() == About::Change).then_some(true),
        }
    }

    /// How long it has waited, for what it is.
    pub(super) fn waited(&self, queued: &Queued, now: Seconds) -> Waited {
        match &queued.what {
            What::Change(Change::Record { record, .. }) => {
                waited(record, queued.since / 1000, self.session_ttl, now)
            }
            _ => Waited::InTime,
        }
    }
}
