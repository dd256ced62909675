//! Lookup and `enforce` (contract §3 step 2).

use super::*;

const LOOKUPS: &str = "gotrue_sidecar_store_commands_total{command=\"lookup\",result=\"ok\"}";

#[tokio::test]
async fn a_session_is_seen_at_most_once_a_minute() {
    let login = Login::new(NOW);
    let world = World::new(always(json("{}"))).await;
    world.know(&[&login]).await;
    let token = Login { expires: NOW + 9999, ..login.clone() };
    let mut seen = Vec::new();
    let mut asked = 0;
    for (at, looks) in [(0, true), (59, false), (60, true), (61, false), (119, false), (121, true)] {
        world.clock.set(NOW_MS + at * 1000);
        world.as_user(&token, Method::GET, "/user", "").await;
        if looks {
            asked += 1;
            world.counts(LOOKUPS, asked).await;
        }
        seen.push(world.live(&login).await.seen_at.unwrap() - NOW);
    }
    assert_eq!(world.count(LOOKUPS).await, asked);
    assert_eq!(seen, [0, 0, 60, 60, 60, 121]);
}

#[tokio::test]
async fn a_token_that_does_not_verify_touches_nothing() {
    let login = Login::new(NOW);
    let world = World::new(always(json("{}"))).await;
    world.know(&[&login]).await;
    world.pass(100_000);
    let expired = Login { expires: NOW + 1, ..login.clone() }.access(&world.signer);
    let forged = login.access(&Signer::hs256(b"another-secret-with-at-least-32-characters"));
    let unknown = login.access(&Signer::es256("nobody's"));
    for token in [&expired, &forged, &unknown] {
        assert_eq!(world.with_token(token, Method::GET, "/user", "").await.status, 200);
    }
    world.counts(LOOKUPS, 1).await; // the unknown key's: looked up, for the log, not touched
    assert_eq!(world.live(&login).await.seen_at, Some(NOW));
    // asked again after a minute, by a good one
    world.pass(60_000);
    world.as_user(&login, Method::GET, "/user", "").await;
    world.counts(LOOKUPS, 2).await;
    assert_eq!(world.live(&login).await.seen_at, Some(NOW + 160));
}

#[tokio::test]
async fn enforce_refuses_what_was_revoked_as_gotrue_would() {
    refuses(
        "session_not_found",
        "Session from session_id claim in JWT does not exist",
        async |world, login| world.revoke(login).await,
    )
    .await;
}

#[tokio::test]
async fn enforce_refuses_who_is_banned_as_gotrue_would() {
    refuses("user_banned", "User is banned", async |world, login| {
        let ban = Change::Suspend { user: login.user, until: Some(NOW + 50), decided_ms: NOW_MS };
        world.store.apply(&[ban], NOW).await.unwrap();
    })
    .await;
}

/// In both forms, on any route, without GoTrue's being asked; and nobody else.
async fn refuses(code: &str, message: &str, befall: impl AsyncFn(&World, &Login)) {
    let (login, other) = (Login::new(NOW), Login::new(NOW));
    let flags = ["--jwt-secret", SECRET, "--enforce", "true"];
    let world = World::with(&flags, always(json("{}"))).await;
    world.know(&[&login, &other]).await;
    befall(&world, &login).await;
    let old_form = format!(r#"{{"code":403,"error_code":"{code}","msg":"{message}"}}"#);
    let new_form = format!(r#"{{"code":"{code}","message":"{message}"}}"#);
    let authorization = format!("Bearer {}", login.access(&world.signer));
    for (method, target) in [
        (Method::GET, "/user"),
        (Method::PUT, "/user"),
        (Method::POST, "/factors"),
        (Method::POST, "/logout"),
        (Method::GET, "/whatever/comes"),
    ] {
        for (version, form) in [("2023-01-01", &old_form), ("2024-01-01", &new_form)] {
            let headers = [("authorization", authorization.as_str()), ("x-supabase-api-version", version)];
            let answer = world.send(method.clone(), target, &headers, "").await;
            assert_eq!((answer.status.as_u16(), answer.error_code()), (403, Some(code)), "{target}");
            assert_eq!(answer.body, *form);
        }
    }
    assert!(world.upstream.seen().is_empty(), "GoTrue was asked");
    // known and well, unknown, without a token, badly signed: GoTrue decides
    let stranger = Login::new(NOW);
    let forged = login.access(&Signer::hs256(b"another-secret-with-at-least-32-characters"));
    assert_eq!(world.as_user(&other, Method::GET, "/user", "").await.status, 200);
    assert_eq!(world.as_user(&stranger, Method::GET, "/user", "").await.status, 200);
    assert_eq!(world.with_token(&forged, Method::GET, "/user", "").await.status, 200);
    assert_eq!(world.send(Method::GET, "/settings", &[], "").await.status, 200);
    assert_eq!(world.upstream.seen().len(), 4);
}

#[tokio::test]
async fn a_ban_passes_and_so_does_the_request() {
    let login = Login::new(NOW);
    let flags = ["--jwt-secret", SECRET, "--enforce", "true"];
    let world = World::with(&flags, always(json("{}"))).await;
    world.know(&[&login]).await;
    let ban = Change::Suspend { user: login.user, until: Some(NOW + 50), decided_ms: NOW_MS };
    world.store.apply(&[ban], NOW).await.unwrap();
    assert_eq!(world.as_user(&login, Method::GET, "/user", "").await.status, 403);
    world.pass(50_000);
    assert_eq!(world.as_user(&login, Method::GET, "/user", "").await.status, 200);
}

#[tokio::test]
async fn the_access_log_names_session_and_user_of_a_verified_token() {
    let login = Login::new(NOW);
    let world = World::new(always(json("{}"))).await;
    world.know(&[&login]).await;
    world.as_user(&login, Method::GET, "/user", "").await;
    let (user, session) = (login.user.to_string(), login.session.to_string());
    until("the access line", async || {
        let log = world.sidecar.access_log();
        log.contains(&user) && log.contains(&session)
    })
    .await;
}
