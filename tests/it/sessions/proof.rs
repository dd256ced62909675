//! Proof only (I2): a token that no known key made changes nothing, even where the upstream is the
//! forger's friend and agrees to everything.

use serde_json::json;

use super::*;

/// What a forger can make without a key, and with keys of another issuer.
fn forgeries(login: &Login, published: &Signer) -> Vec<(&'static str, String)> {
    let (claims, trusted, stranger) =
        (login.claims(), Signer::trusted(), Signer::hs256(b"another-secret-with-at-least-32-characters"));
    let good = trusted.sign(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let victim = Login::of(login.user, NOW);
    let others_payload = trusted.sign(&victim.claims()).split('.').nth(1).unwrap().to_owned();
    let confused = Signer::hs256(&published.public_key());
    let unsigned = stranger.sign_under(&json!({"alg": "none"}), &claims);
    vec![
        ("another issuer's", stranger.sign(&claims)),
        ("another issuer's under our key's name", Signer::es256("published").sign(&claims)),
        ("none", unsigned.clone()),
        ("none, unsigned", format!("{}.", unsigned.rsplit_once('.').unwrap().0)),
        ("unsigned", format!("{signed}.")),
        ("without a signature", signed.to_owned()),
        ("another payload under a good signature", format!("{header}.{others_payload}.{signature}")),
        (
            "a public key as secret",
            confused.sign_under(&json!({"alg": "HS256", "kid": "published"}), &claims),
        ),
        ("a public key as secret, nameless", confused.sign(&claims)),
        ("the secret as another algorithm", trusted.sign_under(&json!({"alg": "HS512"}), &claims)),
        (
            "the secret under the public key's name",
            trusted.sign_under(&json!({"alg": "HS256", "kid": "published"}), &claims),
        ),
        ("no token", "x".to_owned()),
    ]
}

/// What a user's own token can do to sessions.
const REQUESTS: [(&str, &str, &str); 7] = [
    ("POST", "/logout", ""),
    ("POST", "/logout?scope=local", ""),
    ("POST", "/logout?scope=others", ""),
    ("PUT", "/user", r#"{"password":"new"}"#),
    ("PUT", "/user/", r#"{"Password":"new"}"#),
    ("DELETE", "/user/oauth/grants?client_id=5e551040-0000-4000-8000-00000000000c", ""),
    ("DELETE", "/factors/5e551040-0000-4000-8000-00000000000f", ""),
];

async fn world_with_a_published_key(
    published: &Signer,
    script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
) -> World {
    World::publishing(&[published], &["--jwt-secret", SECRET], script).await
}

#[tokio::test]
async fn a_forged_token_changes_nothing_though_gotrue_agrees() {
    let published = Signer::es256("published");
    let world = world_with_a_published_key(&published, always(no_content())).await;
    let (own, counted) = (Login { aal: "aal2", ..Login::new(NOW) }, world.dropped("unverified").await);
    let other = Login { aal: "aal2", ..Login::of(own.user, NOW) };
    world.know(&[&own, &other]).await;
    world.pass(1);
    let before = (world.live(&own).await, world.live(&other).await);
    let forgeries = forgeries(&own, &published);
    for (what, token) in &forgeries {
        for (method, target, body) in REQUESTS {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            world.with_token(token, method, target, body).await;
            let now = (world.live(&own).await, world.live(&other).await);
            assert_eq!(now, before, "{what}: {target}");
        }
    }
    let refused = world.dropped("unverified").await - counted;
    assert_eq!(refused, forgeries.len() * REQUESTS.len());
}

#[tokio::test]
async fn a_forged_token_learns_nothing_from_gotrues_refusals() {
    let published = Signer::es256("published");
    for code in ["session_not_found", "user_not_found", "user_banned"] {
        let refusal = error("403 Forbidden", code);
        let world = world_with_a_published_key(&published, always(refusal)).await;
        let login = Login::new(NOW);
        world.know(&[&login]).await;
        for (what, token) in forgeries(&login, &published) {
            for target in ["/user", "/factors", "/reauthenticate"] {
                world.with_token(&token, Method::GET, target, "").await;
                assert!(world.is_live(&login).await, "{what}: {target}");
            }
        }
        // while a good token's counts
        world.as_user(&login, Method::GET, "/user", "").await;
        world.becomes(&login, |state| !matches!(state, State::Live(_))).await;
    }
}

#[tokio::test]
async fn a_forged_refresh_token_ends_nobodys_session() {
    let (login, stranger) = (Login::new(NOW), Login::new(NOW));
    let world = World::new(always(error("400 Bad Request", "refresh_token_not_found"))).await;
    world.know(&[&login]).await;
    // names the session, with a right checksum, but is not the token that GoTrue gave
    let forged = Login { counter: 5, ..login.clone() };
    for token in [&forged, &stranger] {
        assert_eq!(world.refresh(token).await.status, 400);
        assert!(world.is_live(&login).await);
    }
    // the real one is believed
    world.refresh(&login).await;
    assert_eq!(world.state(&login).await, State::Revoked);
}

/// Somebody signs in and gets another's tokens: that is GoTrue's doing. What the answer cannot do is
/// to end or move a session that is there.
#[tokio::test]
async fn an_answer_with_somebody_elses_token_takes_no_session_over() {
    let signer = Signer::trusted();
    let (own, victim) = (Login::new(NOW), Login::new(NOW));
    // the victim's session in the name of the attacker, and the other way round
    let mut claims = own.claims();
    claims["session_id"] = victim.session.to_string().into();
    let mixed = own.body(&signer).replace(&own.access(&signer), &signer.sign(&claims));
    let world = World::new(always(json(&mixed))).await;
    world.know(&[&victim]).await;
    let before = world.live(&victim).await;
    for target in [PASSWORD, REFRESH, "/verify"] {
        world.post(target, &refresh_body(&own)).await;
        assert_eq!(world.live(&victim).await, before);
        assert_eq!(world.state_of(own.user, victim.session).await, State::Unknown);
    }
    assert_eq!(world.dropped("contradiction").await, 3);
}
