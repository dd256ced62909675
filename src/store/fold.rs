//! Two changes of one user as one, where no store could tell the difference: for changes that wait to be made. Which
//! of two records is the newer one is said in `rules`, here as everywhere.

use super::rules;
use crate::session::{Change, Origin, Record, SessionId, Which};

/// What a later change makes of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fold {
    /// They have nothing to do with each other, in either order.
    Apart,
    /// The later one must come after it.
    InOrder,
    /// The first of these stands for both, at the place of the later one; the other is left of the earlier one.
    Into(Box<Change>, Option<Change>),
}

/// Whether a change may overtake those of its user that wait: the store remembers it and holds it against what it is
/// told of later, so the order makes no difference. But for one thing: of a session that ended before it was recorded
/// the store does not learn that its user was not banned any more; the user's next refresh tells.
pub fn may_overtake(change: &Change) -> bool {
    match change {
        Change::End { which, .. } => matches!(which, Which::One(_) | Which::Others(_) | Which::All),
        Change::Suspend { .. } | Change::Banned { .. } => true,
        Change::Record { .. } | Change::Allowed { .. } | Change::LowerAal { .. } => false,
    }
}

/// Looks at two changes of one user.
pub fn fold(earlier: &Change, later: &Change) -> Fold {
    match later {
        Change::End { .. } => into_ending(earlier, later),
        Change::Record { origin, record, allowed_ms } => into_record(earlier, *origin, record, *allowed_ms),
        Change::Allowed { user, allowed_ms } => match earlier {
            Change::Allowed { allowed_ms: before, .. } => {
                let allowed_ms = *allowed_ms.max(before);
                Fold::Into(Box::new(Change::Allowed { user: *user, allowed_ms }), None)
            }
            _ => Fold::Apart,
        },
        Change::Banned { user, until, seen_ms } => match earlier {
            // as each store adds one refusal to another
            Change::Banned { until: before, seen_ms: seen, .. } => {
                let (until, seen_ms) = (*until.max(before), *seen_ms.max(seen));
                Fold::Into(Box::new(Change::Banned { user: *user, until, seen_ms }), None)
            }
            Change::End { .. } => Fold::Apart,
            _ => Fold::InOrder,
        },
        Change::Suspend { .. } | Change::LowerAal { .. } => Fold::InOrder,
    }
}

fn into_ending(earlier: &Change, later: &Change) -> Fold {
    match later {
        Change::End { which: Which::One(session), sent_ms, .. } => {
            into_end_of_one(earlier, *session, *sent_ms, later)
        }
        Change::End { which, reason, ended_in_gotrue, .. } => match (earlier, which) {
            (Change::Record { record, .. }, Which::Others(spared)) if record.session == *spared => {
                Fold::Apart
            }
            // made again it means all that it meant before; nothing that it depends on stands between
            (Change::End { which: same, reason: why, ended_in_gotrue: knew, .. }, _)
                if (same, why, knew) == (which, reason, ended_in_gotrue) =>
            {
                ended_twice(earlier, later)
            }
            _ => Fold::InOrder,
        },
        _ => Fold::InOrder,
    }
}

/// An ending of one session needs nothing that was recorded of it before, but how long its tokens live, and that its
/// user was not banned. What else was changed in between makes no difference to that session.
fn into_end_of_one(earlier: &Change, session: SessionId, sent_ms: u64, later: &Change) -> Fold {
    match earlier {
        Change::Record { record, allowed_ms, .. }
            if record.session == session && record.began_ms <= sent_ms =>
        {
            let (user, mut ending) = (record.user, later.clone());
            if let Change::End { expires_at, .. } = &mut ending {
                *expires_at = (*expires_at).max(Some(record.expires_at));
            }
            let left = allowed_ms.map(|allowed_ms| Change::Allowed { user, allowed_ms });
            Fold::Into(Box::new(ending), left)
        }
        Change::End { which: Which::One(same), .. } if *same == session => ended_twice(earlier, later),
        _ => Fold::Apart,
    }
}

/// Two endings of the same. A tombstone keeps its first reason.
fn ended_twice(earlier: &Change, later: &Change) -> Fold {
    let mut both = later.clone();
    if let (
        Change::End { reason, sent_ms, expires_at, ended_in_gotrue, .. },
        Change::End { reason: first, sent_ms: sent, expires_at: expires, ended_in_gotrue: knew, .. },
    ) = (&mut both, earlier)
    {
        *reason = *first;
        (*sent_ms, *expires_at) = ((*sent_ms).max(*sent), (*expires_at).max(*expires));
        *ended_in_gotrue |= *knew;
    }
    Fold::Into(Box::new(both), None)
}

fn into_record(earlier: &Change, origin: Origin, later: &Record, allowed_ms: Option<u64>) -> Fold {
    match earlier {
        Change::Record { origin: of, record, allowed_ms: before } if record.session == later.session => {
            let both_refresh = *of == Origin::Refresh && origin == Origin::Refresh;
            match both_refresh.then(|| refreshed_again(record, later)).flatten() {
                Some(record) => {
                    let allowed_ms = allowed_ms.max(*before);
                    Fold::Into(
                        Box::new(Change::Record { origin, record: Box::new(record), allowed_ms }),
                        None,
                    )
                }
                None => Fold::InOrder,
            }
        }
        Change::End { which: Which::One(session), .. } if *session != later.session => Fold::Apart,
        Change::End { which: Which::Others(spared), .. } if *spared == later.session => Fold::Apart,
        Change::Record { .. } => Fold::Apart,
        _ => Fold::InOrder,
    }
}

/// The two as one, where the later one is so whatever else is known of the session: not only as it happens.
fn refreshed_again(old: &Record, new: &Record) -> Option<Record> {
    let in_order = match (old.counter, new.counter) {
        (Some(old_counter), Some(new_counter)) => {
            new_counter > old_counter && new.refreshed_at >= old.refreshed_at
        }
        (None, None) => new.refreshed_at > old.refreshed_at,
        _ => false,
    };
    (in_order && rules::supersedes(Origin::Refresh, new, old))
        .then(|| rules::merged(Origin::Refresh, new.clone(), old))
}
