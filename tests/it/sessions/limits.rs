//! Limits of sessions (contract §6.5): whose time is over is refused, ended here, and ended in GoTrue.

use super::*;

const IDLE: [&str; 2] = ["--session-idle-timeout", "10m"];
const ABSOLUTE: [&str; 2] = ["--session-absolute-timeout", "30m"];
const ENFORCE: [&str; 2] = ["--enforce", "true"];
const MEMORY: [&str; 2] = ["--store-url", "memory:"];
const MINUTE_MS: u64 = 60_000;

const LOOKUPS: &str = "gotrue_sidecar_store_commands_total{command=\"lookup\",result=\"ok\"}";

const OLD_FORM: &str =
    r#"{"code":400,"error_code":"session_expired","msg":"Invalid Refresh Token: Session Expired"}"#;
const NEW_FORM: &str = r#"{"code":"session_expired","message":"Invalid Refresh Token: Session Expired"}"#;

/// With the signer's secret, on Redis and on the embedded store.
async fn worlds(
    flags: &[&str],
    script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + Clone + 'static,
) -> [World; 2] {
    let flags = [&["--jwt-secret", SECRET], flags].concat();
    [World::with(&flags, script.clone()).await, World::with(&[&flags[..], &MEMORY].concat(), script).await]
}

/// Serves whatever is asked, and agrees to logouts.
fn serving(seen: &Seen) -> Vec<Step> {
    let logout = seen.request_line().starts_with("POST /logout");
    vec![Step::Send(if logout { no_content() } else { json("{}") })]
}

/// Hands out `login`'s tokens to whoever asks for some, and agrees to logouts.
fn renewing(login: &Login) -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + Clone + 'static {
    let bytes = login.answer(&Signer::trusted());
    move |seen| {
        let logout = seen.request_line().starts_with("POST /logout");
        vec![Step::Send(if logout { no_content() } else { bytes.clone() })]
    }
}

fn ended_by_time() -> &'static str {
    "gotrue_sidecar_sessions_ended_total{reason=\"expired\"}"
}

/// How often GoTrue was told to log somebody out.
fn logouts(world: &World) -> usize {
    world.upstream.seen().iter().filter(|seen| seen.request_line().starts_with("POST /logout")).count()
}

#[tokio::test]
async fn enforce_refuses_whose_time_is_over_as_gotrue_refuses_who_is_gone() {
    for (limit, minutes) in [(IDLE, 10), (ABSOLUTE, 30)] {
        for world in worlds(&[&ENFORCE[..], &limit].concat(), serving).await {
            let login = Login { expires: NOW + 9999, ..Login::new(NOW) };
            world.know(&[&login]).await;
            world.pass(minutes * MINUTE_MS - 1000);
            assert!(world.is_live(&login).await);
            world.pass(1000);
            for _ in 0..3 {
                let refused = world.as_user(&login, Method::GET, "/user", "").await;
                assert_eq!((refused.status.as_u16(), refused.error_code()), (403, Some("session_not_found")));
            }
            // ended here, and in GoTrue with the token that showed it, once
            let logout = world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
            assert_eq!(logout.header("authorization"), [format!("Bearer {}", login.access(&world.signer))]);
            world.counts(ended_by_time(), 1).await;
            world.pass(2 * MINUTE_MS);
            assert_eq!(world.as_user(&login, Method::GET, "/user", "").await.status, 403);
            assert_eq!(world.state(&login).await, State::Expired);
            assert_eq!((logouts(&world), world.upstream.seen().len()), (1, 1), "GoTrue was asked");
            assert_eq!(world.count("gotrue_sidecar_refused_total{reason=\"session_expired\"}").await, 4);
            assert_eq!(world.count(ended_by_time()).await, 1);
        }
    }
}

#[tokio::test]
async fn without_enforce_the_request_passes_and_the_session_ends_beside_it() {
    for world in worlds(&IDLE, serving).await {
        let login = Login { expires: NOW + 9999, ..Login::new(NOW) };
        world.know(&[&login]).await;
        world.pass(10 * MINUTE_MS);
        assert_eq!(world.as_user(&login, Method::GET, "/user", "").await.status, 200);
        world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
        world.counts(ended_by_time(), 1).await;
        assert_eq!(world.state(&login).await, State::Expired);
    }
}

/// Contract I2.
#[tokio::test]
async fn a_token_that_does_not_verify_ends_no_session_whose_time_is_over() {
    for enforce in ["true", "false"] {
        for world in worlds(&[&IDLE[..], &["--enforce", enforce]].concat(), serving).await {
            let login = Login { expires: NOW + 9999, ..Login::new(NOW) };
            world.know(&[&login]).await;
            world.pass(10 * MINUTE_MS);
            let forged = login.access(&Signer::hs256(b"another-secret-with-at-least-32-characters"));
            let unknown = login.access(&Signer::es256("nobody's"));
            for token in [&forged, &unknown] {
                world.with_token(token, Method::GET, "/user", "").await;
            }
            // with the lookup of a good token the others' are over as well
            world.pass(2 * MINUTE_MS);
            let other = Login { expires: NOW + 9999, ..Login::new(NOW) };
            world.know(&[&other]).await;
            world.as_user(&other, Method::GET, "/user", "").await;
            world.counts(ended_by_time(), 1).await;
            let shown = world.store.list(login.user, Wanted::One(login.session), NOW).await.unwrap();
            assert_eq!(shown.total, 1, "it was ended");
        }
    }
}

#[tokio::test]
async fn a_session_in_use_is_never_idle() {
    for enforce in ["true", "false"] {
        let flags = ["--session-idle-timeout", "5m", "--enforce", enforce];
        for world in worlds(&flags, serving).await {
            let login = Login { expires: NOW + 9999, ..Login::new(NOW) };
            world.know(&[&login]).await;
            for seconds in [59, 59, 179, 59, 1, 179, 179, 59, 59, 178, 119, 59, 179] {
                world.pass(seconds * 1000);
                let before = world.count(LOOKUPS).await;
                assert_eq!(world.as_user(&login, Method::GET, "/user", "").await.status, 200);
                if seconds >= 60 || enforce == "true" {
                    world.counts(LOOKUPS, before + 1).await; // which without enforce nobody waits for
                }
            }
            assert!(world.is_live(&login).await);
            assert_eq!(logouts(&world), 0);
        }
    }
}

/// The mirror never saw it, so only its tokens say when it began.
#[tokio::test]
async fn a_refresh_of_a_session_that_is_too_old_gets_no_tokens_and_is_ended_in_gotrue() {
    for (version, form) in [(None, OLD_FORM), (Some("2024-01-01"), NEW_FORM)] {
        let login = Login::new(NOW - 1800);
        let renewed = login.refreshed(NOW);
        for world in worlds(&ABSOLUTE, renewing(&renewed)).await {
            let headers: Vec<_> =
                version.map(|version| ("x-supabase-api-version", version)).into_iter().collect();
            let answer = world.send(Method::POST, REFRESH, &headers, &refresh_body(&login)).await;
            assert_eq!((answer.status.as_u16(), answer.error_code()), (400, Some("session_expired")));
            assert_eq!(answer.body, form);
            let logout = world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
            assert_eq!(logout.header("authorization"), [format!("Bearer {}", renewed.access(&world.signer))]);
            assert_eq!(world.state(&login).await, State::Expired);
        }
    }
}

#[tokio::test]
async fn the_session_api_neither_shows_nor_admits_whose_time_is_over() {
    for world in worlds(&[&IDLE[..], &["--session-api-enabled", "true"]].concat(), serving).await {
        let old = Login { expires: NOW + 9999, ..Login::new(NOW) };
        let new = Login { expires: NOW + 9999, ..Login::of(old.user, NOW + 300) };
        world.know(&[&old, &new]).await;
        world.pass(10 * MINUTE_MS);
        let listed = world.as_user(&new, Method::GET, "/sessions", "").await;
        assert_eq!(listed.headers["x-total-count"], "1");
        assert_eq!(listed.json()["sessions"][0]["id"], new.session.to_string());
        let refused = world.as_user(&old, Method::GET, "/sessions", "").await;
        assert_eq!((refused.status.as_u16(), refused.error_code()), (403, Some("session_not_found")));
    }
}

/// Contract I5: a store outage logs nobody out.
#[tokio::test]
async fn a_store_that_was_away_makes_nobody_idle() {
    let flags = ["--jwt-secret", SECRET, "--store-timeout", "1s", IDLE[0], IDLE[1], "--enforce", "true"];
    let world = World::with(&flags, serving).await;
    let (used, left) = (Login { expires: NOW + 9999, ..Login::new(NOW) }, Login::new(NOW));
    world.know(&[&used, &left]).await;
    world.redis.hang();
    world.pass(8 * MINUTE_MS);
    // of its use nothing can be noted; the probe finds out that it is so
    assert_eq!(world.as_user(&used, Method::GET, "/user", "").await.status, 200);
    let failures = "gotrue_sidecar_store_commands_total{command=\"ping\",result=\"timeout\"}";
    world.counts(failures, 4).await; // for two seconds, and a little more
    world.redis.go_on();
    until("the store answers", async || world.count("gotrue_sidecar_store_up").await == 1).await;
    let open = "gotrue_sidecar_store_breaker_open";
    until("the store is asked again", async || world.count(open).await == 0).await;
    world.pass(9 * MINUTE_MS);
    assert_eq!(world.as_user(&used, Method::GET, "/user", "").await.status, 200);
    world.pass(MINUTE_MS);
    until("who was idle is refused", async || {
        world.as_user(&left, Method::GET, "/user", "").await.status == 403
    })
    .await;
    assert_eq!(world.as_user(&used, Method::GET, "/user", "").await.status, 200);
}
