//! How long things live: records, marks, and the tombstones that stand against access tokens. `carry_out.lua` holds the
//! same rules.

use crate::session::{Reason, Record, Seconds};

/// What clocks may differ by: a tombstone outlives the access token it is for by this, seconds.
pub(in crate::store) const SKEW: Seconds = 60;

/// The shortest life of a tombstone, seconds.
pub(in crate::store) const SHORTEST_TOMBSTONE: Seconds = 120;

/// The longest life of anything, whatever a token claims: a hundred years, seconds.
pub(in crate::store) const LONGEST: Seconds = 100 * 365 * 24 * 60 * 60;

/// How long a record lives: `session.ttl`, and never shorter than its access token.
pub(in crate::store) fn record_ttl(session_ttl: Seconds, expires_at: Seconds, now: Seconds) -> Seconds {
    session_ttl.max(expires_at.saturating_sub(now)).min(LONGEST)
}

/// When the last access token ends that GoTrue may have handed out by now for the session of a record: a refresh may
/// be recorded late, and then `exp` is later by as much. 0: nobody knows.
pub(in crate::store) fn tokens_until(record: &Record, now: Seconds) -> Seconds {
    let (expires_at, since) = (record.expires_at, record.refreshed_at);
    if expires_at == 0 {
        return 0;
    }
    let life = if since > 0 { expires_at.saturating_sub(since) } else { 0 };
    now.saturating_add(life).max(known_until(record))
}

/// When the last access token of a record ends that is known.
pub(super) fn known_until(record: &Record) -> Seconds {
    record.expires_at.max(record.earlier_until.unwrap_or(0))
}

/// How long what stands against an access token lives at least.
pub(in crate::store) fn outliving(expires_at: Seconds, now: Seconds) -> Seconds {
    expires_at.saturating_add(SKEW).saturating_sub(now).min(LONGEST)
}

/// What a tombstone knows: why, how long access tokens may live, and whether GoTrue has ended the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Tombstone {
    /// Why the session ended.
    pub(in crate::store) reason: Reason,
    /// The latest `exp` that is known or must be reckoned with ([`tokens_until`]); 0: nobody knows. `None`: an ending
    /// that tells nothing of it.
    pub(in crate::store) expires_at: Option<Seconds>,
    /// GoTrue hands out no more tokens for it.
    pub(in crate::store) ended_in_gotrue: bool,
}

impl Tombstone {
    /// How long it lives: it outlives the access tokens, and where GoTrue goes on knowing the session
    /// or no token's life is known, a session.
    pub(in crate::store) fn ttl(self, session_ttl: Seconds, now: Seconds) -> Seconds {
        let Some(expires_at) = self.expires_at.filter(|expires_at| *expires_at > 0) else {
            return session_ttl;
        };
        let least = if self.ended_in_gotrue { SHORTEST_TOMBSTONE } else { session_ttl };
        least.max(outliving(expires_at, now)).min(LONGEST)
    }

    /// That of the session of a record, where there is one. If nobody knows how long its tokens live, whoever asked for
    /// the ending does not either.
    pub(in crate::store) fn of(self, record: Option<&Record>, now: Seconds) -> Self {
        let expires_at = match record.map(|record| tokens_until(record, now)) {
            Some(0) => Some(0),
            until => until.max(self.expires_at),
        };
        Self { expires_at, ..self }
    }

    /// With one that comes later, in either order but for the reason: the first stands. What nobody knew stays unknown.
    pub(in crate::store) fn and(self, later: Self) -> Self {
        let expires_at = match (self.expires_at.unwrap_or(0), later.expires_at) {
            (0, _) | (_, Some(0)) => Some(0),
            (before, told) => told.max(Some(before)),
        };
        Self {
            reason: self.reason,
            expires_at,
            ended_in_gotrue: self.ended_in_gotrue || later.ended_in_gotrue,
        }
    }
}

/// How long `not_before` lives: as long as any session that it revokes, known or not.
pub(in crate::store) fn mark_ttl(session_ttl: Seconds, expires_at: Option<Seconds>, now: Seconds) -> Seconds {
    record_ttl(session_ttl, expires_at.map_or(0, |at| at.saturating_add(SKEW)), now)
}

/// How the text of a tombstone begins; what it knows follows.
pub(in crate::store) fn tombstone_text(reason: Reason, now: Seconds) -> String {
    format!("{}:{now}", reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::{super::tests::b, *};

    #[test]
    fn lives_are_bounded_and_long_enough() {
        assert_eq!(record_ttl(600, 2_000, 1_000), 1_000);
        assert_eq!(record_ttl(2_000, 2_000, 1_000), 2_000);
        assert_eq!(record_ttl(600, u64::MAX, 1_000), LONGEST);
        let reason = Reason::Logout;
        let ttl =
            |expires_at, ended_in_gotrue| Tombstone { reason, expires_at, ended_in_gotrue }.ttl(600, 1_000);
        assert_eq!(ttl(Some(1_500), true), 560);
        assert_eq!(ttl(Some(1_000), true), 120);
        assert_eq!(ttl(Some(1_100), false), 600);
        assert_eq!(ttl(None, true), 600);
        let of = |refreshed_at, expires_at| Record { refreshed_at, expires_at, ..b() };
        for (refreshed_at, expires_at, now, until) in [
            (1_000, 4_600, 1_000, 4_600),
            (1_000, 4_600, 4_590, 8_190),
            (1_000, 4_600, 9_000, 12_600),
            (1_000, 4_600, 900, 4_600),
            (1_000, 0, 2_000, 0),
            (0, 4_600, 2_000, 4_600),
            (5_000, 4_600, 2_000, 4_600),
            (1, u64::MAX, 2_000, u64::MAX),
        ] {
            let record = of(refreshed_at, expires_at);
            assert_eq!(tokens_until(&record, now), until, "{refreshed_at} {expires_at} {now}");
        }
        assert_eq!(mark_ttl(600, Some(u64::MAX), 1_000), LONGEST);
    }
}
