//! What is remembered, for how long, and how seldom the store is asked.

use tokio::task::JoinSet;

use super::*;
use crate::support::upstream::Upstream;

const TOKEN_HITS: &str = "gotrue_sidecar_check_cache_hits_total{cache=\"token\"}";
const SESSION_HITS: &str = "gotrue_sidecar_check_cache_hits_total{cache=\"session\"}";

#[tokio::test]
async fn what_is_fresh_is_not_asked_again() {
    let [live, unknown] = [NOW; 2].map(Login::new);
    let world = World::checking(&["--check-max-staleness", "60s"]).await;
    world.know(&[&live]).await;
    hears(&world.sidecar).await;
    // the first question touches the record, the second hears of that
    for login in [&live, &unknown] {
        world.check(login).await;
        world.check(login).await;
    }
    until("nothing more is heard", async || {
        let before = world.count(LOOKUPS).await;
        world.check(&live).await;
        world.check(&unknown).await;
        world.count(LOOKUPS).await == before
    })
    .await;
    let (lookups, hits) = (world.count(LOOKUPS).await, world.count(SESSION_HITS).await);
    for _ in 0..50 {
        assert_eq!(world.check(&live).await.status, 200);
        assert_eq!(world.check(&unknown).await.status, 200);
    }
    assert_eq!(world.count(LOOKUPS).await, lookups);
    assert_eq!(world.count(SESSION_HITS).await, hits + 100);
    assert!(world.count(TOKEN_HITS).await >= 100);
    assert_eq!(world.live(&live).await.seen_at, Some(NOW));
}

#[tokio::test]
async fn a_check_counts_as_seen_once_a_minute() {
    let login = Login::new(NOW);
    let world = World::checking(&["--check-max-staleness", "0s"]).await;
    world.know(&[&login]).await;
    let mut seen = Vec::new();
    for at in [0, 59, 60, 61, 121] {
        world.clock.set(NOW_MS + at * 1000);
        world.check(&login).await;
        seen.push(world.live(&login).await.seen_at.unwrap() - NOW);
    }
    assert_eq!(seen, [0, 0, 60, 60, 121]);
}

#[tokio::test]
async fn many_who_ask_at_once_ask_once() {
    let login = Login::new(NOW);
    let world = World::checking(&["--check-max-staleness", "60s"]).await;
    world.know(&[&login]).await;
    hears(&world.sidecar).await;
    // the link is up, and the scripts are loaded
    world.check(&Login::new(NOW)).await;
    let (before, hits) = (world.count(LOOKUPS).await, world.count(TOKEN_HITS).await);
    world.redis.hang();
    let (admin, token) = (world.sidecar.admin, login.access(&world.signer));
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let request = Request::get(format!("http://{admin}/check"));
        let request = request.header("authorization", format!("Bearer {token}")).body(String::new()).unwrap();
        asking.spawn(async move { send(request).await.unwrap().status });
    }
    // all have been asked before the answer comes: the first verifies the token, and the others find it verified
    world.counts(TOKEN_HITS, hits + 99).await;
    world.redis.go_on();
    for status in asking.join_all().await {
        assert_eq!(status, 200);
    }
    assert_eq!(world.count(LOOKUPS).await, before + 1);
}

/// Whoever asked first and left takes the question with them from nobody.
#[tokio::test]
async fn an_asker_who_leaves_breaks_nothing_off() {
    let login = Login::new(NOW);
    let world = World::checking(&[]).await;
    world.know(&[&login]).await;
    world.check(&Login::new(NOW)).await;
    world.redis.hang();
    let token = login.access(&world.signer);
    let first = tokio::time::timeout(Duration::from_millis(200), world.check_token(&token)).await;
    assert!(first.is_err());
    let (second, ()) = tokio::join!(world.check_token(&token), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.redis.go_on();
    });
    assert_eq!(second.status, 200);
}

#[tokio::test]
async fn a_remembered_token_expires_in_its_second() {
    let login = Login { expires: NOW + 10, ..Login::new(NOW) };
    let world = World::checking(&["--check-max-staleness", "60s"]).await;
    world.know(&[&login]).await;
    for (at, status) in [(0, 200), (9_999, 200), (10_000, 401), (11_000, 401)] {
        world.clock.set(NOW_MS + at);
        assert_eq!(world.check(&login).await.status, status, "{at}");
    }
}

#[tokio::test]
async fn a_secret_that_is_exchanged_takes_its_tokens_along() {
    let (redis, upstream) = (RedisServer::start(), Upstream::start(always(no_content())).await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, SECRET).unwrap();
    let clock = Clock::standing_at(NOW_MS);
    let flags = ["--jwt-secret-file", file.to_str().unwrap(), "--reload-interval", "100ms"];
    let sidecar = another(&redis, &upstream, &clock, &[&flags[..], &["--check-timeout", "10s"]].concat());
    let token = Login::new(NOW).access(&Signer::trusted());
    assert_eq!(check(&sidecar, &token).await.status, 200);
    std::fs::write(&file, "another-secret-with-at-least-32-characters").unwrap();
    until("the new secret is in use", async || check(&sidecar, &token).await.status == 401).await;
}

/// Threat: what is remembered of one token or session answers for another one (Oathkeeper GHSA-4mq7-pvjg-xp2r).
#[tokio::test]
async fn what_is_remembered_vouches_for_nothing_else() {
    let world = World::checking(&[&NEVER[..], &["--check-unknown", "deny"]].concat()).await;
    let (login, other) = (Login::new(NOW), Login::new(NOW));
    world.know(&[&login, &other]).await;
    hears(&world.sidecar).await;
    let token = login.access(&world.signer);
    remembered(&world.sidecar, &token).await;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut flipped = signature.to_owned();
    let first = flipped.remove(0);
    flipped.insert(0, if first == 'A' { 'B' } else { 'A' });
    let foreign = login.access(&Signer::hs256(b"another-secret-with-at-least-32-characters"));
    let (_, theirs) = foreign.rsplit_once('.').unwrap();
    for (what, near) in [
        ("another signature", format!("{signed}.{flipped}")),
        ("somebody else's signature", format!("{signed}.{theirs}")),
        ("no signature", format!("{signed}.")),
        ("half of it", signed.to_owned()),
        ("more of it", format!("{token}A")),
        ("a part more", format!("{token}.{signature}")),
        ("a padded one", format!("{token}=")),
    ] {
        assert_eq!(said(&world.check_token(&near).await), (401, Some("bad_jwt")), "{what}");
    }
    // a session that is live under its own user is unknown under another, and the other way round
    for (user, session) in [(other.user, login.session), (login.user, other.session)] {
        let mixed = Login { user, session, ..login.clone() };
        assert_eq!(said(&world.check(&mixed).await), REVOKED);
    }
    assert_eq!(world.check_token(&token).await.status, 200);
}
