//! Records that waited for the store so long that others may have ended their sessions, and forgotten that they did.

use super::{SHORTEST_TOMBSTONE, SKEW};
use crate::session::{Record, Seconds};

/// What can be said of a record that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Had its session ended elsewhere meanwhile, its tombstone would still be there: it lives as long as an access token
    /// that was issued at the end (`tokens_until` in `lives.rs`), and this one was issued before.
    InTime,
    /// The tombstone may have come and gone. Only a session that the store knows is still there for certain.
    Long,
    /// Written when it happened, it would have expired by now.
    TooLong,
}

/// Judges a record that waits since `since`; `since` is older than the record where several became one.
pub fn waited(record: &Record, since: Seconds, session_ttl: Seconds, now: Seconds) -> Waited {
    let (tokens_end, last) = (record.expires_at, record.refreshed_at.max(since));
    if tokens_end <= now && last.saturating_add(session_ttl) <= now {
        Waited::TooLong
    } else if tokens_end.saturating_add(SKEW) <= now && since.saturating_add(SHORTEST_TOMBSTONE) <= now {
        Waited::Long
    } else {
        Waited::InTime
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::b, *};

    #[test]
    fn what_waited_is_judged_by_its_tokens_and_its_time() {
        const TTL: Seconds = 10_000;
        // refreshed at, tokens expire at, waits since, now
        for (refreshed_at, expires_at, since, now, expected) in [
            (1_000, 4_600, 1_000, 4_659, Waited::InTime),
            (1_000, 4_600, 1_000, 4_660, Waited::Long),
            // tokens of a minute: no tombstone is that short
            (1_000, 1_010, 1_000, 1_119, Waited::InTime),
            (1_000, 1_010, 1_000, 1_120, Waited::Long),
            (1_000, 4_600, 1_000, 10_999, Waited::Long),
            (1_000, 4_600, 1_000, 11_000, Waited::TooLong),
            // a token that somebody used, not a new one
            (1_000, 4_600, 2_000, 11_999, Waited::Long),
            (1_000, 4_600, 2_000, 12_000, Waited::TooLong),
            // the last of several refreshes
            (5_000, 8_600, 1_000, 14_999, Waited::Long),
            (5_000, 8_600, 1_000, 15_000, Waited::TooLong),
            (1_000, 50_000, 1_000, 49_999, Waited::InTime),
            (1_000, u64::MAX, 1_000, 49_999, Waited::InTime),
        ] {
            let record = Record { refreshed_at, expires_at, ..b() };
            let got = waited(&record, since, TTL, now);
            assert_eq!(got, expected, "{refreshed_at} {expires_at} {since} {now}");
        }
    }
}
