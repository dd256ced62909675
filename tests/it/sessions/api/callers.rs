//! Who may ask, and what the others are told.

use super::*;

/// Threats: forged, unsigned and expired tokens; service and anon keys. Told as GoTrue's `/user` tells it, in both
/// forms, and nothing is revoked.
#[tokio::test]
async fn only_a_users_verified_token_lists_and_revokes() {
    let login = Login::new(NOW);
    let world = World::with_api().await;
    world.know(&[&login]).await;
    let with = |name: &str, value: Value| {
        let mut claims = login.claims();
        claims[name] = value;
        claims
    };
    let sign = |claims: &Value| Some(world.signer.sign(claims));
    let public = Signer::es256("published");
    let none = {
        let token = world.signer.sign_under(&json!({"alg": "none", "typ": "JWT"}), &login.claims());
        format!("{}.", token.rsplit_once('.').unwrap().0)
    };
    let unsigned = "invalid JWT: unable to parse or verify signature";
    let expired =
        "invalid JWT: unable to parse or verify signature, token has invalid claims: token is expired";
    let table = [
        (None, 401, "no_authorization", "This endpoint requires a valid Bearer token"),
        (Some("garbage".to_owned()), 403, "bad_jwt", unsigned),
        (Some(none), 403, "bad_jwt", unsigned),
        (
            Some(login.access(&Signer::hs256(b"another-secret-with-at-least-32-characters"))),
            403,
            "bad_jwt",
            unsigned,
        ),
        (Some(login.access(&public)), 403, "bad_jwt", unsigned),
        (Some(login.access(&Signer::hs256(&public.public_key()))), 403, "bad_jwt", unsigned),
        (sign(&with("nbf", json!(NOW + 10))), 403, "bad_jwt", unsigned),
        (sign(&with("exp", json!(NOW))), 403, "bad_jwt", expired),
        (Some(world.service_key()), 403, "bad_jwt", "invalid claim: missing sub claim"),
        (sign(&json!({"role": "anon", "exp": NOW + 99})), 403, "bad_jwt", "invalid claim: missing sub claim"),
        (sign(&with("sub", json!("me"))), 400, "bad_jwt", "invalid claim: sub claim must be a UUID"),
        (
            sign(&with("session_id", json!("x"))),
            403,
            "bad_jwt",
            "invalid claim: session_id claim must be a UUID",
        ),
    ];
    let own = format!("/sessions/{}", login.session);
    for (token, status, code, message) in table {
        for (method, target) in [
            (Method::GET, "/sessions"),
            (Method::DELETE, "/sessions?scope=global"),
            (Method::DELETE, own.as_str()),
        ] {
            let authorization = token.as_ref().map(|token| format!("Bearer {token}"));
            for version in ["2023-01-01", "2024-01-01"] {
                let mut headers =
                    vec![("x-supabase-api-version", version), ("origin", "https://app.example")];
                headers.extend(authorization.as_ref().map(|value| ("authorization", value.as_str())));
                let answer = world.send(method.clone(), target, &headers, "").await;
                let expected = match version {
                    "2024-01-01" => json!({"code": code, "message": message}),
                    _ => json!({"code": status, "error_code": code, "msg": message}),
                };
                assert_eq!((answer.status.as_u16(), answer.json()), (status, expected), "{target}");
                assert_eq!(answer.error_code(), Some(code));
                assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            }
        }
    }
    assert!(world.is_live(&login).await);
    assert!(world.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_service_role_is_needed_for_anybodys_sessions() {
    let login = Login::new(NOW);
    let world = World::with_api().await;
    world.know(&[&login]).await;
    let claims = |role: &str| json!({"role": role, "exp": NOW + 99});
    let forger = Signer::hs256(b"another-secret-with-at-least-32-characters");
    let table = [
        (None, 401, "no_authorization"),
        (Some(forger.sign(&claims("service_role"))), 403, "bad_jwt"),
        (Some(world.signer.sign(&json!({"role": "service_role", "exp": NOW - 1}))), 403, "bad_jwt"),
        (Some(world.signer.sign(&claims("anon"))), 403, "not_admin"),
        (Some(world.signer.sign(&claims("authenticated"))), 403, "not_admin"),
        (Some(login.access(&world.signer)), 403, "not_admin"),
    ];
    let (user, session) = (login.user, login.session);
    for (token, status, code) in table {
        for (method, target) in [
            (Method::GET, format!("/admin/users/{user}/sessions")),
            (Method::DELETE, format!("/admin/users/{user}/sessions")),
            (Method::GET, format!("/admin/sessions/{session}?user_id={user}")),
            (Method::DELETE, format!("/admin/sessions/{session}?user_id={user}")),
        ] {
            let answer = match &token {
                Some(token) => world.with_token(token, method, &target, "").await,
                None => world.send(method, &target, &[], "").await,
            };
            assert_eq!((answer.status.as_u16(), answer.error_code()), (status, Some(code)), "{target}");
        }
    }
    assert!(world.is_live(&login).await);
    for role in ["service_role", "supabase_admin"] {
        let token = world.signer.sign(&claims(role));
        let answer =
            world.with_token(&token, Method::GET, &format!("/admin/users/{user}/sessions"), "").await;
        assert_eq!(ids(&answer), [session.to_string()]);
    }
}

#[tokio::test]
async fn admins_have_the_roles_that_gotrue_gives_them() {
    let redis = RedisServer::start();
    let upstream = Upstream::start(gotrue).await;
    let (upstream_url, store) =
        (format!("--upstream-url={}", upstream.url), format!("--store-url={}", redis.url()));
    let sidecar = Sidecar::start_with(
        &[&upstream_url, &store, "--session-api-enabled=true", "--store-timeout=10s"],
        &[("GOTRUE_JWT_SECRET", SECRET), ("GOTRUE_JWT_ADMIN_ROLES", "root, operator")],
    );
    let target = format!("/admin/users/{}/sessions", Login::new(NOW).user);
    for (role, status) in [("root", 200), ("operator", 200), ("service_role", 403)] {
        let token = Signer::trusted().sign(&json!({"role": role}));
        let headers = [("authorization", format!("Bearer {token}"))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = send_through(&sidecar, Method::GET, &target, &headers, "").await;
        assert_eq!(answer.status, status, "{role} {answer:?}");
    }
}

/// Without `enforce`, too: this API is not GoTrue's to guard.
#[tokio::test]
async fn a_revoked_session_and_a_banned_user_are_refused() {
    let logins = sessions(2);
    let banned = Login::new(NOW);
    let world = World::with_api().await;
    world.know(&[&logins[0], &logins[1], &banned]).await;
    world.revoke(&logins[0]).await;
    let ban = Change::Suspend { user: banned.user, until: Some(NOW + 500), decided_ms: NOW * 1000 };
    world.store.apply(&[ban], NOW).await.unwrap();
    let other = format!("/sessions/{}", logins[1].session);
    for (login, code) in [(&logins[0], "session_not_found"), (&banned, "user_banned")] {
        for (method, target) in
            [(Method::GET, "/sessions"), (Method::DELETE, "/sessions?scope=global"), (Method::DELETE, &other)]
        {
            let answer = world.as_user(login, method, target, "").await;
            assert_eq!((answer.status.as_u16(), answer.error_code()), (403, Some(code)), "{target}");
        }
    }
    let mut admin = logins[0].claims();
    admin["role"] = "service_role".into();
    let target = format!("/admin/users/{}/sessions", banned.user);
    let answer = world.with_token(&world.signer.sign(&admin), Method::GET, &target, "").await;
    assert_eq!(answer.error_code(), Some("session_not_found"));
    assert!(world.is_live(&logins[1]).await);
}

#[tokio::test]
async fn a_token_of_a_session_that_the_mirror_never_saw_is_let_in() {
    let (stranger, known) = (Login::new(NOW), Login::new(NOW));
    let other = Login { user: known.user, ..stranger.clone() };
    let world = World::with_api().await;
    world.know(&[&known]).await;
    assert_eq!(ids(&world.get(&stranger, "/sessions").await), [""; 0]);
    let listed = world.get(&other, "/sessions").await;
    assert_eq!(ids(&listed), [known.session.to_string()]);
    assert_eq!(listed.json()["sessions"][0]["current"], false);
}

#[tokio::test]
async fn keys_that_gotrue_publishes_open_it_and_without_any_it_is_shut() {
    let signer = Signer::es256("published");
    let login = Login::new(NOW);
    let flags = ["--session-api-enabled", "true"];
    let world = World::publishing(&[&signer], &flags, gotrue).await;
    world.know(&[&login]).await;
    let listed = world.with_token(&login.access(&signer), Method::GET, "/sessions", "").await;
    assert_eq!(ids(&listed), [login.session.to_string()]);

    let world = World::publishing(&[], &flags, gotrue).await;
    let answer = world.with_token(&login.access(&signer), Method::GET, "/sessions", "").await;
    assert_eq!((answer.status.as_u16(), answer.error_code()), (503, Some("service_unavailable")));
    assert_eq!(answer.header("retry-after"), Some("1"));
}
