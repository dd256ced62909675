//! Many sessions of one user.

use redis::aio::MultiplexedConnection;

use super::{pending::swept, *};

const MANY: usize = 10_000;

/// What one script deals with, as shipped.
const STEP: u64 = 256;

async fn sign_in_many(store: &Store, user: UserId, many: usize) -> Vec<Record> {
    let template =
        Record { aal: Some(Aal::Aal2), factor_id: Some(factor_id(1)), ..signed_in(user, some_session()) };
    let records: Vec<_> = (0..many)
        .map(|_| Record { session: some_session(), refresh_ref: None, ..template.clone() })
        .collect();
    for chunk in records.chunks(100) {
        let changes: Vec<_> = chunk.iter().map(sign_in).collect();
        store.apply(&changes, NOW).await.unwrap();
    }
    records
}

/// The commands that Redis has carried out since it was last asked, those of scripts included.
async fn commands(redis: &mut MultiplexedConnection) -> u64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(redis).await.unwrap();
    let _: () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(redis).await.unwrap();
    let calls = |line: &str| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok();
    info.lines().filter_map(calls).sum()
}

/// But for a few `EXPIRE`s, which depend on the second.
fn assert_same(costs: &[u64]) {
    assert!(costs[0].abs_diff(costs[1]) <= 4, "{costs:?}");
}

#[tokio::test]
async fn a_change_costs_the_same_for_any_number_of_sessions() {
    let server = RedisServer::start();
    let mut redis = server.client().await;
    let store = on(&server);
    let changes: [fn(UserId) -> Change; 3] = [
        |user| end(user, Which::All),
        |user| end(user, Which::Others(session_id(1))),
        |user| Change::LowerAal { user, factor: factor_id(1) },
    ];
    for change in changes {
        let mut costs = Vec::new();
        for many in [1_000, MANY] {
            let user = somebody();
            let records = sign_in_many(&store, user, many).await;
            commands(&mut redis).await;
            let outcome = apply(&store, &change(user)).await;
            costs.push(commands(&mut redis).await);
            for record in [&records[0], &records[many / 2], &records[many - 1]] {
                match look(&store, user, record.session).await {
                    State::Live(lowered) => assert_eq!(lowered.aal, Some(Aal::Aal1)),
                    other => assert_eq!(other, State::Revoked),
                }
            }
            let Outcome::Pending(at_once) = outcome else { panic!("{outcome:?}") };
            assert!(at_once == STEP || matches!(change(user), Change::LowerAal { .. }), "{at_once}");
            let ended = at_once + swept(&store, user, NOW).await;
            assert!(ended == many as u64 || matches!(change(user), Change::LowerAal { .. }), "{ended}");
        }
        println!("{:?} costs {costs:?} commands", change(user_id(1)));
        assert_same(&costs);
        assert!(costs[0] < 4 * STEP, "{costs:?}");
    }
}

#[tokio::test]
async fn a_page_of_ten_thousand_sessions_reads_a_block_of_them() {
    let server = RedisServer::start();
    for store in [on(&server), embedded()] {
        let user = somebody();
        let records = sign_in_many(&store, user, MANY).await;
        let mut seen = Vec::new();
        for page in 0..10 {
            let wanted = Wanted::Page { skip: page * 1000, take: 1000 };
            let listed = store.list(user, wanted, NOW).await.unwrap();
            assert_eq!(listed.total, MANY as u64);
            seen.extend(listed.records.into_iter().map(|record| record.session));
        }
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
async fn up_to_a_step_of_sessions_end_at_once() {
    let server = RedisServer::start();
    let store = on(&server);
    let user = somebody();
    sign_in_many(&store, user, 256).await;
    assert_eq!(apply(&store, &end(user, Which::All)).await, Outcome::Ended(STEP));
}

#[tokio::test]
async fn a_refresh_costs_the_same_however_much_has_expired() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let mut costs = Vec::new();
    for many in [1_000, MANY] {
        let user = somebody();
        let records = sign_in_many(&store, user, many).await;
        let later = NOW + SESSION_TTL;
        let refreshed = Record { refreshed_at: later, expires_at: later + 3600, ..records[0].clone() };
        commands(&mut redis).await;
        store.apply(&[refresh(&refreshed)], later).await.unwrap();
        costs.push(commands(&mut redis).await);
        let left: usize = redis::cmd("ZCARD")
            .arg(format!("gotrue:{{{user}}}:sessions"))
            .query_async(&mut redis)
            .await
            .unwrap();
        assert!(left >= many - 256, "{left}");
    }
    assert_same(&costs);
}

#[tokio::test]
async fn ten_thousand_sessions_end_in_the_embedded_store() {
    let store = embedded();
    let user = somebody();
    let records = sign_in_many(&store, user, MANY).await;
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
        store.lookup(&Sought::of(first.user, first.session), later - 1).await,
        Ok(State::Live(Box::new(first.clone())))
    );
    assert_eq!(store.lookup(&Sought::of(first.user, first.session), later).await, Ok(State::Unknown));
    assert_eq!(session_of(&store, first.refresh_ref.as_ref().unwrap(), later).await, Ok(None));
    let second = signed_in(somebody(), some_session());
    assert_eq!(store.apply(&[sign_in(&second)], later).await, Ok(vec![Outcome::Created]));
}
