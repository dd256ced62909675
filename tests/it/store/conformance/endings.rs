//! Ending, suspending, lowering: whom it hits.

use super::super::*;

pub(super) async fn a_session_that_ended_stays_ended(store: &Store) {
    let first = signed_in(somebody(), some_session());
    apply(store, &sign_in(&first)).await;
    assert_eq!(apply(store, &end(first.user, Which::One(first.session))).await, Outcome::Ended(1));
    for change in [sign_in(&first), refresh(&refreshed(&first, 50)), refresh(&refreshed(&first, 5000))] {
        assert_eq!(apply(store, &change).await, Outcome::Revoked);
        assert_eq!(look(store, first.user, first.session).await, State::Revoked);
    }
}

pub(super) async fn ending_twice_ends_once(store: &Store) {
    let first = signed_in(somebody(), some_session());
    apply(store, &sign_in(&first)).await;
    for (which, ended) in
        [(Which::All, 1), (Which::All, 0), (Which::One(first.session), 0), (Which::Others(some_session()), 0)]
    {
        assert_eq!(apply(store, &end(first.user, which)).await, Outcome::Ended(ended));
    }
}

pub(super) async fn an_unknown_session_can_end(store: &Store) {
    let first = signed_in(somebody(), some_session());
    assert_eq!(apply(store, &end(first.user, Which::One(first.session))).await, Outcome::Ended(0));
    assert_eq!(look(store, first.user, first.session).await, State::Revoked);
    assert_eq!(apply(store, &sign_in(&first)).await, Outcome::Revoked);
}

/// GoTrue may have refreshed it when its access token was nearly over, and the store be told only when the session has
/// ended.
pub(super) async fn a_tombstone_outlives_tokens_that_are_told_of_late(store: &Store) {
    let client = "client".to_owned();
    for which in
        [Which::Others(some_session()), Which::Client(client.clone()), Which::Aal1Except(some_session())]
    {
        let user = somebody();
        let record = Record { client_id: Some(client.clone()), ..signed_in(user, some_session()) };
        apply(store, &sign_in(&record)).await;
        let ending = ends_at(3590, user, which.clone());
        assert_eq!(store.apply(&[ending], NOW + 3590).await, Ok(vec![Outcome::Ended(1)]));
        stays_ended(store, &record, 3580).await;
    }
    for which in [Which::One, Which::Live] {
        let record = signed_in(somebody(), some_session());
        apply(store, &sign_in(&record)).await;
        let ending = ends_at(3590, record.user, which(record.session));
        assert_eq!(store.apply(&[ending], NOW + 3590).await, Ok(vec![Outcome::Ended(1)]));
        stays_ended(store, &record, 3580).await;
    }
}

fn ends_at(later: Seconds, user: UserId, which: Which) -> Change {
    let mut ending = end(user, which);
    if let Change::End { sent_ms, expires_at, .. } = &mut ending {
        (*sent_ms, *expires_at) = ((NOW + later) * 1000, None);
    }
    ending
}

/// Whoever asks, and though a refresh is told of now that was made so many seconds after the sign-in.
async fn stays_ended(store: &Store, record: &Record, later: Seconds) {
    let late = refreshed(record, later);
    for now in [NOW + 3800, late.expires_at - 1] {
        let sought = Sought::of(record.user, record.session);
        assert_eq!(store.lookup(&sought, now).await, Ok(State::Revoked), "{}", now - NOW);
    }
    assert_eq!(store.apply(&[refresh(&late)], NOW + 3800).await, Ok(vec![Outcome::Revoked]));
}

/// It may live longer than those before it.
pub(super) async fn a_token_that_comes_late_prolongs_the_tombstone(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    apply(store, &end(record.user, Which::One(record.session))).await;
    let late = refreshed(&record, 4000);
    assert_eq!(store.apply(&[refresh(&late)], NOW + 10).await, Ok(vec![Outcome::Revoked]));
    let sought = Sought::of(record.user, record.session);
    assert_eq!(store.lookup(&sought, late.expires_at + 59).await, Ok(State::Revoked));
}

/// An audit has learned of the session; how long the token lives that asked for the ending says nothing of its tokens.
pub(super) async fn of_tokens_that_nobody_knows_the_tombstone_lives_longest(store: &Store) {
    let user = somebody();
    let records: Vec<_> =
        (0..2).map(|_| Record { expires_at: 0, ..signed_in(user, some_session()) }).collect();
    for record in &records {
        apply(store, &refresh(record)).await;
    }
    apply(store, &end(user, Which::Others(some_session()))).await;
    apply(store, &end(user, Which::One(records[0].session))).await;
    for record in &records {
        let sought = Sought::of(user, record.session);
        assert_eq!(store.lookup(&sought, NOW + SESSION_TTL - 1).await, Ok(State::Revoked));
    }
}

pub(super) async fn a_global_logout_ends_all_and_the_unknown_too(store: &Store) {
    let user = somebody();
    let known = [signed_in(user, some_session()), signed_in(user, some_session())];
    for record in &known {
        apply(store, &sign_in(record)).await;
    }
    assert_eq!(apply(store, &end(user, Which::All)).await, Outcome::Ended(2));
    for record in &known {
        assert_eq!(look(store, user, record.session).await, State::Revoked);
        assert_eq!(apply(store, &refresh(&refreshed(record, 60))).await, Outcome::Revoked);
    }
    let mut unknown = refreshed(&signed_in(user, some_session()), 60);
    unknown.created_at = NOW;
    assert_eq!(apply(store, &refresh(&unknown)).await, Outcome::Revoked);
    // An earlier logout that arrives late does not move the mark back.
    let mut earlier = end(user, Which::All);
    if let Change::End { sent_ms, .. } = &mut earlier {
        *sent_ms = NOW * 1000 - 9000;
    }
    apply(store, &earlier).await;
    assert_eq!(apply(store, &refresh(&unknown)).await, Outcome::Revoked);
}

pub(super) async fn a_sign_in_after_a_global_logout_was_sent_lives(store: &Store) {
    for logout_first in [true, false] {
        let mut record = signed_in(somebody(), some_session());
        record.created_at = NOW + 1;
        record.began_ms = NOW * 1000 + 1001;
        let mut changes = [sign_in(&record), end(record.user, Which::All)];
        if logout_first {
            changes.reverse();
        }
        for change in changes {
            apply(store, &change).await;
        }
        assert_eq!(live(store, record.user, record.session).await, record);
        assert_eq!(apply(store, &end(record.user, Which::One(record.session))).await, Outcome::Ended(0));
        assert_eq!(live(store, record.user, record.session).await, record);
    }
}

/// Its sign-in may wait for the store in another replica, and its refresh come first.
pub(super) async fn a_session_that_only_a_refresh_told_of_lives_if_it_began_after_the_ending(store: &Store) {
    for (since, asked_later, in_gotrue, lives) in [
        (1, 0, true, true),
        (1, 0, false, true),
        (0, 1, true, true),
        (0, 0, true, true),
        (0, -1, true, false),
        (0, 1, false, false),
        (-1, 1, true, false),
    ] {
        for which in [Which::All, Which::Others(some_session()), Which::Client("client".to_owned())] {
            let user = somebody();
            let mut ending = end(user, which.clone());
            let Change::End { sent_ms, ended_in_gotrue, .. } = &mut ending else { unreachable!() };
            *ended_in_gotrue = in_gotrue;
            let mut record = refreshed(&signed_in(user, some_session()), 60);
            record.client_id = Some("client".to_owned());
            record.created_at = (*sent_ms / 1000).saturating_add_signed(since);
            record.begun_by_ms = sent_ms.saturating_add_signed(asked_later);
            apply(store, &refresh(&record)).await;
            apply(store, &ending).await;
            let state = look(store, user, record.session).await;
            assert_eq!(
                matches!(state, State::Live(_)),
                lives,
                "{which:?}, {since}, {asked_later}, {in_gotrue}"
            );
        }
    }
}

/// Of several refreshes whose sign-in nobody saw, the earliest tells the most, whenever it is recorded.
pub(super) async fn the_earliest_refresh_tells_what_an_ending_meant(store: &Store) {
    for order in [[0, 1], [1, 0]] {
        let user = somebody();
        let ending = end(user, Which::All);
        let Change::End { sent_ms, .. } = &ending else { unreachable!() };
        let mut first = refreshed(&signed_in(user, some_session()), 1);
        (first.created_at, first.begun_by_ms) = (sent_ms / 1000, sent_ms - 1);
        let second = Record { begun_by_ms: sent_ms + 1, ..refreshed(&first, 1) };
        let records = [first, second];
        for index in order {
            apply(store, &refresh(&records[index])).await;
        }
        assert_eq!(apply(store, &ending).await, Outcome::Ended(1), "{order:?}");
    }
}

/// The ending may be written while the sign-in waits for the store in another replica.
pub(super) async fn a_session_that_had_begun_when_all_or_others_ended_does_not_come_back(store: &Store) {
    for which in [Which::All, Which::Others(some_session())] {
        // milliseconds after the ending, and seconds as GoTrue counts them
        for (later, since, ended) in [(-1, 0, true), (-1, -1, true), (0, 0, false)] {
            let user = somebody();
            let ending = end(user, which.clone());
            let Change::End { sent_ms, .. } = &ending else { unreachable!() };
            let began = (sent_ms / 1000).saturating_add_signed(since);
            let mut seen = signed_in(user, some_session());
            (seen.created_at, seen.began_ms) = (began, sent_ms.saturating_add_signed(later));
            let mut unseen = refreshed(&signed_in(user, some_session()), 1);
            (unseen.created_at, unseen.begun_by_ms) = (began, sent_ms.saturating_add_signed(later));
            apply(store, &ending).await;
            for change in [sign_in(&seen), refresh(&unseen)] {
                let Change::Record { record, .. } = &change else { unreachable!() };
                let expected = if ended { Outcome::Revoked } else { Outcome::Created };
                assert_eq!(apply(store, &change).await, expected, "{which:?} {later} {since}");
                assert_eq!(
                    look(store, user, record.session).await == State::Revoked,
                    ended,
                    "{which:?} {later} {since}"
                );
            }
        }
    }
    let user = somebody();
    let spared = signed_in(user, some_session());
    let mut ending = end(user, Which::Others(spared.session));
    apply(store, &ending).await;
    assert_eq!(apply(store, &sign_in(&spared)).await, Outcome::Created);
    // one that was sent before it changes nothing
    let Change::End { sent_ms, which, .. } = &mut ending else { unreachable!() };
    (*sent_ms, *which) = (*sent_ms - 5, Which::Others(some_session()));
    apply(store, &ending).await;
    let late = Record { session: some_session(), ..signed_in(user, some_session()) };
    assert_eq!(apply(store, &sign_in(&late)).await, Outcome::Revoked);
}

/// Its sign-in and its refresh wait in two replicas. GoTrue refreshes what was ended only here.
pub(super) async fn a_session_that_had_begun_ends_in_whatever_order_it_is_told(store: &Store) {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for which in [Which::All, Which::Others(some_session())] {
        for (order, in_gotrue) in ORDERS.into_iter().flat_map(|order| [(order, false), (order, true)]) {
            let (user, sent) = (somebody(), NOW * 1000 + 950);
            let first = Record { began_ms: sent - 50, ..signed_in(user, some_session()) };
            let second = Record { begun_by_ms: sent + 500, ..refreshed(&first, 2) };
            let mut ending = end(user, which.clone());
            if let Change::End { sent_ms, ended_in_gotrue, .. } = &mut ending {
                (*sent_ms, *ended_in_gotrue) = (sent, in_gotrue);
            }
            let told = [sign_in(&first), ending, refresh(&second)];
            for index in order {
                apply(store, &told[index]).await;
            }
            let state = look(store, user, first.session).await;
            assert_eq!(state, State::Revoked, "{which:?} {order:?} {in_gotrue}");
            let listed = store.list(user, Wanted::One(first.session), NOW).await.unwrap();
            assert_eq!(listed.total, 0);
        }
    }
}

pub(super) async fn others_spares_the_one(store: &Store) {
    let user = somebody();
    let records: Vec<_> = (0..3).map(|_| signed_in(user, some_session())).collect();
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    assert_eq!(apply(store, &end(user, Which::Others(records[1].session))).await, Outcome::Ended(2));
    assert_eq!(look(store, user, records[0].session).await, State::Revoked);
    assert_eq!(live(store, user, records[1].session).await, records[1]);
    // Unlike all: nothing is said of sessions that nobody saw.
    let unknown = refreshed(&signed_in(user, some_session()), 1);
    assert_eq!(apply(store, &refresh(&unknown)).await, Outcome::Created);
}

pub(super) async fn a_second_factor_ends_those_without(store: &Store) {
    let user = somebody();
    let mut records: Vec<_> = (0..4).map(|_| signed_in(user, some_session())).collect();
    records[2].aal = Some(Aal::Aal2);
    records[3].aal = None;
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    let ended = apply(store, &end(user, Which::Aal1Except(records[0].session))).await;
    assert_eq!(ended, Outcome::Ended(1));
    assert_eq!(look(store, user, records[1].session).await, State::Revoked);
    for index in [0, 2, 3] {
        assert_eq!(live(store, user, records[index].session).await, records[index]);
    }
}

pub(super) async fn a_client_loses_its_sessions_only(store: &Store) {
    let user = somebody();
    let mut records: Vec<_> = (0..3).map(|_| signed_in(user, some_session())).collect();
    records[0].client_id = Some("one".to_owned());
    records[1].client_id = Some("two".to_owned());
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    assert_eq!(apply(store, &end(user, Which::Client("one".to_owned()))).await, Outcome::Ended(1));
    assert_eq!(look(store, user, records[0].session).await, State::Revoked);
    for index in [1, 2] {
        assert_eq!(live(store, user, records[index].session).await, records[index]);
    }
}

pub(super) async fn a_ban_suspends_and_passes(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    assert_eq!(apply(store, &suspend(record.user, Some(NOW + 50), 0)).await, Outcome::Marked);
    assert_eq!(look(store, record.user, record.session).await, State::Suspended(NOW + 50));
    assert_eq!(look(store, record.user, some_session()).await, State::Suspended(NOW + 50));
    let later = store.lookup(&Sought::of(record.user, record.session), NOW + 50).await.unwrap();
    assert_eq!(later, State::Live(Box::new(record)));
}

pub(super) async fn a_lifted_ban_shows_the_session_again(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    for (ms, until) in [(1, Some(NOW + 500_000)), (2, Some(NOW + 100)), (3, None), (4, None)] {
        let decided = suspend(record.user, until, ms);
        assert_eq!(apply(store, &decided).await, Outcome::Marked);
        assert_eq!(apply(store, &decided).await, Outcome::Unchanged);
        let expected = match until {
            Some(until) => State::Suspended(until),
            None => State::Live(Box::new(record.clone())),
        };
        assert_eq!(look(store, record.user, record.session).await, expected);
    }
}

/// A slow replica writes what was decided before, in either direction.
pub(super) async fn an_older_ban_that_is_written_late_changes_nothing(store: &Store) {
    let record = signed_in(somebody(), some_session());
    let user = record.user;
    let live = State::Live(Box::new(record.clone()));
    apply(store, &sign_in(&record)).await;
    let steps = [
        (suspend(user, None, 20), Outcome::Marked, live.clone()), // the ban before it was never seen
        (suspend(user, Some(NOW + 500), 10), Outcome::Unchanged, live.clone()),
        (banned(user, NOW + 500, 19), Outcome::Marked, live.clone()),
        (suspend(user, Some(NOW + 600), 30), Outcome::Marked, State::Suspended(NOW + 600)),
        (suspend(user, None, 25), Outcome::Unchanged, State::Suspended(NOW + 600)),
        (suspend(user, Some(NOW + 900), 29), Outcome::Unchanged, State::Suspended(NOW + 600)),
        // of one millisecond the longer ban stands
        (suspend(user, None, 30), Outcome::Unchanged, State::Suspended(NOW + 600)),
        (suspend(user, Some(NOW + 601), 30), Outcome::Marked, State::Suspended(NOW + 601)),
        (suspend(user, None, 31), Outcome::Marked, live),
    ];
    for (change, outcome, expected) in steps {
        assert_eq!(apply(store, &change).await, outcome, "{change:?}");
        assert_eq!(look(store, user, record.session).await, expected, "{change:?}");
    }
}

pub(super) async fn a_ban_without_an_end_holds_at_least_so_long(store: &Store) {
    let record = signed_in(somebody(), some_session());
    let user = record.user;
    apply(store, &sign_in(&record)).await;
    // never shorter than what is known, whichever comes first
    for (ms, until, holds_until) in [(1, 100, 100), (2, 50, 100), (1, 200, 200), (3, 200, 200)] {
        assert_eq!(apply(store, &banned(user, NOW + until, ms)).await, Outcome::Marked);
        assert_eq!(look(store, user, record.session).await, State::Suspended(NOW + holds_until));
    }
    // what GoTrue says exactly counts exactly
    for (ms, until, expected) in
        [(4, Some(NOW + 80), State::Suspended(NOW + 80)), (5, None, State::Live(Box::new(record.clone())))]
    {
        assert_eq!(apply(store, &suspend(user, until, ms)).await, Outcome::Marked);
        assert_eq!(look(store, user, record.session).await, expected);
    }
    assert_eq!(apply(store, &banned(user, NOW + 30, 6)).await, Outcome::Marked);
    assert_eq!(look(store, user, record.session).await, State::Suspended(NOW + 200));
    let later = store.lookup(&Sought::of(user, record.session), NOW + 200).await.unwrap();
    assert_eq!(later, State::Live(Box::new(record)));
}

pub(super) async fn a_refusal_while_a_ban_is_known_makes_it_no_longer(store: &Store) {
    for later_first in [false, true] {
        let user = somebody();
        let during = banned(user, NOW + 3600, 99_999);
        let after = banned(user, NOW + 3600, 100_000);
        apply(store, &suspend(user, Some(NOW + 100), 0)).await;
        if later_first {
            apply(store, &after).await;
        }
        apply(store, &during).await;
        let until = if later_first { 3600 } else { 100 };
        assert_eq!(look(store, user, some_session()).await, State::Suspended(NOW + until));
        apply(store, &after).await;
        assert_eq!(look(store, user, some_session()).await, State::Suspended(NOW + 3600));
    }
}

/// Tokens that GoTrue would have refused to a banned user.
pub(super) async fn who_gets_tokens_is_banned_no_longer(store: &Store) {
    let record = signed_in(somebody(), some_session());
    let (user, until) = (record.user, NOW + 500);
    apply(store, &sign_in(&record)).await;
    // nothing is kept of users who were never banned
    assert_eq!(apply(store, &allowed(&refreshed(&record, 1), 5)).await, Outcome::Refreshed);
    for (ban, exactly) in [(banned(user, until, 10), false), (suspend(user, Some(until), 30), true)] {
        let at = if exactly { 30 } else { 10 };
        apply(store, &ban).await;
        // asked for before, or at the same time: says nothing
        for before in [at - 1, at] {
            let is_late = apply(store, &allowed(&record, before)).await;
            assert_eq!(is_late, Outcome::Unchanged);
            let suspended = look(store, user, record.session).await == State::Suspended(until);
            assert_eq!(suspended, exactly || before < at, "{ban:?} {before}");
            apply(store, &ban).await;
        }
        apply(store, &allowed(&record, at + 1)).await;
        live(store, user, record.session).await;
        // and the older ban is not written back
        apply(store, &ban).await;
        live(store, user, record.session).await;
    }
    // while a later refusal suspends again
    apply(store, &banned(user, until, 32)).await;
    assert_eq!(look(store, user, record.session).await, State::Suspended(until));
}

pub(super) async fn an_end_comes_before_a_ban(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    apply(store, &suspend(record.user, Some(NOW + 50), 0)).await;
    apply(store, &end(record.user, Which::All)).await;
    assert_eq!(look(store, record.user, record.session).await, State::Revoked);
    assert_eq!(look(store, record.user, some_session()).await, State::Suspended(NOW + 50));
}

pub(super) async fn a_removed_factor_lowers_the_level(store: &Store) {
    let user = somebody();
    let (removed, other) = (factor_id(1), factor_id(2));
    let raised = |factor_id| Record { aal: Some(Aal::Aal2), factor_id, ..signed_in(user, some_session()) };
    // The last one was not seen to be raised.
    let records = [raised(Some(removed)), raised(Some(other)), raised(None)];
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    // A refresh says nothing of the factor, which stays known.
    apply(store, &refresh(&Record { factor_id: None, ..refreshed(&records[0], 1) })).await;
    assert_eq!(apply(store, &Change::LowerAal { user, factor: removed }).await, Outcome::Marked);
    let lowered = live(store, user, records[0].session).await;
    assert_eq!((lowered.aal, lowered.factor_id), (Some(Aal::Aal1), None));
    for record in &records[1..] {
        assert_eq!(live(store, user, record.session).await, *record);
    }
}

pub(super) async fn changes_of_one_answer_are_made_in_order(store: &Store) {
    let user = somebody();
    let (old, new) = (signed_in(user, some_session()), signed_in(user, some_session()));
    let changes = [
        sign_in(&old),
        sign_in(&new),
        end(user, Which::Others(new.session)),
        Change::LowerAal { user, factor: factor_id(1) },
    ];
    let outcomes = store.apply(&changes, NOW).await.unwrap();
    assert_eq!(outcomes, [Outcome::Created, Outcome::Created, Outcome::Ended(1), Outcome::Marked]);
    assert_eq!(look(store, user, old.session).await, State::Revoked);
    assert_eq!(live(store, user, new.session).await, new);
    assert_eq!(store.apply(&[], NOW).await, Ok(Vec::new()));
}

pub(super) async fn users_do_not_meet(store: &Store) {
    let session = some_session();
    let (one, two) = (signed_in(somebody(), session), signed_in(somebody(), session));
    apply(store, &sign_in(&one)).await;
    apply(store, &sign_in(&two)).await;
    apply(store, &end(one.user, Which::All)).await;
    apply(store, &suspend(one.user, Some(NOW + 9), 0)).await;
    assert_eq!(live(store, two.user, session).await, two);
}
