//! The rules that both stores follow. Here: which of two records is the newer one and what becomes of the other, and which
//! sessions an ending means.
//!
//! The scripts hold the same rules in their own language; `tests/it/store/differential.rs` compares the two.

mod bans;
mod late;
mod limits;
mod lives;
mod waited;

use self::lives::known_until;
pub use self::waited::{Waited, waited};
pub(super) use self::{
    bans::{Ban, decided_ttl, seen_ttl},
    late::Bulk,
    limits::{is_expired, is_too_old, room_for},
    lives::{
        LONGEST, SHORTEST_TOMBSTONE, SKEW, Tombstone, mark_ttl, outliving, record_ttl, tokens_until,
        tombstone_text,
    },
};
use crate::session::{Origin, Record, Seconds, Which};

/// `seen_at` is written at most this often, seconds.
pub(super) const TOUCH_AFTER: Seconds = 60;

/// So many of a user's sessions are put in order together when they are listed; further ones come after them.
pub(super) const IN_ORDER: u32 = 1000;

/// Whether a session is one of those that `not_before` revokes: it began before that second, as its record has it.
/// Of one without a record the token tells; one of which nobody says when it began is not. `common.lua` and
/// `record.lua` hold the same rule.
pub(super) fn began_before(not_before: Seconds, record: Option<&Record>, told: Option<Seconds>) -> bool {
    record.map(|record| record.created_at).or(told).is_some_and(|began| began < not_before)
}

/// Whether a session began after an ending was sent, so that the ending does not mean it.
///
/// One that was first seen at a refresh, because its sign-in waits for the store elsewhere, is known by the second it
/// began in: against endings of many that were sent in an earlier one it lives. In the same one it does, too, where
/// GoTrue has ended what the ending means, and refreshed this one for a request that was sent later: had that one been
/// sent earlier, the session would have been there. Where both were under way at once, GoTrue's next 403 tells if it
/// was wrong. An ending of one names a session that was there, whatever its record says. `common.lua` and `end.lua`
/// hold the same rule.
pub(super) fn outlives(which: &Which, sent_ms: u64, ended_in_gotrue: bool, record: &Record) -> bool {
    let sent = sent_ms / 1000;
    match which {
        Which::One(_) | Which::Live(_) => record.began_ms > sent_ms,
        _ if record.began_ms > 0 => is_later(record.began_ms, sent_ms, ended_in_gotrue),
        _ if record.created_at == sent => ended_in_gotrue && record.begun_by_ms >= sent_ms,
        _ => record.created_at > sent,
    }
}

/// Whether a session began after an ending was sent. Of one millisecond nobody knows the order: where GoTrue has ended
/// what the ending means, its next 403 tells, so nobody is logged out by a guess; else only the store can end it.
fn is_later(began_ms: u64, sent_ms: u64, ended_in_gotrue: bool) -> bool {
    began_ms > sent_ms || (began_ms == sent_ms && ended_in_gotrue)
}

/// Whether `new` says something newer of the session than the stored `old`. Answers may come in any
/// order and more than once (contract I9).
///
/// A counter of v2 tokens orders exactly, else the second of `iat` does. Within one second: what was read
/// from the database, which knows no access token, never stands against an answer. GoTrue gives
/// an unchanged refresh token for a reused one, then only the access token can be newer. A sign-in is
/// the first that is known of a session, so it never stands against another. A refresh names the
/// token it replaced. A verified factor does not, but lifts the assurance level. What is left are
/// refreshes that are not neighbours: the one that arrives last stands, for a client cannot send the
/// next one before the last one was recorded.
pub(super) fn supersedes(origin: Origin, new: &Record, old: &Record) -> bool {
    if let (Some(new), Some(old)) = (new.counter, old.counter)
        && new != old
    {
        return new > old;
    }
    if new.refreshed_at != old.refreshed_at {
        return new.refreshed_at > old.refreshed_at;
    }
    if new.expires_at == 0 || old.expires_at == 0 {
        return new.expires_at > 0;
    }
    let same_token = new.refresh_ref == old.refresh_ref;
    if same_token && new.expires_at != old.expires_at {
        return new.expires_at > old.expires_at;
    }
    if origin.is_sign_in() || (same_token && new.refresh_ref.is_some()) {
        return false;
    }
    if old.refresh_ref.is_some() && old.refresh_ref == new.previous_ref {
        return true;
    }
    if new.refresh_ref.is_some() && new.refresh_ref == old.previous_ref {
        return false;
    }
    match (new.aal, old.aal) {
        (Some(new), Some(old)) if new != old => new > old,
        _ => !same_token,
    }
}

/// What is stored when `new` supersedes `old`.
pub(super) fn merged(origin: Origin, mut new: Record, old: &Record) -> Record {
    if new.refresh_ref.is_none() {
        new.refresh_ref.clone_from(&old.refresh_ref);
        new.previous_ref.clone_from(&old.previous_ref);
        new.counter = old.counter;
    } else if new.refresh_ref == old.refresh_ref {
        new.previous_ref = old.previous_ref.clone().or(new.previous_ref);
        new.counter = new.counter.or(old.counter);
    } else {
        new.previous_ref = new.previous_ref.or_else(|| old.refresh_ref.clone());
    }
    // a second factor leaves address and agent of GoTrue's row as they are, a token hook its methods
    new.client_id = new.client_id.or_else(|| old.client_id.clone());
    new.factor_id = new.factor_id.or(old.factor_id);
    new.amr = new.amr.or_else(|| old.amr.clone());
    new.ip = new.ip.or_else(|| old.ip.clone());
    new.user_agent = new.user_agent.or_else(|| old.user_agent.clone());
    new.seen_at = new.seen_at.max(old.seen_at);
    new.earlier_until = Some(known_until(old)).max(new.earlier_until).filter(|until| *until > new.expires_at);
    if old.began_ms > 0 || origin == Origin::Refresh {
        new.begun_by_ms = begun_by(&new, old);
        new.created_at = old.created_at;
        new.began_ms = old.began_ms;
    }
    new
}

/// The earliest time by which two records say that a session had begun; 0 where its beginning was seen, or neither says it.
fn begun_by(new: &Record, old: &Record) -> u64 {
    if old.began_ms > 0 {
        return 0;
    }
    let told = [new.begun_by_ms, old.begun_by_ms].into_iter().filter(|ms| *ms > 0);
    told.min().unwrap_or(0)
}

/// What a record that does not supersede still adds to one that a refresh made, or a token that somebody used. A
/// refresh: that the session had begun earlier. A sign-in: when it began, for which client, and its refresh token,
/// where none is known. Each: that an access token is good for longer.
pub(super) fn add(origin: Origin, new: &Record, old: &mut Record) {
    if known_until(new) > known_until(old) {
        old.earlier_until = Some(known_until(new));
    }
    if origin == Origin::Refresh {
        old.begun_by_ms = begun_by(new, old);
    }
    if origin.is_sign_in() && new.began_ms > 0 && old.began_ms == 0 {
        old.created_at = new.created_at;
        old.began_ms = new.began_ms;
        old.begun_by_ms = 0;
        if old.client_id.is_none() {
            old.client_id.clone_from(&new.client_id);
        }
        if old.refresh_ref.is_none() && new.refresh_ref.is_some() {
            old.refresh_ref.clone_from(&new.refresh_ref);
            old.counter = new.counter.or(old.counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{
        Aal,
        Origin::{Refresh, SignIn},
        RefreshRef, SessionId, UserId,
    };

    fn token(letter: char) -> Option<RefreshRef> {
        RefreshRef::parse(&letter.to_string().repeat(43))
    }

    fn record(refreshed_at: Seconds, current: char, previous: Option<char>) -> Record {
        let user = UserId::parse("0191d1a0-0000-7000-8000-000000000001").unwrap();
        let session = SessionId::parse("0191d1a0-0000-7000-8000-000000000002").unwrap();
        Record {
            refresh_ref: token(current),
            previous_ref: previous.and_then(token),
            refreshed_at,
            expires_at: refreshed_at + 3_600,
            aal: Some(Aal::Aal1),
            ..Record::bare(user, session, 1_000)
        }
    }

    fn with(mut record: Record, change: impl FnOnce(&mut Record)) -> Record {
        change(&mut record);
        record
    }

    pub(super) fn b() -> Record {
        record(2_000, 'b', Some('a'))
    }

    fn counted(refreshed_at: Seconds, counter: u64) -> Record {
        with(record(refreshed_at, 'x', None), |it| it.counter = Some(counter))
    }

    fn lifted(record: Record) -> Record {
        with(record, |it| it.aal = Some(Aal::Aal2))
    }

    fn of_row(record: Record) -> Record {
        with(record, |it| (it.expires_at, it.refresh_ref) = (0, None))
    }

    fn without_token() -> Record {
        with(b(), |it| it.refresh_ref = None)
    }

    fn compare(table: &[(&str, Origin, Record, Record, bool)]) {
        for (name, origin, new, old, expected) in table {
            assert_eq!(supersedes(*origin, new, old), *expected, "{name}");
        }
    }

    #[test]
    fn counters_come_before_seconds() {
        compare(&[
            ("a later second", Refresh, record(2_001, 'c', None), b(), true),
            ("an earlier second", Refresh, record(1_999, 'c', None), b(), false),
            ("same token, later", Refresh, record(2_001, 'b', None), b(), true),
            ("a later sign-in", SignIn, record(2_001, 'a', None), b(), true),
            ("higher, earlier", Refresh, counted(1_999, 5), counted(2_000, 4), true),
            ("lower, later", Refresh, counted(2_001, 3), counted(2_000, 4), false),
            ("equal, later", Refresh, counted(2_001, 4), counted(2_000, 4), true),
            ("only one counts", Refresh, counted(1_999, 4), b(), false),
        ]);
    }

    #[test]
    fn within_a_second_the_tokens_tell() {
        let longer = with(b(), |it| it.expires_at += 1);
        let next = record(2_000, 'c', Some('b'));
        let before = record(2_000, 'a', None);
        let stranger = record(2_000, 'x', Some('w'));
        compare(&[
            ("the same twice", Refresh, b(), b(), false),
            ("the same token, longer", Refresh, longer.clone(), b(), true),
            ("the same token, shorter", Refresh, b(), longer, false),
            ("the next", Refresh, next, b(), true),
            ("the one before", Refresh, before.clone(), b(), false),
            ("a sign-in", SignIn, before, b(), false),
            ("a lift", Refresh, lifted(record(2_000, 'x', None)), b(), true),
            ("before a lift", Refresh, b(), lifted(record(2_000, 'x', None)), false),
            ("a stranger", Refresh, stranger, b(), true),
            ("a row", Refresh, of_row(b()), b(), false),
            ("after a row", SignIn, b(), of_row(b()), true),
            ("a row, twice", Refresh, of_row(b()), of_row(b()), false),
            ("no token, twice", Refresh, without_token(), without_token(), false),
            ("no token, a lift", Refresh, lifted(without_token()), without_token(), true),
        ]);
    }

    #[test]
    fn a_session_outlives_what_was_sent_before_it_began() {
        let seen =
            |began_ms, created_at| with(b(), |it| (it.began_ms, it.created_at) = (began_ms, created_at));
        let refreshed =
            |begun_by_ms, created_at| with(seen(0, created_at), |it| it.begun_by_ms = begun_by_ms);
        let session = b().session;
        let table = [
            (Which::All, true, seen(5_501, 5), true),
            (Which::All, true, seen(5_500, 9), true),
            (Which::All, false, seen(5_500, 9), false),
            (Which::All, true, seen(5_499, 9), false),
            (Which::All, false, seen(0, 6), true),
            (Which::All, true, seen(0, 5), false),
            (Which::All, true, refreshed(5_501, 5), true),
            (Which::All, true, refreshed(5_500, 5), true),
            (Which::All, true, refreshed(5_499, 5), false),
            (Which::All, false, refreshed(5_501, 5), false),
            (Which::All, true, refreshed(5_501, 4), false),
            (Which::Others(session), true, refreshed(5_501, 5), true),
            (Which::Others(session), false, seen(0, 6), true),
            (Which::One(session), true, seen(0, 6), false),
            (Which::One(session), true, refreshed(5_501, 5), false),
            (Which::One(session), false, seen(5_501, 5), true),
        ];
        for (which, in_gotrue, record, expected) in table {
            assert_eq!(outlives(&which, 5_500, in_gotrue, &record), expected, "{which:?} {in_gotrue}");
        }
    }

    #[test]
    fn what_a_refresh_does_not_say_stays() {
        let old = with(record(2_000, 'b', Some('a')), |it| {
            it.began_ms = 1_000_500;
            it.client_id = Some("client".to_owned());
            it.seen_at = Some(2_500);
        });
        let new = with(record(3_000, 'c', None), |it| it.created_at = 900);
        let stored = merged(Refresh, new, &old);
        assert_eq!((stored.created_at, stored.began_ms), (1_000, 1_000_500));
        assert_eq!((stored.client_id.as_deref(), stored.seen_at), (Some("client"), Some(2_500)));
        assert_eq!((stored.refresh_ref, stored.previous_ref), (token('c'), token('b')));

        let unchanged_token = merged(Refresh, record(3_000, 'b', Some('b')), &old);
        assert_eq!(unchanged_token.previous_ref, token('a'));
    }

    #[test]
    fn a_mark_revokes_what_began_before_its_second() {
        let recorded = |created_at| with(b(), |it| it.created_at = created_at);
        let table = [
            ("a record from before", Some(recorded(999)), None, true),
            ("a record of that second", Some(recorded(1_000)), None, false),
            ("a record from before, whatever a token says", Some(recorded(999)), Some(2_000), true),
            ("a record of later, whatever a token says", Some(recorded(1_001)), Some(1), false),
            ("no record, a token from before", None, Some(999), true),
            ("no record, a token of that second", None, Some(1_000), false),
            ("no record, and the token does not say", None, None, false),
        ];
        for (name, record, told, expected) in table {
            assert_eq!(began_before(1_000, record.as_ref(), told), expected, "{name}");
            assert!(!began_before(0, record.as_ref(), told), "{name}, without a mark");
        }
    }
}
