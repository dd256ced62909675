//! One session in the database and in the store: do they agree? Pure, with a table of tests.

use super::database::Row;
pub use crate::metrics::DriftKind as Kind;
use crate::{
    session::{Seconds, UserId},
    store::redis::{Held, Known, Stamp},
};

/// GoTrue notes a refresh in the row, asks a token hook, and then dates the token: the row is never the later
/// one by more than this, seconds.
const ROW_AHEAD: Seconds = 10;

/// In what it differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing is known of it here.
    Unknown,
    /// Its row is gone: GoTrue ended it, or somebody did by SQL.
    RowGone,
    /// It stands here under another user.
    User,
    /// What stands under its key is no record.
    Unreadable,
    /// A refresh was missed.
    Stale,
    /// Another assurance level.
    Aal,
    /// Another OAuth client.
    Client,
    /// It is not among its user's sessions: an ending of all would pass it over.
    Unindexed,
}

impl Cause {
    /// Every cause, in the order of a report.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::RowGone,
        Self::User,
        Self::Unreadable,
        Self::Stale,
        Self::Aal,
        Self::Client,
        Self::Unindexed,
    ];

    /// The word for it in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::RowGone => "row_gone",
            Self::User => "user",
            Self::Unreadable => "unreadable",
            Self::Stale => "stale",
            Self::Aal => "aal",
            Self::Client => "client",
            Self::Unindexed => "unindexed",
        }
    }

    /// What kind of difference it is.
    pub fn kind(self) -> Kind {
        match self {
            Self::Unknown => Kind::Missing,
            Self::RowGone => Kind::Surplus,
            Self::User | Self::Unreadable | Self::Stale | Self::Aal | Self::Client | Self::Unindexed => {
                Kind::Differing
            }
        }
    }
}

/// Why a row without a record is no drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// It was ended here, and ends in GoTrue at its next refresh (contract §6.3).
    EndedHere,
    /// It was not refreshed for longer than `session.ttl`: the store has let go of it.
    Forgotten,
}

impl Excuse {
    /// Every excuse, in the order of a report.
    pub const ALL: [Self; 2] = [Self::EndedHere, Self::Forgotten];

    /// The word for it in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndedHere => "ended_here",
            Self::Forgotten => "forgotten",
        }
    }
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Both say the same.
    Agree,
    /// They do not, and may.
    Excused(Excuse),
    /// They should, and do not: or one of them has changed since the other was read.
    Differ(Difference),
}

/// A difference, with as much of both sides as tells whether they stood still between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) cause: Cause,
    pub(super) stamps: Option<(Stamp, Stamp)>,
}

/// Compares what the database has of a session with what the store holds of it for this user.
pub(super) fn judge(row: Option<&Row>, user: UserId, held: &Held, now: Seconds, ttl: Seconds) -> Finding {
    let Some(row) = row else {
        return match held {
            Held::Nothing { .. } | Held::Ended => Finding::Agree,
            Held::Unreadable | Held::Live(_) => differ(Cause::RowGone),
        };
    };
    match held {
        Held::Nothing { .. } | Held::Ended if row.user != user => Finding::Agree,
        Held::Unreadable | Held::Live(_) if row.user != user => differ(Cause::User),
        Held::Ended => Finding::Excused(Excuse::EndedHere),
        Held::Nothing { not_before } if *not_before > row.created_at => Finding::Excused(Excuse::EndedHere),
        Held::Nothing { .. } if now.saturating_sub(row.stamp.refreshed_at) >= ttl => {
            Finding::Excused(Excuse::Forgotten)
        }
        Held::Nothing { .. } => differ(Cause::Unknown),
        Held::Unreadable => differ(Cause::Unreadable),
        Held::Live(known) => {
            let stamps = Some((row.stamp, known.stamp));
            difference(row, known)
                .map_or(Finding::Agree, |cause| Finding::Differ(Difference { cause, stamps }))
        }
    }
}

fn differ(cause: Cause) -> Finding {
    Finding::Differ(Difference { cause, stamps: None })
}

/// The first thing that differs. Address and agent are not compared: they decide nothing, and a second factor
/// leaves the row's as they are. A level that the token does not name is not another one.
fn difference(row: &Row, known: &Known) -> Option<Cause> {
    let other_aal = known.aal.is_some() && row.aal.is_some() && known.aal != row.aal;
    let checks = [
        (Cause::Stale, is_later(row.stamp, known.stamp)),
        (Cause::Aal, other_aal),
        (Cause::Client, known.client != row.client),
        (Cause::Unindexed, !known.indexed),
    ];
    checks.into_iter().find_map(|(cause, differs)| differs.then_some(cause))
}

/// Whether the row has seen a refresh that the record has not.
pub(super) fn is_later(row: Stamp, known: Stamp) -> bool {
    match (row.counter, known.counter) {
        (Some(row), Some(known)) if row != known => row > known,
        _ => row.refreshed_at > known.refreshed_at.saturating_add(ROW_AHEAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Aal, SessionId};

    const NOW: Seconds = 100_000;
    const TTL: Seconds = 10_000;

    fn user(last: u8) -> UserId {
        UserId::parse(&format!("0191d1a0-0000-7000-8000-0000000000{last:02}")).unwrap()
    }

    fn row() -> Row {
        Row {
            user: user(1),
            session: SessionId::parse("0191d1a0-0000-7000-8000-000000000009").unwrap(),
            created_at: 90_000,
            stamp: stamp(99_000, None),
            aal: Some(Aal::Aal1),
            client: None,
            ip: None,
            user_agent: None,
        }
    }

    fn stamp(refreshed_at: Seconds, counter: Option<u64>) -> Stamp {
        Stamp { refreshed_at, counter }
    }

    fn known() -> Known {
        Known { stamp: stamp(99_001, None), aal: Some(Aal::Aal1), client: None, indexed: true }
    }

    fn judged(row: Option<&Row>, held: &Held) -> Finding {
        judge(row, user(1), held, NOW, TTL)
    }

    #[test]
    fn what_only_one_of_them_has() {
        let nothing = |not_before| Held::Nothing { not_before };
        let live = Held::Live(known());
        let table = [
            ("neither", None, nothing(0), Finding::Agree),
            ("ended in both", None, Held::Ended, Finding::Agree),
            ("record without row", None, live.clone(), differ(Cause::RowGone)),
            ("garbage without row", None, Held::Unreadable, differ(Cause::RowGone)),
            ("row without record", Some(row()), nothing(0), differ(Cause::Unknown)),
            ("tombstone", Some(row()), Held::Ended, Finding::Excused(Excuse::EndedHere)),
            ("a mark", Some(row()), nothing(90_001), Finding::Excused(Excuse::EndedHere)),
            ("a mark of its first second", Some(row()), nothing(90_000), differ(Cause::Unknown)),
            ("garbage", Some(row()), Held::Unreadable, differ(Cause::Unreadable)),
        ];
        for (name, row, held, expected) in table {
            assert_eq!(judged(row.as_ref(), &held), expected, "{name}");
        }
    }

    #[test]
    fn a_row_that_was_idle_for_a_records_life_is_forgotten() {
        let idle = |since| Row { stamp: stamp(NOW - since, None), ..row() };
        let held = Held::Nothing { not_before: 0 };
        assert_eq!(judged(Some(&idle(TTL)), &held), Finding::Excused(Excuse::Forgotten));
        assert_eq!(judged(Some(&idle(TTL - 1)), &held), differ(Cause::Unknown));
        assert_eq!(judged(Some(&idle(0)), &held), differ(Cause::Unknown));
    }

    #[test]
    fn what_stands_under_another_user_is_not_this_session() {
        let of = |held: &Held| judge(Some(&row()), user(2), held, NOW, TTL);
        assert_eq!(of(&Held::Live(known())), differ(Cause::User));
        assert_eq!(of(&Held::Unreadable), differ(Cause::User));
        assert_eq!(of(&Held::Ended), Finding::Agree);
        assert_eq!(of(&Held::Nothing { not_before: 0 }), Finding::Agree);
    }

    #[test]
    fn what_both_have_is_compared() {
        let client = || Some("0191d1a0-0000-7000-8000-000000000005".to_owned());
        let aal2 = Some(Aal::Aal2);
        let table = [
            ("the same", row(), known(), None),
            ("a level", Row { aal: aal2, ..row() }, known(), Some(Cause::Aal)),
            ("a level that the token did not name", row(), Known { aal: None, ..known() }, None),
            ("a client", Row { client: client(), ..row() }, known(), Some(Cause::Client)),
            ("no client", row(), Known { client: client(), ..known() }, Some(Cause::Client)),
            ("outside of the index", row(), Known { indexed: false, ..known() }, Some(Cause::Unindexed)),
            (
                "several: the refresh first",
                Row { aal: aal2, stamp: stamp(99_500, None), ..row() },
                known(),
                Some(Cause::Stale),
            ),
        ];
        for (name, row, known, expected) in table {
            let stamps = Some((row.stamp, known.stamp));
            let expected =
                expected.map_or(Finding::Agree, |cause| Finding::Differ(Difference { cause, stamps }));
            assert_eq!(judged(Some(&row), &Held::Live(known)), expected, "{name}");
        }
    }

    #[test]
    fn a_counter_tells_exactly_which_refresh_is_the_later_one_and_else_the_time_does() {
        let table = [
            (stamp(99_000, None), stamp(99_000, None), false),
            (stamp(99_010, None), stamp(99_000, None), false),
            (stamp(99_011, None), stamp(99_000, None), true),
            (stamp(99_000, None), stamp(99_500, None), false),
            (stamp(99_000, Some(3)), stamp(99_000, Some(2)), true),
            (stamp(99_900, Some(2)), stamp(99_000, Some(3)), false),
            (stamp(99_900, Some(2)), stamp(99_000, Some(2)), true),
            (stamp(99_900, Some(0)), stamp(99_000, None), true),
        ];
        for (row, known, expected) in table {
            assert_eq!(is_later(row, known), expected, "{row:?} {known:?}");
        }
    }
}
