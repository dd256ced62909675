//! Bans: what the last word on them is, whoever writes it when (I9), and what proves that one is over.

use super::*;

/// A sidecar that refuses whom it knows to be banned.
const ENFORCING: [&str; 4] = ["--jwt-secret", SECRET, "--enforce", "true"];

/// Every request is answered as the last one of its kind was told to be.
#[derive(Clone, Default)]
struct Banning(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Banning {
    fn set(&self, banned: bool) {
        self.0.store(banned, std::sync::atomic::Ordering::Relaxed);
    }

    /// Refuses `login` while it is on, and hands out its tokens else.
    fn script(&self, login: &Login) -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static {
        let (banned, tokens) = (self.0.clone(), login.answer(&Signer::trusted()));
        move |seen| {
            let banned = banned.load(std::sync::atomic::Ordering::Relaxed);
            let asks_for_tokens = seen.request_line().starts_with("POST /token");
            let bytes = match (banned, asks_for_tokens) {
                (true, true) => error("400 Bad Request", "user_banned"),
                (true, false) => error("403 Forbidden", "user_banned"),
                (false, true) => tokens.clone(),
                (false, false) => json("{}"),
            };
            vec![Step::Send(bytes)]
        }
    }
}

async fn get_user(world: &World, login: &Login) -> u16 {
    world.as_user(login, Method::GET, "/user", "").await.status.as_u16()
}

/// GoTrue said that the user is banned, but not until when; the ban was lifted past the sidecar.
#[tokio::test]
async fn tokens_prove_that_a_ban_is_over_and_lift_it() {
    for exactly in [false, true] {
        for target in [REFRESH, PASSWORD] {
            let login = Login::new(NOW);
            let renewed = login.refreshed(NOW + 1);
            let banning = Banning::default();
            let world = World::with(&ENFORCING, banning.script(&renewed)).await;
            world.know(&[&login]).await;
            if exactly {
                let ban =
                    Change::Suspend { user: login.user, until: Some(NOW + 3000), decided_ms: NOW_MS + 5 };
                world.store.apply(&[ban], NOW).await.unwrap();
            } else {
                banning.set(true);
                world.pass(5);
                assert_eq!(world.refresh(&login).await.error_code(), Some("user_banned"));
            }
            assert!(matches!(world.state(&login).await, State::Suspended(_)));
            banning.set(false);
            world.pass(1000);
            assert_eq!(get_user(&world, &login).await, 403, "{target} {exactly}");
            // GoTrue does not look at the Bearer token there, so it cannot be what keeps the user out
            let answer = world.as_user(&login, Method::POST, target, &refresh_body(&login)).await;
            assert_eq!(answer.status, 200, "{target} {exactly}");
            assert!(world.is_live(&login).await);
            assert_eq!(get_user(&world, &login).await, 200, "{target} {exactly}");
        }
    }
}

/// A code is traded for tokens whoever is banned, and a second factor verified before v2.195.0.
#[tokio::test]
async fn tokens_that_banned_users_get_lift_no_ban() {
    let login = Login::new(NOW);
    let banning = Banning::default();
    let world = World::with(&ENFORCING, banning.script(&login)).await;
    let ban = Change::Suspend { user: login.user, until: Some(NOW + 3000), decided_ms: NOW_MS };
    world.store.apply(&[ban], NOW).await.unwrap();
    world.pass(1000);
    assert_eq!(world.post("/token?grant_type=pkce", "{}").await.status, 200);
    assert_eq!(world.state(&login).await, State::Suspended(NOW + 3000));
    assert_eq!(get_user(&world, &login).await, 403);
}

/// What GoTrue answers before it bans says nothing of the time after.
#[tokio::test]
async fn tokens_that_were_asked_for_before_a_ban_do_not_lift_it() {
    use crate::support::upstream::Gate;
    let login = Login::new(NOW);
    let (gate, tokens) = (Gate::new(), login.refreshed(NOW + 1).answer(&Signer::trusted()));
    let (held, until) = (gate.clone(), r#"{"id":"x","banned_until":"2030-01-01T00:00:00Z"}"#);
    let world = World::with(&ENFORCING, move |seen: &Seen| {
        if seen.request_line().starts_with("PUT /admin/users/") {
            return vec![Step::Send(json(until))];
        }
        vec![Step::Until(held.clone()), Step::Send(tokens.clone())]
    })
    .await;
    world.know(&[&login]).await;
    world.pass(100);
    let (refreshed, ()) = tokio::join!(world.refresh(&login), async {
        world.upstream.arrived("POST /token").await;
        world.pass(100);
        let target = format!("/admin/users/{}", login.user);
        world.send(Method::PUT, &target, &[], r#"{"ban_duration":"1h"}"#).await;
        world.pass(100);
        gate.open();
    });
    assert_eq!(refreshed.status, 200);
    assert!(matches!(world.state(&login).await, State::Suspended(_)));
}

/// Redis hangs; a ban times out at one replica and its end at another. It makes both when it goes on, and the
/// order in which it does decides nothing.
#[tokio::test]
async fn a_ban_that_is_written_after_its_end_does_not_stand() {
    let login = Login::new(NOW);
    let flags = ["--jwt-secret", SECRET, "--store-timeout", "1s", "--lookup", "false"];
    let world = World::with(&flags, |seen: &Seen| {
        let lifts = seen.body.windows(4).any(|part| part == b"none");
        let until = if lifts { "null" } else { r#""2030-01-01T00:00:00Z""# };
        vec![Step::Send(json(&format!(r#"{{"id":"x","banned_until":{until}}}"#)))]
    })
    .await;
    let replica = another(&world.redis, &world.upstream, &world.clock, &flags);
    world.know(&[&login]).await;
    let target = format!("/admin/users/{}", login.user);
    let put = async |sidecar: &Sidecar, body: &str| {
        world.pass(10);
        let answer = send_through(sidecar, Method::PUT, &target, &[], body).await;
        assert_eq!(answer.status, 200);
    };
    let (ban, lift) = (r#"{"ban_duration":"1h"}"#, r#"{"ban_duration":"none"}"#);
    for sidecar in [&world.sidecar, &replica] {
        put(sidecar, lift).await; // both have a connection that stands
    }
    world.redis.hang();
    put(&replica, ban).await;
    put(&world.sidecar, lift).await;
    world.redis.go_on();
    until("both were written", async || {
        let mut redis = world.redis.client().await;
        let key = format!("gotrue:{{{}}}:marks", login.user);
        let last: Option<u64> =
            redis::cmd("HGET").arg(key).arg("decided_ms").query_async(&mut redis).await.unwrap();
        last == Some(world.clock.millis())
    })
    .await;
    put(&replica, lift).await; // behind whatever that replica still had to write
    assert!(world.is_live(&login).await);
    // and once more, in the order that is certain: the older one last
    let older = Change::Suspend { user: login.user, until: Some(NOW + 3000), decided_ms: NOW_MS + 1 };
    world.store.apply(&[older], NOW).await.unwrap();
    assert!(world.is_live(&login).await);
}

/// The drift that docs name: a refusal that is written after the tokens that prove the contrary.
#[tokio::test]
async fn a_refusal_that_is_written_late_suspends_until_the_next_tokens() {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 1);
    let world = World::with(&ENFORCING, Banning::default().script(&renewed)).await;
    world.know(&[&login]).await;
    world.pass(1000);
    world.refresh(&login).await;
    let late = Change::Banned { user: login.user, until: NOW + 3000, seen_ms: NOW_MS + 500 };
    world.store.apply(&[late], NOW).await.unwrap();
    assert_eq!(get_user(&world, &login).await, 403);
    world.refresh(&renewed).await;
    assert_eq!(get_user(&world, &login).await, 200);
}

/// The drift that docs name: a refusal tells nobody how long the ban lasts.
#[tokio::test]
async fn a_ban_that_was_only_seen_lasts_as_long_as_the_refused_token_or_an_hour() {
    for (by_refresh, lasts) in [(false, 1800), (true, 3600)] {
        let login = Login { expires: NOW + 1800, ..Login::new(NOW) };
        let banning = Banning::default();
        let world = World::with(&ENFORCING, banning.script(&login)).await;
        world.know(&[&login]).await;
        banning.set(true);
        if by_refresh {
            world.refresh(&login).await;
        } else {
            assert_eq!(get_user(&world, &login).await, 403);
        }
        let suspended = world.becomes(&login, |state| matches!(state, State::Suspended(_))).await;
        assert_eq!(suspended, State::Suspended(NOW + lasts));
        world.pass(lasts * 1000);
        assert!(world.is_live(&login).await);
    }
}

/// Signing in and refreshing is for GoTrue to allow, whatever token stands beside; the rest is refused.
#[tokio::test]
async fn enforce_keeps_nobody_from_what_needs_no_token() {
    let login = Login::new(NOW);
    let world = World::with(&ENFORCING, always(json("{}"))).await;
    world.know(&[&login]).await;
    world.revoke(&login).await;
    for target in [
        PASSWORD,
        REFRESH,
        "/signup",
        "/verify",
        "/callback",
        "/sso/saml/acs",
        "/oauth/token",
        "/passkeys/authentication/verify",
        "/otp",
        "/recover",
    ] {
        let answer = world.as_user(&login, Method::POST, target, "{}").await;
        assert_eq!(answer.status, 200, "{target}");
    }
    for target in ["/factors/5e551040-0000-4000-8000-00000000000f/verify", "/logout", "/whatever/comes"] {
        let answer = world.as_user(&login, Method::POST, target, "{}").await;
        assert_eq!(answer.error_code(), Some("session_not_found"), "{target}");
    }
}
