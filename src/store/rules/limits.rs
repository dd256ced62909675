//! When the time of a session is over, and how many a user may have. `is_expired` in `common.lua` is the same.

use crate::session::{AboveCap, Cap, Limits, Origin, Record, Seconds};

/// Whether a session's time is over at `at`. Its idle time counts from the newest of what was noted of it, but from
/// no earlier than `noted_since`: while the store was away, nobody could note that a session was used.
pub(in crate::store) fn is_expired(
    limits: Limits,
    noted_since: Seconds,
    record: &Record,
    at: Seconds,
) -> bool {
    let used = [record.refreshed_at, record.seen_at.unwrap_or(0), noted_since];
    let used = used.into_iter().fold(record.created_at, Seconds::max);
    has_passed(limits.absolute, record.created_at, at) || has_passed(limits.idle, used, at)
}

/// As [`is_expired`], of a session without a record: its token tells when it began, and nobody when it was used.
pub(in crate::store) fn is_too_old(limits: Limits, began: Option<Seconds>, at: Seconds) -> bool {
    began.is_some_and(|began| has_passed(limits.absolute, began, at))
}

fn has_passed(limit: Option<Seconds>, since: Seconds, at: Seconds) -> bool {
    limit.is_some_and(|limit| at.saturating_sub(since) >= limit)
}

/// So many of a user's sessions end at most for one that begins.
const EVICTED_AT_ONCE: u32 = 256;

/// What a record finds that may be of a session that has just begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Room {
    /// So many sessions its user may have then.
    pub(in crate::store) most: u32,
    /// So many end for it at once, where there are more; with 0 it is denied instead.
    pub(in crate::store) evicts: u32,
}

/// The room for a record's session; `None` where nobody counts. Only a sign-in whose tokens nobody has can be denied.
pub(in crate::store) fn room_for(limits: Limits, origin: Origin) -> Option<Room> {
    let Cap { most, above } = limits.cap?;
    match (above, origin) {
        (AboveCap::EvictOldest, _) => Some(Room { most, evicts: EVICTED_AT_ONCE }),
        (AboveCap::Deny, Origin::HeldSignIn) => Some(Room { most, evicts: 0 }),
        (AboveCap::Deny, Origin::SignIn | Origin::Refresh) => None,
    }
}
