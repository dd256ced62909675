//! Asking: what is known, and what asking leaves behind.

use std::collections::HashSet;

use gotrue_sidecar::store::redis::{Held, LastAudit, Scan};

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
        match store.lookup(&Sought { touch, ..Sought::of(user, session) }, NOW + later).await.unwrap() {
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
        assert_eq!(
            store.lookup(&Sought { touch: true, ..Sought::of(user, session) }, NOW).await,
            Ok(State::Unknown)
        );
    }
}

/// Of those that the mirror never saw a token tells when they began (contract §5, §7).
pub(super) async fn a_mark_revokes_for_whoever_asks_what_began_before_it(store: &Store) {
    let record = signed_in(somebody(), some_session());
    let (user, unknown) = (record.user, some_session());
    let asked = async |user, session, began| {
        let sought = Sought { began, touch: true, ..Sought::of(user, session) };
        store.lookup(&sought, NOW + 5).await.unwrap()
    };
    assert_eq!(asked(user, unknown, Some(1)).await, State::Unknown);
    apply(store, &end(user, Which::All)).await; // of the second after `NOW`
    let late = Record { created_at: NOW + 1, began_ms: NOW * 1000 + 1001, ..record };
    apply(store, &sign_in(&late)).await;
    for (began, expected) in [
        (Some(0), State::Revoked),
        (Some(NOW), State::Revoked),
        (Some(NOW + 1), State::Unknown),
        (Some(NOW + 2), State::Unknown),
        (Some(Seconds::MAX), State::Unknown),
        (None, State::Unknown),
    ] {
        assert_eq!(asked(user, unknown, began).await, expected, "{began:?}");
    }
    // where there is a record it says when the session began, and another user has no mark
    for began in [Some(0), None] {
        assert!(matches!(asked(user, late.session, began).await, State::Live(_)), "{began:?}");
        assert_eq!(asked(somebody(), unknown, began).await, State::Unknown, "{began:?}");
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
        session_of(store, token, NOW).await.unwrap()
    };
    assert_eq!((of(&first).await, of(&second).await), (owner, owner));
    apply(store, &refresh(&third)).await;
    assert_eq!((of(&first).await, of(&second).await, of(&third).await), (None, owner, owner));
    assert_eq!(session_of(store, &some_token(), NOW).await, Ok(None));
    for (record, which) in
        [(&first, None), (&second, Some(TokenOf::Previous)), (&third, Some(TokenOf::Current))]
    {
        let token = record.refresh_ref.as_ref().unwrap();
        assert_eq!(store.names((first.user, first.session), token, NOW).await, Ok(which));
    }
}

pub(super) async fn a_token_leads_to_no_ended_session(store: &Store) {
    let first = signed_in(somebody(), some_session());
    let token = first.refresh_ref.clone().unwrap();
    apply(store, &sign_in(&first)).await;
    apply(store, &end(first.user, Which::One(first.session))).await;
    assert_eq!(session_of(store, &token, NOW).await, Ok(None));
    apply(store, &refresh(&refreshed(&first, 10))).await;
    assert_eq!(session_of(store, &token, NOW).await, Ok(None));
}

/// An audit is of a Redis: the memory of another process cannot be read.
pub(super) async fn an_audit_sees_all_of_it(store: &Store) {
    let Store::Redis(redis) = store else { return };
    let records: Vec<_> = (0..12).map(|_| signed_in(somebody(), some_session())).collect();
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    let ids: Vec<_> = records.iter().map(|record| (record.user, record.session)).collect();
    let (mut scan, mut found) = (Scan::default(), HashSet::new());
    while let Some(some) = redis.scan(&mut scan).await.unwrap() {
        found.extend(some);
    }
    assert!(ids.iter().all(|id| found.contains(id)), "{} of them and others", found.len());
    let held = redis.survey(&ids).await.unwrap();
    assert!(held.iter().all(|held| matches!(held, Held::Live(known) if known.indexed)), "{held:?}");
    let left = LastAudit { at: NOW, missing: 1, surplus: 2, differing: 3, repaired: 4 };
    redis.leave_audit(&left).await.unwrap();
    assert_eq!(redis.last_audit().await, Ok(Some(left)));
}

pub(super) async fn it_answers_a_ping(store: &Store) {
    assert_eq!(store.ping().await, Ok(()));
}

/// Also one that is neither the current nor the previous one any more, and whatever became of the session.
pub(super) async fn a_token_tells_what_became_of_its_session(store: &Store) {
    let first = signed_in(somebody(), some_session());
    let (second, third) = (refreshed(&first, 10), refreshed(&refreshed(&first, 10), 20));
    let token = |record: &Record| record.refresh_ref.clone().unwrap();
    let told = async |record: &Record| {
        let holder = holder(store, &token(record), NOW).await.unwrap();
        holder.map(|holder| ((holder.user, holder.session), holder.state))
    };
    let ids = (first.user, first.session);
    assert_eq!(told(&first).await, None);
    apply(store, &sign_in(&first)).await;
    assert_eq!(told(&first).await, Some((ids, State::Live(Box::new(first.clone())))));
    apply(store, &refresh(&second)).await;
    let third = Record { previous_ref: second.refresh_ref.clone(), began_ms: first.began_ms, ..third };
    apply(store, &refresh(&third)).await;
    for record in [&first, &second, &third] {
        assert_eq!(told(record).await, Some((ids, State::Live(Box::new(third.clone())))));
    }
    apply(store, &suspend(first.user, Some(NOW + 9), 1)).await;
    assert_eq!(told(&third).await, Some((ids, State::Suspended(NOW + 9))));
    apply(store, &end(first.user, Which::One(first.session))).await;
    for record in [&first, &second, &third] {
        assert_eq!(told(record).await, Some((ids, State::Revoked)));
    }
    let holder = holder(store, &token(&third), NOW).await.unwrap();
    assert!(holder.is_some_and(|holder| holder.ended_in_gotrue));
}
