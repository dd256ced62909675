//! Recording: which of several answers stands.

use super::super::*;

pub(super) async fn a_sign_in_is_found_as_it_was_recorded(store: &Store) {
    let mut record = signed_in(somebody(), some_session());
    record.client_id = Some("0191d1a0-0000-4000-8000-00000000c11e".to_owned());
    record.counter = Some(3);
    record.anonymous = true;
    record.seen_at = Some(NOW);
    record.previous_ref = Some(some_token());
    assert_eq!(apply(store, &sign_in(&record)).await, Outcome::Created);
    assert_eq!(live(store, record.user, record.session).await, record);
}

pub(super) async fn a_session_nobody_saw_is_unknown(store: &Store) {
    assert_eq!(look(store, somebody(), some_session()).await, State::Unknown);
}

pub(super) async fn the_same_answer_twice_changes_nothing(store: &Store) {
    let first = signed_in(somebody(), some_session());
    let second = refreshed(&first, 10);
    apply(store, &sign_in(&first)).await;
    assert_eq!(apply(store, &sign_in(&first)).await, Outcome::Unchanged);
    assert_eq!(apply(store, &refresh(&second)).await, Outcome::Refreshed);
    let once = live(store, first.user, first.session).await;
    assert_eq!(apply(store, &refresh(&second)).await, Outcome::Unchanged);
    assert_eq!(apply(store, &sign_in(&first)).await, Outcome::Unchanged);
    assert_eq!(live(store, first.user, first.session).await, once);
}

pub(super) async fn a_refresh_renews_and_keeps_the_beginning(store: &Store) {
    let mut first = signed_in(somebody(), some_session());
    first.client_id = Some("client".to_owned());
    apply(store, &sign_in(&first)).await;
    let mut second = refreshed(&first, 100);
    second.created_at = NOW - 5;
    second.client_id = None;
    second.previous_ref = None;
    assert_eq!(apply(store, &refresh(&second)).await, Outcome::Refreshed);
    let stored = live(store, first.user, first.session).await;
    assert_eq!((stored.created_at, stored.began_ms), (first.created_at, first.began_ms));
    assert_eq!(stored.client_id, first.client_id);
    assert_eq!((stored.refresh_ref, stored.previous_ref), (second.refresh_ref, first.refresh_ref));
    assert_eq!((stored.refreshed_at, stored.expires_at), (NOW + 100, NOW + 3700));
}

pub(super) async fn what_a_refresh_no_longer_says_is_gone(store: &Store) {
    let mut first = signed_in(somebody(), some_session());
    first.counter = Some(1);
    first.anonymous = true;
    apply(store, &sign_in(&first)).await;
    let mut second = refreshed(&first, 1);
    second.counter = None;
    second.anonymous = false;
    (second.aal, second.amr, second.role, second.ip, second.user_agent) = (None, None, None, None, None);
    apply(store, &refresh(&second)).await;
    let stored = live(store, first.user, first.session).await;
    assert_eq!((stored.aal, stored.role), (None, None));
    assert_eq!((stored.counter, stored.anonymous), (None, false));
    // GoTrue's row keeps these, whatever a second factor or a token hook leaves out
    assert_eq!((stored.amr, stored.ip, stored.user_agent), (first.amr, first.ip, first.user_agent));
}

pub(super) async fn refreshes_in_any_order_leave_the_last(store: &Store) {
    let template = signed_in(somebody(), some_session());
    let mut states = Vec::new();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2], [3, 0, 1, 2]] {
        let mut chain = vec![Record { user: somebody(), ..template.clone() }];
        for _ in 0..3 {
            chain.push(refreshed(&chain[chain.len() - 1], 7));
        }
        for index in order {
            let change = if index == 0 { sign_in(&chain[0]) } else { refresh(&chain[index]) };
            apply(store, &change).await;
        }
        let stored = live(store, chain[0].user, chain[0].session).await;
        assert_eq!(stored.refresh_ref, chain[3].refresh_ref);
        assert_eq!(stored.previous_ref, chain[2].refresh_ref);
        states.push(Record { user: template.user, refresh_ref: None, previous_ref: None, ..stored });
    }
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
}

/// A token that was used may be written before the sign-in that it comes from, which waits elsewhere.
pub(super) async fn a_sign_in_tells_the_token_that_a_witness_did_not(store: &Store) {
    let signed = signed_in(somebody(), some_session());
    let witnessed = Record { refresh_ref: None, began_ms: 0, ..signed.clone() };
    for order in [[refresh(&witnessed), sign_in(&signed)], [sign_in(&signed), refresh(&witnessed)]] {
        let other = some_session();
        for mut change in order {
            let Change::Record { record, .. } = &mut change else { unreachable!() };
            record.session = other;
            apply(store, &change).await;
        }
        let stored = live(store, signed.user, other).await;
        assert_eq!((stored.refresh_ref, stored.began_ms), (signed.refresh_ref.clone(), signed.began_ms));
    }
}

pub(super) async fn refreshes_of_one_second_follow_their_tokens(store: &Store) {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let first = signed_in(somebody(), some_session());
        let second = refreshed(&first, 0);
        let third = refreshed(&second, 0);
        let changes = [sign_in(&first), refresh(&second), refresh(&third)];
        for index in order {
            apply(store, &changes[index]).await;
        }
        let stored = live(store, first.user, first.session).await;
        assert_eq!(stored.refresh_ref, third.refresh_ref, "{order:?}");
        assert_eq!(stored.previous_ref, second.refresh_ref, "{order:?}");
    }
}

pub(super) async fn counters_order_better_than_seconds(store: &Store) {
    let mut first = signed_in(somebody(), some_session());
    first.counter = Some(9);
    let mut second = refreshed(&first, 0);
    second.counter = Some(10);
    let mut third = refreshed(&second, 0);
    third.counter = Some(11);
    for change in [refresh(&third), sign_in(&first), refresh(&second)] {
        apply(store, &change).await;
    }
    assert_eq!(live(store, first.user, first.session).await.refresh_ref, third.refresh_ref);
}

pub(super) async fn an_unchanged_token_renews_the_access_token(store: &Store) {
    let first = signed_in(somebody(), some_session());
    let second = refreshed(&first, 10);
    let reused = Record { refreshed_at: NOW + 15, expires_at: NOW + 3615, ..second.clone() };
    let longer = Record { expires_at: NOW + 9999, previous_ref: None, ..reused.clone() };
    apply(store, &sign_in(&first)).await;
    apply(store, &refresh(&second)).await;
    assert_eq!(apply(store, &refresh(&reused)).await, Outcome::Refreshed);
    assert_eq!(apply(store, &refresh(&longer)).await, Outcome::Refreshed);
    assert_eq!(apply(store, &refresh(&reused)).await, Outcome::Unchanged);
    let stored = live(store, first.user, first.session).await;
    assert_eq!((stored.refreshed_at, stored.expires_at), (NOW + 15, NOW + 9999));
    assert_eq!((stored.refresh_ref, stored.previous_ref), (second.refresh_ref, first.refresh_ref));
}

pub(super) async fn a_late_sign_in_says_when_the_session_began(store: &Store) {
    let mut first = signed_in(somebody(), some_session());
    first.client_id = Some("client".to_owned());
    let mut second = refreshed(&first, 5);
    second.created_at = NOW - 1;
    second.client_id = None;
    assert_eq!(apply(store, &refresh(&second)).await, Outcome::Created);
    assert_eq!(apply(store, &sign_in(&first)).await, Outcome::Unchanged);
    let stored = live(store, first.user, first.session).await;
    assert_eq!((stored.created_at, stored.began_ms), (first.created_at, first.began_ms));
    assert_eq!((stored.refresh_ref, stored.client_id), (second.refresh_ref, first.client_id));
}

pub(super) async fn a_verified_factor_stands_within_the_second(store: &Store) {
    for reversed in [false, true] {
        let first = signed_in(somebody(), some_session());
        let plain = refreshed(&first, 0);
        let mut lifted = refreshed(&first, 0);
        lifted.previous_ref = None;
        lifted.aal = Some(Aal::Aal2);
        apply(store, &sign_in(&first)).await;
        let mut changes = [refresh(&plain), refresh(&lifted)];
        if reversed {
            changes.reverse();
        }
        for change in changes {
            apply(store, &change).await;
        }
        assert_eq!(live(store, first.user, first.session).await.refresh_ref, lifted.refresh_ref);
    }
}

pub(super) async fn extreme_times_are_taken(store: &Store) {
    let mut record = signed_in(somebody(), some_session());
    record.expires_at = u64::MAX;
    assert_eq!(apply(store, &sign_in(&record)).await, Outcome::Created);
    assert_eq!(live(store, record.user, record.session).await, record);
    let ban = suspend(record.user, Some(u64::MAX), 0);
    assert_eq!(apply(store, &ban).await, Outcome::Marked);
    assert_eq!(look(store, record.user, record.session).await, State::Suspended(u64::MAX));
    let mut all = end(record.user, Which::All);
    if let Change::End { expires_at, .. } = &mut all {
        *expires_at = Some(u64::MAX);
    }
    assert_eq!(apply(store, &all).await, Outcome::Ended(1));
    assert_eq!(look(store, record.user, record.session).await, State::Revoked);
    record.session = some_session();
    (record.expires_at, record.created_at, record.refreshed_at) = (0, NOW + 2, 0);
    record.began_ms = (NOW + 2) * 1000;
    assert_eq!(apply(store, &sign_in(&record)).await, Outcome::Created);
}
