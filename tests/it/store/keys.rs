//! What stands in Redis, read with plain commands: the public interface of contract §5.

use std::collections::{BTreeSet, HashMap};

use redis::{AsyncCommands, aio::MultiplexedConnection};

use super::*;
use crate::support::documents;

/// Every key has a time to live (contract I10).
pub(super) async fn assert_every_key_expires(redis: &mut MultiplexedConnection) {
    let script = "local lasting = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
        if redis.call('TTL', key) < 0 then lasting[#lasting + 1] = key end end return lasting";
    let lasting: Vec<String> = redis::cmd("EVAL").arg(script).arg(0).query_async(redis).await.unwrap();
    assert_eq!(lasting, [""; 0], "keys without a time to live");
}

async fn keys(redis: &mut MultiplexedConnection) -> BTreeSet<String> {
    redis.keys::<_, Vec<String>>("*").await.unwrap().into_iter().collect()
}

/// A key lives for so many seconds, of which a busy machine has used up a few.
async fn assert_lives(redis: &mut MultiplexedConnection, key: &str, life: Seconds) {
    let left: u64 = redis.ttl(key).await.unwrap();
    assert!((life - 5..=life).contains(&left), "{key} lives for {left} s, not for {life} s");
}

#[tokio::test]
async fn keys_and_fields_are_those_of_contract_section_5() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let mut record = signed_in(somebody(), some_session());
    record.user_agent = None;
    apply(&store, &sign_in(&record)).await;

    let (user, session) = (record.user, record.session);
    let token = record.refresh_ref.as_ref().unwrap().as_str();
    let key = format!("gotrue:{{{user}}}:session:{session}");
    let index = format!("gotrue:{{{user}}}:sessions");
    let hint = format!("gotrue:refresh:{token}");
    assert_eq!(keys(&mut redis).await, BTreeSet::from([key.clone(), index.clone(), hint.clone()]));

    let fields: HashMap<String, String> = redis.hgetall(&key).await.unwrap();
    let expected = [
        ("v", "1"),
        ("user_id", &user.to_string()),
        ("session_id", &session.to_string()),
        ("refresh_ref", token),
        ("created_at", "1800000000"),
        ("began_ms", "1800000000100"),
        ("refreshed_at", "1800000000"),
        ("expires_at", "1800003600"),
        ("aal", "aal1"),
        ("amr", "password"),
        ("role", "authenticated"),
        ("anonymous", "0"),
        ("ip", "192.0.2.1"),
    ];
    let expected: HashMap<_, _> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(fields, expected);

    let members: Vec<(String, u64)> = redis.zrange_withscores(&index, 0, -1).await.unwrap();
    assert_eq!(members, [(session.to_string(), NOW + SESSION_TTL)]);
    assert_eq!(redis.get::<_, String>(&hint).await.unwrap(), format!("{user}/{session}"));
    for key in [&key, &index, &hint] {
        assert_lives(&mut redis, key, SESSION_TTL).await;
    }
}

#[tokio::test]
async fn the_readme_names_every_key_and_every_field() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let user = somebody();
    let mut record = signed_in(user, some_session());
    record.previous_ref = Some(some_token());
    record.counter = Some(1);
    record.seen_at = Some(NOW);
    record.begun_by_ms = NOW * 1000;
    record.client_id = Some("client".to_owned());
    record.factor_id = Some(factor_id(1));
    record.user_agent = Some("agent".to_owned());
    apply(&store, &sign_in(&record)).await;

    let readme = documents::read("README.md");
    let (_, rest) = readme.split_once("| field of a session | |\n").unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    let cells = table.lines().filter_map(|row| row.split('|').nth(1));
    let named: BTreeSet<String> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    let fields: HashMap<String, String> =
        redis.hgetall(format!("gotrue:{{{user}}}:session:{}", record.session)).await.unwrap();
    assert_eq!(fields.into_keys().collect::<BTreeSet<_>>(), named);

    apply(&store, &end(user, Which::All)).await;
    apply(&store, &sign_in(&signed_in(user, some_session()))).await;
    for key in keys(&mut redis).await {
        let key = key.replacen("gotrue:", "P:", 1).replace(&user.to_string(), "user_id");
        let (kind, _) = key.rsplit_once(':').unwrap();
        let named = [format!("\n| `{key}` |"), format!("\n| `{kind}:<")];
        assert!(named.iter().any(|row| readme.contains(row)), "{key}");
    }
}

#[tokio::test]
async fn tombstones_and_marks_are_those_of_contract_section_5() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let record = signed_in(somebody(), some_session());
    let user = record.user;
    apply(&store, &sign_in(&record)).await;
    apply(&store, &end(user, Which::All)).await;
    apply(&store, &suspend(user, Some(NOW + 100), 7)).await;
    apply(&store, &banned(user, NOW + 90, 8)).await;

    let tombstone = format!("gotrue:{{{user}}}:revoked:{}", record.session);
    let marks = format!("gotrue:{{{user}}}:marks");
    let hint = format!("gotrue:refresh:{}", record.refresh_ref.as_ref().unwrap().as_str());
    assert_eq!(keys(&mut redis).await, BTreeSet::from([tombstone.clone(), marks.clone(), hint]));
    assert_eq!(redis.get::<_, String>(&tombstone).await.unwrap(), format!("logout:{NOW}:{}:1", NOW + 3600));
    assert_lives(&mut redis, &tombstone, 3660).await;
    let fields: HashMap<String, String> = redis.hgetall(&marks).await.unwrap();
    let ms = NOW * 1000;
    let text = |number: u64| number.to_string();
    let mut expected = HashMap::from([
        ("not_before", text(NOW + 1)),
        ("all_ended", format!("{}:logout:1", ms + 1000)),
        ("suspended_until", text(NOW + 100)),
        ("decided_ms", text(ms + 7)),
        ("decided_until", text(NOW + 100)),
        ("seen_ms", text(ms + 8)),
        ("seen_until", text(NOW + 90)),
    ]);
    let owned = |fields: &HashMap<&str, String>| -> HashMap<String, String> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    assert_eq!(fields, owned(&expected));
    assert_lives(&mut redis, &marks, SESSION_TTL).await;

    apply(&store, &suspend(user, None, 9)).await;
    let spared = some_session();
    apply(&store, &end(user, Which::Others(spared))).await;
    let fields: HashMap<String, String> = redis.hgetall(&marks).await.unwrap();
    expected.remove("suspended_until");
    expected.extend([("decided_ms", text(ms + 9)), ("decided_until", text(0))]);
    expected.insert("others_ended", format!("{}:logout:1:{spared}", ms + 1000));
    assert_eq!(fields, owned(&expected));
    assert_every_key_expires(&mut redis).await;
}

#[tokio::test]
async fn lives_are_as_long_as_the_contract_says() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let user = somebody();
    let lives = async |redis: &mut MultiplexedConnection, kind: &str, session: SessionId, life: Seconds| {
        assert_lives(redis, &format!("gotrue:{{{user}}}:{kind}:{session}"), life).await;
    };

    let mut long = signed_in(user, some_session());
    long.expires_at = NOW + 2 * SESSION_TTL;
    apply(&store, &sign_in(&long)).await;
    lives(&mut redis, "session", long.session, 2 * SESSION_TTL).await;
    // The index lives as long as its longest member, whoever comes after.
    apply(&store, &sign_in(&signed_in(user, some_session()))).await;
    let index = format!("gotrue:{{{user}}}:sessions");
    assert_lives(&mut redis, &index, 2 * SESSION_TTL).await;

    let ending = |session, expires_at, ended_in_gotrue| Change::End {
        user,
        which: Which::One(session),
        reason: Reason::Revoked,
        sent_ms: NOW * 1000 + 1000,
        expires_at,
        ended_in_gotrue,
    };
    for (expires_at, ended_in_gotrue, expected) in [
        (Some(NOW + 3600), true, [3660, 3660]),
        (Some(NOW + 10), true, [120, 120]),
        (Some(NOW - 10), true, [120, 120]),
        (Some(NOW + 3600), false, [SESSION_TTL, 3660]),
        (Some(NOW + 2 * SESSION_TTL), false, [2 * SESSION_TTL + 60, 2 * SESSION_TTL + 60]),
        (None, true, [SESSION_TTL, SESSION_TTL]),
    ] {
        let [at_first, once_gotrue_knows] = expected;
        let session = some_session();
        apply(&store, &ending(session, expires_at, ended_in_gotrue)).await;
        lives(&mut redis, "revoked", session, at_first).await;
        // It becomes shorter only when GoTrue has come to know, and never shorter than a token's life.
        apply(&store, &ending(session, Some(NOW), true)).await;
        lives(&mut redis, "revoked", session, once_gotrue_knows).await;
        // In the other order it is the same.
        apply(&store, &ending(session, None, false)).await;
        lives(&mut redis, "revoked", session, once_gotrue_knows).await;
    }
}

/// A refresh of just now may be recorded late.
#[tokio::test]
async fn a_tombstone_lives_as_long_as_a_token_of_now_would() {
    let server = RedisServer::start();
    let mut redis = server.client().await;
    let ttl = async |redis: &mut MultiplexedConnection, record: &Record| {
        let key = format!("gotrue:{{{}}}:revoked:{}", record.user, record.session);
        redis.ttl::<_, i64>(key).await.unwrap()
    };
    for step in [1, 256] {
        let (user, store) = (somebody(), open_with_step(&config(redis_target(server.url())), step));
        let records: Vec<_> = (0..4).map(|_| signed_in(user, some_session())).collect();
        for record in &records {
            apply(&store, &sign_in(record)).await;
        }
        let mut ending = end(user, Which::Others(some_session()));
        if let Change::End { expires_at, .. } = &mut ending {
            *expires_at = None;
        }
        store.apply(&[ending], NOW + 3590).await.unwrap();
        // whoever waits for it is ended by its own refresh, which may be of a token that lives longer
        let late = refreshed(records.last().unwrap(), 9000);
        assert_eq!(store.apply(&[refresh(&late)], NOW + 3590).await, Ok(vec![Outcome::Revoked]));
        assert_eq!(ttl(&mut redis, &late).await, 12_600 - 3590 + 60, "in steps of {step}");
        while store.sweep(user, NOW + 3590).await.unwrap().pending {}
        for record in &records[..3] {
            assert_eq!(ttl(&mut redis, record).await, 3660, "in steps of {step}");
        }
    }
}

/// GoTrue went on refreshing what was ended only here, so an ending shortens nothing that does not tell of tokens.
#[tokio::test]
async fn only_who_tells_how_long_tokens_live_shortens_a_tombstone() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let record = signed_in(somebody(), some_session());
    let which = Which::One(record.session);
    let tombstone = format!("gotrue:{{{}}}:revoked:{}", record.user, record.session);
    apply(&store, &sign_in(&record)).await;
    for (told, in_gotrue, life) in
        [(None, false, SESSION_TTL), (None, true, SESSION_TTL), (Some(NOW + 3600), true, SESSION_TTL)]
    {
        let mut ending = end(record.user, which.clone());
        if let Change::End { expires_at, ended_in_gotrue, .. } = &mut ending {
            (*expires_at, *ended_in_gotrue) = (told, in_gotrue);
        }
        apply(&store, &ending).await;
        assert_eq!(redis.ttl::<_, u64>(&tombstone).await.unwrap(), life, "{told:?} {in_gotrue}");
    }
}

/// As of records that an audit wrote.
#[tokio::test]
async fn a_tombstone_against_tokens_that_nobody_knows_lives_as_long_as_a_session() {
    let server = RedisServer::start();
    let mut redis = server.client().await;
    for step in [1, 256] {
        let (user, store) = (somebody(), open_with_step(&config(redis_target(server.url())), step));
        let records: Vec<_> =
            (0..3).map(|_| Record { expires_at: 0, ..signed_in(user, some_session()) }).collect();
        for record in &records {
            apply(&store, &refresh(record)).await;
        }
        let ended_here = |which, told, in_gotrue| {
            let mut ending = end(user, which);
            if let Change::End { expires_at, ended_in_gotrue, .. } = &mut ending {
                (*expires_at, *ended_in_gotrue) = (Some(NOW + told), in_gotrue);
            }
            ending
        };
        apply(&store, &ended_here(Which::One(records[0].session), 90, false)).await;
        apply(&store, &ended_here(Which::Others(some_session()), 90, true)).await;
        while store.sweep(user, NOW).await.unwrap().pending {}
        for told in [90, 3600] {
            apply(&store, &ended_here(Which::One(records[0].session), told, true)).await;
        }
        for record in &records {
            let key = format!("gotrue:{{{user}}}:revoked:{}", record.session);
            assert_eq!(redis.ttl::<_, u64>(&key).await.unwrap(), SESSION_TTL, "in steps of {step}");
            assert_eq!(redis.get::<_, String>(&key).await.unwrap(), format!("logout:{NOW}:0:1"));
        }
    }
}

/// A hundred years are `ban_duration: 876000h`, as Supabase's dashboard has it.
#[tokio::test]
async fn a_ban_that_is_lifted_is_not_remembered_for_as_long_as_it_would_have_held() {
    const HUNDRED_YEARS: u64 = 876_000 * 3600;
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let user = somebody();
    let marks = format!("gotrue:{{{user}}}:marks");
    for (until, ms, life) in [
        (Some(NOW + HUNDRED_YEARS), 10, 100 * 365 * 24 * 3600),
        (Some(NOW + SESSION_TTL), 9, 100 * 365 * 24 * 3600), // an older one that is written late
        (Some(NOW + 2 * SESSION_TTL), 11, 2 * SESSION_TTL + 60),
        (None, 12, SESSION_TTL),
    ] {
        apply(&store, &suspend(user, until, ms)).await;
        assert_eq!(redis.ttl::<_, u64>(&marks).await.unwrap(), life, "{until:?}");
    }
    // a refusal that was seen since, and whatever else stands there, are not forgotten with it
    apply(&store, &banned(user, NOW + 2 * SESSION_TTL, 20)).await;
    apply(&store, &suspend(user, None, 19)).await;
    assert_eq!(redis.ttl::<_, u64>(&marks).await.unwrap(), 2 * SESSION_TTL + 60);
    let mut ending = end(user, Which::All);
    if let Change::End { expires_at, .. } = &mut ending {
        *expires_at = Some(NOW + 3 * SESSION_TTL);
    }
    apply(&store, &ending).await;
    apply(&store, &suspend(user, None, 30)).await;
    assert_eq!(redis.ttl::<_, u64>(&marks).await.unwrap(), 3 * SESSION_TTL + 60);
}

#[tokio::test]
async fn nothing_that_comes_later_shortens_a_life() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let mut record = signed_in(somebody(), some_session());
    record.expires_at = NOW + 2 * SESSION_TTL;
    let user = record.user;
    apply(&store, &sign_in(&record)).await;
    let renewed = Record { expires_at: NOW + 7200, ..refreshed(&record, 1) };
    assert_eq!(apply(&store, &refresh(&renewed)).await, Outcome::Refreshed);
    let index = format!("gotrue:{{{user}}}:sessions");
    let stays: u64 = redis.zscore(&index, record.session.to_string()).await.unwrap();
    assert_eq!(stays, NOW + 2 * SESSION_TTL);

    // The tombstone outlives the record's access token, whatever the ending knew; and grows, if need be.
    let tombstone = format!("gotrue:{{{user}}}:revoked:{}", record.session);
    for (expires_at, life) in [(Some(NOW + 10), 7260), (Some(NOW + 9000), 9060), (Some(NOW + 20), 9060)] {
        let mut one = end(user, Which::One(record.session));
        if let Change::End { expires_at: known, .. } = &mut one {
            *known = expires_at;
        }
        apply(&store, &one).await;
        assert_lives(&mut redis, &tombstone, life).await;
    }
}

#[tokio::test]
async fn a_refresh_renews_the_time_to_live() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let record = signed_in(somebody(), some_session());
    let index = format!("gotrue:{{{}}}:sessions", record.user);
    let key = format!("gotrue:{{{}}}:session:{}", record.user, record.session);
    apply(&store, &sign_in(&record)).await;
    for key in [&key, &index] {
        let _: () = redis.expire(key, 500).await.unwrap();
    }
    assert_eq!(apply(&store, &refresh(&refreshed(&record, 1))).await, Outcome::Refreshed);
    for key in [&key, &index] {
        assert_lives(&mut redis, key, SESSION_TTL).await;
    }
}

#[tokio::test]
async fn a_touch_keeps_the_time_to_live() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let record = signed_in(somebody(), some_session());
    apply(&store, &sign_in(&record)).await;
    let key = format!("gotrue:{{{}}}:session:{}", record.user, record.session);
    let _: () = redis.expire(&key, 500).await.unwrap();
    store.lookup(&Sought { touch: true, ..Sought::of(record.user, record.session) }, NOW).await.unwrap();
    assert_eq!(redis.hget::<_, _, u64>(&key, "seen_at").await.unwrap(), NOW);
    assert_lives(&mut redis, &key, 500).await;
}

#[tokio::test]
async fn the_index_forgets_what_has_expired() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let user = somebody();
    let index = format!("gotrue:{{{user}}}:sessions");
    let _: () = redis.zadd(&index, some_session().to_string(), NOW - 1).await.unwrap();
    let _: () = redis.zadd(&index, "{odd}:session:text", NOW + 99).await.unwrap();
    let vanished = some_session();
    let _: () = redis.zadd(&index, vanished.to_string(), NOW + 99).await.unwrap();
    let record = signed_in(user, some_session());
    apply(&store, &sign_in(&record)).await;
    let ended = apply(&store, &end(user, Which::Others(record.session))).await;
    assert_eq!(ended, Outcome::Ended(0));
    let members: Vec<String> = redis.zrange(&index, 0, -1).await.unwrap();
    assert_eq!(members, [record.session.to_string()]);
}

#[tokio::test]
async fn what_others_wrote_is_an_error_or_unknown_and_never_followed() {
    let server = RedisServer::start();
    let (store, mut redis) = (on(&server), server.client().await);
    let record = signed_in(somebody(), some_session());
    let (user, session) = (record.user, record.session);
    let key = format!("gotrue:{{{user}}}:session:{session}");
    let index = format!("gotrue:{{{user}}}:sessions");

    // Wrong types are an error, and nothing is half done.
    for wrong in [&key, &index, &format!("gotrue:{{{user}}}:marks")] {
        let _: () = redis.set(wrong, "canary").await.unwrap();
        let refused = store.apply(&[sign_in(&record)], NOW).await.unwrap_err();
        assert_eq!(refused.cause(), "protocol", "{wrong}");
        assert!(!format!("{refused} {refused:?}").contains("canary"));
        assert_eq!(redis.exists::<_, bool>(&key).await.unwrap(), *wrong == key);
        let _: () = redis.del(wrong).await.unwrap();
    }

    // A record of another kind or another version is unknown.
    for fields in [[("v", "2"), ("created_at", "5")], [("v", "1"), ("created_at", "nan")]] {
        let _: () = redis.hset_multiple(&key, &fields).await.unwrap();
        assert_eq!(look(&store, user, session).await, State::Unknown);
    }
    let _: () = redis.hset(&key, "aal", b"\xff\xfe").await.unwrap();
    assert_eq!(look(&store, user, session).await, State::Unknown);
    assert_eq!(apply(&store, &refresh(&record)).await, Outcome::Refreshed);

    // Hints that lie lead nowhere.
    let token = some_token();
    let hint = format!("gotrue:refresh:{}", token.as_str());
    for text in ["", "canary", &format!("{user}/{session}"), &format!("{user}/*")] {
        let _: () = redis.set(&hint, text).await.unwrap();
        assert_eq!(session_of(&store, &token, NOW).await, Ok(None), "{text}");
    }
}

#[tokio::test]
async fn after_the_last_ttl_no_key_is_left() {
    let server = RedisServer::start();
    let mut redis = server.client().await;
    let source = Source::new(&config(redis_target(server.url())), Duration::from_secs(1)).unwrap();
    let store = source.connect();
    let user = somebody();
    // all in one call: on a busy machine the first would be over before the last has begun
    let short = || Record { expires_at: NOW + 1, ..signed_in(user, some_session()) };
    let changes: Vec<_> = (0..20).map(|_| sign_in(&short())).collect();
    store.apply(&changes, NOW).await.unwrap();
    let mut all = end(user, Which::Others(some_session()));
    if let Change::End { expires_at, ended_in_gotrue, .. } = &mut all {
        (*expires_at, *ended_in_gotrue) = (None, false);
    }
    apply(&store, &sign_in(&short())).await;
    apply(&store, &all).await;
    assert_every_key_expires(&mut redis).await;
    let size: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
    assert!(size > 20, "{size}");
    // Tombstones outlive access tokens by the skew of a minute: that much is taken off here.
    for key in redis.keys::<_, Vec<String>>("*revoked*").await.unwrap() {
        assert!(redis.ttl::<_, u64>(&key).await.unwrap() <= 61);
        let _: () = redis.expire(&key, 1).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(keys(&mut redis).await, BTreeSet::new());
}
