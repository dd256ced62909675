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
    let ban = Change::Suspend { user: record.user, until: Some(NOW + 50) };
    assert_eq!(apply(store, &ban).await, Outcome::Marked);
    assert_eq!(look(store, record.user, record.session).await, State::Suspended(NOW + 50));
    assert_eq!(look(store, record.user, some_session()).await, State::Suspended(NOW + 50));
    let later = store.lookup(record.user, record.session, NOW + 50, false).await.unwrap();
    assert_eq!(later, State::Live(Box::new(record)));
}

pub(super) async fn a_lifted_ban_shows_the_session_again(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    for until in [Some(NOW + 500_000), Some(NOW + 100), None, None] {
        assert_eq!(apply(store, &Change::Suspend { user: record.user, until }).await, Outcome::Marked);
        let expected = match until {
            Some(until) => State::Suspended(until),
            None => State::Live(Box::new(record.clone())),
        };
        assert_eq!(look(store, record.user, record.session).await, expected);
    }
}

pub(super) async fn a_ban_without_an_end_holds_at_least_so_long(store: &Store) {
    let record = signed_in(somebody(), some_session());
    let user = record.user;
    apply(store, &sign_in(&record)).await;
    // never shorter than what is known, whichever comes first
    for (until, holds_until) in [(100, 100), (50, 100), (200, 200), (200, 200)] {
        let banned = Change::Banned { user, until: NOW + until };
        assert_eq!(apply(store, &banned).await, Outcome::Marked);
        assert_eq!(look(store, user, record.session).await, State::Suspended(NOW + holds_until));
    }
    // what GoTrue says exactly counts exactly
    for (until, expected) in
        [(Some(NOW + 80), State::Suspended(NOW + 80)), (None, State::Live(Box::new(record.clone())))]
    {
        assert_eq!(apply(store, &Change::Suspend { user, until }).await, Outcome::Marked);
        assert_eq!(look(store, user, record.session).await, expected);
    }
    assert_eq!(apply(store, &Change::Banned { user, until: NOW + 30 }).await, Outcome::Marked);
    assert_eq!(look(store, user, record.session).await, State::Suspended(NOW + 30));
    let later = store.lookup(user, record.session, NOW + 30, false).await.unwrap();
    assert_eq!(later, State::Live(Box::new(record)));
}

pub(super) async fn an_end_comes_before_a_ban(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    apply(store, &Change::Suspend { user: record.user, until: Some(NOW + 50) }).await;
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
    apply(store, &Change::Suspend { user: one.user, until: Some(NOW + 9) }).await;
    assert_eq!(live(store, two.user, session).await, two);
}
