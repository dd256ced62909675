//! Each cause by its name, and gone after a repair.

use std::time::Duration;

use gotrue_sidecar::{
    drift::{Cause, Excuse, Kind},
    session::{Aal, Change, FactorId, Origin, Outcome, Reason, Record, SessionId, State, UserId, Which},
};
use redis::AsyncCommands as _;

use super::{World, excused, found, new_id};
use crate::support::pod::keys_without_ttl;

#[tokio::test]
async fn a_store_that_agrees_has_no_drift() {
    for world in [World::new().await, World::before_oauth().await] {
        for _ in 0..3 {
            world.session().await;
        }
        let report = world.audit(true).await;
        assert_eq!((report.rows, report.sessions), (3, 3));
        assert_eq!((found(&report), excused(&report), report.left()), (vec![], vec![], 0));
    }
}

#[tokio::test]
async fn the_first_audit_before_an_existing_gotrue_makes_its_sessions_known() {
    let world = World::new().await;
    let mut rows = Vec::new();
    for _ in 0..3 {
        rows.push(world.record());
        world.insert(&rows[rows.len() - 1]).await;
    }
    world
        .set(&rows[0], "oauth_client_id = '0191d1a0-0000-4000-8000-000000000001', refresh_token_counter = 7")
        .await;
    assert_eq!(found(&world.audit(false).await), [(Cause::Unknown, 3)]);
    assert_eq!(world.state(&rows[0]).await, State::Unknown, "without --repair nothing is written");

    let report = world.audit(true).await;
    assert_eq!((found(&report), report.repaired(), report.left()), (vec![(Cause::Unknown, 3)], 3, 0));
    let kept = world.live(&rows[0]).await;
    let expected = Record {
        refresh_ref: None,
        counter: Some(7),
        expires_at: 0,
        amr: None,
        role: None,
        client_id: Some("0191d1a0-0000-4000-8000-000000000001".to_owned()),
        ..rows[0].clone()
    };
    assert_eq!(kept, expected);
    assert_eq!(found(&world.audit(false).await), []);
    assert_eq!(keys_without_ttl(&mut world.redis.client().await).await, [""; 0]);

    // an imported session is ended like any other
    let end = Change::End {
        user: rows[1].user,
        which: Which::All,
        reason: Reason::Logout,
        sent_ms: world.now * 1000,
        expires_at: None,
        ended_in_gotrue: true,
    };
    world.store().apply(&[end], world.now).await.unwrap();
    assert_eq!(world.state(&rows[1]).await, State::Revoked);
    // and its next refresh fills in what the row does not say
    let next = Record { refreshed_at: world.now, ..world.record() };
    let next = Record { user: rows[2].user, session: rows[2].session, ..next };
    world.keep(&next).await;
    let filled = world.live(&rows[2]).await;
    assert_eq!((filled.expires_at, filled.refresh_ref), (next.expires_at, next.refresh_ref));
}

#[tokio::test]
async fn a_late_answer_of_the_same_second_stands_against_the_row() {
    let world = World::new().await;
    let record = Record { refreshed_at: world.now - 3600, ..world.record() };
    world.insert(&record).await;
    world.audit(true).await;
    let sign_in =
        Change::Record { origin: Origin::SignIn, allowed_ms: None, record: Box::new(record.clone()) };
    world.store().apply(&[sign_in], world.now).await.unwrap();
    assert_eq!(world.live(&record).await, record);
}

#[tokio::test]
async fn a_session_whose_row_is_gone_is_ended() {
    let world = World::new().await;
    let (gone, stays) = (world.session().await, world.session().await);
    world.delete_row(&gone).await;
    let report = world.audit(false).await;
    assert_eq!((found(&report), report.left()), (vec![(Cause::RowGone, 1)], 1));
    world.live(&gone).await;

    let report = world.audit(true).await;
    assert_eq!((found(&report), report.left()), (vec![(Cause::RowGone, 1)], 0));
    assert_eq!(world.state(&gone).await, State::Revoked);
    world.live(&stays).await;
    assert_eq!(found(&world.audit(true).await), []);
}

#[tokio::test]
async fn a_refresh_that_was_missed_is_taken_over() {
    let world = World::new().await;
    let (by_time, by_counter) = (world.session().await, world.session().await);
    world.set(&by_time, "refreshed_at = refreshed_at + interval '11 seconds'").await;
    let counted =
        Record { counter: Some(2), refreshed_at: by_counter.refreshed_at + 1, ..by_counter.clone() };
    world.keep(&counted).await;
    world.set(&by_counter, "refresh_token_counter = 3, aal = 'aal2'").await;

    let report = world.audit(true).await;
    assert_eq!((found(&report), report.left()), (vec![(Cause::Stale, 2)], 0));
    let kept = world.live(&by_time).await;
    assert_eq!((kept.refreshed_at, kept.expires_at), (by_time.refreshed_at + 11, 0));
    assert_eq!(
        (kept.refresh_ref, kept.role),
        (by_time.refresh_ref, by_time.role),
        "what the row does not say stays"
    );
    let kept = world.live(&counted).await;
    assert_eq!((kept.counter, kept.aal), (Some(3), Some(Aal::Aal2)));
    assert_eq!(found(&world.audit(false).await), []);
}

#[tokio::test]
async fn another_level_or_client_is_taken_over() {
    let world = World::new().await;
    let (level, client) = (world.session().await, world.session().await);
    world.set(&level, "aal = 'aal2'").await;
    world.set(&client, "oauth_client_id = '0191d1a0-0000-4000-8000-000000000001'").await;
    let report = world.audit(true).await;
    assert_eq!((found(&report), report.left()), (vec![(Cause::Aal, 1), (Cause::Client, 1)], 0));
    let kept = world.live(&level).await;
    assert_eq!((kept.aal, kept.expires_at), (Some(Aal::Aal2), level.expires_at));
    assert!(world.live(&client).await.client_id.is_some());
    assert_eq!(found(&world.audit(false).await), []);
}

#[tokio::test]
async fn a_session_outside_of_its_users_index_is_put_into_it() {
    let world = World::new().await;
    let record = world.session().await;
    let mut redis = world.redis.client().await;
    let index = format!("gotrue:{{{}}}:sessions", record.user);
    let _: () = redis.del(&index).await.unwrap();
    let report = world.audit(true).await;
    assert_eq!((found(&report), report.left()), (vec![(Cause::Unindexed, 1)], 0));
    let members: Vec<String> = redis.zrange(&index, 0, -1).await.unwrap();
    assert_eq!(members, [record.session.to_string()]);
    assert_eq!(keys_without_ttl(&mut redis).await, [""; 0]);
}

#[tokio::test]
async fn what_does_not_read_as_a_record_is_made_one_where_redis_lets_it() {
    let world = World::new().await;
    let (hash, text, rowless) = (world.session().await, world.session().await, world.session().await);
    let key = |record: &Record| format!("gotrue:{{{}}}:session:{}", record.user, record.session);
    let mut redis = world.redis.client().await;
    let _: () = redis.hdel(key(&hash), "refreshed_at").await.unwrap();
    let _: () = redis.del(key(&text)).await.unwrap();
    let _: () = redis.set_ex(key(&text), "text", 60).await.unwrap();
    let _: () = redis.hset(key(&rowless), "v", "another").await.unwrap();
    world.delete_row(&rowless).await;

    let report = world.audit(true).await;
    assert_eq!(found(&report), [(Cause::RowGone, 1), (Cause::Unreadable, 2)]);
    assert_eq!((report.repaired(), report.left()), (2, 1), "a key of another type is not ours to delete");
    world.live(&hash).await;
    assert_eq!(world.state(&rowless).await, State::Revoked);
}

#[tokio::test]
async fn a_session_under_another_user_moves_to_its_own() {
    let world = World::new().await;
    let row = world.record();
    world.insert(&row).await;
    let foreign = Record { user: UserId::parse(&new_id()).unwrap(), ..row.clone() };
    world.keep(&foreign).await;
    let report = world.audit(true).await;
    assert_eq!((found(&report), report.left()), (vec![(Cause::Unknown, 1), (Cause::User, 1)], 0));
    world.live(&row).await;
    assert_eq!(world.state(&foreign).await, State::Revoked);
    assert_eq!(found(&world.audit(false).await), []);
}

#[tokio::test]
async fn what_was_ended_here_or_forgotten_is_no_drift() {
    let world = World::new().await;
    let (ended, marked, idle) = (world.session().await, world.record(), world.record());
    let end = |record: &Record, which| Change::End {
        user: record.user,
        which,
        reason: Reason::Revoked,
        sent_ms: world.now * 1000,
        expires_at: None,
        ended_in_gotrue: false,
    };
    world.insert(&marked).await;
    world.insert(&idle).await;
    world.set(&idle, "refreshed_at = NULL, created_at = now() - interval '31 days'").await;
    let changes = [end(&ended, Which::One(ended.session)), end(&marked, Which::All)];
    world.store().apply(&changes, world.now).await.unwrap();

    let report = world.audit(true).await;
    assert_eq!((found(&report), report.left()), (vec![], 0));
    assert_eq!(excused(&report), [(Excuse::EndedHere, 2), (Excuse::Forgotten, 1)]);
    assert_eq!(world.state(&ended).await, State::Revoked);
    assert_eq!(world.state(&marked).await, State::Unknown);
}

#[tokio::test]
async fn a_banned_users_sessions_are_compared_all_the_same() {
    let world = World::new().await;
    let (stays, gone) = (world.session().await, world.session().await);
    let ban = |record: &Record| Change::Suspend {
        user: record.user,
        until: Some(world.now + 600),
        decided_ms: world.now * 1000,
    };
    world.store().apply(&[ban(&stays), ban(&gone)], world.now).await.unwrap();
    world.delete_row(&gone).await;
    assert_eq!(found(&world.audit(true).await), [(Cause::RowGone, 1)]);
    assert_eq!(world.state(&gone).await, State::Revoked);
    assert_eq!(world.state(&stays).await, State::Suspended(world.now + 600));
}

/// A fall to aal1 and an ending of others, of which one session each has been dealt with.
#[tokio::test]
async fn what_waits_for_a_sweep_is_compared_as_it_will_be() {
    let world = World::new().await;
    let store = world.store_in_small_steps();
    let factor = FactorId::parse_as_gotrue(&new_id()).unwrap();
    let user = UserId::parse(&new_id()).unwrap();
    let mut records: Vec<_> = (0..4)
        .map(|_| Record { user, aal: Some(Aal::Aal2), factor_id: Some(factor), ..world.record() })
        .collect();
    records.sort_by_key(|record| record.session.to_string()); // as Redis has those that expire together
    for record in &records {
        world.insert(record).await;
        world.keep(record).await;
        world.set(record, "aal = 'aal1', factor_id = NULL").await; // as GoTrue does when the factor is removed
    }
    let lower = Change::LowerAal { user, factor };
    assert_eq!(store.apply(&[lower], world.now).await, Ok(vec![Outcome::Pending(0)]));
    assert_eq!(found(&world.audit(true).await), []);

    world.set(&records[2], "refreshed_at = refreshed_at + interval '11 seconds'").await;
    let report = world.audit(true).await;
    assert_eq!((found(&report), report.left()), (vec![(Cause::Stale, 1)], 0));
    let amended = world.live(&records[2]).await;
    assert_eq!((amended.aal, amended.factor_id, amended.expires_at), (Some(Aal::Aal1), None, 0));
    assert_eq!(found(&world.audit(false).await), []);

    let others = Change::End {
        user,
        which: Which::Others(records[2].session),
        reason: Reason::Logout,
        sent_ms: world.now * 1000,
        expires_at: None,
        ended_in_gotrue: true,
    };
    store.apply(&[others], world.now).await.unwrap();
    for record in [&records[0], &records[1], &records[3]] {
        world.delete_row(record).await;
    }
    assert_eq!(found(&world.audit(true).await), []);
    assert_eq!(world.live(&records[2]).await, amended);
}

#[tokio::test]
async fn many_sessions_are_compared_in_batches() {
    let world = World::new().await;
    world
        .postgres
        .run(
            "INSERT INTO auth.sessions (id, user_id, created_at, aal)
             SELECT gen_random_uuid(), gen_random_uuid(), now(), 'aal1' FROM generate_series(1, 2500)",
        )
        .await;
    let report = world.audit(true).await;
    assert_eq!((report.rows, report.sessions, report.repaired(), report.left()), (2500, 2500, 2500, 0));
    let report = world.audit(false).await;
    assert_eq!((report.rows, report.sessions, found(&report)), (2500, 2500, vec![]));
    world.postgres.run("DELETE FROM auth.sessions").await;
    let report = world.audit(true).await;
    assert_eq!((report.found(Kind::Surplus), report.left()), (2500, 0));
}

#[tokio::test]
async fn what_others_keep_in_the_same_redis_is_left_alone() {
    let world = World::new().await;
    let session = SessionId::parse(&new_id()).unwrap();
    let mut redis = world.redis.client().await;
    for key in
        [format!("another:{{{}}}:session:{session}", new_id()), format!("gotrue:{{x}}:session:{session}")]
    {
        let _: () = redis.set_ex(&key, "theirs", 60).await.unwrap();
    }
    let report = world.audit_as("postgres", true, Duration::ZERO).await.unwrap();
    assert_eq!((report.sessions, report.left()), (0, 0));
    let theirs: Vec<String> = redis.keys("*:session:*").await.unwrap();
    assert_eq!(theirs.len(), 2);
}
