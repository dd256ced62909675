//! How many sessions a user may have (contract §6.5): the same cases for both stores, and what only Redis has to mind.

use std::collections::BTreeSet;

use redis::AsyncCommands;

use super::{differential::assert_nothing_pends, keys::assert_every_key_expires, pending::swept, *};

macro_rules! cases {
    ($($case:ident)*) => {$(
        #[tokio::test]
        async fn $case() {
            println!("embedded");
            cases::$case(&Opener::of(StoreTarget::Memory)).await;
            let server = RedisServer::start();
            println!("redis");
            cases::$case(&Opener::of(redis_target(server.url()))).await;
            assert_every_key_expires(&mut server.client().await).await;
        }
    )*};
}

cases! {
    the_oldest_makes_room_for_a_new_one
    the_one_that_is_recorded_stays_however_old_it_is
    who_was_evicted_is_revoked_for_good
    of_one_second_the_first_is_the_oldest
    a_sign_in_that_is_held_is_denied_and_leaves_nothing
    what_cannot_be_denied_is_one_more
    a_session_that_is_there_is_no_new_one
    only_the_living_count
    a_change_made_twice_evicts_once
    a_lower_cap_holds_from_the_next_sign_in_on
}

/// Opens stores with limits on the same data.
struct Opener(Source);

impl Opener {
    fn of(target: StoreTarget) -> Self {
        Self(Source::new(&config(target), Duration::from_secs(SESSION_TTL)).unwrap())
    }

    fn with(&self, limits: Limits) -> Store {
        self.0.clone().with_limits(limits).connect()
    }

    fn evicting(&self, most: u32) -> Store {
        self.with(cap(most, AboveCap::EvictOldest))
    }

    fn denying(&self, most: u32) -> Store {
        self.with(cap(most, AboveCap::Deny))
    }
}

fn cap(most: u32, above: AboveCap) -> Limits {
    Limits { cap: Some(Cap { most, above }), ..Limits::default() }
}

/// A session of this user that began so many seconds after `NOW`.
fn begun(user: UserId, later: Seconds) -> Record {
    let began = NOW + later;
    Record {
        created_at: began,
        began_ms: began * 1000,
        refreshed_at: began,
        expires_at: began + 3600,
        ..signed_in(user, some_session())
    }
}

/// Sessions of one user that began a second after each other, and are there.
async fn several(store: &Store, user: UserId, many: u64) -> Vec<Record> {
    let records: Vec<_> = (0..many).map(|later| begun(user, later)).collect();
    for record in &records {
        assert_eq!(apply(store, &sign_in(record)).await, Outcome::Created);
    }
    records
}

fn created_for(gone: &[&Record]) -> Outcome {
    evicted(Outcome::Created, gone)
}

fn evicted(recorded: Outcome, gone: &[&Record]) -> Outcome {
    let sessions = gone.iter().map(|record| record.session).collect();
    Outcome::Evicted(Evicted { recorded: Box::new(recorded), sessions, more: false })
}

async fn listed(store: &Store, user: UserId) -> BTreeSet<SessionId> {
    let page = Wanted::Page { skip: 0, take: 1000 };
    let listed = store.list(user, page, NOW).await.unwrap();
    assert_eq!(listed.total, listed.records.len() as u64);
    listed.records.iter().map(|record| record.session).collect()
}

fn ids(records: &[&Record]) -> BTreeSet<SessionId> {
    records.iter().map(|record| record.session).collect()
}

mod cases {
    use super::*;

    pub(super) async fn the_oldest_makes_room_for_a_new_one(stores: &Opener) {
        for origin in [sign_in, held] {
            let (store, user) = (stores.evicting(3), somebody());
            let old = several(&store, user, 3).await;
            let stranger = begun(somebody(), 0);
            apply(&store, &sign_in(&stranger)).await;
            let new = begun(user, 9);
            assert_eq!(apply(&store, &origin(&new)).await, created_for(&[&old[0]]));
            assert_eq!(listed(&store, user).await, ids(&[&old[1], &old[2], &new]));
            let newer = begun(user, 10);
            assert_eq!(apply(&store, &origin(&newer)).await, created_for(&[&old[1]]));
            live(&store, stranger.user, stranger.session).await;
        }
    }

    /// As where a sign-in waited for the store, or where the clocks of two replicas differ.
    pub(super) async fn the_one_that_is_recorded_stays_however_old_it_is(stores: &Opener) {
        let (store, user) = (stores.evicting(2), somebody());
        let (first, second, late) = (begun(user, 5), begun(user, 6), begun(user, 0));
        for record in [&first, &second] {
            apply(&store, &sign_in(record)).await;
        }
        assert_eq!(apply(&store, &sign_in(&late)).await, created_for(&[&first]));
        // one that the store forgot, and that comes back with a refresh, likewise
        let forgotten = refreshed(&begun(user, 1), 9);
        assert_eq!(apply(&store, &refresh(&forgotten)).await, created_for(&[&late]));
        assert_eq!(listed(&store, user).await, ids(&[&second, &forgotten]));
    }

    pub(super) async fn who_was_evicted_is_revoked_for_good(stores: &Opener) {
        let (store, user) = (stores.evicting(1), somebody());
        let (old, new) = (begun(user, 0), begun(user, 1));
        for record in [&old, &new] {
            apply(&store, &sign_in(record)).await;
        }
        assert_eq!(look(&store, user, old.session).await, State::Revoked);
        let holder = holder(&store, old.refresh_ref.as_ref().unwrap(), NOW).await.unwrap().unwrap();
        assert_eq!((holder.state, holder.ended_in_gotrue), (State::Revoked, false));
        for change in [refresh(&refreshed(&old, 60)), sign_in(&old), held(&old)] {
            assert_eq!(apply(&store, &change).await, Outcome::Revoked);
        }
        // GoTrue may know it, so its tombstone lives as long as a session
        let later = store.lookup(&Sought::of(user, old.session), NOW + SESSION_TTL - 1).await;
        assert_eq!(later, Ok(State::Revoked));
    }

    pub(super) async fn of_one_second_the_first_is_the_oldest(stores: &Opener) {
        let (store, user) = (stores.evicting(3), somebody());
        let at = |ms| Record { began_ms: NOW * 1000 + ms, ..begun(user, 0) };
        let (second, first) = (at(20), at(10));
        let (lesser, greater) = (at(30), at(30)); // of one millisecond ids decide
        for record in [&second, &first, &greater] {
            apply(&store, &sign_in(record)).await;
        }
        for (record, gone) in [(&lesser, &first), (&at(40), &second), (&at(50), &lesser), (&at(60), &greater)]
        {
            assert_eq!(apply(&store, &sign_in(record)).await, created_for(&[gone]));
        }
    }

    pub(super) async fn a_sign_in_that_is_held_is_denied_and_leaves_nothing(stores: &Opener) {
        let (store, user) = (stores.denying(2), somebody());
        let old = several(&store, user, 2).await;
        let new = begun(user, 9);
        for _ in 0..2 {
            assert_eq!(apply(&store, &held(&new)).await, Outcome::Denied);
        }
        assert_eq!(look(&store, user, new.session).await, State::Unknown);
        assert_eq!(listed(&store, user).await, ids(&[&old[0], &old[1]]));
        apply(&store, &end(user, Which::One(old[0].session))).await;
        live(&store, user, old[1].session).await;
        assert_eq!(apply(&store, &held(&new)).await, Outcome::Created, "there is room now");
    }

    pub(super) async fn what_cannot_be_denied_is_one_more(stores: &Opener) {
        let (store, user) = (stores.denying(1), somebody());
        let old = several(&store, user, 1).await;
        let (late, forgotten) = (begun(user, 1), refreshed(&begun(user, 2), 9));
        assert_eq!(apply(&store, &sign_in(&late)).await, Outcome::Created);
        assert_eq!(apply(&store, &refresh(&forgotten)).await, Outcome::Created);
        assert_eq!(listed(&store, user).await, ids(&[&old[0], &late, &forgotten]));
        assert_eq!(apply(&store, &held(&begun(user, 3))).await, Outcome::Denied);
    }

    pub(super) async fn a_session_that_is_there_is_no_new_one(stores: &Opener) {
        for store in [stores.denying(2), stores.evicting(2)] {
            let user = somebody();
            let old = several(&store, user, 2).await;
            let renewed = refreshed(&old[0], 60);
            assert_eq!(apply(&store, &refresh(&renewed)).await, Outcome::Refreshed);
            let raised = Record { aal: Some(Aal::Aal2), ..refreshed(&renewed, 60) };
            assert_eq!(apply(&store, &refresh(&raised)).await, Outcome::Refreshed);
            for change in [sign_in(&old[0]), held(&old[0])] {
                assert_eq!(apply(&store, &change).await, Outcome::Unchanged);
            }
            assert_eq!(listed(&store, user).await, ids(&[&old[0], &old[1]]));
        }
    }

    pub(super) async fn only_the_living_count(stores: &Opener) {
        for above in [AboveCap::Deny, AboveCap::EvictOldest] {
            let store = stores.with(Limits { idle: Some(600), ..cap(2, above) });
            let user = somebody();
            let [over, ended, kept] = [0, 1, 700].map(|later| begun(user, later));
            let at = NOW + 700;
            for record in [&over, &ended] {
                apply(&store, &sign_in(record)).await;
            }
            apply(&store, &end(user, Which::One(ended.session))).await;
            for record in [&kept, &begun(user, 701)] {
                let outcome = store.apply_one(&held(record), at).await.unwrap();
                assert_eq!(outcome, Outcome::Created, "{above:?}");
            }
            let outcome = store.apply_one(&held(&begun(user, 702)), at).await.unwrap();
            let expected = if above == AboveCap::Deny { Outcome::Denied } else { created_for(&[&kept]) };
            assert_eq!(outcome, expected);
            // what was over has not been evicted but ends as what it is
            let sought = Sought::of(user, over.session);
            assert_eq!(store.lookup(&sought, at).await, Ok(State::Expired));
        }
    }

    pub(super) async fn a_change_made_twice_evicts_once(stores: &Opener) {
        let (store, user) = (stores.evicting(2), somebody());
        let old = several(&store, user, 2).await;
        let new = begun(user, 9);
        assert_eq!(apply(&store, &sign_in(&new)).await, created_for(&[&old[0]]));
        assert_eq!(apply(&store, &sign_in(&new)).await, Outcome::Unchanged);
        assert_eq!(listed(&store, user).await, ids(&[&old[1], &new]));
    }

    pub(super) async fn a_lower_cap_holds_from_the_next_sign_in_on(stores: &Opener) {
        let user = somebody();
        let old = several(&stores.with(Limits::default()), user, 9).await;
        let store = stores.evicting(3);
        assert_eq!(apply(&store, &refresh(&refreshed(&old[0], 60))).await, Outcome::Refreshed);
        let new = begun(user, 20);
        let gone: Vec<_> = old[..7].iter().collect();
        assert_eq!(apply(&store, &sign_in(&new)).await, created_for(&gone));
        assert_eq!(listed(&store, user).await, ids(&[&old[7], &old[8], &new]));
    }
}

/// More than one script looks at or ends: in the end those are left that began last.
#[tokio::test]
async fn a_cap_that_comes_late_is_reached_in_steps() {
    let server = RedisServer::start();
    let stores = Opener::of(redis_target(server.url()));
    for many in [300_u64, 700] {
        let user = somebody();
        // the order of ids and of expiry is another one than that in which they began
        let old: Vec<_> = (0..many).map(|number| begun(user, (number * 7919) % 1009)).collect();
        let changes: Vec<_> = old.iter().map(sign_in).collect();
        stores.with(Limits::default()).apply(&changes, NOW).await.unwrap();
        let (store, new) = (stores.evicting(3), begun(user, 5000));
        let (mut counts, mut outcomes) = (Vec::new(), Vec::new());
        loop {
            let Outcome::Evicted(evicted) = apply(&store, &held(&new)).await else { panic!("{counts:?}") };
            counts.push(evicted.sessions.len() as u64);
            outcomes.push(*evicted.recorded);
            if !evicted.more {
                break;
            }
        }
        assert_eq!(counts.iter().sum::<u64>(), many - 2);
        assert!(counts.iter().all(|count| *count <= 256), "{counts:?}");
        assert_eq!(outcomes[0], Outcome::Created);
        assert!(outcomes[1..].iter().all(|outcome| *outcome == Outcome::Unchanged), "{outcomes:?}");
        let mut by_beginning: Vec<_> = old.iter().collect();
        by_beginning.sort_by_key(|record| std::cmp::Reverse(record.created_at));
        assert_eq!(listed(&store, user).await, ids(&[by_beginning[0], by_beginning[1], &new]));
    }
}

/// Whom a change to many has ended, though nobody has carried that out, does not count; who waits for it and survives
/// does, and is evicted where it waits.
#[tokio::test]
async fn sessions_that_wait_for_a_change_to_many_count_as_what_they_are() {
    let server = RedisServer::start();
    let in_steps_of_one = Opener(
        Source::new(&config(redis_target(server.url())), Duration::from_secs(SESSION_TTL))
            .unwrap()
            .with_step(1),
    );
    let mut redis = server.client().await;
    for above in [AboveCap::Deny, AboveCap::EvictOldest] {
        let user = somebody();
        let store = in_steps_of_one.with(cap(2, above));
        let old = several(&in_steps_of_one.with(Limits::default()), user, 6).await;
        let kept = &old[3];
        let mut others = end(user, Which::Others(kept.session));
        if let Change::End { sent_ms, .. } = &mut others {
            *sent_ms = (NOW + 40) * 1000;
        }
        assert!(matches!(apply(&store, &others).await, Outcome::Pending(_)));
        let [first, second] = [50, 51].map(|later| begun(user, later));
        assert_eq!(apply(&store, &held(&first)).await, Outcome::Created, "{above:?}");
        let waiting = redis
            .zscore::<_, _, Option<f64>>(format!("gotrue:{{{user}}}:ending:1"), kept.session.to_string());
        assert!(waiting.await.unwrap().is_some(), "it waits");
        let (expected, left) = match above {
            AboveCap::Deny => (Outcome::Denied, ids(&[kept, &first])),
            AboveCap::EvictOldest => (created_for(&[kept]), ids(&[&first, &second])),
        };
        assert_eq!(apply(&store, &held(&second)).await, expected);
        assert_eq!(listed(&store, user).await, left);
        swept(&store, user, NOW).await;
        assert_eq!(listed(&store, user).await, left);
        assert_nothing_pends(&mut redis).await;
        assert_every_key_expires(&mut redis).await;
    }
}

#[tokio::test]
async fn the_tombstone_says_why_it_stands() {
    let server = RedisServer::start();
    let (store, user) = (Opener::of(redis_target(server.url())).evicting(1), somebody());
    let (old, new) = (begun(user, 0), begun(user, 1));
    for record in [&old, &new] {
        apply(&store, &sign_in(record)).await;
    }
    let key = format!("gotrue:{{{user}}}:revoked:{}", old.session);
    let tombstone: String = server.client().await.get(key).await.unwrap();
    assert_eq!(tombstone, format!("evicted:{NOW}:{}:0", old.expires_at));
}

/// Nobody goes for a session that is not recorded.
#[tokio::test]
async fn a_full_redis_evicts_nobody() {
    let server = RedisServer::start();
    let (store, user) = (Opener::of(redis_target(server.url())).evicting(2), somebody());
    let old = several(&store, user, 2).await;
    let mut redis = server.client().await;
    for (name, value) in [("maxmemory-policy", "noeviction"), ("maxmemory", "1mb")] {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut redis).await.unwrap();
    }
    let refused = store.apply(&[sign_in(&begun(user, 9))], NOW).await;
    assert_eq!(refused, Err(gotrue_sidecar::store::Error::OutOfMemory));
    assert_eq!(listed(&store, user).await, ids(&[&old[0], &old[1]]));
}

/// One script counts and records, so however many come at once, no more than fit get in.
#[tokio::test]
async fn a_hundred_at_once_over_two_connections_are_as_many_as_may_be() {
    let server = RedisServer::start();
    for above in [AboveCap::Deny, AboveCap::EvictOldest] {
        let stores = Opener::of(redis_target(server.url()));
        let replicas = [stores.with(cap(7, above)), stores.with(cap(7, above))].map(std::sync::Arc::new);
        let user = somebody();
        let mut all = tokio::task::JoinSet::new();
        for number in 0..100_usize {
            let (store, record) = (std::sync::Arc::clone(&replicas[number % 2]), begun(user, number as u64));
            all.spawn(async move { store.apply_one(&held(&record), NOW).await.unwrap() });
        }
        let outcomes = all.join_all().await;
        let denied = outcomes.iter().filter(|outcome| **outcome == Outcome::Denied).count();
        let evicted: u64 = outcomes.iter().filter(|it| **it != Outcome::Denied).map(Outcome::ended).sum();
        assert_eq!((denied as u64, evicted), if above == AboveCap::Deny { (93, 0) } else { (0, 93) });
        assert_eq!(listed(&replicas[0], user).await.len(), 7);
    }
}
