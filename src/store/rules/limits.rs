//! When the time of a session is over. `is_expired` in `common.lua` is the same.

use crate::session::{Limits, Record, Seconds};

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
