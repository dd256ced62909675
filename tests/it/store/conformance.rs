//! What every store must do; the same cases for all of them.

use super::*;

macro_rules! conformance {
    ($($case:ident)*) => {
        async fn conform(store: &Store) {
            $(
                println!("{}", stringify!($case));
                $case(store).await;
            )*
        }
    };
}

conformance! {
    a_sign_in_is_found_as_it_was_recorded
    a_session_nobody_saw_is_unknown
    the_same_answer_twice_changes_nothing
    a_refresh_renews_and_keeps_the_beginning
    what_a_refresh_no_longer_says_is_gone
    refreshes_in_any_order_leave_the_last
    refreshes_of_one_second_follow_their_tokens
    counters_order_better_than_seconds
    an_unchanged_token_renews_the_access_token
    a_late_sign_in_says_when_the_session_began
    a_verified_factor_stands_within_the_second
    a_session_that_ended_stays_ended
    ending_twice_ends_once
    an_unknown_session_can_end
    a_global_logout_ends_all_and_the_unknown_too
    a_sign_in_after_a_global_logout_was_sent_lives
    others_spares_the_one
    a_second_factor_ends_those_without
    a_client_loses_its_sessions_only
    a_ban_suspends_and_passes
    a_lifted_ban_shows_the_session_again
    an_end_comes_before_a_ban
    a_removed_factor_lowers_the_level
    a_touch_is_written_once_a_minute
    a_touch_makes_no_session
    a_token_leads_to_its_session
    a_token_leads_to_no_ended_session
    changes_of_one_answer_are_made_in_order
    extreme_times_are_taken
    users_do_not_meet
    it_answers_a_ping
}

#[tokio::test]
async fn the_embedded_store_conforms() {
    conform(&embedded()).await;
}

#[tokio::test]
async fn redis_by_tcp_conforms() {
    conform(&on(&RedisServer::start())).await;
}

#[tokio::test]
async fn redis_by_tcp_in_resp3_conforms() {
    let server = RedisServer::start();
    conform(&open(&config(redis_target(format!("{}?protocol=resp3", server.url()))))).await;
}

#[tokio::test]
async fn redis_by_unix_socket_conforms() {
    let server = RedisServer::start();
    conform(&open(&config(redis_target(server.unix_url())))).await;
}

#[tokio::test]
async fn redis_by_tls_with_an_own_ca_conforms() {
    let server = RedisServer::with_tls();
    let target = StoreTarget::Redis {
        url: SecretSource::Value(Secret::new(server.url())),
        password: None,
        ca_file: Some(server.ca_file()),
    };
    conform(&open(&config(target))).await;
}

#[tokio::test]
async fn redis_with_user_password_file_database_and_prefix_conforms() {
    let user = ["--user", "sidecar", "on", ">p@ss:word/#?", "~other:*", "+@all"];
    let server = RedisServer::with_options(&user);
    let (_folder, path) = password_file("p@ss:word/#?");
    let mut config = config(StoreTarget::Redis {
        url: SecretSource::Value(Secret::new(format!("redis://sidecar@127.0.0.1:{}/7", server.port()))),
        password: Some(SecretSource::File(path)),
        ca_file: None,
    });
    config.key_prefix = "other".to_owned();
    conform(&open(&config)).await;
}

async fn a_sign_in_is_found_as_it_was_recorded(store: &Store) {
    let mut record = signed_in(somebody(), some_session());
    record.client_id = Some("0191d1a0-0000-4000-8000-00000000c11e".to_owned());
    record.counter = Some(3);
    record.anonymous = true;
    record.seen_at = Some(NOW);
    record.previous_ref = Some(some_token());
    assert_eq!(apply(store, &sign_in(&record)).await, Outcome::Created);
    assert_eq!(live(store, record.user, record.session).await, record);
}

async fn a_session_nobody_saw_is_unknown(store: &Store) {
    assert_eq!(look(store, somebody(), some_session()).await, State::Unknown);
}

async fn the_same_answer_twice_changes_nothing(store: &Store) {
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

async fn a_refresh_renews_and_keeps_the_beginning(store: &Store) {
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

async fn what_a_refresh_no_longer_says_is_gone(store: &Store) {
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
    assert_eq!(
        (stored.aal, stored.amr, stored.role, stored.ip, stored.user_agent),
        (None, None, None, None, None)
    );
    assert_eq!((stored.counter, stored.anonymous), (None, false));
}

async fn refreshes_in_any_order_leave_the_last(store: &Store) {
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

async fn refreshes_of_one_second_follow_their_tokens(store: &Store) {
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

async fn counters_order_better_than_seconds(store: &Store) {
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

async fn an_unchanged_token_renews_the_access_token(store: &Store) {
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

async fn a_late_sign_in_says_when_the_session_began(store: &Store) {
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

async fn a_verified_factor_stands_within_the_second(store: &Store) {
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

async fn a_session_that_ended_stays_ended(store: &Store) {
    let first = signed_in(somebody(), some_session());
    apply(store, &sign_in(&first)).await;
    assert_eq!(apply(store, &end(first.user, Which::One(first.session))).await, Outcome::Ended(1));
    for change in [sign_in(&first), refresh(&refreshed(&first, 50)), refresh(&refreshed(&first, 5000))] {
        assert_eq!(apply(store, &change).await, Outcome::Revoked);
        assert_eq!(look(store, first.user, first.session).await, State::Revoked);
    }
}

async fn ending_twice_ends_once(store: &Store) {
    let first = signed_in(somebody(), some_session());
    apply(store, &sign_in(&first)).await;
    for (which, ended) in
        [(Which::All, 1), (Which::All, 0), (Which::One(first.session), 0), (Which::Others(some_session()), 0)]
    {
        assert_eq!(apply(store, &end(first.user, which)).await, Outcome::Ended(ended));
    }
}

async fn an_unknown_session_can_end(store: &Store) {
    let first = signed_in(somebody(), some_session());
    assert_eq!(apply(store, &end(first.user, Which::One(first.session))).await, Outcome::Ended(0));
    assert_eq!(look(store, first.user, first.session).await, State::Revoked);
    assert_eq!(apply(store, &sign_in(&first)).await, Outcome::Revoked);
}

async fn a_global_logout_ends_all_and_the_unknown_too(store: &Store) {
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

async fn a_sign_in_after_a_global_logout_was_sent_lives(store: &Store) {
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

async fn others_spares_the_one(store: &Store) {
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

async fn a_second_factor_ends_those_without(store: &Store) {
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

async fn a_client_loses_its_sessions_only(store: &Store) {
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

async fn a_ban_suspends_and_passes(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    let ban = Change::Suspend { user: record.user, until: Some(NOW + 50) };
    assert_eq!(apply(store, &ban).await, Outcome::Marked);
    assert_eq!(look(store, record.user, record.session).await, State::Suspended(NOW + 50));
    assert_eq!(look(store, record.user, some_session()).await, State::Suspended(NOW + 50));
    let later = store.lookup(record.user, record.session, NOW + 50, false).await.unwrap();
    assert_eq!(later, State::Live(Box::new(record)));
}

async fn a_lifted_ban_shows_the_session_again(store: &Store) {
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

async fn an_end_comes_before_a_ban(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    apply(store, &Change::Suspend { user: record.user, until: Some(NOW + 50) }).await;
    apply(store, &end(record.user, Which::All)).await;
    assert_eq!(look(store, record.user, record.session).await, State::Revoked);
    assert_eq!(look(store, record.user, some_session()).await, State::Suspended(NOW + 50));
}

async fn a_removed_factor_lowers_the_level(store: &Store) {
    let user = somebody();
    let mut records: Vec<_> = (0..4).map(|_| signed_in(user, some_session())).collect();
    for (record, aal) in records.iter_mut().zip([Some(Aal::Aal1), Some(Aal::Aal2), Some(Aal::Aal3), None]) {
        record.aal = aal;
        apply(store, &sign_in(record)).await;
    }
    assert_eq!(apply(store, &Change::LowerAal { user }).await, Outcome::Marked);
    for (record, aal) in records.iter().zip([Some(Aal::Aal1), Some(Aal::Aal1), Some(Aal::Aal1), None]) {
        assert_eq!(live(store, user, record.session).await, Record { aal, ..record.clone() });
    }
}

async fn a_touch_is_written_once_a_minute(store: &Store) {
    let record = signed_in(somebody(), some_session());
    apply(store, &sign_in(&record)).await;
    let (user, session) = (record.user, record.session);
    for (later, touch, seen_before) in [
        (1, false, None),
        (2, true, None),
        (3, true, Some(NOW + 2)),
        (61, true, Some(NOW + 2)),
        (62, true, Some(NOW + 2)),
        (63, true, Some(NOW + 62)),
    ] {
        match store.lookup(user, session, NOW + later, touch).await.unwrap() {
            State::Live(found) => assert_eq!(found.seen_at, seen_before, "after {later} s"),
            other => panic!("expected a live session, found {other:?}"),
        }
    }
    apply(store, &refresh(&refreshed(&record, 90))).await;
    assert_eq!(live(store, user, session).await.seen_at, Some(NOW + 62));
}

async fn a_touch_makes_no_session(store: &Store) {
    let (user, session) = (somebody(), some_session());
    for _ in 0..2 {
        assert_eq!(store.lookup(user, session, NOW, true).await, Ok(State::Unknown));
    }
}

async fn a_token_leads_to_its_session(store: &Store) {
    let first = signed_in(somebody(), some_session());
    let second = refreshed(&first, 10);
    let third = refreshed(&second, 10);
    apply(store, &sign_in(&first)).await;
    apply(store, &refresh(&second)).await;
    let owner = Some((first.user, first.session));
    let of = async |record: &Record| {
        let token = record.refresh_ref.as_ref().unwrap();
        store.session_of(token, NOW).await.unwrap()
    };
    assert_eq!((of(&first).await, of(&second).await), (owner, owner));
    apply(store, &refresh(&third)).await;
    assert_eq!((of(&first).await, of(&second).await, of(&third).await), (None, owner, owner));
    assert_eq!(store.session_of(&some_token(), NOW).await, Ok(None));
}

async fn a_token_leads_to_no_ended_session(store: &Store) {
    let first = signed_in(somebody(), some_session());
    let token = first.refresh_ref.clone().unwrap();
    apply(store, &sign_in(&first)).await;
    apply(store, &end(first.user, Which::One(first.session))).await;
    assert_eq!(store.session_of(&token, NOW).await, Ok(None));
    apply(store, &refresh(&refreshed(&first, 10))).await;
    assert_eq!(store.session_of(&token, NOW).await, Ok(None));
}

async fn changes_of_one_answer_are_made_in_order(store: &Store) {
    let user = somebody();
    let (old, new) = (signed_in(user, some_session()), signed_in(user, some_session()));
    let changes =
        [sign_in(&old), sign_in(&new), end(user, Which::Others(new.session)), Change::LowerAal { user }];
    let outcomes = store.apply(&changes, NOW).await.unwrap();
    assert_eq!(outcomes, [Outcome::Created, Outcome::Created, Outcome::Ended(1), Outcome::Marked]);
    assert_eq!(look(store, user, old.session).await, State::Revoked);
    assert_eq!(live(store, user, new.session).await, new);
    assert_eq!(store.apply(&[], NOW).await, Ok(Vec::new()));
}

async fn extreme_times_are_taken(store: &Store) {
    let mut record = signed_in(somebody(), some_session());
    record.expires_at = u64::MAX;
    assert_eq!(apply(store, &sign_in(&record)).await, Outcome::Created);
    assert_eq!(live(store, record.user, record.session).await, record);
    let ban = Change::Suspend { user: record.user, until: Some(u64::MAX) };
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
    assert_eq!(apply(store, &sign_in(&record)).await, Outcome::Created);
}

async fn users_do_not_meet(store: &Store) {
    let session = some_session();
    let (one, two) = (signed_in(somebody(), session), signed_in(somebody(), session));
    apply(store, &sign_in(&one)).await;
    apply(store, &sign_in(&two)).await;
    apply(store, &end(one.user, Which::All)).await;
    apply(store, &Change::Suspend { user: one.user, until: Some(NOW + 9) }).await;
    assert_eq!(live(store, two.user, session).await, two);
}

async fn it_answers_a_ping(store: &Store) {
    assert_eq!(store.ping().await, Ok(()));
}
