//! Changes to more sessions than Redis deals with at once: they hold at once all the same (contract §5, I3, I10).

use std::collections::{BTreeSet, HashMap};

use gotrue_sidecar::store::redis::{Amendment, Stamp};
use redis::{AsyncCommands, aio::MultiplexedConnection};

use super::{differential::assert_nothing_pends, keys::assert_every_key_expires, *};
use crate::support::documents;

/// Sweeps until nothing is left; how many ended.
pub(super) async fn swept(store: &Store, user: UserId, now: Seconds) -> u64 {
    let mut ended = 0;
    loop {
        let swept = store.sweep(user, now).await.unwrap();
        ended += swept.ended.iter().map(|(_, count)| count).sum::<u64>();
        if !swept.pending {
            return ended;
        }
    }
}

async fn sign_in_all(store: &Store, user: UserId, many: usize) -> Vec<Record> {
    let records: Vec<_> = (0..many).map(|_| signed_in(user, some_session())).collect();
    for record in &records {
        apply(store, &sign_in(record)).await;
    }
    records
}

fn in_steps_of(step: u32, server: &RedisServer) -> Store {
    open_with_step(&config(redis_target(server.url())), step)
}

async fn keys_of(redis: &mut MultiplexedConnection, user: UserId) -> BTreeSet<String> {
    let keys: Vec<String> = redis.keys(format!("*{user}*")).await.unwrap();
    keys.into_iter().map(|key| key.replace(&format!("gotrue:{{{user}}}:"), "")).collect()
}

#[tokio::test]
async fn a_pending_change_keeps_the_layout_that_the_readme_says() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    let records = sign_in_all(&store, user, 3).await;
    let kept = records[0].session;
    assert_eq!(apply(&store, &end(user, Which::Others(kept))).await, Outcome::Pending(0));
    let late = Record { began_ms: (NOW + 2) * 1000, ..signed_in(user, some_session()) };
    apply(&store, &sign_in(&late)).await;
    assert_eq!(apply(&store, &Change::LowerAal { user, factor: factor_id(1) }).await, Outcome::Pending(0));
    let keys = keys_of(&mut redis, user).await;
    assert!(keys.contains("ending:2") && keys.contains("marks"), "{keys:?}");
    let fields: HashMap<String, String> = redis.hgetall(format!("gotrue:{{{user}}}:marks")).await.unwrap();
    assert_eq!(fields["ending"], "1:2");
    let rule: serde_json::Value = serde_json::from_str(&fields["ending:1"]).unwrap();
    assert_eq!(rule["which"], "others");
    assert_eq!(rule["subject"], kept.to_string());
    assert_every_key_expires(&mut redis).await;

    let readme = documents::read("README.md");
    for named in ["| `P:{user_id}:ending:<n>` |", "`ending`", "`ending:<n>`", "`ended:<reason>`"] {
        assert!(readme.contains(named), "{named}");
    }
    swept(&store, user, NOW).await;
    assert_nothing_pends(&mut redis).await;
    let index: BTreeSet<String> = redis.zrange(format!("gotrue:{{{user}}}:sessions"), 0, -1).await.unwrap();
    assert_eq!(index, [kept, late.session].map(|session| session.to_string()).into());
}

#[tokio::test]
async fn a_session_that_waits_is_ended_for_whoever_asks() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    let records = sign_in_all(&store, user, 4).await;
    assert_eq!(apply(&store, &end(user, Which::Others(records[3].session))).await, Outcome::Pending(1));
    // whose turn it is depends on the order of ids alone, so the last of them wait
    for record in &records[1..3] {
        assert!(redis.exists::<_, bool>(record_key(record)).await.unwrap());
        assert_eq!(look(&store, user, record.session).await, State::Revoked);
        assert_eq!(session_of(&store, record.refresh_ref.as_ref().unwrap(), NOW).await, Ok(None));
        assert_eq!(apply(&store, &refresh(&refreshed(record, 9))).await, Outcome::Revoked);
        assert!(!redis.exists::<_, bool>(record_key(record)).await.unwrap());
    }
    assert_eq!(live(&store, user, records[3].session).await, records[3]);
    // those two were counted by nobody yet
    let swept = store.sweep(user, NOW).await.unwrap();
    assert_eq!((swept.ended, swept.pending), (vec![(Reason::Logout, 2)], false));
    assert_eq!(live(&store, user, records[3].session).await, records[3]);
}

fn record_key(record: &Record) -> String {
    format!("gotrue:{{{}}}:session:{}", record.user, record.session)
}

#[tokio::test]
async fn an_ending_keeps_its_first_reason_while_it_is_pending() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    let records = sign_in_all(&store, user, 3).await;
    apply(&store, &end(user, Which::Others(some_session()))).await;
    let mut later = end(user, Which::One(records[2].session));
    if let Change::End { reason, ended_in_gotrue, .. } = &mut later {
        (*reason, *ended_in_gotrue) = (Reason::Revoked, false);
    }
    assert_eq!(apply(&store, &later).await, Outcome::Ended(0));
    let tombstone: String =
        redis.get(format!("gotrue:{{{user}}}:revoked:{}", records[2].session)).await.unwrap();
    assert_eq!(tombstone, format!("logout:{NOW}:{}:1", NOW + 3600));
    assert_eq!(swept(&store, user, NOW).await, 2);
}

#[tokio::test]
async fn a_beginning_that_comes_late_does_not_change_what_was_decided() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    for _ in 0..2 {
        let theirs = Record { client_id: Some("client".to_owned()), ..signed_in(user, some_session()) };
        apply(&store, &sign_in(&theirs)).await;
    }
    let first = Record { client_id: Some("client".to_owned()), ..signed_in(user, some_session()) };
    let second = Record { client_id: None, ..refreshed(&first, 5) };
    apply(&store, &refresh(&second)).await;
    // it has no client yet, so the ending does not mean it
    apply(&store, &end(user, Which::Client("client".to_owned()))).await;
    assert_eq!(apply(&store, &sign_in(&first)).await, Outcome::Unchanged);
    assert_eq!(live(&store, user, first.session).await.client_id, first.client_id);
    assert_every_key_expires(&mut redis).await;
    assert_eq!(swept(&store, user, NOW).await, 1);
    assert_eq!(live(&store, user, first.session).await.client_id, first.client_id);
}

#[tokio::test]
async fn an_amendment_of_a_record_that_has_changed_since_is_not_made() {
    let server = RedisServer::start();
    let store = on(&server);
    let first = Record { counter: Some(3), ..signed_in(somebody(), some_session()) };
    apply(&store, &sign_in(&first)).await;
    let Store::Redis(redis) = &store else { panic!("not on Redis") };
    for (refreshed_at, counter, made) in [
        (first.refreshed_at - 1, Some(3), false),
        (first.refreshed_at, Some(2), false),
        (first.refreshed_at, None, false),
        (first.refreshed_at, Some(3), true),
    ] {
        let amendment = Amendment {
            user: first.user,
            session: first.session,
            compared: Stamp { refreshed_at, counter },
            aal: Some(Aal::Aal2),
            client: None,
            refreshed: None,
        };
        assert_eq!(redis.amend(&[amendment], NOW).await, Ok(vec![made]), "{refreshed_at} {counter:?}");
        let aal = live(&store, first.user, first.session).await.aal;
        assert_eq!(aal, Some(if made { Aal::Aal2 } else { Aal::Aal1 }), "{refreshed_at} {counter:?}");
    }
}

#[tokio::test]
async fn an_amendment_carries_out_first_what_waits() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let amend = async |record: &Record| {
        let Store::Redis(redis) = &store else { panic!("not on Redis") };
        let amendment = Amendment {
            user: record.user,
            session: record.session,
            compared: Stamp { refreshed_at: record.refreshed_at, counter: None },
            aal: None,
            client: Some("client".to_owned()),
            refreshed: None,
        };
        redis.amend(&[amendment], NOW).await.unwrap()
    };
    let user = somebody();
    let records = sign_in_all(&store, user, 3).await;
    apply(&store, &end(user, Which::Others(some_session()))).await;
    assert_eq!(amend(&records[1]).await, [false], "it has ended");
    assert_eq!(
        keys_of(&mut redis, user).await,
        [
            "ending:1".to_owned(),
            "marks".to_owned(),
            format!("revoked:{}", records[0].session),
            format!("revoked:{}", records[1].session),
            format!("session:{}", records[2].session),
        ]
        .into()
    );
    assert_eq!(swept(&store, user, NOW).await, 2);

    let user = somebody();
    let raised = (0..2).map(|_| signed_in(user, some_session()));
    let raised: Vec<_> =
        raised.map(|it| Record { aal: Some(Aal::Aal2), factor_id: Some(factor_id(1)), ..it }).collect();
    for record in &raised {
        apply(&store, &sign_in(record)).await;
    }
    apply(&store, &Change::LowerAal { user, factor: factor_id(1) }).await;
    assert_eq!(amend(&raised[1]).await, [true]);
    let fallen = live(&store, user, raised[1].session).await;
    assert_eq!((fallen.aal, fallen.factor_id, fallen.client_id.as_deref()), (None, None, Some("client")));
    let of_user = |kind| format!("gotrue:{{{user}}}:{kind}");
    assert!(!redis.exists::<_, bool>(of_user("ending:1")).await.unwrap(), "nobody waits any more");
    assert_eq!(redis.zcard::<_, u64>(of_user("sessions")).await.unwrap(), 2);
    assert_every_key_expires(&mut redis).await;
    swept(&store, user, NOW).await;
    assert_nothing_pends(&mut redis).await;
    assert_eq!(live(&store, user, raised[1].session).await, fallen);
}

#[tokio::test]
async fn any_number_of_changes_may_be_pending() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    let mut records = sign_in_all(&store, user, 100).await;
    let kept = records.pop().unwrap();
    for round in 0..40 {
        let client = format!("client-{round}");
        let theirs = Record { client_id: Some(client.clone()), ..signed_in(user, some_session()) };
        apply(&store, &sign_in(&theirs)).await;
        apply(&store, &end(user, Which::Client(client))).await;
        assert_eq!(look(&store, user, theirs.session).await, State::Revoked, "{round}");
        let fields: Vec<String> = redis.hkeys(format!("gotrue:{{{user}}}:marks")).await.unwrap();
        assert!(fields.len() <= 18, "{fields:?}");
    }
    apply(&store, &end(user, Which::Others(kept.session))).await;
    for record in &records {
        assert_eq!(look(&store, user, record.session).await, State::Revoked);
    }
    swept(&store, user, NOW).await;
    assert_nothing_pends(&mut redis).await;
    assert_eq!(live(&store, user, kept.session).await, kept);
}

#[tokio::test]
async fn a_full_redis_takes_a_change_to_many_sessions_too() {
    let server = RedisServer::with_options(&["--maxmemory-policy", "noeviction"]);
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    let mut raised = signed_in(user, some_session());
    (raised.aal, raised.factor_id) = (Some(Aal::Aal2), Some(factor_id(1)));
    apply(&store, &sign_in(&raised)).await;
    let records = sign_in_all(&store, user, 5).await;
    let full = |bytes: &str| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).clone();
    let _: () = full("1mb").query_async(&mut redis).await.unwrap();

    // renamed and noted, and everything holds
    assert_eq!(apply(&store, &Change::LowerAal { user, factor: factor_id(1) }).await, Outcome::Pending(0));
    assert_eq!(live(&store, user, raised.session).await.aal, Some(Aal::Aal1));
    let ended = apply(&store, &end(user, Which::Others(raised.session))).await;
    assert!(matches!(ended, Outcome::Pending(_)), "{ended:?}");
    for record in &records {
        assert_eq!(look(&store, user, record.session).await, State::Revoked);
    }
    // one by one: by its own refresh, by its own end, by sweeps
    assert!(redis.exists::<_, bool>(record_key(&records[4])).await.unwrap());
    assert!(store.apply(&[refresh(&refreshed(&records[4], 9))], NOW).await.is_err()); // of its token's hint
    assert!(!redis.exists::<_, bool>(record_key(&records[4])).await.unwrap());
    assert_eq!(apply(&store, &end(user, Which::One(records[3].session))).await, Outcome::Ended(0));
    // a refresh is refused, though its session waits for a change that spares it
    assert!(store.apply(&[refresh(&refreshed(&raised, 9))], NOW).await.is_err());
    assert_eq!(live(&store, user, raised.session).await.aal, Some(Aal::Aal1));
    swept(&store, user, NOW).await;
    assert_nothing_pends(&mut redis).await;
    assert_eq!(live(&store, user, raised.session).await.aal, Some(Aal::Aal1));

    let _: () = full("0").query_async(&mut redis).await.unwrap();
    for record in &records {
        assert_eq!(apply(&store, &refresh(&refreshed(record, 20))).await, Outcome::Revoked);
    }
    assert_eq!(apply(&store, &refresh(&refreshed(&raised, 20))).await, Outcome::Refreshed);
}

#[tokio::test]
async fn a_record_that_vanishes_while_it_waits_does_not_come_back() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    let records = sign_in_all(&store, user, 4).await;
    let mut others = end(user, Which::Others(records[3].session));
    if let Change::End { ended_in_gotrue, .. } = &mut others {
        *ended_in_gotrue = false; // so GoTrue may refresh it for long
    }
    apply(&store, &others).await;
    for record in &records[1..] {
        let _: () = redis.del(record_key(record)).await.unwrap(); // as its TTL would
    }
    assert_eq!(look(&store, user, records[1].session).await, State::Revoked);
    assert_eq!(apply(&store, &refresh(&refreshed(&records[1], 9))).await, Outcome::Revoked);
    swept(&store, user, NOW).await;
    assert_eq!(apply(&store, &refresh(&refreshed(&records[2], 9))).await, Outcome::Revoked);
    assert_eq!(apply(&store, &refresh(&refreshed(&records[3], 9))).await, Outcome::Created);
}

#[tokio::test]
async fn what_waits_is_kept_as_long_as_a_tombstone_would_be() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    sign_in_all(&store, user, 3).await;
    let _: () = redis.expire(format!("gotrue:{{{user}}}:sessions"), 500).await.unwrap();
    apply(&store, &end(user, Which::Others(some_session()))).await;
    for key in ["ending:1", "marks"] {
        let life: u64 = redis.ttl(format!("gotrue:{{{user}}}:{key}")).await.unwrap();
        assert!(life >= SESSION_TTL - 5, "{key}: {life}");
    }
}

#[tokio::test]
async fn survivors_that_expire_before_they_are_swept_leave_no_key_for_ever() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(2, &server), server.client().await);
    let user = somebody();
    for _ in 0..2 {
        let theirs = Record { client_id: Some("client".to_owned()), ..signed_in(user, some_session()) };
        apply(&store, &sign_in(&theirs)).await;
    }
    sign_in_all(&store, user, 3).await;
    // the first two by their ids go at once, so nobody has come back to the index before the sweep
    assert_eq!(apply(&store, &end(user, Which::Client("client".to_owned()))).await, Outcome::Pending(2));
    assert!(!redis.exists::<_, bool>(format!("gotrue:{{{user}}}:sessions")).await.unwrap());
    // Redis goes by its own clock, so by ours the sessions are over while their records are still there
    swept(&store, user, NOW + SESSION_TTL).await;
    assert_nothing_pends(&mut redis).await;
    assert_every_key_expires(&mut redis).await;
}

#[tokio::test]
async fn sessions_that_expired_before_a_change_get_no_tombstone() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let user = somebody();
    let expired: Vec<(u64, String)> = (0..1000).map(|_| (NOW - 1, some_session().to_string())).collect();
    let _: () = redis.zadd_multiple(format!("gotrue:{{{user}}}:sessions"), &expired).await.unwrap();
    assert_eq!(apply(&store, &end(user, Which::All)).await, Outcome::Pending(0));
    assert_eq!(swept(&store, user, NOW).await, 0);
    assert_eq!(keys_of(&mut redis, user).await, ["marks".to_owned()].into());
}

#[tokio::test]
async fn what_others_wrote_into_marks_and_sets_is_no_rule() {
    let server = RedisServer::start();
    let (store, mut redis) = (in_steps_of(1, &server), server.client().await);
    let user = somebody();
    let records = sign_in_all(&store, user, 2).await;
    let marks = format!("gotrue:{{{user}}}:marks");
    for odd in ["", "1", "2:1", "0:3", "1:99999999999", "-1:2", "a:b"] {
        let _: () = redis.hset(&marks, "ending", odd).await.unwrap();
        assert_eq!(live(&store, user, records[0].session).await, records[0], "{odd}");
        assert!(!store.sweep(user, NOW).await.unwrap().pending, "{odd}");
    }
    for odd in ["", "null", "7", "[]", r#"{"which":7}"#, r#"{"which":"all","sent_ms":"soon"}"#] {
        let _: () = redis.hset_multiple(&marks, &[("ending", "1:1"), ("ending:1", odd)]).await.unwrap();
        let set = format!("gotrue:{{{user}}}:ending:1");
        let _: () = redis.zadd(&set, records[0].session.to_string(), NOW + SESSION_TTL).await.unwrap();
        let _: () = redis.zadd(&set, "{odd}:session:text", NOW + 99).await.unwrap();
        assert_eq!(live(&store, user, records[0].session).await, records[0], "{odd}");
        swept(&store, user, NOW).await;
        assert_eq!(live(&store, user, records[0].session).await, records[0], "{odd}");
    }
    assert_nothing_pends(&mut redis).await;
}

#[tokio::test]
async fn a_record_of_another_type_stops_no_ending() {
    let server = RedisServer::start();
    let mut redis = server.client().await;
    for step in [1, 256] {
        let (store, user) = (in_steps_of(step, &server), somebody());
        let records = sign_in_all(&store, user, 3).await;
        let _: () = redis.set(record_key(&records[1]), "canary").await.unwrap();
        apply(&store, &end(user, Which::All)).await;
        assert_eq!(swept(&store, user, NOW).await, u64::from(step == 1));
        for record in &records {
            assert_eq!(look(&store, user, record.session).await, State::Revoked, "in steps of {step}");
        }
    }
}
