//! Endings that wait for replicas (`store.wait_replicas`).

use std::time::Instant;

use super::*;

fn waiting(target: StoreTarget, replicas: u32) -> config::Store {
    config::Store { wait_replicas: replicas, ..config(target) }
}

#[tokio::test]
async fn an_ending_waits_for_replicas_and_says_when_they_are_too_few() {
    let sentinels = Sentinels::start().await;
    let store = open(&config::Store { timeout: Duration::from_secs(3), ..waiting(behind(&sentinels), 2) });
    let records = [(); 3].map(|()| signed_in(somebody(), some_session()));
    for record in &records {
        apply(&store, &sign_in(record)).await;
    }
    let [first, second, third] = &records;
    assert_eq!(apply(&store, &end(first.user, Which::One(first.session))).await, Outcome::Ended(1));
    let master = sentinels.master().await;
    let replica = (master + 1) % 3;
    sentinels.servers[replica].hang();
    let began = Instant::now();
    let ended = store.apply(&[end(second.user, Which::One(second.session))], NOW).await;
    assert_eq!(ended, Err(gotrue_sidecar::store::Error::Replicas));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(look(&store, second.user, second.session).await, State::Revoked, "it is made all the same");
    apply(&store, &sign_in(&signed_in(somebody(), some_session()))).await;
    sentinels.servers[replica].go_on();
    let again = Instant::now();
    while store.apply(&[end(third.user, Which::One(third.session))], NOW).await.is_err() {
        assert!(again.elapsed() < Duration::from_secs(20), "the replica does not come back");
    }
}

#[tokio::test]
async fn endings_that_wait_in_vain_keep_nobody_else_waiting() {
    let server = RedisServer::start();
    let store = std::sync::Arc::new(open(&waiting(redis_target(server.url()), 1)));
    let first = signed_in(somebody(), some_session());
    apply(&store, &sign_in(&first)).await;
    let mut endings = tokio::task::JoinSet::new();
    let records: Vec<_> = (0..30).map(|_| signed_in(somebody(), some_session())).collect();
    for record in &records {
        apply(&store, &sign_in(record)).await;
    }
    for record in records.clone() {
        let store = std::sync::Arc::clone(&store);
        endings.spawn(async move { store.apply(&[end(record.user, Which::One(record.session))], NOW).await });
    }
    tokio::task::yield_now().await;
    // one that ends nothing is not behind them
    let began = Instant::now();
    live(&store, first.user, first.session).await;
    let took = began.elapsed();
    let ended = endings.join_all().await;
    assert!(ended.iter().all(|ended| *ended == Err(gotrue_sidecar::store::Error::Replicas)), "{ended:?}");
    assert!(took < AT_ONCE, "{took:?}");
    println!("a lookup beside 30 endings that wait took {took:?}");
    for record in &records {
        assert_eq!(look(&store, record.user, record.session).await, State::Revoked);
    }
}

#[tokio::test]
async fn in_a_cluster_the_master_of_the_user_waits_for_its_replica() {
    let cluster = RedisCluster::start_with(crate::support::redis::Setup::new(), 3, 1).await;
    let url = cluster.url();
    for (replicas, expected) in
        [(1, Ok(vec![Outcome::Ended(1)])), (2, Err(gotrue_sidecar::store::Error::Replicas))]
    {
        let store = open(&config::Store {
            timeout: Duration::from_secs(3),
            ..waiting(redis_target(url.clone()), replicas)
        });
        let record = signed_in(somebody(), some_session());
        apply(&store, &sign_in(&record)).await;
        let ended = store.apply(&[end(record.user, Which::One(record.session))], NOW).await;
        assert_eq!(ended, expected);
        assert_eq!(look(&store, record.user, record.session).await, State::Revoked);
    }
}
