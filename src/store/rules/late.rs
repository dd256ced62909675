//! Endings of many that are remembered for sessions of which the store is told only later: a sign-in may wait for the
//! store in one replica while another one writes the logout that came after it. `record.lua` and `end.lua` hold the
//! same rule.

use super::{Tombstone, is_later, tokens_until};
use crate::session::{Reason, Record, Seconds, SessionId, Which};

/// The last ending of all sessions of a user, and the last one of all but one.
///
/// The last of a kind is enough: whatever an earlier one meant had begun by then, too, and the session that a later
/// one spared was there after the earlier one.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::store) struct Bulk {
    all: Option<Ending>,
    others: Option<(Ending, SessionId)>,
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    sent_ms: u64,
    reason: Reason,
    in_gotrue: bool,
}

impl Bulk {
    /// Nothing is remembered.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.all.is_none() && self.others.is_none()
    }

    /// Remembers an ending, if it is of one of these kinds.
    pub(in crate::store) fn note(&mut self, which: &Which, sent_ms: u64, known: Tombstone) {
        let ending = Ending { sent_ms, reason: known.reason, in_gotrue: known.ended_in_gotrue };
        let is_news = |before: Option<Ending>| before.is_none_or(|before| before.sent_ms < sent_ms);
        match which {
            Which::All if is_news(self.all) => self.all = Some(ending),
            Which::Others(spared) if is_news(self.others.map(|(before, _)| before)) => {
                self.others = Some((ending, *spared));
            }
            _ => {}
        }
    }

    /// The tombstone of a session of whose beginning nobody has told before, where one of them ended it.
    pub(in crate::store) fn ended(&self, record: &Record, now: Seconds) -> Option<Tombstone> {
        let others = self.others.filter(|(_, spared)| *spared != record.session).map(|(ending, _)| ending);
        let ending = [self.all, others].into_iter().flatten().find(|it| it.means(record))?;
        Some(Tombstone {
            reason: ending.reason,
            expires_at: Some(tokens_until(record, now)),
            ended_in_gotrue: ending.in_gotrue,
        })
    }
}

impl Ending {
    /// Whether the session was there when it was sent, as far as that is known to the millisecond.
    fn means(self, record: &Record) -> bool {
        let by = if record.began_ms > 0 { record.began_ms } else { record.begun_by_ms };
        by > 0 && !is_later(by, self.sent_ms, self.in_gotrue)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::b as a_record, *};

    const ME: &str = "00000000-0000-4000-8000-0000000000aa";

    #[test]
    fn what_had_begun_when_an_ending_was_sent_has_ended() {
        let known = |reason| Tombstone { reason, expires_at: None, ended_in_gotrue: false };
        let spared = SessionId::parse(ME).unwrap();
        let mut bulk = Bulk::default();
        bulk.note(&Which::All, 5_000, known(Reason::UserDeleted));
        bulk.note(&Which::All, 4_000, known(Reason::Logout));
        bulk.note(&Which::Others(spared), 7_000, known(Reason::Logout));
        bulk.note(&Which::Others(a_record().session), 6_000, known(Reason::PasswordChanged));
        bulk.note(&Which::One(spared), 9_000, known(Reason::Logout));
        bulk.note(&Which::Aal1Except(spared), 9_000, known(Reason::Logout));
        bulk.note(&Which::Client("client".to_owned()), 9_000, known(Reason::Logout));
        let of = |began_ms, begun_by_ms, session| {
            let record = Record { session, began_ms, begun_by_ms, ..a_record() };
            bulk.ended(&record, 10).map(|it| it.reason)
        };
        let somebody = a_record().session;
        for (began_ms, begun_by_ms, session, expected) in [
            (4_999, 0, somebody, Some(Reason::UserDeleted)),
            (5_000, 0, somebody, Some(Reason::UserDeleted)),
            (5_001, 0, somebody, Some(Reason::Logout)),
            (7_000, 0, somebody, Some(Reason::Logout)),
            (7_001, 0, somebody, None),
            (0, 7_000, somebody, Some(Reason::Logout)),
            (0, 7_001, somebody, None),
            (0, 0, somebody, None),
            (8_000, 1, somebody, None),
            (5_000, 0, spared, Some(Reason::UserDeleted)),
            (5_001, 0, spared, None),
        ] {
            let got = of(began_ms, begun_by_ms, session);
            assert_eq!(got, expected, "{began_ms} {begun_by_ms} {session}");
        }
        let mut bulk = Bulk::default();
        bulk.note(&Which::All, 5_000, Tombstone { ended_in_gotrue: true, ..known(Reason::Logout) });
        for (began_ms, ended) in [(4_999, true), (5_000, false)] {
            assert_eq!(bulk.ended(&Record { began_ms, ..a_record() }, 10).is_some(), ended, "{began_ms}");
        }
    }
}
