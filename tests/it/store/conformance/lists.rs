//! Lists of a user's sessions, and the end of one that must be live.

use super::super::*;

/// A session that began so many seconds after `NOW`.
fn begun(user: UserId, later: Seconds) -> Record {
    let record = signed_in(user, some_session());
    Record { created_at: NOW + later, began_ms: (NOW + later) * 1000, refreshed_at: NOW + later, ..record }
}

fn page(skip: u64, take: u32) -> Wanted {
    Wanted::Page { skip, take }
}

async fn listed(store: &Store, user: UserId, wanted: Wanted) -> (Vec<SessionId>, u64) {
    let listed = store.list(user, wanted, NOW).await.unwrap();
    (listed.records.iter().map(|record| record.session).collect(), listed.total)
}

/// A revocation by its id, whenever the session began.
fn revoke(user: UserId, session: SessionId) -> Change {
    Change::End {
        user,
        which: Which::Live(session),
        reason: Reason::Revoked,
        sent_ms: u64::MAX,
        expires_at: None,
        ended_in_gotrue: false,
    }
}

pub(super) async fn a_list_is_newest_first_and_whole(store: &Store) {
    let user = somebody();
    let records = [begun(user, 5), begun(user, 1), begun(user, 9), begun(user, 3)];
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    apply(store, &sign_in(&begun(somebody(), 4))).await;
    // a refresh makes no session newer
    apply(store, &refresh(&refreshed(&records[1], 60))).await;
    let found = store.list(user, page(0, 50), NOW).await.unwrap();
    let times: Vec<_> = found.records.iter().map(|record| record.created_at - NOW).collect();
    assert_eq!((times, found.total), (vec![9, 5, 3, 1], 4));
    assert_eq!(found.records[0], records[2]);
    assert_eq!(listed(store, somebody(), page(0, 50)).await, (vec![], 0));
}

pub(super) async fn a_list_comes_in_pages(store: &Store) {
    let user = somebody();
    let mut records: Vec<_> = (0..7).map(|later| begun(user, later)).collect();
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    records.reverse();
    let ids: Vec<_> = records.iter().map(|record| record.session).collect();
    for (skip, take) in [(0, 3), (3, 3), (6, 3), (7, 3), (0, 1000), (u64::MAX, 50)] {
        let from = usize::try_from(skip).unwrap().min(7);
        let expected = ids[from..].iter().take(take as usize).copied().collect();
        assert_eq!(listed(store, user, page(skip, take)).await, (expected, 7), "{skip} {take}");
    }
}

pub(super) async fn a_list_has_live_sessions_only(store: &Store) {
    let user = somebody();
    let records: Vec<_> = (0..4).map(|later| begun(user, later)).collect();
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    apply(store, &end(user, Which::One(records[1].session))).await;
    let ids = |numbers: &[usize]| numbers.iter().map(|&n| records[n].session).collect::<Vec<_>>();
    assert_eq!(listed(store, user, page(0, 50)).await, (ids(&[3, 2, 0]), 3));
    // a ban takes nothing off it: the sessions are there again after it
    apply(store, &Change::Suspend { user, until: Some(NOW + 100), decided_ms: NOW * 1000 }).await;
    assert_eq!(listed(store, user, page(0, 50)).await, (ids(&[3, 2, 0]), 3));
    apply(store, &end(user, Which::Others(records[2].session))).await;
    assert_eq!(
        listed(store, user, page(0, 50)).await.0,
        ids(&[3, 2]),
        "the fourth began after the end was sent"
    );
}

pub(super) async fn one_is_found_by_its_id_among_its_users(store: &Store) {
    let (mine, theirs) = (begun(somebody(), 1), begun(somebody(), 2));
    for record in [&mine, &theirs] {
        apply(store, &sign_in(record)).await;
    }
    let found = store.list(mine.user, Wanted::One(mine.session), NOW).await.unwrap();
    assert_eq!((found.records, found.total), (vec![mine.clone()], 1));
    for session in [theirs.session, some_session()] {
        assert_eq!(listed(store, mine.user, Wanted::One(session)).await, (vec![], 0));
    }
    apply(store, &end(mine.user, Which::One(mine.session))).await;
    assert_eq!(listed(store, mine.user, Wanted::One(mine.session)).await, (vec![], 0));
}

pub(super) async fn a_live_session_is_revoked_once(store: &Store) {
    let record = begun(somebody(), 500);
    apply(store, &sign_in(&record)).await;
    let (user, session) = (record.user, record.session);
    assert_eq!(apply(store, &revoke(user, session)).await, Outcome::Ended(1));
    assert_eq!(look(store, user, session).await, State::Revoked);
    assert_eq!(apply(store, &revoke(user, session)).await, Outcome::Ended(0));
    assert_eq!(apply(store, &refresh(&refreshed(&record, 60))).await, Outcome::Revoked);
}

pub(super) async fn an_id_that_is_not_live_leaves_nothing_behind(store: &Store) {
    let theirs = begun(somebody(), 1);
    apply(store, &sign_in(&theirs)).await;
    let (user, unknown) = (somebody(), some_session());
    for session in [theirs.session, unknown] {
        assert_eq!(apply(store, &revoke(user, session)).await, Outcome::Ended(0));
        assert_eq!(look(store, user, session).await, State::Unknown);
    }
    assert_eq!(live(store, theirs.user, theirs.session).await, theirs);
    // whoever signs in later is not held up by it
    let late = Record { session: unknown, ..begun(user, 3) };
    assert_eq!(apply(store, &sign_in(&late)).await, Outcome::Created);
}
