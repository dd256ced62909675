//! What happened while the store was away is in it afterwards.

use http::{Method, StatusCode};

use super::*;

fn dropped(kind: &str) -> String {
    format!("gotrue_sidecar_mirror_queue_dropped_total{{kind=\"{kind}\"}}")
}

/// How Redis is taken away and given back.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Hang,
    HalfOpen,
    ReadOnly,
    Full,
    Cut,
    Garbage,
}

impl Fault {
    async fn begin(self, replica: &Replica, redis: &mut RedisServer) {
        match self {
            Self::Kill => redis.kill(),
            Self::Hang => redis.hang(),
            Self::HalfOpen => replica.relay.swallow(),
            Self::ReadOnly => command(redis, &["REPLICAOF", "127.0.0.1", "1"]).await,
            Self::Full => {
                command(redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
                command(redis, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
            }
            Self::Cut => replica.relay.does(Does::Cut),
            Self::Garbage => replica.relay.does(Does::Say(b"\x16\x03\x01 220 ready\r\n")),
        }
    }

    async fn end(self, replica: &Replica, redis: &mut RedisServer) {
        match self {
            Self::Kill => redis.restart(),
            Self::Hang => redis.go_on(),
            Self::HalfOpen => {}
            Self::ReadOnly => command(redis, &["REPLICAOF", "NO", "ONE"]).await,
            Self::Full => command(redis, &["CONFIG", "SET", "maxmemory", "0"]).await,
            Self::Cut | Self::Garbage => replica.relay.does(Does::Pass),
        }
    }
}

/// Logins, refreshes and logouts of several users through an outage: nobody's is lost.
async fn nothing_is_lost(fault: Fault) {
    let (upstream, mut redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &["--store-timeout=200ms"]).await;
    let client = replica.client();
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        kept.push(replica.sign_in().await);
        gone.push(replica.sign_in().await);
    }
    fault.begin(&replica, &mut redis).await;
    for tokens in &mut kept {
        *tokens = Tokens::of(&client.refresh(tokens).await);
        *tokens = Tokens::of(&client.refresh(tokens).await);
    }
    for tokens in &gone {
        assert_eq!(client.logout(tokens, "?scope=local").await.status, 204);
    }
    for _ in 0..3 {
        kept.push(replica.sign_in().await);
        let tokens = replica.sign_in().await;
        let tokens = Tokens::of(&client.refresh(&tokens).await);
        assert_eq!(client.logout(&tokens, "").await.status, 204);
        gone.push(tokens);
    }
    fault.end(&replica, &mut redis).await;
    replica.process.metric_becomes(LENGTH, 0).await;
    replica.process.metric_becomes(OPEN, 0).await;
    for tokens in &kept {
        assert!(has(&redis, "session", tokens.user, tokens.session).await, "{fault:?}: a session is missing");
        let counter = tokens.refresh.rsplit('.').next().unwrap();
        let spent = field(&redis, tokens, "previous_ref").await;
        assert_eq!(spent.is_some(), counter != "0", "{fault:?}: a refresh is missing");
    }
    for tokens in &gone {
        assert!(!has(&redis, "session", tokens.user, tokens.session).await, "{fault:?}: a logout is missing");
        assert!(
            has(&redis, "revoked", tokens.user, tokens.session).await,
            "{fault:?}: a tombstone is missing"
        );
    }
    for reason in ["store_failed", "store_full"] {
        let series = format!("gotrue_sidecar_mirror_dropped_total{{reason=\"{reason}\"}}");
        assert_eq!(replica.process.metric(&series).await, 0, "{fault:?}");
    }
    assert_eq!(replica.process.count("a change was not recorded"), 0, "{}", replica.process.stderr());
    replica.process.nth_line(gone.len(), "sessions ended").await;
}

#[tokio::test]
async fn a_killed_redis_loses_nothing() {
    // nothing on disk: what was written before the kill is lost with it, so only what came later is looked at
    let (upstream, mut redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &[]).await;
    Fault::Kill.begin(&replica, &mut redis).await;
    let (kept, gone) = (replica.sign_in().await, replica.sign_in().await);
    assert_eq!(replica.client().logout(&gone, "").await.status, 204);
    assert!(replica.process.metric(LENGTH).await >= 2);
    Fault::Kill.end(&replica, &mut redis).await;
    replica.process.metric_becomes(LENGTH, 0).await;
    assert!(has(&redis, "session", kept.user, kept.session).await);
    assert!(has(&redis, "revoked", gone.user, gone.session).await);
    assert!(!has(&redis, "session", gone.user, gone.session).await);
}

#[tokio::test]
async fn a_hanging_redis_loses_nothing() {
    nothing_is_lost(Fault::Hang).await;
}

#[tokio::test]
async fn half_open_connections_lose_nothing() {
    nothing_is_lost(Fault::HalfOpen).await;
}

#[tokio::test]
async fn a_read_only_redis_loses_nothing() {
    nothing_is_lost(Fault::ReadOnly).await;
}

#[tokio::test]
async fn a_full_redis_loses_nothing() {
    nothing_is_lost(Fault::Full).await;
}

#[tokio::test]
async fn a_redis_that_closes_amid_answers_loses_nothing() {
    nothing_is_lost(Fault::Cut).await;
}

#[tokio::test]
async fn something_else_in_redis_place_loses_nothing() {
    nothing_is_lost(Fault::Garbage).await;
}

#[tokio::test]
async fn a_full_queue_loses_creations_first_and_says_so() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &["--store-queue-changes=4"]).await;
    let mut leaving = Vec::new();
    for _ in 0..4 {
        leaving.push(replica.sign_in().await);
    }
    redis.hang();
    replica.opens().await;
    let mut signed_in = Vec::new();
    for _ in 0..6 {
        signed_in.push(replica.sign_in().await);
    }
    assert_eq!(replica.process.metric(LENGTH).await, 4);
    // a local logout is one ending: of one session, before and after GoTrue has agreed
    for tokens in &leaving[..2] {
        assert_eq!(replica.client().logout(tokens, "?scope=local").await.status, 204);
    }
    let creations = replica.process.metric(&dropped("creation")).await;
    assert!(creations >= 4, "{creations}");
    assert_eq!(replica.process.metric(&dropped("ending")).await, 0);
    for tokens in &leaving[2..] {
        assert_eq!(replica.client().logout(tokens, "?scope=local").await.status, 204);
    }
    assert_eq!(replica.client().logout(&signed_in[0], "?scope=local").await.status, 204);
    assert!(replica.process.metric(&dropped("ending")).await >= 1, "nothing but endings was left");
    let line = replica.process.line("too many wait for the store").await;
    assert!(line.contains(r#""level":"error""#) && line.contains(r#""kind":"creation""#), "{line}");
    let told = || async {
        let log = replica.process.stderr();
        let lines = log.lines().filter(|line| line.contains(r#""kind":"creation""#));
        let counts = lines.filter_map(|line| line.split(r#""count":"#).nth(1)?.split(&[',', '}'][..]).next());
        let sum: u64 = counts.map(|count| count.parse::<u64>().unwrap()).sum();
        (sum == replica.process.metric(&dropped("creation")).await).then_some(())
    };
    eventually(told, || format!("not each loss is told of\n{}", replica.process.stderr())).await;
    let older = || async { (replica.process.metric(AGE).await >= 1).then_some(()) };
    eventually(older, || "what waits does not get older".to_owned()).await;
    assert!(replica.process.metric(BYTES).await >= 4 * 768, "each of them takes some memory");
    redis.go_on();
    replica.process.metric_becomes(LENGTH, 0).await;
    for tokens in &leaving {
        assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
    }
}

#[tokio::test]
async fn without_a_queue_what_the_store_does_not_take_is_lost_and_counted() {
    let (upstream, redis) = (Upstream::start(knows_no_refresh_token).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &["--store-queue-changes=0"]).await;
    redis.hang();
    let tokens = replica.sign_in().await;
    let series = r#"gotrue_sidecar_mirror_dropped_total{reason="store_failed"}"#;
    assert_eq!(replica.process.metric(series).await, 1);
    replica.process.line("a change was not recorded").await;
    assert_eq!(replica.client().refresh(&tokens).await.status, 400);
    assert_eq!(replica.process.metric(series).await, 2);
    replica.process.line("an answer was not mirrored").await;
    assert_eq!(replica.process.metric(LENGTH).await, 0);
    redis.go_on();
}

/// I3: what one replica revokes while the other is cut off stays revoked, whatever the other has to tell later.
#[tokio::test]
async fn what_was_revoked_elsewhere_stays_revoked() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let cut_off = Replica::start(&upstream, &redis, &["--store-timeout=200ms"]).await;
    let other = Replica::start(&upstream, &redis, &["--store-timeout=10s"]).await;
    let tokens = cut_off.sign_in().await;
    cut_off.relay.does(Does::Delay(Duration::from_secs(60)));
    let refreshed = Tokens::of(&cut_off.client().refresh(&tokens).await);
    assert_eq!(other.client().logout(&tokens, "?scope=local").await.status, 204);
    assert!(!has(&redis, "session", tokens.user, tokens.session).await);
    Tokens::of(&cut_off.client().refresh(&refreshed).await);
    assert!(cut_off.process.metric(LENGTH).await >= 1);
    cut_off.relay.does(Does::Pass);
    cut_off.process.metric_becomes(LENGTH, 0).await;
    assert!(!has(&redis, "session", tokens.user, tokens.session).await, "it came back");
    assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
}

/// However long it is full: endings are written at once, and nobody is turned away.
#[tokio::test]
async fn a_full_redis_is_not_away() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let flags = ["--store-timeout=10s", "--session-api-enabled=true"];
    let replica = Replica::start(&upstream, &redis, &flags).await;
    let (leaving, revoked) = (replica.sign_in().await, replica.sign_in().await);
    command(&redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    command(&redis, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let refused = r#"gotrue_sidecar_store_commands_total{command="ping",result="out_of_memory"}"#;
    let probed = || async { (replica.process.metric(refused).await >= 5).then_some(()) };
    eventually(probed, || replica.process.stderr()).await;
    assert_eq!(replica.process.metric(OPEN).await, 0, "{}", replica.process.stderr());
    let client = replica.client();
    assert_eq!(client.logout(&leaving, "?scope=local").await.status, 204);
    let path = "/sessions?scope=global";
    let answer = client.request(Method::DELETE, path, Some(&revoked.access), None).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    for tokens in [&leaving, &revoked] {
        assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
    }
    assert_eq!(replica.process.metric(LENGTH).await, 0);
}

/// A revocation is answered only when the store has it, and what waits of that user does not undo it.
#[tokio::test]
async fn a_revocation_comes_after_what_waits_of_its_user_and_never_waits_itself() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let flags = ["--store-timeout=2s", "--session-api-enabled=true"];
    let replica = Replica::start(&upstream, &redis, &flags).await;
    command(&redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    command(&redis, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let tokens = replica.sign_in().await;
    assert_eq!(replica.process.metric(LENGTH).await, 1, "there is no room for it");
    let client = replica.client();
    let revoke =
        async |path: &str| client.request(Method::DELETE, path, Some(&tokens.access), None).await.status;
    // the record before it finds no room; but the store knows from here on that it has ended
    assert_eq!(revoke("/sessions?scope=global").await, StatusCode::NO_CONTENT);
    assert_eq!(replica.process.metric(LENGTH).await, 1, "no revocation is kept");
    redis.hang();
    assert_eq!(revoke("/sessions?scope=global").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(replica.process.metric(LENGTH).await, 1, "no revocation is kept");
    redis.go_on();
    command(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    replica.process.metric_becomes(OPEN, 0).await;
    replica.process.metric_becomes(LENGTH, 0).await;
    assert!(!has(&redis, "session", tokens.user, tokens.session).await);
    assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
    assert_eq!(revoke("/sessions?scope=global").await, StatusCode::FORBIDDEN);
}

/// A key of another type under a session's name: the store refuses every change to that session, for good.
#[tokio::test]
async fn a_change_that_the_store_refuses_holds_up_nobody() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let redis = RedisServer::start();
    let replica = Replica::start(&upstream, &redis, &[]).await;
    let (odd, other) = (replica.sign_in().await, replica.sign_in().await);
    redis.hang();
    replica.opens().await;
    let client = replica.client();
    Tokens::of(&client.refresh(&odd).await);
    let refreshed = Tokens::of(&client.refresh(&other).await);
    redis.go_on();
    let key = format!("gotrue:{{{}}}:sessions", odd.user);
    let mut direct = redis.client().await;
    let _: () = ::redis::pipe()
        .atomic()
        .cmd("DEL")
        .arg(&key)
        .ignore()
        .cmd("SET")
        .arg(&key)
        .arg("odd")
        .ignore()
        .query_async(&mut direct)
        .await
        .unwrap();
    // whether the replay was faster or not
    Tokens::of(&client.refresh(&odd).await);
    replica.process.metric_becomes(LENGTH, 0).await;
    let refused = r#"gotrue_sidecar_mirror_replayed_total{result="refused"}"#;
    let counted = || async { (replica.process.metric(refused).await >= 1).then_some(()) };
    eventually(counted, || replica.process.stderr()).await; // after it was taken out
    let line = replica.process.line("refuses a change that waited").await;
    assert!(line.contains(r#""level":"error""#), "{line}");
    assert_eq!(field(&redis, &refreshed, "previous_ref").await.map(|it| it.len()), Some(43));
}

/// GoTrue refuses a refresh while nobody can say whose token it was.
#[tokio::test]
async fn an_ending_that_only_a_refresh_token_names_finds_its_session_later() {
    let (upstream, redis) = (Upstream::start(knows_no_refresh_token).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &[]).await;
    redis.hang();
    let tokens = replica.sign_in().await;
    assert_eq!(replica.client().refresh(&tokens).await.status, 400);
    assert_eq!(replica.process.metric(LENGTH).await, 2);
    redis.go_on();
    replica.process.metric_becomes(LENGTH, 0).await;
    assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
    assert!(!has(&redis, "session", tokens.user, tokens.session).await);
}

/// Whoever sends refresh tokens that never were, as many as they like, costs nobody a logout or a sign-in.
#[tokio::test]
async fn made_up_refresh_tokens_push_nothing_out_of_the_queue() {
    let (upstream, redis) = (Upstream::start(knows_no_refresh_token).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &["--store-queue-changes=8"]).await;
    let leaving = [replica.sign_in().await, replica.sign_in().await];
    redis.hang();
    replica.opens().await;
    let client = replica.client();
    assert_eq!(client.logout(&leaving[0], "?scope=local").await.status, 204);
    let kept = replica.sign_in().await;
    for number in 0..20 {
        assert_eq!(client.refresh_with(&format!("never-was-{number}")).await.status, 400);
    }
    assert_eq!(client.logout(&leaving[1], "?scope=local").await.status, 204);
    assert!(replica.process.metric(&dropped("unproven")).await > 0, "{}", replica.process.stderr());
    for kind in ["creation", "ending"] {
        assert_eq!(replica.process.metric(&dropped(kind)).await, 0, "{kind}");
    }
    redis.go_on();
    replica.process.metric_becomes(LENGTH, 0).await;
    assert!(has(&redis, "session", kept.user, kept.session).await);
    for tokens in &leaving {
        assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
    }
}

/// What another program has put where a note of a refresh token stands cannot be read for ever.
#[tokio::test]
async fn an_ending_by_a_refresh_token_that_the_store_cannot_answer_holds_up_no_other() {
    let (upstream, redis) = (Upstream::start(knows_no_refresh_token).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &[]).await;
    let (odd, other) = (replica.sign_in().await, replica.sign_in().await);
    let mut direct = redis.client().await;
    let notes: Vec<String> =
        ::redis::cmd("KEYS").arg("gotrue:refresh:*").query_async(&mut direct).await.unwrap();
    for note in notes {
        let of: String = ::redis::cmd("GET").arg(&note).query_async(&mut direct).await.unwrap();
        if of.contains(&odd.session.to_string()) {
            command(&redis, &["DEL", &note]).await;
            command(&redis, &["HSET", &note, "a", "b"]).await;
        }
    }
    redis.hang();
    replica.opens().await;
    let client = replica.client();
    for tokens in [&odd, &other] {
        assert_eq!(client.refresh(tokens).await.status, 400);
    }
    redis.go_on();
    replica.process.metric_becomes(LENGTH, 0).await;
    assert!(has(&redis, "revoked", other.user, other.session).await);
    let line = replica.process.line("refuses a change that waited").await;
    assert!(line.contains(r#""level":"error""#) && line.contains("unproven"), "{line}");
}

/// After a failover the replica is what is missing: it must not keep those waiting that come late already.
#[tokio::test]
async fn endings_that_waited_do_not_each_wait_for_a_replica_that_is_away() {
    const USERS: usize = 30;
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let flags = ["--store-wait-replicas=1", "--store-timeout=2s"];
    let replica = Replica::start(&upstream, &redis, &flags).await;
    let mut leaving = Vec::new();
    for _ in 0..USERS {
        leaving.push(replica.sign_in().await);
    }
    redis.hang();
    replica.opens().await;
    let client = replica.client();
    for tokens in &leaving {
        assert_eq!(client.logout(tokens, "?scope=local").await.status, 204);
    }
    redis.go_on();
    replica.process.metric_becomes(LENGTH, 0).await; // within less than the replica is waited for by ten of them
    for tokens in &leaving {
        assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
    }
    let told = || async { (replica.process.count("a change was not recorded") >= USERS).then_some(()) };
    eventually(told, || format!("nobody is told that it is not safe\n{}", replica.process.stderr())).await;
}

/// With `store.wait_replicas`: made, and whoever asks is told that it may not last. Nothing is wrong with the store.
#[tokio::test]
async fn an_ending_that_too_few_servers_have_is_made_and_said_to_be_unsafe() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let flags = ["--store-wait-replicas=1", "--store-timeout=2s", "--session-api-enabled=true"];
    let replica = Replica::start(&upstream, &redis, &flags).await;
    let client = replica.client();
    for _ in 0..4 {
        let (leaving, revoked) = (replica.sign_in().await, replica.sign_in().await);
        assert_eq!(client.logout(&leaving, "?scope=local").await.status, 204);
        let path = "/sessions?scope=global";
        let answer = client.request(Method::DELETE, path, Some(&revoked.access), None).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        for tokens in [&leaving, &revoked] {
            assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
        }
    }
    assert_eq!(replica.process.metric(LENGTH).await, 0);
    assert_eq!(replica.process.metric(OPEN).await, 0);
    let unsafely = r#"gotrue_sidecar_store_commands_total{command="apply",result="replicas"}"#;
    assert!(replica.process.metric(unsafely).await >= 8);
    replica.process.line("a change was not recorded").await;
}
