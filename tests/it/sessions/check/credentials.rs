//! What is a credential, and what is known of its session: the whole table.

use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_live_session_is_allowed_by_name() {
    let login = Login::new(NOW);
    let world = World::checking(&[]).await;
    world.know(&[&login]).await;
    let mut claims = login.claims();
    claims["email"] = "a@b.example".into();
    let answer = world.check_token(&world.signer.sign(&claims)).await;
    let (user, session, expires) =
        (login.user.to_string(), login.session.to_string(), login.expires.to_string());
    assert_eq!(identity(&answer), [&user, &session, "authenticated", "a@b.example", "aal1", &expires]);
    assert!(answer.body.is_empty());
    assert!(answer.headers.contains_key("date"));
    assert_eq!(
        identity(&world.check(&login).await),
        [&user, &session, "authenticated", "", "aal1", &expires]
    );
    assert_eq!(
        (world.checked("allow").await, world.count("gotrue_sidecar_check_duration_seconds_count").await),
        (2, 2)
    );
}

#[tokio::test]
async fn what_the_store_knows_decides() {
    let flags: [&[&str]; 2] = [&[], &["--check-unknown", "deny", "--check-keys", "allow"]];
    for (flags, unknown) in flags.into_iter().zip([200, 403]) {
        let [live, revoked, banned, stranger] = [NOW; 4].map(Login::new);
        let world = World::checking(flags).await;
        world.know(&[&live, &revoked, &banned]).await;
        world.revoke(&revoked).await;
        let ban = Change::Suspend { user: banned.user, until: Some(NOW + 60), decided_ms: NOW_MS };
        world.store.apply(&[ban], NOW).await.unwrap();
        assert_eq!(world.check(&live).await.status, 200);
        assert_eq!(said(&world.check(&revoked).await), REVOKED);
        assert_eq!(said(&world.check(&banned).await), (403, Some("user_banned")));
        assert_eq!(world.check(&stranger).await.status, unknown);
        let refused = if unknown == 403 { 3 } else { 2 };
        assert_eq!(world.checked("forbidden").await, refused);
    }
}

#[tokio::test]
async fn a_key_is_no_session() {
    let keys = [
        json!({"role": "anon", "iss": "supabase", "exp": NOW + 99}),
        json!({"role": "service_role", "iss": "supabase", "exp": NOW + 99}),
        json!({"sub": Login::new(NOW).user.to_string(), "role": "authenticated", "exp": NOW + 99}),
    ];
    let (by_default, allowing) =
        (World::checking(&[]).await, World::checking(&["--check-keys", "allow"]).await);
    for key in keys {
        let token = by_default.signer.sign(&key);
        for _ in 0..2 {
            let answer = by_default.check_token(&token).await;
            assert_eq!(said(&answer), (401, Some("bad_jwt")), "{key}");
            assert_eq!(answer.json()["msg"], "invalid claim: missing session_id claim");
            let sub = key["sub"].as_str().unwrap_or("");
            let expires = (NOW + 99).to_string();
            assert_eq!(
                identity(&allowing.check_token(&token).await),
                [sub, "", key["role"].as_str().unwrap(), "", "", &expires]
            );
        }
    }
    assert_eq!(allowing.count(LOOKUPS).await, 0, "there is nothing to ask");
}

/// As `bad_tokens`, with the words that GoTrue has for each.
fn bad_tokens(signer: &Signer) -> Vec<(&'static str, String, &'static str)> {
    let login = Login::new(NOW);
    let with = |name: &str, value: Value| {
        let mut claims = login.claims();
        claims[name] = value;
        signer.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = login.claims();
        claims.as_object_mut().unwrap().remove(name);
        signer.sign(&claims)
    };
    let unverified = "invalid JWT: unable to parse or verify signature";
    let expired =
        "invalid JWT: unable to parse or verify signature, token has invalid claims: token is expired";
    let good = login.access(signer);
    let (head, _) = good.rsplit_once('.').unwrap();
    let none = json!({"alg": "none"});
    vec![
        ("expired", with("exp", NOW.into()), expired),
        ("endless", without("exp"), "invalid claim: missing exp claim"),
        ("not yet", with("nbf", (NOW + 1).into()), unverified),
        ("odd session", with("session_id", "mine".into()), "invalid claim: session_id claim must be a UUID"),
        ("odd user", with("sub", "me".into()), "invalid claim: sub claim must be a UUID"),
        ("no user", without("sub"), "invalid claim: missing sub claim"),
        ("odd expiry", with("exp", "never".into()), unverified),
        ("forged", login.access(&Signer::hs256(b"another-secret-with-at-least-32-characters")), unverified),
        ("unsigned", format!("{head}."), unverified),
        ("none", signer.sign_under(&none, &login.claims()), unverified),
        ("unknown key", login.access(&Signer::es256("nobody's")), unverified),
        ("no token", "a.b.c".to_owned(), unverified),
        ("huge", format!("{head}.{}", "a".repeat(20_000)), unverified),
    ]
}

/// Also while the store is away: it has no say in this.
#[tokio::test]
async fn a_bad_credential_is_401_whatever_the_store_does() {
    let mut world = World::checking(&["--store-timeout", "100ms"]).await;
    for away in [false, true] {
        if away {
            world.redis.kill();
        }
        for (what, token, words) in bad_tokens(&world.signer) {
            let answer = world.check_token(&token).await;
            assert_eq!(said(&answer), (401, Some("bad_jwt")), "{what}");
            assert_eq!(answer.json(), json!({"code": 401, "error_code": "bad_jwt", "msg": words}), "{what}");
            assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer error="invalid_token""#), "{what}");
        }
        let none = check_with(&world.sidecar, Method::GET, "/check", &[], "").await;
        assert_eq!(said(&none), (401, Some("no_authorization")));
        assert_eq!(none.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(world.count(LOOKUPS).await, 0);
}

#[tokio::test]
async fn errors_have_the_form_that_was_asked_for_and_no_cors() {
    let world = World::checking(&[]).await;
    let headers = [("x-supabase-api-version", "2024-01-01"), ("origin", "https://app.example")];
    let answer = check_with(&world.sidecar, Method::GET, "/check", &headers, "").await;
    let words = json!({"code": "no_authorization", "message": "This endpoint requires a valid Bearer token"});
    assert_eq!(answer.json(), words);
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_token_of_every_algorithm_is_verified() {
    let signers = [Signer::es256("e"), Signer::rs256("r"), Signer::eddsa("d"), Signer::trusted()];
    let world =
        World::publishing(&[&signers[0], &signers[1], &signers[2]], &UNHURRIED, always(no_content())).await;
    for signer in &signers {
        let login = Login::new(NOW);
        world.know(&[&login]).await;
        for _ in 0..2 {
            assert_eq!(world.check_token(&login.access(signer)).await.status, 200);
        }
    }
    // a name is no proof, and a public key no secret
    let login = Login::new(NOW);
    let public = Signer::hs256(&signers[0].public_key());
    let confused = public.sign_under(&json!({"alg": "HS256", "kid": "e"}), &login.claims());
    for token in [login.access(&Signer::es256("e")), login.access(&Signer::rs256("d")), confused] {
        assert_eq!(said(&world.check_token(&token).await), (401, Some("bad_jwt")));
    }
}

/// A check waits for the key that it needs, and does not end the fetching when it leaves.
#[tokio::test]
async fn a_key_that_was_rotated_in_is_waited_for() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let world = World::publishing(&[&old], &UNHURRIED, always(no_content())).await;
    let login = Login::new(NOW);
    world.know(&[&login]).await;
    assert_eq!(world.check_token(&login.access(&old)).await.status, 200);
    world.upstream.publish(&Signer::jwks(&[&new]));
    let token = login.access(&new);
    until("the new key is known", async || world.check_token(&token).await.status == 200).await;
    // it was rotated out, and what it verified is verified no more
    assert_eq!(said(&world.check_token(&login.access(&old)).await), (401, Some("bad_jwt")));
}

/// Threat: tokens with made-up key ids, to have us ask GoTrue again and again, or to keep checks waiting.
#[tokio::test]
async fn an_unknown_key_is_waited_for_once() {
    let known = Signer::es256("known");
    let world = World::publishing(&[&known], &UNHURRIED, always(no_content())).await;
    let login = Login::new(NOW);
    world.know(&[&login]).await;
    let good = login.access(&known);
    assert_eq!(world.check_token(&good).await.status, 200);
    let began = tokio::time::Instant::now();
    for n in 0..20 {
        let made_up = login.access(&Signer::es256(&n.to_string()));
        assert_eq!(said(&world.check_token(&made_up).await), (401, Some("bad_jwt")));
    }
    let fetches =
        ["ok", "failed"].map(|result| format!("gotrue_sidecar_jwks_fetches_total{{result=\"{result}\"}}"));
    let count = world.count(&fetches[0]).await + world.count(&fetches[1]).await;
    let most = 2 + usize::try_from(began.elapsed().as_secs() / 5).unwrap();
    assert!(count <= most, "{count} fetches in {:?}", began.elapsed());
    // the keys are the same, so what they verified stands
    let hits = "gotrue_sidecar_check_cache_hits_total{cache=\"token\"}";
    let before = world.count(hits).await;
    assert_eq!(world.check_token(&good).await.status, 200);
    assert_eq!(world.count(hits).await, before + 1);
}

#[tokio::test]
async fn without_any_key_nothing_can_be_decided() {
    let upstream = Upstream::start(always(no_content())).await;
    upstream.publish("nonsense");
    let sidecar = Sidecar::start_at(
        &Clock::standing_at(NOW_MS),
        &["--upstream-url", &upstream.url, "--store-url", "memory:"],
    );
    let login = Login::new(NOW);
    let answer = check(&sidecar, &login.access(&Signer::es256("e"))).await;
    assert_eq!(said(&answer), UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), Some("1"));
    // but what has expired has
    let expired = Login { expires: NOW, ..login };
    assert_eq!(check(&sidecar, &expired.access(&Signer::es256("e"))).await.status, 401);
}

#[tokio::test]
async fn the_embedded_store_is_asked_each_time() {
    let upstream = Upstream::start(always(no_content())).await;
    let flags = ["--upstream-url", &upstream.url, "--store-url", "memory:", "--jwt-secret", SECRET];
    let sidecar = Sidecar::start_at(&Clock::standing_at(NOW_MS), &flags);
    let (store, login) = (sidecar.store(), Login::new(NOW));
    let token = login.access(&Signer::trusted());
    store.apply(&[recorded(&login)], NOW).await.unwrap();
    assert_eq!(check(&sidecar, &token).await.status, 200);
    let end = gotrue_sidecar::sessions::change(login.user, Which::One(login.session), NOW_MS);
    store.apply(&[end], NOW).await.unwrap();
    assert_eq!(said(&check(&sidecar, &token).await), REVOKED);
}

#[tokio::test]
async fn switched_off_there_is_nothing() {
    let upstream = Upstream::start(always(no_content())).await;
    let without_store = ["--upstream-url", &upstream.url];
    let off = ["--upstream-url", &upstream.url, "--store-url", "memory:", "--check-enabled", "false"];
    for flags in [&without_store[..], &off] {
        let sidecar = Sidecar::start(flags);
        let request = Request::get(format!("http://{}/check", sidecar.admin)).body(String::new()).unwrap();
        assert_eq!(send(request).await.unwrap().status, 404);
    }
}
