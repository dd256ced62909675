//! A store that does not answer (contract §9): 503, or with `check.on_store_error: open` the token's own verdict.

use tokio::time::Instant;

use super::*;
use crate::support::{
    process::Process,
    relay::{Does, Relay},
};

#[tokio::test]
async fn without_the_store_nothing_is_decided_unless_told_otherwise() {
    let modes: [(&[&str], u16); 2] = [(&[], 503), (&["--check-on-store-error", "open"], 200)];
    for (flags, expected) in modes {
        let (known, new) = (Login::new(NOW), Login::new(NOW));
        let flags = [&["--store-timeout", "1s", "--check-max-staleness", "0s"], flags].concat();
        let mut world = World::checking(&flags).await;
        world.know(&[&known, &new]).await;
        assert_eq!(world.check(&known).await.status, 200);
        for refuses in [false, true] {
            if refuses {
                world.redis.go_on();
                world.redis.kill();
            } else {
                world.redis.hang();
            }
            for login in [&known, &new] {
                let answer = world.check(login).await;
                assert_eq!(answer.status.as_u16(), expected);
                if expected == 503 {
                    assert_eq!(said(&answer), UNAVAILABLE);
                    assert_eq!(answer.header("retry-after"), Some("1"));
                } else {
                    assert_eq!(identity(&answer)[0], login.user.to_string());
                }
            }
        }
        assert_eq!(
            world.checked(if expected == 503 { "error" } else { "allow" }).await,
            4 + usize::from(expected == 200)
        );
        let undecided = world.count("gotrue_sidecar_check_undecided_allowed_total").await;
        assert_eq!(undecided, if expected == 503 { 0 } else { 4 });
        world.redis.restart();
        world.know(&[&known]).await;
        until("the store is asked again", async || world.check(&known).await.status == 200).await;
    }
}

/// What was just heard is believed while the store is away, no longer than it would be otherwise.
#[tokio::test]
async fn an_outage_that_is_not_noticed_yet_costs_nothing_and_brings_nothing_back() {
    let [known, revoked] = [NOW; 2].map(Login::new);
    let world = World::checking(&["--store-timeout", "1s", "--check-max-staleness", "2s"]).await;
    world.know(&[&known, &revoked]).await;
    world.revoke(&revoked).await;
    hears(&world.sidecar).await;
    let asked = Instant::now();
    let (yes, no) = (world.check(&known).await, world.check(&revoked).await);
    assert_eq!((yes.status.as_u16(), said(&no)), (200, REVOKED));
    world.redis.hang();
    until("nothing is remembered any more", async || {
        let at = asked.elapsed();
        let status = world.check(&known).await.status.as_u16();
        let no = world.check(&revoked).await.status.as_u16();
        assert!(matches!(no, 403 | 503), "{no}");
        // nothing is believed that was asked longer ago
        assert!(status == 503 || at < Duration::from_secs(2), "{status} after {at:?}");
        status == 503 && no == 503
    })
    .await;
    world.redis.go_on();
    until("the store is asked again", async || world.check(&known).await.status == 200).await;
    until("and says who was revoked", async || {
        let answer = world.check(&revoked).await;
        assert_ne!(answer.status, 200);
        said(&answer) == REVOKED
    })
    .await;
}

/// `check.timeout` bounds what a gateway waits for, whatever `store.timeout` grants others.
#[tokio::test]
async fn a_check_takes_no_longer_than_its_timeout() {
    let login = Login::new(NOW);
    let flags = ["--jwt-secret", SECRET, "--check-timeout", "100ms", "--store-timeout", "30s"];
    let world = World::with(&flags, always(no_content())).await;
    world.know(&[&login]).await;
    world.redis.hang();
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(said(&world.check(&login).await), UNAVAILABLE);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    world.redis.go_on();
}

/// Of one worker, whose other calls are few: the breaker and its probe have connections of their own, and see nothing.
#[tokio::test]
async fn a_connection_that_falls_silent_under_checks_alone_is_replaced() {
    let redis = RedisServer::start();
    let upstream = Upstream::start(always(no_content())).await;
    let relay = Relay::to(redis.port()).await;
    let (to, store) =
        (format!("--upstream-url={}", upstream.url), format!("--store-url=redis://127.0.0.1:{}", relay.port));
    let flags = ["--jwt-secret", SECRET, "--runtime-workers=1"];
    let process = Process::start(&[&[to.as_str(), &store][..], &flags].concat()).await;
    process.metric_becomes("gotrue_sidecar_store_up", 1).await;
    process.metric_becomes("gotrue_sidecar_check_push_up", 1).await;
    let allows = async || {
        let (now, target) = (Clock::default().seconds(), format!("http://{}/check", process.admin));
        let login = Login { expires: now + 3600, ..Login::new(now) };
        let bearer = format!("Bearer {}", login.access(&Signer::trusted()));
        let request = Request::get(&target).header("authorization", &bearer).body(String::new()).unwrap();
        send(request).await.unwrap().status == 200
    };
    let before = relay.connections();
    until("the worker has a connection", allows).await;
    assert_eq!(relay.connections(), before + 1);
    relay.swallow_newest();
    let silent = Instant::now();
    while !allows().await {
        assert!(silent.elapsed() < Duration::from_secs(8), "{}", process.stderr());
    }
    assert_eq!(process.count("breaker open"), 0, "{}", process.stderr());
}

/// Threat: somebody else writes into the same Redis, or an older or newer release does: what was revoked stays so, and
/// what cannot be understood lets nobody in as somebody who is known.
#[tokio::test]
async fn what_others_wrote_lets_nobody_in() {
    let world = World::checking(&["--check-max-staleness", "0s", "--check-unknown", "deny"]).await;
    let key = |login: &Login, kind: &str| match kind {
        "marks" | "sessions" => format!("gotrue:{{{}}}:{kind}", login.user),
        _ => format!("gotrue:{{{}}}:{kind}:{}", login.user, login.session),
    };
    let list = async |key: &str| {
        let _: i64 = world.redis(&["DEL", key]).await;
        let _: i64 = world.redis(&["RPUSH", key, "canary"]).await;
    };
    for (kind, status, code) in [
        // a tombstone is one whatever is in it
        ("revoked", 403, "session_not_found"),
        ("session", 503, "service_unavailable"),
        ("marks", 503, "service_unavailable"),
    ] {
        let login = Login::new(NOW);
        world.know(&[&login]).await;
        assert_eq!(world.check(&login).await.status, 200);
        list(&key(&login, kind)).await;
        let answer = world.check(&login).await;
        assert_eq!(said(&answer), (status, Some(code)), "{kind}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("canary"));
    }
    for fields in [["v", "2"], ["v", "canary"], ["created_at", "canary"]] {
        let login = Login::new(NOW);
        world.know(&[&login]).await;
        let _: i64 = world.redis(&["HSET", &key(&login, "session"), fields[0], fields[1]]).await;
        assert_eq!(said(&world.check(&login).await), REVOKED, "{fields:?}: it is unknown");
        // nor does it undo a revocation
        world.bury(&login).await;
        assert_eq!(said(&world.check(&login).await), REVOKED, "{fields:?}");
    }
}

/// Threat: an error page says what the store said: names, addresses, data (oauth2-proxy's `/ready`).
#[tokio::test]
async fn what_the_store_says_is_shown_to_nobody() {
    let redis = RedisServer::start();
    let upstream = Upstream::start(always(no_content())).await;
    let relay = Relay::to(redis.port()).await;
    let (to, store) =
        (format!("--upstream-url={}", upstream.url), format!("--store-url=redis://127.0.0.1:{}", relay.port));
    let flags = ["--jwt-secret", SECRET, "--session-api-enabled=true", "--readiness-require=upstream,store"];
    let process = Process::start(&[&[to.as_str(), &store][..], &flags].concat()).await;
    relay.does(Does::Say(b"-NOPERM canary-user may not touch canary-key\r\n"));
    let login =
        Login { expires: Clock::default().seconds() + 3600, ..Login::new(Clock::default().seconds()) };
    let bearer = format!("Bearer {}", login.access(&Signer::trusted()));
    let (public, admin) = (process.url.clone(), format!("http://{}", process.admin));
    process.metric_becomes("gotrue_sidecar_store_up", 0).await;
    for target in [
        format!("{public}/sessions"),
        format!("{admin}/check"),
        format!("{admin}/readyz?verbose"),
        format!("{admin}/metrics"),
    ] {
        let request = Request::get(&target).header("authorization", &bearer).body(String::new()).unwrap();
        let answer = send(request).await.unwrap();
        let expected = if target.ends_with("/metrics") { 200 } else { 503 };
        assert_eq!(answer.status, expected, "{target}");
        let shown = format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body));
        assert!(!shown.contains("canary"), "{target}: {shown}");
    }
    process.line("store").await;
    assert!(!process.stderr().contains("canary"), "{}", process.stderr());
}
