//! Proof only (I2): a token that no known key made changes nothing, even where the upstream is the
//! forger's friend and agrees to everything.

mod answers;

use serde_json::json;

use super::*;

/// The keys that GoTrue publishes here: one of each kind that a forger would take for something else.
struct Published {
    ec: Signer,
    rsa: Signer,
}

impl Published {
    fn new() -> Self {
        Self { ec: Signer::es256("published"), rsa: Signer::rs256("published-rsa") }
    }

    async fn world(&self, script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> World {
        World::publishing(&[&self.ec, &self.rsa], &["--jwt-secret", SECRET], script).await
    }
}

/// What a forger can make without a key, and with keys of another issuer.
fn forgeries(login: &Login, published: &Published) -> Vec<(&'static str, String)> {
    let (claims, trusted, stranger) =
        (login.claims(), Signer::trusted(), Signer::hs256(b"another-secret-with-at-least-32-characters"));
    let good = trusted.sign(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let victim = Login::of(login.user, NOW);
    let others_payload = trusted.sign(&victim.claims()).split('.').nth(1).unwrap().to_owned();
    let confused = Signer::hs256(&published.ec.public_key());
    let confused_rsa = Signer::hs256(&published.rsa.public_key());
    let document = Signer::jwks(&[&published.ec]);
    let (ec, rsa) = (&published.ec, &published.rsa);
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
        (
            "an RSA key as secret",
            confused_rsa.sign_under(&json!({"alg": "HS256", "kid": "published-rsa"}), &claims),
        ),
        ("an RSA key as secret, nameless", confused_rsa.sign(&claims)),
        ("the key set as secret", Signer::hs256(document.as_bytes()).sign(&claims)),
        // made with the right keys, but as what these are not for
        ("an EC key's as RSA", ec.sign_under(&json!({"alg": "RS256", "kid": "published"}), &claims)),
        (
            "an EC key's under the RSA key's name",
            ec.sign_under(&json!({"alg": "ES256", "kid": "published-rsa"}), &claims),
        ),
        (
            "an RSA key's as another digest",
            rsa.sign_under(&json!({"alg": "RS512", "kid": "published-rsa"}), &claims),
        ),
        (
            "an RSA key's as another padding",
            rsa.sign_under(&json!({"alg": "PS256", "kid": "published-rsa"}), &claims),
        ),
        ("an RSA key's as secret", rsa.sign_under(&json!({"alg": "HS256", "kid": "published-rsa"}), &claims)),
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

#[tokio::test]
async fn a_forged_token_changes_nothing_though_gotrue_agrees() {
    let published = Published::new();
    let world = published.world(always(no_content())).await;
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
    let published = Published::new();
    for code in ["session_not_found", "user_not_found", "user_banned"] {
        let refusal = error("403 Forbidden", code);
        let world = published.world(always(refusal)).await;
        let login = Login::new(NOW);
        world.know(&[&login]).await;
        for (what, token) in forgeries(&login, &published) {
            for target in ["/user", "/factors", "/reauthenticate"] {
                world.with_token(&token, Method::GET, target, "").await;
                assert!(world.is_live(&login).await, "{what}: {target}");
            }
        }
        // while a good token's counts
        world.pass(1);
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

/// GoTrue's clean-up deletes refresh tokens a day after they were exchanged.
#[tokio::test]
async fn a_previous_refresh_token_that_gotrue_has_deleted_ends_no_session() {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 1);
    let world = World::new(always(error("400 Bad Request", "refresh_token_not_found"))).await;
    world.know(&[&login, &renewed]).await;
    assert_eq!(world.refresh(&login).await.status, 400);
    assert!(world.is_live(&login).await);
    world.refresh(&renewed).await;
    assert_eq!(world.state(&login).await, State::Revoked);
}

/// A key that is not known yet proves nothing here, but GoTrue knew it: where it agrees, the change is made,
/// and where it refuses, none.
#[tokio::test]
async fn a_token_of_an_unknown_key_counts_where_gotrue_agrees() {
    let unknown = Signer::es256("not-published-yet");
    for (bytes, ends, counted) in
        [(no_content(), true, 0), (error("403 Forbidden", "session_not_found"), false, 1)]
    {
        let published = Published::new();
        let world = published.world(always(bytes)).await;
        let own = Login::new(NOW);
        let other = Login::of(own.user, NOW);
        world.know(&[&own, &other]).await;
        world.pass(1);
        let before = world.dropped("unverified").await;
        world.with_token(&own.access(&unknown), Method::POST, "/logout?scope=local", "").await;
        assert_eq!(world.state(&own).await == State::Revoked, ends);
        assert!(world.is_live(&other).await);
        assert_eq!(world.dropped("unverified").await - before, counted);
    }
}

/// What admins do is proven by GoTrue's success, whoever they are; their token is never looked into.
#[tokio::test]
async fn what_an_admin_does_needs_gotrues_agreement_and_a_user_in_the_path() {
    let refused = error("403 Forbidden", "not_admin");
    let agreed = json(r#"{"id":"x","banned_until":"2030-01-01T00:00:00Z"}"#);
    let requests = [
        ("PUT", "", r#"{"password":"new"}"#, State::Revoked),
        ("PUT", "", r#"{"ban_duration":"1h"}"#, State::Suspended(1_893_456_000)),
        ("DELETE", "", "", State::Revoked),
    ];
    for (method, suffix, body, then) in requests {
        for (bytes, agrees) in [(refused.clone(), false), (agreed.clone(), true)] {
            let login = Login::new(NOW);
            let world = World::new(always(bytes)).await;
            world.know(&[&login]).await;
            world.pass(1);
            let (before, method) = (world.live(&login).await, Method::from_bytes(method.as_bytes()).unwrap());
            for odd in ["me", "%22", "5e551040-0000-4000-8000-0000000000zz"] {
                world.send(method.clone(), &format!("/admin/users/{odd}{suffix}"), &[], body).await;
            }
            assert_eq!(world.live(&login).await, before);
            // a user's own token, which GoTrue refuses
            let target = format!("/admin/users/{}{suffix}", login.user);
            world.as_user(&login, method.clone(), &target, body).await;
            let state = world.state(&login).await;
            assert_eq!(state == then, agrees, "{method} {body}: {state:?}");
            assert!(agrees || matches!(state, State::Live(_)));
        }
    }
}

/// GoTrue's headers in its own refusal say whose token was used twice or who is banned; a client's do not, and
/// neither does a token that GoTrue never gave.
#[tokio::test]
async fn headers_that_a_client_sends_to_a_refused_refresh_end_and_ban_nobody() {
    for code in ["refresh_token_already_used", "user_banned"] {
        let victim = Login::new(NOW);
        let world = World::new(always(error("400 Bad Request", code))).await;
        world.know(&[&victim]).await;
        world.pass(1);
        let before = world.live(&victim).await;
        let (user, session) = (victim.user.to_string(), victim.session.to_string());
        let mut forged = Vec::new();
        for name in ["sb-auth-user-id", "Sb_Auth_User_Id"] {
            forged.push((name, user.as_str()));
        }
        for name in ["sb-auth-session-id", "sb_auth_session_id"] {
            forged.push((name, session.as_str()));
        }
        for name in ["sb-auth-refresh-token-rotated", "sb_auth_refresh_token_rotated"] {
            forged.push((name, "true"));
        }
        let tokens = [Login::new(NOW), Login { counter: 9, ..victim.clone() }];
        for token in &tokens {
            world.send(Method::POST, REFRESH, &forged, &refresh_body(token)).await;
            assert_eq!(world.live(&victim).await, before, "{code}");
        }
        for seen in world.upstream.seen() {
            for (name, _) in &forged {
                assert_eq!(seen.header(name), [""; 0], "{name}");
            }
        }
    }
}

/// `enforce` refuses by what the store says; a forger's token is GoTrue's to refuse.
#[tokio::test]
async fn a_forged_token_is_gotrues_to_refuse_and_tells_nothing_of_the_session() {
    let published = Published::new();
    let flags = ["--jwt-secret", SECRET, "--enforce", "true"];
    let bytes = error("403 Forbidden", "bad_jwt");
    let world = World::publishing(&[&published.ec, &published.rsa], &flags, always(bytes)).await;
    let login = Login::new(NOW);
    world.know(&[&login]).await;
    world.revoke(&login).await;
    for (what, token) in forgeries(&login, &published) {
        let answer = world.with_token(&token, Method::GET, "/user", "").await;
        assert_eq!(answer.error_code(), Some("bad_jwt"), "{what}");
    }
    let answer = world.as_user(&login, Method::GET, "/user", "").await;
    assert_eq!(answer.error_code(), Some("session_not_found"));
}
