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

/// A process whose way to Redis can be broken.
struct Far {
    process: Process,
    relay: Relay,
    _redis: RedisServer,
    _upstream: Upstream,
}

/// Asks about sessions that nobody knows.
struct Asking(String);

impl Far {
    /// With a connection for the probe and one to hear of changes.
    async fn start(flags: &[&str]) -> Self {
        let redis = RedisServer::start();
        let upstream = Upstream::start(always(no_content())).await;
        let relay = Relay::to(redis.port()).await;
        let (to, store) = (
            format!("--upstream-url={}", upstream.url),
            format!("--store-url=redis://127.0.0.1:{}", relay.port),
        );
        let all = [&[to.as_str(), &store, "--jwt-secret", SECRET][..], flags].concat();
        let process = Process::start(&all).await;
        process.metric_becomes("gotrue_sidecar_store_up", 1).await;
        process.metric_becomes("gotrue_sidecar_check_push_up", 1).await;
        Self { process, relay, _redis: redis, _upstream: upstream }
    }

    fn asking(&self) -> Asking {
        Asking(format!("http://{}/check", self.process.admin))
    }
}

impl Asking {
    fn somebody() -> Login {
        let now = Clock::default().seconds();
        Login { expires: now + 3600, ..Login::new(now) }
    }

    async fn allows(&self, login: &Login) -> bool {
        let bearer = format!("Bearer {}", login.access(&Signer::trusted()));
        let request = Request::get(&self.0).header("authorization", &bearer).body(String::new()).unwrap();
        send(request).await.unwrap().status == 200
    }
}

/// Of one worker, whose other calls are few: the breaker and its probe have connections of their own, and see nothing.
#[tokio::test]
async fn a_connection_that_falls_silent_under_checks_alone_is_replaced() {
    let far = Far::start(&["--runtime-workers=1"]).await;
    let asking = far.asking();
    let before = far.relay.connections();
    until("the worker has a connection", async || asking.allows(&Asking::somebody()).await).await;
    assert_eq!(far.relay.connections(), before + 1);
    far.relay.swallow_newest();
    let silent = Instant::now();
    while !asking.allows(&Asking::somebody()).await {
        assert!(silent.elapsed() < Duration::from_secs(8), "{}", far.process.stderr());
    }
    assert_eq!(far.process.count("breaker open"), 0, "{}", far.process.stderr());
}

/// The store is waited for beyond the check that asked.
#[tokio::test]
async fn what_comes_too_late_for_one_check_is_there_for_the_next() {
    let far = Far::start(&["--check-max-staleness=10s", "--store-timeout=2s"]).await;
    let (asking, login) = (far.asking(), Asking::somebody());
    until("there are connections", async || asking.allows(&Asking::somebody()).await).await;
    far.relay.does(Does::Delay(Duration::from_millis(300)));
    assert!(!asking.allows(&login).await, "nobody waits so long");
    until("it is known", async || asking.allows(&login).await).await;
}

/// It takes longer than a check waits, and less than `store.timeout`.
#[tokio::test]
async fn checks_in_a_crowd_find_the_way_back_to_a_slow_store() {
    const OPEN: &str = "gotrue_sidecar_store_breaker_open";
    let far = Far::start(&[]).await;
    far.relay.does(Does::Lose);
    far.process.metric_becomes(OPEN, 1).await;
    let crowd = async {
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let asking = far.asking();
            crowd.spawn(async move {
                loop {
                    asking.allows(&Asking::somebody()).await;
                }
            });
        }
        crowd.join_all().await
    };
    let back = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let began = Instant::now();
        far.relay.does(Does::Delay(Duration::from_millis(150)));
        far.process.line("breaker closed").await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(5), "{took:?}"); // it is about one second
    };
    tokio::select! {
        _ = crowd => unreachable!(),
        () = back => {}
    }
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
