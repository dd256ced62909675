//! Slots that move, and masters that are lost.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use gotrue_sidecar::store::redis::Scan;

use super::*;
use crate::support::{
    redis::{Setup, Tls, valkey},
    redis_cluster::SLOTS,
    until,
};

/// A user whose keys lie on that master at the start.
async fn user_on(cluster: &RedisCluster, master: usize) -> UserId {
    loop {
        let user = somebody();
        if cluster.first_owner(slot_of(cluster, user).await) == master {
            return user;
        }
    }
}

async fn slot_of(cluster: &RedisCluster, user: UserId) -> usize {
    cluster.slot(&format!("gotrue:{{{user}}}:marks")).await
}

/// Signs a user in; how it went.
async fn try_sign_in(store: &Store, user: UserId) -> Result<Record, gotrue_sidecar::store::Error> {
    let record = signed_in(user, some_session());
    store.apply(&[sign_in(&record)], NOW).await.map(|_| record)
}

async fn until_it_works(store: &Store, user: UserId) -> Duration {
    let began = Instant::now();
    while try_sign_in(store, user).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_slot_that_moves_is_followed() {
    let cluster = RedisCluster::start().await;
    follows_a_slot(&cluster, redis_target(cluster.url())).await;
}

/// Nodes name each other by address and by their ports for TLS, and have another name in their certificates.
#[tokio::test]
async fn a_slot_that_moves_is_followed_by_tls() {
    const NAME: &str = "redis.internal";
    let cluster = RedisCluster::start_with(Setup { tls: Tls::Mutual(NAME), ..Setup::new() }, 3, 0).await;
    let target = to(cluster.url(), |it| it.tls = tls_with(&cluster.nodes[0], NAME));
    follows_a_slot(&cluster, target).await;
}

async fn follows_a_slot(cluster: &RedisCluster, target: StoreTarget) {
    let store = open(&config(target));
    let user = user_on(cluster, 0).await;
    let slot = slot_of(cluster, user).await;
    let before = try_sign_in(&store, user).await.unwrap();
    cluster.move_slot(slot, 0, 1).await;
    live(&store, user, before.session).await;
    let after = try_sign_in(&store, user).await.unwrap();
    cluster.move_slot(slot, 1, 2).await;
    assert_eq!(apply(&store, &end(user, Which::All)).await, Outcome::Ended(2));
    for record in [before, after] {
        assert_eq!(look(&store, user, record.session).await, State::Revoked);
    }
}

#[tokio::test]
async fn a_tombstone_that_stays_behind_for_now_is_not_overlooked() {
    let cluster = RedisCluster::start().await;
    let store = open(&config(redis_target(cluster.url())));
    let user = user_on(&cluster, 0).await;
    let slot = slot_of(&cluster, user).await;
    let ended = try_sign_in(&store, user).await.unwrap();
    apply(&store, &end(user, Which::One(ended.session))).await;
    cluster.begin_to_move(slot, 0, 1).await;
    loop {
        // whatever has gone and whatever has not: it may be refused for now, but it does not come back
        match store.apply(&[refresh(&refreshed(&ended, 10))], NOW).await {
            Ok(outcome) => assert_eq!(outcome, [Outcome::Revoked]),
            Err(error) => assert!(["moved", "cluster_down"].contains(&error.cause()), "{error:?}"),
        }
        if cluster.move_keys(slot, 0, 1, 1).await == 0 {
            break;
        }
    }
    cluster.end_to_move(slot, 0, 1).await;
    assert_eq!(look(&store, user, ended.session).await, State::Revoked);
    let outcome = store.apply(&[refresh(&refreshed(&ended, 20))], NOW).await;
    assert_eq!(outcome, Ok(vec![Outcome::Revoked]));
}

/// What scripts look at beside the keys that they are given, by the names of those.
#[tokio::test]
async fn a_change_to_many_takes_nothing_for_absent_that_is_on_the_other_node() {
    let cluster = RedisCluster::start().await;
    let store = open_with_step(&config(redis_target(cluster.url())), 2);
    for gone in [["sessions", "marks"].as_slice(), &["session:", "revoked:"]] {
        for which in [Which::Client("client".to_owned()), Which::Aal1Except(some_session()), Which::All] {
            moves_in_halves(&cluster, &store, gone, which).await;
        }
    }
}

/// Keys of those kinds have gone to the other node, when sessions are to end.
async fn moves_in_halves(cluster: &RedisCluster, store: &Store, gone: &[&str], which: Which) {
    let user = user_on(cluster, 0).await;
    let slot = slot_of(cluster, user).await;
    let client = Some("client".to_owned());
    let mut records = Vec::new();
    for client_id in [client.clone(), client.clone(), client, None] {
        let aal = Some(if client_id.is_some() { Aal::Aal1 } else { Aal::Aal2 });
        let record = Record { client_id, aal, ..signed_in(user, some_session()) };
        apply(store, &sign_in(&record)).await;
        records.push(record);
    }
    apply(store, &suspend(user, None, 0)).await; // so that there are marks
    cluster.begin_to_move(slot, 0, 1).await;
    let keys: Vec<String> =
        cluster.ask(0, redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100)).await.unwrap();
    let of_kind = |key: &String| gone.iter().any(|kind| key.contains(&format!("}}:{kind}")));
    let keys: Vec<String> = keys.into_iter().filter(of_kind).collect();
    let mut migrate = redis::cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(cluster.nodes[1].port()).arg("").arg(0).arg(5000).arg("KEYS").arg(&keys);
    cluster.ask::<()>(0, &migrate).await.unwrap();

    let moving = |cause| ["moved", "cluster_down"].contains(&cause);
    match store.list(user, Wanted::Page { skip: 0, take: 9 }, NOW).await {
        Ok(listed) => assert_eq!(listed.total, 4, "{gone:?}"),
        Err(error) => assert!(moving(error.cause()), "{error:?}"),
    }
    let ending = end(user, which.clone());
    let lower = Change::LowerAal { user, factor: factor_id(1) };
    let answers = [
        store.apply(std::slice::from_ref(&ending), NOW).await.err(),
        store.apply(&[lower], NOW).await.err(),
        store.sweep(user, NOW).await.err(),
    ];
    for error in answers.into_iter().flatten() {
        assert!(moving(error.cause()), "{error:?}");
    }
    while cluster.move_keys(slot, 0, 1, 100).await > 0 {}
    cluster.end_to_move(slot, 0, 1).await;

    // whoever was told of an error does it again
    apply(store, &ending).await;
    while store.sweep(user, NOW).await.unwrap().pending {}
    for (index, record) in records.iter().enumerate() {
        let ended = index < 3 || which == Which::All;
        let is = look(store, user, record.session).await;
        assert_eq!(is == State::Revoked, ended, "{which:?} {gone:?} {is:?}");
    }
}

#[tokio::test]
async fn what_has_gone_already_is_asked_for_where_it_went() {
    let cluster = RedisCluster::start().await;
    let store = open(&config(redis_target(cluster.url())));
    // its hint lies on the first master
    let (record, slot) = loop {
        let record = signed_in(somebody(), some_session());
        let token = record.refresh_ref.as_ref().unwrap().as_str();
        let slot = cluster.slot(&format!("gotrue:refresh:{token}")).await;
        if cluster.first_owner(slot) == 0 {
            break (record, slot);
        }
    };
    apply(&store, &sign_in(&record)).await;
    cluster.begin_to_move(slot, 0, 1).await;
    assert!(cluster.move_keys(slot, 0, 1, 100).await > 0);
    let owner = session_of(&store, record.refresh_ref.as_ref().unwrap(), NOW).await;
    assert_eq!(owner, Ok(Some((record.user, record.session))));
    cluster.end_to_move(slot, 0, 1).await;
}

/// It was told of no failover since, and is the quickest to answer: the others have more to do.
#[tokio::test]
async fn a_node_that_was_left_behind_misleads_nobody() {
    let cluster = RedisCluster::start().await;
    let left = RedisServer::launch(Setup { cluster: true, ..Setup::new() }.with_user());
    let mut admin = left.client().await;
    let mut all = redis::cmd("CLUSTER");
    all.arg("ADDSLOTSRANGE").arg(0).arg(SLOTS - 1).exec_async(&mut admin).await.unwrap();
    until("it takes itself for the whole Cluster", async || {
        let told: String =
            redis::cmd("CLUSTER").arg("INFO").query_async(&mut left.client().await).await.unwrap();
        told.contains("cluster_state:ok")
    })
    .await;
    let url = cluster.url().replace('@', &format!("@127.0.0.1:{},", left.port()));
    for protocol in ["", "?protocol=resp3"].repeat(5) {
        let store = open(&config(redis_target(format!("{url}{protocol}"))));
        for master in 0..3 {
            let record = signed_in(user_on(&cluster, master).await, some_session());
            apply(&store, &sign_in(&record)).await;
        }
    }
    let kept: u64 = redis::cmd("DBSIZE").query_async(&mut admin).await.unwrap();
    assert_eq!(kept, 0, "sessions were written to it");
}

#[tokio::test]
async fn resharding_under_load_loses_nothing() {
    let cluster = RedisCluster::start().await;
    loses_nothing(&cluster, async |slot, to| cluster.move_slot(slot, 0, to).await).await;
}

/// Valkey copies a slot and hands it over at one moment.
#[tokio::test]
async fn resharding_of_valkey_under_load_loses_nothing() {
    let cluster = RedisCluster::start_with(Setup { program: valkey(), ..Setup::new() }, 3, 0).await;
    loses_nothing(&cluster, async |slot, to| cluster.hand_over(slot, 0, to).await).await;
}

/// Moves slots from the first master to one of the others while people sign in.
async fn loses_nothing(cluster: &RedisCluster, move_slot: impl AsyncFn(usize, usize)) {
    let store = Arc::new(open(&config(redis_target(cluster.url()))));
    let users: Vec<UserId> = {
        let mut users = Vec::new();
        for _ in 0..20 {
            users.push(user_on(cluster, 0).await);
        }
        users
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn({
        let (store, users) = (Arc::clone(&store), users.clone());
        async move {
            let (mut made, mut failed) = (Vec::new(), 0_u64);
            while !*stopped.borrow() {
                for &user in &users {
                    // as whoever keeps what failed does: every change is made again until it is made
                    let record = signed_in(user, some_session());
                    while store.apply(&[sign_in(&record)], NOW).await.is_err() {
                        failed += 1;
                    }
                    made.push(record);
                }
            }
            (made, failed)
        }
    });
    let mut slots = BTreeSet::new(); // two users may be in one
    for &user in &users {
        slots.insert(slot_of(cluster, user).await);
    }
    for (number, slot) in slots.into_iter().enumerate() {
        move_slot(slot, 1 + number % 2).await;
    }
    stop.send(true).unwrap();
    let (made, failed) = load.await.unwrap();
    println!("{} sign-ins, {failed} had to be made again", made.len());
    for record in &made {
        live(&store, record.user, record.session).await;
    }
    let keys = found(&store).await;
    assert_eq!(keys, made.len(), "every session is on one master");
}

/// How many records a scan of all masters finds.
async fn found(store: &Store) -> usize {
    let Store::Redis(redis) = store else { unreachable!() };
    let (mut scan, mut found) = (Scan::default(), std::collections::HashSet::new());
    while let Some(some) = redis.scan(&mut scan).await.unwrap() {
        found.extend(some);
    }
    found.len()
}

#[tokio::test]
async fn a_lost_master_takes_only_its_users_along() {
    let mut cluster = RedisCluster::start().await;
    let store = open(&config(redis_target(cluster.url())));
    let (lost, here) = (user_on(&cluster, 1).await, user_on(&cluster, 0).await);
    for user in [lost, here] {
        try_sign_in(&store, user).await.unwrap();
    }
    cluster.nodes[1].kill();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let cause = try_sign_in(&store, lost).await.unwrap_err().cause();
        assert!(["refused", "cluster_down"].contains(&cause), "{cause}");
        // its hints may lie on the lost one
        try_sign_in(&store, here).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (lane, other) = (store.lane_of(lost), store.lane_of(here));
    let answers = store.ping_each().await;
    assert!(answers[lane].is_err() && answers[other].is_ok(), "{lane} {other}: {answers:?}");
    assert_eq!(answers.len(), store.lanes());
    assert!(store.ping().await.is_err());
    cluster.nodes[1].restart();
    until_it_works(&store, lost).await;
}

#[tokio::test]
async fn a_replica_takes_over_from_a_killed_master() {
    let mut cluster = RedisCluster::start_with(Setup::new(), 3, 1).await;
    let store = open(&config(redis_target(cluster.url())));
    let user = user_on(&cluster, 0).await;
    let before = try_sign_in(&store, user).await.unwrap();
    cluster.replicated(0, &format!("gotrue:{{{user}}}:marks")).await;
    cluster.nodes[0].kill();
    let watching = async {
        cluster.promoted(3).await;
        Instant::now()
    };
    let working = async {
        until_it_works(&store, user).await;
        Instant::now()
    };
    let (promoted, worked) = tokio::join!(watching, working);
    let late = worked.saturating_duration_since(promoted);
    println!("works {late:?} after the replica is promoted");
    assert!(late < Duration::from_secs(3), "{late:?}");
    live(&store, user, before.session).await;
}

#[tokio::test]
async fn a_replica_takes_over_from_a_hanging_master() {
    let cluster = RedisCluster::start_with(Setup::new(), 3, 1).await;
    let store = open(&hurried(redis_target(cluster.url())));
    let user = user_on(&cluster, 0).await;
    until_it_works(&store, user).await;
    cluster.nodes[0].hang();
    let took = until_it_works(&store, user).await;
    println!("works {took:?} after the master hangs");
    cluster.nodes[0].go_on();
    try_sign_in(&store, user).await.unwrap();
}

#[tokio::test]
async fn a_planned_failover_is_followed() {
    let cluster = RedisCluster::start_with(Setup::new(), 3, 1).await;
    let store = open(&config(redis_target(cluster.url())));
    let user = user_on(&cluster, 2).await;
    let before = try_sign_in(&store, user).await.unwrap();
    cluster.failover(5).await;
    live(&store, user, before.session).await;
    try_sign_in(&store, user).await.unwrap();
}

#[tokio::test]
async fn a_node_of_a_cluster_is_no_single_server() {
    let cluster = RedisCluster::start().await;
    let url = cluster.nodes[0].url_of_user();
    let user = user_on(&cluster, 1).await;
    let store = open(&config(redis_target(url)));
    let error = try_sign_in(&store, user).await.unwrap_err();
    assert_eq!(error.cause(), "moved");
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
}

#[tokio::test]
async fn a_single_server_is_no_cluster() {
    let server = RedisServer::start();
    let url = server.url().replace("redis://", "redis+cluster://");
    let (cause, waited) = faults::failure(&open(&config(redis_target(url)))).await;
    assert_eq!(cause, "other");
    assert!(waited < AT_ONCE, "{waited:?}");
}

/// What is in doubt is left, and nothing else: other masters, and what has answered since, are used as they were.
#[tokio::test]
async fn only_connections_that_may_be_from_before_an_outage_are_made_again() {
    let cluster = RedisCluster::start().await;
    let store = open(&config(redis_target(cluster.url())));
    let mut users = Vec::new();
    for master in 0..3 {
        users.push(user_on(&cluster, master).await);
    }
    while store.lane_of(users[2]) == store.lanes() * 2 / 3 {
        users[2] = user_on(&cluster, 2).await; // the lane of two masters
    }
    let everybody_signs_in = async || {
        for &user in &users {
            try_sign_in(&store, user).await.unwrap();
        }
    };
    let connections = async || {
        let mut connections = Vec::new();
        for master in 0..3 {
            connections.push(cluster.connections(master).await);
        }
        connections
    };
    let more = |before: &[u64], by: [u64; 3]| -> Vec<u64> {
        before.iter().zip(by).map(|(before, by)| before + by).collect()
    };
    everybody_signs_in().await;
    let first = connections().await;
    store.renew(store.lane_of(users[2]), Instant::now());
    let renewed = Instant::now();
    everybody_signs_in().await;
    let second = connections().await;
    assert_eq!(second, more(&first, [1, 1, 2]));
    store.renew(store.lane_of(users[2]), renewed);
    everybody_signs_in().await;
    assert_eq!(connections().await, more(&second, [1, 1, 1]));
}
