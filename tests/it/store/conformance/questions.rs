//! Asking: what is known, and what asking leaves behind.

use super::super::*;

pub(super) async fn a_touch_is_written_once_a_minute(store: &Store) {
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

pub(super) async fn a_touch_makes_no_session(store: &Store) {
    let (user, session) = (somebody(), some_session());
    for _ in 0..2 {
        assert_eq!(store.lookup(user, session, NOW, true).await, Ok(State::Unknown));
    }
}

pub(super) async fn a_token_leads_to_its_session(store: &Store) {
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

pub(super) async fn a_token_leads_to_no_ended_session(store: &Store) {
    let first = signed_in(somebody(), some_session());
    let token = first.refresh_ref.clone().unwrap();
    apply(store, &sign_in(&first)).await;
    apply(store, &end(first.user, Which::One(first.session))).await;
    assert_eq!(store.session_of(&token, NOW).await, Ok(None));
    apply(store, &refresh(&refreshed(&first, 10))).await;
    assert_eq!(store.session_of(&token, NOW).await, Ok(None));
}

pub(super) async fn it_answers_a_ping(store: &Store) {
    assert_eq!(store.ping().await, Ok(()));
}
