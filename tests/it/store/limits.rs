//! Limits of sessions (contract §6.5): the same cases for both stores.

use super::*;

const IDLE: Seconds = 600;
const ABSOLUTE: Seconds = 3600;

macro_rules! cases {
    ($($case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            println!("embedded");
            cases::$case(&embedded_with).await;
            let server = RedisServer::start();
            println!("redis");
            cases::$case(&|limits| redis_with(&server, limits)).await;
        }
    )*};
}

cases! {
    a_session_that_is_not_used_expires
    a_session_that_is_used_expires_all_the_same_in_the_end
    what_is_over_is_not_listed
    what_is_over_is_touched_by_nobody
    what_is_over_cannot_be_refreshed
    a_session_that_only_its_token_tells_of_is_too_old
    a_refresh_that_is_recorded_late_counts_from_when_it_was
    what_was_revoked_is_not_said_to_have_expired
    what_ended_by_time_can_be_ended_once
    a_sign_in_is_never_too_late
}

fn embedded_with(limits: Limits) -> Store {
    open_with_limits(&config(StoreTarget::Memory), 256, limits)
}

fn redis_with(server: &RedisServer, limits: Limits) -> Store {
    open_with_limits(&config(redis_target(server.url())), 256, limits)
}

const fn idle() -> Limits {
    Limits { idle: Some(IDLE), absolute: None, cap: None }
}

const fn absolute() -> Limits {
    Limits { idle: None, absolute: Some(ABSOLUTE), cap: None }
}

fn both() -> Limits {
    Limits { idle: Some(IDLE), absolute: Some(ABSOLUTE), cap: None }
}

async fn look_at(store: &Store, record: &Record, later: Seconds) -> State {
    store.lookup(&Sought::of(record.user, record.session), NOW + later).await.unwrap()
}

async fn touch_at(store: &Store, record: &Record, later: Seconds) -> State {
    let sought = Sought { touch: true, ..Sought::of(record.user, record.session) };
    store.lookup(&sought, NOW + later).await.unwrap()
}

async fn apply_at(store: &Store, change: &Change, later: Seconds) -> Outcome {
    store.apply_one(change, NOW + later).await.unwrap()
}

/// A session that a sign-in at `NOW` began.
async fn begun(store: &Store) -> Record {
    let record = signed_in(somebody(), some_session());
    assert_eq!(apply(store, &sign_in(&record)).await, Outcome::Created);
    record
}

/// An ending of a session that is found to be over.
fn expire(record: &Record) -> Change {
    Change::End {
        user: record.user,
        which: Which::Live(record.session),
        reason: Reason::Expired,
        sent_ms: u64::MAX,
        expires_at: None,
        ended_in_gotrue: false,
    }
}

mod cases {
    use super::*;

    pub(super) async fn a_session_that_is_not_used_expires(with: &impl Fn(Limits) -> Store) {
        let store = with(idle());
        let record = begun(&store).await;
        for (later, over) in [(1, false), (IDLE - 1, false), (IDLE, true), (IDLE + 1, true)] {
            assert_eq!(look_at(&store, &record, later).await == State::Expired, over, "after {later} s");
        }
        // seen, then refreshed: it counts from there
        assert!(matches!(touch_at(&store, &record, 500).await, State::Live(_)));
        assert!(matches!(look_at(&store, &record, 500 + IDLE - 1).await, State::Live(_)));
        assert_eq!(look_at(&store, &record, 500 + IDLE).await, State::Expired);
        assert_eq!(apply_at(&store, &refresh(&refreshed(&record, 1000)), 1000).await, Outcome::Refreshed);
        assert!(matches!(look_at(&store, &record, 1000 + IDLE - 1).await, State::Live(_)));
        assert_eq!(look_at(&store, &record, 1000 + IDLE).await, State::Expired);
    }

    pub(super) async fn a_session_that_is_used_expires_all_the_same_in_the_end(
        with: &impl Fn(Limits) -> Store,
    ) {
        let store = with(both());
        let record = begun(&store).await;
        for later in (0..ABSOLUTE).step_by(300) {
            assert!(matches!(touch_at(&store, &record, later).await, State::Live(_)), "after {later} s");
        }
        assert_eq!(touch_at(&store, &record, ABSOLUTE).await, State::Expired);
    }

    pub(super) async fn what_is_over_is_not_listed(with: &impl Fn(Limits) -> Store) {
        let store = with(idle());
        let (record, other) = (begun(&store).await, signed_in(somebody(), some_session()));
        let other = Record { user: record.user, ..other };
        apply(&store, &sign_in(&other)).await;
        touch_at(&store, &other, 500).await;
        let page = Wanted::Page { skip: 0, take: 9 };
        for (later, expected) in [(IDLE - 1, 2), (IDLE, 1), (500 + IDLE, 0)] {
            let listed = store.list(record.user, page, NOW + later).await.unwrap();
            assert_eq!((listed.records.len(), listed.total), (expected, expected as u64), "after {later} s");
        }
        let one = store.list(record.user, Wanted::One(record.session), NOW + IDLE).await.unwrap();
        assert_eq!((one.records.len(), one.total), (0, 0));
    }

    pub(super) async fn what_is_over_is_touched_by_nobody(with: &impl Fn(Limits) -> Store) {
        let store = with(idle());
        let record = begun(&store).await;
        for later in [IDLE, IDLE + 1, 2 * IDLE] {
            assert_eq!(touch_at(&store, &record, later).await, State::Expired);
        }
        match look_at(&store, &record, IDLE - 1).await {
            State::Live(record) => assert_eq!(record.seen_at, None),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn what_is_over_cannot_be_refreshed(with: &impl Fn(Limits) -> Store) {
        for (limits, later) in [(idle(), IDLE), (absolute(), ABSOLUTE)] {
            let store = with(limits);
            let record = begun(&store).await;
            let next = refreshed(&record, later);
            assert_eq!(apply_at(&store, &refresh(&next), later).await, Outcome::Expired(1));
            assert_eq!(apply_at(&store, &refresh(&next), later).await, Outcome::Expired(0));
            // for good, and whoever asks is told why
            for at in [1, later] {
                assert_eq!(look_at(&store, &record, at).await, State::Expired);
            }
            let listed = store.list(record.user, Wanted::One(record.session), NOW).await.unwrap();
            assert_eq!(listed.total, 0);
        }
    }

    pub(super) async fn a_session_that_only_its_token_tells_of_is_too_old(with: &impl Fn(Limits) -> Store) {
        let store = with(absolute());
        let record = signed_in(somebody(), some_session());
        for (began, later, expected) in [
            (Some(NOW), ABSOLUTE - 1, State::Unknown),
            (Some(NOW), ABSOLUTE, State::Expired),
            (None, ABSOLUTE, State::Unknown),
        ] {
            let sought = Sought { began, touch: true, ..Sought::of(record.user, record.session) };
            assert_eq!(store.lookup(&sought, NOW + later).await.unwrap(), expected);
        }
        let idle = with(idle());
        let sought = Sought { began: Some(NOW), ..Sought::of(record.user, record.session) };
        assert_eq!(idle.lookup(&sought, NOW + 9 * IDLE).await.unwrap(), State::Unknown);
        // its refresh shows when it began
        let late = refreshed(&record, ABSOLUTE);
        assert_eq!(apply_at(&store, &refresh(&late), ABSOLUTE).await, Outcome::Expired(0));
        assert_eq!(look_at(&store, &record, ABSOLUTE).await, State::Expired);
    }

    pub(super) async fn a_refresh_that_is_recorded_late_counts_from_when_it_was(
        with: &impl Fn(Limits) -> Store,
    ) {
        let store = with(both());
        let record = begun(&store).await;
        let next = refreshed(&record, IDLE - 1);
        assert_eq!(apply_at(&store, &refresh(&next), 5 * IDLE).await, Outcome::Refreshed);
    }

    pub(super) async fn what_was_revoked_is_not_said_to_have_expired(with: &impl Fn(Limits) -> Store) {
        let store = with(both());
        let record = begun(&store).await;
        apply(&store, &end(record.user, Which::One(record.session))).await;
        assert_eq!(look_at(&store, &record, ABSOLUTE).await, State::Revoked);
        let late = refreshed(&record, ABSOLUTE);
        assert_eq!(apply_at(&store, &refresh(&late), ABSOLUTE).await, Outcome::Revoked);
        // nor is whoever is banned, whose session is over
        let other = begun(&store).await;
        apply(&store, &suspend(other.user, Some(NOW + 9 * ABSOLUTE), 5)).await;
        assert_eq!(look_at(&store, &other, 1).await, State::Suspended(NOW + 9 * ABSOLUTE));
        assert_eq!(look_at(&store, &other, ABSOLUTE).await, State::Expired);
    }

    pub(super) async fn what_ended_by_time_can_be_ended_once(with: &impl Fn(Limits) -> Store) {
        let store = with(idle());
        let record = begun(&store).await;
        assert_eq!(apply_at(&store, &expire(&record), IDLE).await, Outcome::Ended(1));
        assert_eq!(apply_at(&store, &expire(&record), IDLE).await, Outcome::Ended(0));
        assert_eq!(look_at(&store, &record, IDLE).await, State::Expired);
        apply_at(&store, &end(record.user, Which::One(record.session)), IDLE).await;
        assert_eq!(look_at(&store, &record, IDLE).await, State::Expired, "it keeps its first reason");
    }

    pub(super) async fn a_sign_in_is_never_too_late(with: &impl Fn(Limits) -> Store) {
        let store = with(both());
        let record = signed_in(somebody(), some_session());
        assert_eq!(apply_at(&store, &sign_in(&record), 9 * ABSOLUTE).await, Outcome::Created);
    }
}

/// Contract I5: while nobody could note that sessions are used, none of them becomes idle.
#[tokio::test]
async fn idle_time_does_not_count_while_the_store_was_away() {
    let server = RedisServer::start();
    let config = config(redis_target(server.url()));
    let source = Source::new(&config, Duration::from_secs(SESSION_TTL)).unwrap().with_limits(both());
    let (store, another) = (source.connect(), source.connect());
    let record = begun(&store).await;
    let next = refreshed(&record, 2 * IDLE);
    assert_eq!(look_at(&store, &record, 2 * IDLE).await, State::Expired);
    another.was_away(NOW + 2 * IDLE - 1);
    another.was_away(NOW); // an older word changes nothing
    assert!(matches!(look_at(&store, &record, 2 * IDLE).await, State::Live(_)));
    assert_eq!(store.list(record.user, Wanted::One(record.session), NOW + 2 * IDLE).await.unwrap().total, 1);
    assert_eq!(look_at(&store, &record, 3 * IDLE).await, State::Expired);
    assert_eq!(apply_at(&store, &refresh(&next), 2 * IDLE).await, Outcome::Refreshed);
    // the other limit goes by the clock alone
    assert_eq!(look_at(&store, &record, ABSOLUTE).await, State::Expired);
}
