//! What is revoked anywhere is refused everywhere (I11): at once where Redis tells of it, within
//! `check.max_staleness` where it does not.

use tokio::time::Instant;

use super::*;
use crate::support::{
    process::Process,
    redis_cluster::RedisCluster,
    redis_sentinel::Sentinels,
    relay::{Does, Relay},
};

/// A sidecar's flags that lead to Redis through a relay.
async fn through(relay: &Relay, world: &World, flags: &[&str]) -> Sidecar {
    let store = format!("redis://127.0.0.1:{}", relay.port);
    let more = ["--upstream-url", &world.upstream.url, "--store-url", &store, "--store-timeout", "2s"];
    let sidecar = Sidecar::start_at(&world.clock, &[&more[..], &UNHURRIED, flags].concat());
    hears(&sidecar).await;
    sidecar
}

async fn is_refused(sidecar: &Sidecar, token: &str) -> bool {
    check(sidecar, token).await.status == 403
}

/// Threat: a session that was ended on one replica lives on in another one's memory.
#[tokio::test]
async fn an_ending_by_another_replica_is_heard_of() {
    let world = World::checking(&NEVER).await;
    let other = world.replica(&[&NEVER[..], &["--session-api-enabled", "true"]].concat());
    hears(&world.sidecar).await;
    for ends in ["DELETE", "logout", "revoke-all"] {
        let login = Login::new(NOW);
        world.know(&[&login]).await;
        let token = login.access(&world.signer);
        remembered(&world.sidecar, &token).await;
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let target = match ends {
            "DELETE" => (Method::DELETE, format!("/sessions/{}", login.session)),
            "logout" => (Method::POST, "/logout?scope=local".to_owned()),
            _ => (Method::DELETE, "/sessions?scope=global".to_owned()),
        };
        let answer = send_through(&other, target.0, &target.1, &headers, "").await;
        assert_eq!(answer.status, 204, "{ends}");
        // in its own memory there is nothing to wait for
        assert!(is_refused(&other, &token).await, "{ends}");
        until(ends, async || is_refused(&world.sidecar, &token).await).await;
    }
}

/// What a replica ends itself it need not be told of: whoever was answered 204 by it is refused by it, even where Redis
/// tells of nothing.
#[tokio::test]
async fn what_a_replica_ends_itself_it_refuses_untold() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(always(no_content())).await);
    let () = redis_cli(&redis, &["ACL", "SETUSER", "default", "-client|tracking"]).await;
    let flags = [&UNHURRIED[..], &NEVER, &["--session-api-enabled", "true"]].concat();
    let sidecar = another(&redis, &upstream, &Clock::standing_at(NOW_MS), &flags);
    let login = Login::new(NOW);
    sidecar.store().apply(&[recorded(&login)], NOW).await.unwrap();
    let token = login.access(&Signer::trusted());
    remembered(&sidecar, &token).await;
    let hits = "gotrue_sidecar_check_cache_hits_total{cache=\"session\"}";
    assert_eq!(sample(sidecar.admin, hits).await, "2");
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let target = format!("/sessions/{}", login.session);
    assert_eq!(send_through(&sidecar, Method::DELETE, &target, &headers, "").await.status, 204);
    assert!(is_refused(&sidecar, &token).await);
}

/// An operator with redis-cli and nothing else.
#[tokio::test]
async fn what_is_done_by_hand_is_heard_of() {
    let world = World::checking(&[&NEVER[..], &["--check-unknown", "deny"]].concat()).await;
    hears(&world.sidecar).await;
    let users = [NOW; 4].map(Login::new);
    world.know(&users.each_ref()).await;
    let tokens = users.each_ref().map(|login| login.access(&world.signer));
    let [buried, deleted, banned, flushed] = &users;
    for token in &tokens {
        remembered(&world.sidecar, token).await;
    }
    world.bury(buried).await;
    let record = format!("gotrue:{{{}}}:session:{}", deleted.user, deleted.session);
    let _: i64 = world.redis(&["DEL", &record]).await;
    let marks = format!("gotrue:{{{}}}:marks", banned.user);
    let _: i64 = world.redis(&["HSET", &marks, "suspended_until", &(NOW + 60).to_string()]).await;
    for (token, what) in tokens.iter().zip(["tombstone", "DEL", "ban"]) {
        until(what, async || is_refused(&world.sidecar, token).await).await;
    }
    assert_eq!(world.check(flushed).await.status, 200);
    let () = world.redis(&["FLUSHALL"]).await;
    until("FLUSHALL", async || is_refused(&world.sidecar, &tokens[3]).await).await;
}

#[tokio::test]
async fn a_ban_and_its_end_are_heard_of() {
    let login = Login::new(NOW);
    let world = World::checking(&NEVER).await;
    let other = world.replica(&NEVER);
    world.know(&[&login]).await;
    hears(&other).await;
    let token = login.access(&world.signer);
    remembered(&other, &token).await;
    for (until_then, at, status) in [(Some(NOW + 60), 1, 403), (None, 2, 200)] {
        let ban = Change::Suspend { user: login.user, until: until_then, decided_ms: NOW_MS + at };
        world.store.apply(&[ban], NOW).await.unwrap();
        until("the ban, or its end", async || check(&other, &token).await.status == status).await;
    }
}

/// Threat: the connection over which Redis tells of changes is dead, and nobody knows; or one message is lost.
#[tokio::test]
async fn without_being_told_a_revocation_is_noticed_in_time() {
    let staleness = Duration::from_secs(1);
    let world = World::checking(&[]).await;
    for loss in ["pushes", "everything"] {
        let relay = Relay::to(world.redis.port()).await;
        let sidecar = through(&relay, &world, &["--check-max-staleness", "1s"]).await;
        let login = Login::new(NOW);
        world.know(&[&login]).await;
        let token = login.access(&world.signer);
        remembered(&sidecar, &token).await;
        match loss {
            "pushes" => relay.does(Does::LosePushes),
            _ => relay.swallow(),
        }
        world.bury(&login).await;
        let buried = Instant::now();
        loop {
            let asked = buried.elapsed();
            // with everything gone it cannot be decided before there is a new connection
            let status = check(&sidecar, &token).await.status.as_u16();
            if status == 403 {
                break;
            }
            assert!(status == 503 || asked < staleness, "{loss}: {status} after {asked:?}");
            assert!(asked < Duration::from_secs(20), "{loss}: never refused");
        }
        if loss == "everything" {
            // and the dead connection is found out
            until("changes are told of again", async || relay.connections() > 2).await;
            hears(&sidecar).await;
        }
    }
}

/// Every master of a Cluster tells of its own users.
#[tokio::test]
async fn every_master_of_a_cluster_tells() {
    let (cluster, upstream) = (RedisCluster::start().await, Upstream::start(always(no_content())).await);
    let (store, clock) = (cluster.url(), Clock::standing_at(NOW_MS));
    let more = ["--upstream-url", &upstream.url, "--store-url", &store, "--store-timeout", "10s"];
    let flags = [&more[..], &UNHURRIED, &NEVER].concat();
    let [sidecar, other] = [(); 2].map(|()| Sidecar::start_at(&clock, &flags));
    hears(&sidecar).await;
    let (there, signer) = (other.store(), Signer::trusted());
    let logins: Vec<_> = (0..24).map(|_| Login::new(NOW)).collect();
    for login in &logins {
        there.apply(&[recorded(login)], NOW).await.unwrap();
        remembered(&sidecar, &login.access(&signer)).await;
    }
    for login in &logins {
        let end = gotrue_sidecar::sessions::change(login.user, Which::One(login.session), NOW_MS);
        there.apply(&[end], NOW).await.unwrap();
        let token = login.access(&signer);
        until("the ending is heard of", async || is_refused(&sidecar, &token).await).await;
    }
}

/// After a failover the new master tells.
#[tokio::test]
async fn the_master_that_sentinels_name_tells() {
    let (sentinels, upstream) = (Sentinels::start().await, Upstream::start(always(no_content())).await);
    let (store, clock) = (sentinels.url(), Clock::standing_at(NOW_MS));
    let (user, password) = crate::support::redis_sentinel::LOGIN;
    let more = ["--upstream-url", &upstream.url, "--store-url", &store, "--store-timeout", "10s"];
    let login_there = ["--store-sentinel-username", user, "--store-sentinel-password", password];
    let flags = [&more[..], &login_there, &UNHURRIED, &NEVER].concat();
    let [sidecar, other] = [(); 2].map(|()| Sidecar::start_at(&clock, &flags));
    let (there, signer) = (other.store(), Signer::trusted());
    for fails_over in [false, true] {
        if fails_over {
            sentinels.failover().await;
        }
        until("an ending is heard of", async || {
            let login = Login::new(NOW);
            let token = login.access(&signer);
            if there.apply(&[recorded(&login)], NOW).await.is_err() {
                return false;
            }
            let live = check(&sidecar, &token).await.status == 200;
            let end = gotrue_sidecar::sessions::change(login.user, Which::One(login.session), NOW_MS);
            let ended = there.apply(&[end], NOW).await.is_ok();
            tokio::time::sleep(Duration::from_millis(100)).await;
            live && ended && is_refused(&sidecar, &token).await
        })
        .await;
    }
}

/// Redis is away, comes back, and tells again.
#[tokio::test]
async fn after_a_restart_changes_are_told_of_again() {
    let mut world = World::checking(&NEVER).await;
    let login = Login::new(NOW);
    world.know(&[&login]).await;
    hears(&world.sidecar).await;
    let token = login.access(&world.signer);
    remembered(&world.sidecar, &token).await;
    world.redis.kill();
    until("it is known that nobody tells", async || world.count("gotrue_sidecar_check_push_up").await == 0)
        .await;
    // what was remembered is not believed any more
    until("nothing is remembered", async || check(&world.sidecar, &token).await.status == 503).await;
    world.redis.restart();
    hears(&world.sidecar).await;
    world.know(&[&login]).await;
    remembered(&world.sidecar, &token).await;
    world.bury(&login).await;
    until("it is heard of again", async || is_refused(&world.sidecar, &token).await).await;
}

/// A managed Redis, or an ACL, that has no client tracking.
#[tokio::test]
async fn a_redis_that_tells_of_nothing_is_asked_in_time() {
    let world = World::checking(&[]).await;
    let acl = ["ACL", "SETUSER", "default", "-client|tracking"];
    let () = world.redis(&acl).await;
    let login = Login::new(NOW);
    world.know(&[&login]).await;
    let sidecar = world.replica(&["--check-max-staleness", "1s"]);
    let token = login.access(&world.signer);
    remembered(&sidecar, &token).await;
    world.bury(&login).await;
    until("it is noticed", async || is_refused(&sidecar, &token).await).await;
    assert_eq!(sample(sidecar.admin, "gotrue_sidecar_check_push_up").await, "0");
}

/// One line when it changes, not one for each attempt.
#[tokio::test]
async fn the_log_says_once_whether_changes_are_told_of() {
    let mut redis = RedisServer::start();
    let (upstream, store) = ("--upstream-url=http://127.0.0.1:1", format!("--store-url={}", redis.url()));
    let process = Process::start(&[upstream, &store, "--jwt-secret", SECRET]).await;
    process.line("the store tells of changes as they happen").await;
    redis.kill();
    process.line("the store does not tell of changes").await;
    tokio::time::sleep(Duration::from_secs(3)).await; // some attempts
    redis.restart();
    process.nth_line(2, "the store tells of changes as they happen").await;
    assert_eq!(process.count("the store does not tell of changes"), 1, "{}", process.stderr());
    let () = redis_cli(&redis, &["ACL", "SETUSER", "default", "-client|tracking"]).await;
    let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    let _: i64 = redis_cli(&redis, &kill).await;
    process.nth_line(2, "the store does not tell of changes").await;
    process.line("refuses our user or password, or what the user may do").await;
}
