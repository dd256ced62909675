//! Bans, as they are learned of: by GoTrue's answer to whoever bans, and by refusals.

use super::{LONGEST, SKEW};
use crate::session::Seconds;

/// What is known of a user's ban. Whatever is learned may be written late, in any order and more than
/// once (contract I9): the last decision stands, and after it what was seen later. A refusal while a known
/// ban holds says nothing new: it does not make the ban longer.
///
/// A decision counts from GoTrue's answer, what was only seen from when its request was sent: where both
/// were under way at once, the decision stands. `suspend.lua` and `record.lua` hold the same rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Ban {
    /// When it was decided, in milliseconds, and until when; 0 is not banned. Of two in one millisecond
    /// the longer ban stands.
    decided: (u64, Seconds),
    /// When a refusal was last seen, in milliseconds, and until when the user is banned at least.
    seen: (u64, Seconds),
}

impl Ban {
    /// GoTrue's own word, on its answer to whoever bans.
    pub(in crate::store) fn decide(&mut self, decided_ms: u64, until: Seconds) {
        self.decided = self.decided.max((decided_ms, until));
    }

    /// GoTrue refused the user.
    pub(in crate::store) fn see(&mut self, seen_ms: u64, until: Seconds) {
        self.seen = (self.seen.0.max(seen_ms), self.seen.1.max(until));
    }

    /// GoTrue did not refuse the user. Nobody keeps that of users who were never banned.
    pub(in crate::store) fn allow(&mut self, allowed_ms: u64) {
        if *self != Self::default() {
            self.decide(allowed_ms, 0);
        }
    }

    /// Whether this decision is all that counts, so that nothing of before must be remembered for longer.
    pub(in crate::store) fn rests_on(self, decided_ms: u64, until: Seconds) -> bool {
        self.decided == (decided_ms, until) && self.seen.0 <= decided_ms
    }

    /// Until when the user is suspended; 0 if not at all.
    pub(in crate::store) fn until(self) -> Seconds {
        let (decided_ms, until) = self.decided;
        let (seen_ms, at_least) = self.seen;
        let is_news = seen_ms > decided_ms && seen_ms >= until.saturating_mul(1000);
        if is_news { at_least } else { until }
    }
}

/// How long a refusal that was seen is remembered: as long as it holds.
pub(in crate::store) fn seen_ttl(until: Seconds, now: Seconds) -> Seconds {
    (until.saturating_sub(now)).saturating_add(SKEW).min(LONGEST)
}

/// How long a decision is remembered: as long as it holds, and as long as an older one may come late.
pub(in crate::store) fn decided_ttl(session_ttl: Seconds, until: Seconds, now: Seconds) -> Seconds {
    seen_ttl(until, now).max(session_ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_is_known_of_a_ban_stands() {
        type Learn = fn(&mut Ban);
        let table: [(&[Learn], Seconds); 11] = [
            (&[|ban| ban.decide(20, 900)], 900),
            (&[|ban| ban.decide(20, 900), |ban| ban.decide(21, 0)], 0),
            (&[|ban| ban.decide(20, 900), |ban| ban.decide(20, 0)], 900),
            (&[|ban| ban.decide(20, 0), |ban| ban.see(20, 900)], 0),
            (&[|ban| ban.decide(20, 0), |ban| ban.see(21, 900)], 900),
            (&[|ban| ban.decide(20, 900), |ban| ban.see(21, 500)], 900),
            (&[|ban| ban.decide(20, 3), |ban| ban.see(2_999, 900)], 3),
            (&[|ban| ban.decide(20, 3), |ban| ban.see(3_000, 900)], 900),
            (&[|ban| ban.see(20, 900), |ban| ban.see(30, 500)], 900),
            (&[|ban| ban.decide(20, 900), |ban| ban.see(21, 950), |ban| ban.decide(22, 100)], 100),
            (&[|ban| ban.decide(20, 900), |ban| ban.decide(25, 0), |ban| ban.see(22, 950)], 0),
        ];
        for (learned, expected) in table {
            for order in [learned.to_vec(), learned.iter().rev().copied().collect(), learned.repeat(2)] {
                let mut ban = Ban::default();
                for learn in order {
                    learn(&mut ban);
                }
                assert_eq!(ban.until(), expected);
            }
        }
    }

    #[test]
    fn a_decision_stands_alone_unless_something_later_was_seen() {
        let mut ban = Ban::default();
        ban.see(20, 900);
        ban.decide(20, 0);
        assert!(ban.rests_on(20, 0));
        ban.decide(19, 900);
        assert!(ban.rests_on(20, 0) && !ban.rests_on(19, 900));
        ban.see(21, 900);
        assert!(!ban.rests_on(20, 0));
    }

    #[test]
    fn who_was_allowed_is_banned_no_longer() {
        let mut ban = Ban::default();
        ban.allow(30);
        assert_eq!(ban, Ban::default());
        ban.see(30, 900);
        ban.allow(30);
        assert_eq!(ban.until(), 0);
        ban.decide(40, 900);
        ban.allow(40);
        assert_eq!(ban.until(), 900);
        ban.allow(41);
        assert_eq!(ban.until(), 0);
        ban.see(42, 800);
        assert_eq!(ban.until(), 900); // the longest that was seen: a guess either way
    }

    #[test]
    fn what_is_learned_is_remembered_for_as_long_as_it_matters() {
        assert_eq!((seen_ttl(1_100, 1_000), seen_ttl(900, 1_000)), (160, 60));
        assert_eq!((decided_ttl(600, 1_100, 1_000), decided_ttl(600, 9_000, 1_000)), (600, 8_060));
    }
}
