//! Limits of sessions in the embedded store (contract §6.5), as `common.lua`, `cap.lua` and `record.lua` have them.

use super::{Table, Tombstone, rules};
use crate::session::{Evicted, Limits, Origin, Outcome, Reason, Record, Seconds, SessionId, UserId, Which};

/// This store can always note that a session was used.
const NEVER_AWAY: Seconds = 0;

/// Whether a session's time is over at `at`; of one without a record its token tells when it began.
pub(super) fn is_expired(
    limits: Limits,
    record: Option<&Record>,
    told: Option<Seconds>,
    at: Seconds,
) -> bool {
    match record {
        Some(record) => rules::is_expired(limits, NEVER_AWAY, record, at),
        None => rules::is_too_old(limits, told, at),
    }
}

impl Table {
    /// Whether a session's time was over when it was refreshed, whenever that is recorded.
    pub(super) fn is_over(&self, old: Option<&Record>, new: &Record) -> bool {
        let at = new.refreshed_at;
        is_expired(self.limits, old, Some(new.created_at), at)
    }

    /// Ends the session of a record that is not written, here and not in GoTrue.
    pub(super) fn end_here(&mut self, reason: Reason, new: &Record, now: Seconds) -> u64 {
        let expires_at = Some(rules::tokens_until(new, now));
        let known = Tombstone { reason, expires_at, ended_in_gotrue: false };
        self.end(new.user, &Which::One(new.session), u64::MAX, known, now)
    }

    /// As [`live`](Self::live), and its time is not over.
    pub(super) fn live_at(&self, user: UserId, session: SessionId, now: Seconds) -> Option<&Record> {
        let record = self.live(user, session)?;
        (!is_expired(self.limits, Some(record), None, now)).then_some(record)
    }

    /// Whether a session that begins is one too many and can be refused.
    pub(super) fn denies(&self, origin: Origin, new: &Record, now: Seconds) -> bool {
        let room = rules::room_for(self.limits, origin).filter(|room| room.evicts == 0);
        room.is_some_and(|room| self.others(new, now).len() >= room.most as usize)
    }

    /// Ends what are too many beside the session of a record that was written.
    pub(super) fn make_room(
        &mut self,
        origin: Origin,
        recorded: Outcome,
        new: &Record,
        now: Seconds,
    ) -> Outcome {
        let may_have_begun = origin.is_sign_in() || recorded == Outcome::Created;
        let room = rules::room_for(self.limits, origin).filter(|room| may_have_begun && room.evicts > 0);
        let Some(room) = room else { return recorded };
        let others = self.others(new, now);
        let surplus = (others.len() + 1).saturating_sub(room.most as usize);
        let sessions: Vec<_> = others.into_iter().take(surplus.min(room.evicts as usize)).collect();
        if sessions.is_empty() {
            return recorded;
        }
        let known = Tombstone { reason: Reason::Evicted, expires_at: None, ended_in_gotrue: false };
        for session in &sessions {
            self.end(new.user, &Which::One(*session), u64::MAX, known, now);
        }
        let more = surplus > sessions.len();
        Outcome::Evicted(Evicted { recorded: Box::new(recorded), sessions, more })
    }

    /// The user's live sessions but this one, the oldest first.
    fn others(&self, than: &Record, now: Seconds) -> Vec<SessionId> {
        let known = self.sessions.get(&than.user).into_iter().flatten();
        let others = known.filter(|session| **session != than.session);
        let live = others.filter_map(|session| self.live_at(than.user, *session, now));
        let mut live: Vec<_> = live.map(|it| (it.created_at, it.began_ms, it.session)).collect();
        live.sort_unstable();
        live.into_iter().map(|(_, _, session)| session).collect()
    }
}
