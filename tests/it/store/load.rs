//! Many sessions of one user.

use std::time::Instant;

use super::*;

const MANY: usize = 10_000;

async fn sign_in_many(store: &Store, user: UserId) -> Vec<Record> {
    let records: Vec<_> = (0..MANY).map(|_| signed_in(user, some_session())).collect();
    for chunk in records.chunks(100) {
        let changes: Vec<_> = chunk.iter().map(sign_in).collect();
        store.apply(&changes, NOW).await.unwrap();
    }
    records
}

#[tokio::test]
async fn ten_thousand_sessions_end_in_one_round_trip() {
    let server =
        RedisServer::with_options(&["--slowlog-log-slower-than", "1000", "--slowlog-max-len", "100000"]);
    let mut redis = server.client().await;
    let mut config = config(redis_target(server.url()));
    config.timeout = Duration::from_secs(5);
    let store = open(&config);
    for (name, which) in [("all", Which::All), ("others", Which::Others(some_session()))] {
        let user = somebody();
        let records = sign_in_many(&store, user).await;
        let _: () = redis::cmd("SLOWLOG").arg("RESET").query_async(&mut redis).await.unwrap();
        let started = Instant::now();
        let ended = apply(&store, &end(user, which)).await;
        let waited = started.elapsed();
        assert_eq!(ended, Outcome::Ended(MANY as u64));
        let slow: Vec<redis::Value> =
            redis::cmd("SLOWLOG").arg("GET").arg(1).query_async(&mut redis).await.unwrap();
        let micros = match slow.first() {
            Some(redis::Value::Array(entry)) => entry.get(2).cloned(),
            _ => None,
        };
        println!("{name}: {MANY} sessions ended in {waited:?}; in Redis, µs: {micros:?}");
        for record in [&records[0], &records[MANY / 2], &records[MANY - 1]] {
            assert_eq!(look(&store, user, record.session).await, State::Revoked);
        }
    }
}

#[tokio::test]
async fn a_page_of_ten_thousand_sessions_reads_a_block_of_them() {
    let server = RedisServer::start();
    let mut config = config(redis_target(server.url()));
    config.timeout = Duration::from_secs(5);
    for store in [open(&config), embedded()] {
        let user = somebody();
        let records = sign_in_many(&store, user).await;
        let started = Instant::now();
        let mut seen = Vec::new();
        for page in 0..10 {
            let wanted = Wanted::Page { skip: page * 1000, take: 1000 };
            let listed = store.list(user, wanted, NOW).await.unwrap();
            assert_eq!(listed.total, MANY as u64);
            seen.extend(listed.records.into_iter().map(|record| record.session));
        }
        println!("{MANY} sessions listed in 10 pages in {:?}", started.elapsed());
        let mut all: Vec<_> = records.iter().map(|record| record.session).collect();
        all.sort_unstable();
        seen.sort_unstable();
        assert!(seen == all, "every session stands on one page");
        // across the border of two blocks
        let wanted = Wanted::Page { skip: 990, take: 20 };
        assert_eq!(store.list(user, wanted, NOW).await.unwrap().records.len(), 20);
    }
}

#[tokio::test]
async fn a_list_counts_no_session_that_an_operator_took_out() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let user = somebody();
    let records: Vec<_> = (0..4).map(|_| signed_in(user, some_session())).collect();
    for record in &records {
        apply(&store, &sign_in(record)).await;
    }
    let key = |kind: &str, n: usize| format!("gotrue:{{{user}}}:{kind}:{}", records[n].session);
    let _: () = redis::cmd("DEL").arg(key("session", 0)).query_async(&mut redis).await.unwrap();
    let tombstone = key("revoked", 1);
    let _: () = redis::cmd("SET")
        .arg(tombstone)
        .arg("revoked:1")
        .arg("EX")
        .arg(60)
        .query_async(&mut redis)
        .await
        .unwrap();
    let _: () = redis::cmd("DEL").arg(key("session", 2)).query_async(&mut redis).await.unwrap();
    let _: () = redis::cmd("SET")
        .arg(key("session", 2))
        .arg("?")
        .arg("EX")
        .arg(60)
        .query_async(&mut redis)
        .await
        .unwrap();
    for _ in 0..2 {
        let listed = store.list(user, Wanted::Page { skip: 0, take: 50 }, NOW).await.unwrap();
        let found: Vec<_> = listed.records.iter().map(|record| record.session).collect();
        assert_eq!((found, listed.total), (vec![records[3].session], 1));
    }
}

#[tokio::test]
async fn ten_thousand_sessions_end_in_the_embedded_store() {
    let store = embedded();
    let user = somebody();
    let records = sign_in_many(&store, user).await;
    assert_eq!(apply(&store, &end(user, Which::All)).await, Outcome::Ended(MANY as u64));
    assert_eq!(look(&store, user, records[MANY / 2].session).await, State::Revoked);
}

#[tokio::test]
async fn a_full_embedded_store_refuses_the_new_and_keeps_the_live() {
    let mut config = config(StoreTarget::Memory);
    config.memory_max_sessions = 3;
    let store = open(&config);
    let records: Vec<_> = (0..3).map(|_| signed_in(somebody(), some_session())).collect();
    for record in &records {
        apply(&store, &sign_in(record)).await;
    }
    let fourth = signed_in(somebody(), some_session());
    let refused = store.apply(&[sign_in(&fourth)], NOW).await.unwrap_err();
    assert_eq!(refused.cause(), "full");
    assert_eq!(apply(&store, &refresh(&refreshed(&records[0], 1))).await, Outcome::Refreshed);
    for record in &records {
        live(&store, record.user, record.session).await;
    }
    // A change that does go, in the same answer, is made all the same.
    let both = [sign_in(&fourth), end(records[0].user, Which::All)];
    assert_eq!(store.apply(&both, NOW).await.unwrap_err().cause(), "full");
    assert_eq!(look(&store, records[0].user, records[0].session).await, State::Revoked);
    assert_eq!(apply(&store, &sign_in(&fourth)).await, Outcome::Created);
}

#[tokio::test]
async fn the_embedded_store_makes_room_when_sessions_expire() {
    let mut config = config(StoreTarget::Memory);
    config.memory_max_sessions = 1;
    let store = open(&config);
    let first = signed_in(somebody(), some_session());
    apply(&store, &sign_in(&first)).await;
    let later = NOW + SESSION_TTL;
    assert_eq!(
        store.lookup(first.user, first.session, later - 1, false).await,
        Ok(State::Live(Box::new(first.clone())))
    );
    assert_eq!(store.lookup(first.user, first.session, later, false).await, Ok(State::Unknown));
    assert_eq!(store.session_of(first.refresh_ref.as_ref().unwrap(), later).await, Ok(None));
    let second = signed_in(somebody(), some_session());
    assert_eq!(store.apply(&[sign_in(&second)], later).await, Ok(vec![Outcome::Created]));
}
