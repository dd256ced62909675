//! Limits of sessions in the embedded store (contract §6.5), as `common.lua` and `record.lua` have them.

use super::{Table, Tombstone, rules};
use crate::session::{Limits, Reason, Record, Seconds, SessionId, UserId, Which};

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
        let known = Tombstone { reason, expires_at: Some(new.expires_at), ended_in_gotrue: false };
        self.end(new.user, &Which::One(new.session), u64::MAX, known, now)
    }

    /// As [`live`](Self::live), and its time is not over.
    pub(super) fn live_at(&self, user: UserId, session: SessionId, now: Seconds) -> Option<&Record> {
        let record = self.live(user, session)?;
        (!is_expired(self.limits, Some(record), None, now)).then_some(record)
    }
}
