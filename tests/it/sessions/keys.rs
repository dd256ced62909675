//! Keys that GoTrue publishes (contract §8): every algorithm, rotation, and names that nobody knows.

use super::*;
use crate::support::upstream::Gate;

async fn logs_out(world: &World, signer: &Signer) -> bool {
    let login = Login::new(NOW);
    world.know(&[&login]).await;
    world.pass(1);
    let token = login.access(signer);
    world.with_token(&token, Method::POST, "/logout?scope=local", "").await;
    // GoTrue refuses every logout here: what ends has ended by proof
    world.state(&login).await == State::Revoked
}

#[tokio::test]
async fn a_token_of_every_kind_of_published_key_is_proven() {
    let signers = [Signer::es256("e"), Signer::rs256("r"), Signer::eddsa("d")];
    let world = refusing(&[&signers[0], &signers[1], &signers[2]]).await;
    for signer in &signers {
        assert!(logs_out(&world, signer).await);
    }
    // the shared secret counts beside them
    assert!(logs_out(&world, &Signer::trusted()).await);
    // a name is no proof
    assert!(!logs_out(&world, &Signer::rs256("r")).await);
    assert!(!logs_out(&world, &Signer::es256("d")).await);
}

/// Takes the five seconds that must pass between two fetches.
#[tokio::test]
async fn a_key_that_was_rotated_in_is_fetched_when_it_is_first_named() {
    let (older, old, new) = (Signer::es256("older"), Signer::es256("old"), Signer::es256("new"));
    let world = refusing(&[&old, &older]).await;
    assert!(logs_out(&world, &old).await && logs_out(&world, &older).await);
    world.upstream.publish(&Signer::jwks(&[&new, &old]));
    until("the new key is known", async || logs_out(&world, &new).await).await;
    assert!(logs_out(&world, &old).await);
    assert!(!logs_out(&world, &older).await, "it was rotated out");
}

/// Nobody logs out, nobody signs in: keys are fetched all the same. Takes the five seconds.
#[tokio::test]
async fn a_key_that_only_lookups_name_is_fetched_too() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let flags = ["--jwt-secret", SECRET];
    let refusal = error("403 Forbidden", "session_not_found");
    let world = World::publishing(&[&old], &flags, always(refusal)).await;
    let login = Login::new(NOW);
    world.know(&[&login]).await;
    world.upstream.publish(&Signer::jwks(&[&new]));
    let token = login.access(&new);
    until("GoTrue's refusal is believed", async || {
        world.with_token(&token, Method::GET, "/user", "").await;
        world.state(&login).await == State::Revoked
    })
    .await;
    assert!(!logs_out(&world, &old).await, "it was rotated out");
}

/// A thousand tokens that name as many keys, half of them where keys are worth a wait; the answer with the
/// keys is held back meanwhile, and what needs no new key does not wait for it.
#[tokio::test]
async fn a_storm_of_unknown_names_asks_for_keys_once_in_a_while_and_delays_nobody_else() {
    const STORM: usize = 1000;
    let (gate, known) = (Gate::new(), Signer::es256("known"));
    let (held, jwks) = (gate.clone(), json(&Signer::jwks(&[&known])));
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&asked);
    let keys = Upstream::start(move |_| {
        let first = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        let answer = Step::Send(jwks.clone());
        if first { vec![answer] } else { vec![Step::Until(held.clone()), answer] }
    })
    .await;
    let address = format!("{}/keys.json", keys.url);
    let flags = ["--jwt-secret", SECRET, "--jwt-jwks", &address];
    let world = World::with(&flags, always(error("403 Forbidden", "bad_jwt"))).await;
    let began = std::time::Instant::now();
    let stranger = Signer::es256("nobody's");
    let mut storm = tokio::task::JoinSet::new();
    for number in 0..STORM {
        let header = serde_json::json!({"alg": "ES256", "kid": format!("name-{number}")});
        let bearer = format!("Bearer {}", stranger.sign_under(&header, &Login::new(NOW).claims()));
        let (method, path) = if number % 2 == 0 { (Method::POST, "/logout") } else { (Method::GET, "/user") };
        let request = Request::builder().method(method).uri(format!("{}{path}", world.sidecar.url));
        let request = request.header("authorization", bearer).body(String::new()).unwrap();
        storm.spawn(async move { send(request).await.unwrap() });
    }
    until("the keys are asked for again", async || asked.load(std::sync::atomic::Ordering::Relaxed) > 1)
        .await;
    // a known key is proven, a lookup answered and a sign-in passed on, while the keys do not come
    assert!(logs_out(&world, &known).await && logs_out(&world, &Signer::trusted()).await);
    let unknown = Login::new(NOW).access(&stranger);
    assert_eq!(world.with_token(&unknown, Method::GET, "/user", "").await.error_code(), Some("bad_jwt"));
    assert_eq!(world.post(PASSWORD, "{}").await.status, 403);
    gate.open();
    while let Some(answer) = storm.join_next().await {
        assert_eq!(answer.unwrap().error_code(), Some("bad_jwt"));
    }
    // not more often than every five seconds
    let most = 2 + usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!(asked <= most, "{asked} fetches for {STORM} requests");
}

/// References are made with a key that is derived from the secret. When that is exchanged, all replicas make
/// the same again, restarted or not; what was recorded before is no longer found by its refresh token.
#[tokio::test]
async fn a_new_jwt_secret_makes_the_references_that_a_restarted_replica_makes() {
    use gotrue_sidecar::token::{RefKey, RefreshToken};
    const NEW: &str = "a-new-jwt-secret-with-at-least-32-characters-";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    let (old, login) = (Login::new(NOW), Login::new(NOW));
    let signer = Signer::hs256(NEW.as_bytes());
    let tokens = login.answer(&signer);
    let file = path.display().to_string();
    let flags = ["--jwt-secret-file", &file, "--reload-interval", "100ms"];
    let world = World::with(&flags, move |seen: &Seen| {
        let refused = seen.request_line().contains("refresh_token");
        let bytes =
            if refused { error("400 Bad Request", "refresh_token_not_found") } else { tokens.clone() };
        vec![Step::Send(bytes)]
    })
    .await;
    std::fs::write(&path, NEW).unwrap();
    let expected = RefKey::derived(NEW.as_bytes()).reference(&RefreshToken::new(login.refresh()));
    until("the secret is taken up", async || {
        let mut redis = world.redis.client().await;
        let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
        world.post(PASSWORD, "{}").await;
        world.live(&login).await.refresh_ref.as_ref() == Some(&expected)
    })
    .await;
    world.know(&[&old]).await; // with a reference of the old key's
    // the drift that docs name
    world.refresh(&old).await;
    assert!(world.is_live(&old).await);
    world.refresh(&login).await;
    assert_eq!(world.state(&login).await, State::Revoked);
}

async fn refusing(published: &[&Signer]) -> World {
    World::publishing(published, &["--jwt-secret", SECRET], always(error("403 Forbidden", "bad_jwt"))).await
}
