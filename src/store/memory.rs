//! The embedded store: one process, bounded, nothing on disk. Behaves as the scripts do in Redis.

mod expiring;
mod limits;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use self::{expiring::Expiring, limits::is_expired};
use super::{
    Error,
    rules::{self, Ban, Bulk, Tombstone},
};
use crate::session::{
    Aal, Change, FactorId, Holder, Limits, Listed, Origin, Outcome, Reason, Record, RefreshRef, Seconds,
    SessionId, Sought, State, TokenOf, UserId, Wanted, Which,
};

/// So many hints for each session that there may be.
const HINTS: usize = 4;

/// The table that all workers share. Never locked across an await.
#[derive(Debug)]
pub struct Memory {
    table: Mutex<Table>,
}

impl Memory {
    /// Holds at most `max_sessions` live sessions, as many tombstones and marks, and four times as many hints.
    pub fn new(max_sessions: usize, session_ttl: Duration) -> Self {
        Self {
            table: Mutex::new(Table {
                max_sessions,
                session_ttl: session_ttl.as_secs(),
                limits: Limits::default(),
                records: Expiring::new(),
                tombstones: Expiring::new(),
                marks: Expiring::new(),
                sessions: HashMap::new(),
                hints: Expiring::new(),
            }),
        }
    }

    /// Ends sessions that are past these limits, or too many.
    pub fn limit(&self, limits: Limits) {
        self.table(0).limits = limits;
    }

    /// See [`Store::apply`](super::Store::apply).
    ///
    /// # Errors
    /// [`Error::Full`] when a new session finds no room.
    pub fn apply(&self, changes: &[Change], now: Seconds) -> Result<Vec<Outcome>, Error> {
        let mut table = self.table(now);
        let outcomes: Vec<_> = changes.iter().map(|change| table.apply(change, now)).collect();
        outcomes.into_iter().collect()
    }

    /// See [`Store::lookup`](super::Store::lookup).
    pub fn lookup(&self, sought: &Sought, now: Seconds) -> State {
        self.table(now).lookup(sought, now)
    }

    /// See [`Store::list`](super::Store::list).
    pub fn list(&self, user: UserId, wanted: Wanted, now: Seconds) -> Listed {
        self.table(now).list(user, wanted, now)
    }

    /// See [`Store::noted`](super::Store::noted).
    pub fn noted(&self, token: &RefreshRef, now: Seconds) -> Option<(UserId, SessionId)> {
        self.table(now).hints.get(token).copied()
    }

    /// See [`Store::names`](super::Store::names).
    pub fn names(&self, session: (UserId, SessionId), token: &RefreshRef, now: Seconds) -> Option<TokenOf> {
        self.table(now).records.get(&session).and_then(|record| record.names(token))
    }

    /// See [`Store::holder`](super::Store::holder).
    pub fn holder(&self, (user, session): (UserId, SessionId), now: Seconds) -> Holder {
        let mut table = self.table(now);
        let tombstone = table.tombstones.get(&(user, session));
        let ended_in_gotrue = tombstone.is_some_and(|tombstone| tombstone.ended_in_gotrue);
        let state = table.lookup(&Sought::of(user, session), now);
        Holder { user, session, state, ended_in_gotrue }
    }

    /// The table without what has ended. A panic elsewhere leaves no half-made change behind that
    /// matters more than going on.
    fn table(&self, now: Seconds) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.sweep(now);
        table
    }
}

/// What is marked on a user as a whole; zero is absence.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    not_before: Seconds,
    ban: Ban,
    bulk: Bulk,
}

type Id = (UserId, SessionId);

#[derive(Debug)]
struct Table {
    max_sessions: usize,
    session_ttl: Seconds,
    limits: Limits,
    records: Expiring<Id, Record>,
    tombstones: Expiring<Id, Tombstone>,
    marks: Expiring<UserId, Marks>,
    /// Those in `records`, by user.
    sessions: HashMap<UserId, BTreeSet<SessionId>>,
    /// Which session a token belonged to when it was last seen.
    hints: Expiring<RefreshRef, Id>,
}

impl Table {
    fn sweep(&mut self, now: Seconds) {
        while let Some((_, record)) = self.records.pop_ended(now) {
            self.forget(&record);
        }
        while self.tombstones.pop_ended(now).is_some() {}
        while self.marks.pop_ended(now).is_some() {}
        while self.hints.pop_ended(now).is_some() {}
    }

    fn apply(&mut self, change: &Change, now: Seconds) -> Result<Outcome, Error> {
        match change {
            Change::Record { origin, record, allowed_ms } => {
                let outcome = self.record(*origin, record, *allowed_ms, now)?;
                self.hint(record, now); // whatever became of it, as in Redis
                return Ok(outcome);
            }
            Change::End { user, which, reason, sent_ms, expires_at, ended_in_gotrue } => {
                let (reason, expires_at, ended_in_gotrue) = (*reason, *expires_at, *ended_in_gotrue);
                let known = Tombstone { reason, expires_at, ended_in_gotrue };
                return Ok(Outcome::Ended(self.end(*user, which, *sent_ms, known, now)));
            }
            Change::Suspend { user, until, decided_ms } => {
                let until = until.unwrap_or(0);
                let end = now.saturating_add(rules::decided_ttl(self.session_ttl, until, now));
                let outcome = self.ban(*user, end, |ban| ban.decide(*decided_ms, until));
                self.forget_longer_ban(*user, *decided_ms, until, end);
                return Ok(outcome);
            }
            Change::Banned { user, until, seen_ms } => {
                let ttl = rules::seen_ttl(*until, now);
                return Ok(self.ban(*user, now.saturating_add(ttl), |ban| ban.see(*seen_ms, *until)));
            }
            Change::Allowed { user, allowed_ms } => {
                let known = self.marks.get_mut(user);
                let before = known.as_deref().map(|marks| marks.ban);
                let ban = known.map(|marks| {
                    marks.ban.allow(*allowed_ms);
                    marks.ban
                });
                return Ok(if ban == before { Outcome::Unchanged } else { Outcome::Marked });
            }
            Change::LowerAal { user, factor } => self.lower_aal(*user, *factor),
        }
        Ok(Outcome::Marked)
    }

    fn record(
        &mut self,
        origin: Origin,
        new: &Record,
        allowed_ms: Option<u64>,
        now: Seconds,
    ) -> Result<Outcome, Error> {
        let id = (new.user, new.session);
        if let Some(tombstone) = self.tombstones.get(&id).copied() {
            // it outlives this token, too
            self.tombstones.insert(id, tombstone, now.saturating_add(rules::outliving(new.expires_at, now)));
            let expired = tombstone.reason == Reason::Expired;
            return Ok(if expired { Outcome::Expired(0) } else { Outcome::Revoked });
        }
        if let (Some(allowed_ms), Some(marks)) = (allowed_ms, self.marks.get_mut(&new.user)) {
            marks.ban.allow(allowed_ms);
        }
        let old = self.records.get(&id).cloned();
        let marks = self.marks_of(new.user);
        // a refresh may have told of it before its sign-in does
        let begins = old.as_ref().is_none_or(|old| origin.is_sign_in() && old.began_ms == 0);
        if let Some(tombstone) = marks.bulk.ended(new, now).filter(|_| begins) {
            self.bury(id, tombstone.of(old.as_ref(), now), now);
            self.remove(id);
            return Ok(Outcome::Revoked);
        }
        if rules::began_before(marks.not_before, old.as_ref(), Some(new.created_at)) {
            return Ok(Outcome::Revoked);
        }
        if origin == Origin::Refresh && self.is_over(old.as_ref(), new) {
            return Ok(Outcome::Expired(self.end_here(Reason::Expired, new, now)));
        }
        let end = now.saturating_add(rules::record_ttl(self.session_ttl, new.expires_at, now));
        let Some(mut old) = old else {
            if self.denies(origin, new, now) {
                return Ok(Outcome::Denied);
            }
            if self.records.len() >= self.max_sessions {
                return Err(Error::Full);
            }
            self.put(new.clone(), end);
            return Ok(self.make_room(origin, Outcome::Created, new, now));
        };
        if rules::supersedes(origin, new, &old) {
            self.forget(&old);
            self.put(rules::merged(origin, new.clone(), &old), end);
            return Ok(self.make_room(origin, Outcome::Refreshed, new, now));
        }
        rules::add_beginning(origin, new, &mut old);
        if let Some(stored) = self.records.get_mut(&id) {
            *stored = old;
        }
        Ok(self.make_room(origin, Outcome::Unchanged, new, now))
    }

    /// Counts the live sessions that ended.
    fn end(&mut self, user: UserId, which: &Which, sent_ms: u64, known: Tombstone, now: Seconds) -> u64 {
        let mut ended = 0;
        for session in self.meant(user, which) {
            let id = (user, session);
            let record = self.records.get(&id);
            if record.is_some_and(|record| rules::outlives(which, sent_ms, known.ended_in_gotrue, record)) {
                continue;
            }
            let tombstone = known.of(record, now);
            ended += u64::from(self.remove(id));
            self.bury(id, tombstone, now);
        }
        if matches!(which, Which::All | Which::Others(_)) {
            let ttl = rules::mark_ttl(self.session_ttl, known.expires_at, now);
            self.mark(user, now.saturating_add(ttl), |marks| {
                marks.bulk.note(which, sent_ms, known);
                if *which == Which::All {
                    marks.not_before = marks.not_before.max(sent_ms / 1000);
                }
            });
        }
        ended
    }

    /// The sessions that an ending means; of those that are not known only one that it names.
    fn meant(&self, user: UserId, which: &Which) -> Vec<SessionId> {
        match which {
            Which::One(session) => return vec![*session],
            Which::Live(session) => {
                return self.live(user, *session).map(|it| it.session).into_iter().collect();
            }
            _ => {}
        }
        let known = self.sessions.get(&user).into_iter().flatten().copied();
        known
            .filter(|session| {
                let Some(record) = self.records.get(&(user, *session)) else {
                    return false;
                };
                match which {
                    Which::One(one) | Which::Live(one) => session == one,
                    Which::Others(keep) => session != keep,
                    Which::All => true,
                    Which::Aal1Except(keep) => session != keep && record.aal == Some(Aal::Aal1),
                    Which::Client(client) => record.client_id.as_ref() == Some(client),
                }
            })
            .collect()
    }

    fn ban(&mut self, user: UserId, end: Seconds, learn: impl FnOnce(&mut Ban)) -> Outcome {
        let before = self.marks_of(user).ban;
        self.mark(user, end, |marks| learn(&mut marks.ban));
        if self.marks_of(user).ban == before { Outcome::Unchanged } else { Outcome::Marked }
    }

    /// A ban that was lifted or made shorter may have been for a hundred years.
    fn forget_longer_ban(&mut self, user: UserId, decided_ms: u64, until: Seconds, end: Seconds) {
        let marks = self.marks_of(user);
        if marks.ban.rests_on(decided_ms, until) && marks.not_before == 0 && marks.bulk.is_empty() {
            self.marks.remove(&user);
            self.marks.insert(user, marks, end);
        }
    }

    fn lower_aal(&mut self, user: UserId, factor: FactorId) {
        for session in self.sessions.get(&user).into_iter().flatten() {
            if let Some(record) = self.records.get_mut(&(user, *session))
                && record.factor_id == Some(factor)
            {
                (record.aal, record.factor_id) = (Some(Aal::Aal1), None);
            }
        }
    }

    fn lookup(&mut self, sought: &Sought, now: Seconds) -> State {
        let id = (sought.user, sought.session);
        let marks = self.marks_of(sought.user);
        let record = self.records.get_mut(&id);
        match self.tombstones.get(&id).map(|tombstone| tombstone.reason) {
            Some(Reason::Expired) => return State::Expired,
            Some(_) => return State::Revoked,
            None if rules::began_before(marks.not_before, record.as_deref(), sought.began) => {
                return State::Revoked;
            }
            None => {}
        }
        if is_expired(self.limits, record.as_deref(), sought.began, now) {
            return State::Expired;
        }
        if marks.ban.until() > now {
            return State::Suspended(marks.ban.until());
        }
        let Some(record) = record else {
            return State::Unknown;
        };
        let found = State::Live(Box::new(record.clone()));
        if sought.touch && now.saturating_sub(record.seen_at.unwrap_or(0)) >= rules::TOUCH_AFTER {
            record.seen_at = Some(now);
        }
        found
    }

    fn list(&self, user: UserId, wanted: Wanted, now: Seconds) -> Listed {
        let (skip, take) = match wanted {
            Wanted::One(session) => {
                let records: Vec<_> = self.live_at(user, session, now).cloned().into_iter().collect();
                return Listed { total: records.len() as u64, records };
            }
            Wanted::Page { skip, take } => (usize::try_from(skip).unwrap_or(usize::MAX), take as usize),
        };
        let mut live: Vec<(Seconds, &Record)> = self
            .sessions
            .get(&user)
            .into_iter()
            .flatten()
            .filter_map(|session| {
                Some((self.records.end_of(&(user, *session))?, self.live_at(user, *session, now)?))
            })
            .collect();
        live.sort_unstable_by_key(|(end, record)| Reverse((*end, record.session)));
        for block in live.chunks_mut(rules::IN_ORDER as usize) {
            block.sort_unstable_by_key(|(_, it)| Reverse((it.created_at, it.began_ms, it.session)));
        }
        let records = live.iter().skip(skip).take(take).map(|(_, record)| (*record).clone()).collect();
        Listed { records, total: live.len() as u64 }
    }

    /// The record, unless it was revoked.
    fn live(&self, user: UserId, session: SessionId) -> Option<&Record> {
        let id = (user, session);
        let record = self.records.get(&id)?;
        let revoked = self.tombstones.get(&id).is_some()
            || rules::began_before(self.marks_of(user).not_before, Some(record), None);
        (!revoked).then_some(record)
    }

    fn marks_of(&self, user: UserId) -> Marks {
        self.marks.get(&user).copied().unwrap_or_default()
    }

    /// Marks a user. When there is no room, the mark that ends first gives way.
    fn mark(&mut self, user: UserId, end: Seconds, change: impl FnOnce(&mut Marks)) {
        let mut marks = self.marks_of(user);
        change(&mut marks);
        self.marks.insert(user, marks, end);
        if self.marks.len() > self.max_sessions {
            self.marks.pop_first();
        }
    }

    /// Puts a tombstone up, or adds to the one that is there: it becomes shorter only when GoTrue has come to
    /// know of the end, and the ending tells how long tokens live. When there is no room, the one that ends first gives way.
    fn bury(&mut self, id: Id, new: Tombstone, now: Seconds) {
        let before = self.tombstones.get(&id).copied();
        let tombstone = before.map_or(new, |before| before.and(new));
        let is_news = before.is_some_and(|before| before.ended_in_gotrue != tombstone.ended_in_gotrue);
        if is_news && new.expires_at.is_some_and(|told| told > 0) {
            self.tombstones.remove(&id);
        }
        let end = now.saturating_add(tombstone.ttl(self.session_ttl, now));
        self.tombstones.insert(id, tombstone, end);
        if self.tombstones.len() > self.max_sessions {
            self.tombstones.pop_first();
        }
    }

    /// Notes which session tokens belong to. When there is no room, the hint that ends first gives way.
    fn hint(&mut self, record: &Record, now: Seconds) {
        let end = now.saturating_add(rules::record_ttl(self.session_ttl, record.expires_at, now));
        for token in [&record.refresh_ref, &record.previous_ref].into_iter().flatten() {
            self.hints.insert(token.clone(), (record.user, record.session), end);
            if self.hints.len() > HINTS * self.max_sessions {
                self.hints.pop_first();
            }
        }
    }

    fn put(&mut self, record: Record, end: Seconds) {
        let id = (record.user, record.session);
        self.sessions.entry(record.user).or_default().insert(record.session);
        self.records.insert(id, record, end);
    }

    /// Removes a record; whether there was one.
    fn remove(&mut self, id: Id) -> bool {
        let record = self.records.remove(&id);
        if let Some(record) = &record {
            self.forget(record);
        }
        record.is_some()
    }

    /// Removes what leads to a record.
    fn forget(&mut self, record: &Record) {
        if let Some(sessions) = self.sessions.get_mut(&record.user) {
            sessions.remove(&record.session);
            if sessions.is_empty() {
                self.sessions.remove(&record.user);
            }
        }
    }
}
