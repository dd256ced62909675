//! What was revoked stays revoked (I3, §6.3): refreshes that were on their way, other replicas, a store
//! that was slow.

use serde_json::json;

use super::*;
use crate::support::upstream::Gate;

/// Hands out `login`'s tokens to refreshes and agrees to logouts.
fn renewing(login: &Login) -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static {
    let bytes = login.answer(&Signer::trusted());
    move |seen| {
        let logout = seen.request_line().starts_with("POST /logout");
        vec![Step::Send(if logout { no_content() } else { bytes.clone() })]
    }
}

#[tokio::test]
async fn a_revoked_session_gets_no_tokens_and_is_ended_in_gotrue() {
    let old_form = r#"{"code":400,"error_code":"refresh_token_not_found","msg":"Invalid Refresh Token: Refresh Token Not Found"}"#;
    let new_form =
        r#"{"code":"refresh_token_not_found","message":"Invalid Refresh Token: Refresh Token Not Found"}"#;
    for (version, form) in [(None, old_form), (Some("2024-01-01"), new_form)] {
        let login = Login::new(NOW);
        let renewed = login.refreshed(NOW + 1);
        let world = World::new(renewing(&renewed)).await;
        world.know(&[&login]).await;
        world.revoke(&login).await;
        world.pass(1000);
        let headers: Vec<_> =
            version.map(|version| ("x-supabase-api-version", version)).into_iter().collect();
        let answer = world.send(Method::POST, REFRESH, &headers, &refresh_body(&login)).await;
        assert_eq!((answer.status.as_u16(), answer.error_code()), (400, Some("refresh_token_not_found")));
        assert_eq!(answer.body, form);
        assert_eq!(answer.headers.get("x-supabase-api-version").is_some(), version.is_some());
        assert_eq!(world.state(&login).await, State::Revoked);
        let logout = world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
        assert_eq!(logout.header("authorization"), [format!("Bearer {}", renewed.access(&world.signer))]);
    }
}

#[tokio::test]
async fn a_revoked_session_that_verifies_a_factor_is_not_raised() {
    let login = Login::new(NOW);
    let raised = Login { aal: "aal2", ..login.refreshed(NOW + 1) };
    let other = Login::of(login.user, NOW);
    let world = World::new(renewing(&raised)).await;
    world.know(&[&login]).await;
    world.revoke(&login).await;
    let target = "/factors/5e551040-0000-4000-8000-00000000000f/verify";
    let answer = world.as_user(&login, Method::POST, target, "{}").await;
    assert_eq!(answer.error_code(), Some("session_not_found"));
    assert_eq!(world.state(&login).await, State::Revoked);
    assert_eq!(world.state(&other).await, State::Unknown);
    world.upstream.arrived("POST /logout?scope=local").await;
}

/// §6.3 holds back what is known to hand out tokens. An endpoint that is not streams its answer, which is
/// read beside it: the client has the tokens, and here the session stays revoked.
#[tokio::test]
async fn an_endpoint_yet_to_come_hands_out_tokens_of_a_revoked_session() {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 1);
    let world = World::new(renewing(&renewed)).await;
    world.know(&[&login]).await;
    world.revoke(&login).await;
    let answer = world.post("/refresh/by-telepathy", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.body), (200, renewed.body(&world.signer).into()));
    world.counts("gotrue_sidecar_mirror_events_total{event=\"refresh\",result=\"revoked\"}", 1).await;
    assert_eq!(world.state(&login).await, State::Revoked);
    assert_eq!(world.upstream.seen().len(), 1, "GoTrue was told");
    // its next refresh is where it ends for good
    assert_eq!(world.refresh(&renewed).await.error_code(), Some("refresh_token_not_found"));
    world.upstream.arrived("POST /logout?scope=local").await;
}

/// The refresh is held before GoTrue and after it has answered; the logout goes through either replica,
/// and is held before or after it.
#[tokio::test]
async fn a_refresh_in_flight_does_not_bring_a_session_back() {
    for (by_another, logout_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let login = Login::new(NOW);
        let (refresh_held, logout_held) = (Gate::new(), Gate::new());
        let (bytes, gates) = (
            login.refreshed(NOW + 1).answer(&Signer::trusted()),
            (refresh_held.clone(), logout_held.clone()),
        );
        let world = World::new(move |seen: &Seen| {
            let line = seen.request_line();
            let ours = seen.header("x-forwarded-for").is_empty();
            match line.starts_with("POST /logout") {
                true if ours => vec![Step::Send(no_content())],
                true => vec![Step::Until(gates.1.clone()), Step::Send(no_content())],
                false => vec![Step::Until(gates.0.clone()), Step::Send(bytes.clone())],
            }
        })
        .await;
        let replica = another(&world.redis, &world.upstream, &world.clock, &["--jwt-secret", SECRET]);
        world.know(&[&login]).await;
        world.pass(1000);
        let through = if by_another { &replica } else { &world.sidecar };
        let authorization = format!("Bearer {}", login.access(&world.signer));
        let (refresh, logout, ()) = tokio::join!(
            world.refresh(&login),
            async {
                world.upstream.arrived("POST /token").await;
                let headers = [("authorization", authorization.as_str())];
                send_through(through, Method::POST, "/logout?scope=local", &headers, "").await
            },
            async {
                world.upstream.arrived("POST /logout").await;
                if logout_first {
                    logout_held.open();
                    refresh_held.open();
                } else {
                    refresh_held.open();
                    // the refresh comes back while the logout is still at GoTrue
                    world.counts("gotrue_sidecar_refused_total{reason=\"refresh_revoked\"}", 1).await;
                    logout_held.open();
                }
            }
        );
        assert_eq!(refresh.error_code(), Some("refresh_token_not_found"), "{by_another} {logout_first}");
        assert_eq!(logout.status, 204);
        assert_eq!(world.state(&login).await, State::Revoked);
    }
}

#[tokio::test]
async fn what_one_replica_revokes_every_other_refuses() {
    let login = Login::new(NOW);
    let world = World::new(always(no_content())).await;
    let flags = ["--jwt-secret", SECRET, "--enforce", "true"];
    let replica = another(&world.redis, &world.upstream, &world.clock, &flags);
    world.know(&[&login]).await;
    let authorization = format!("Bearer {}", login.access(&world.signer));
    let headers = [("authorization", authorization.as_str())];
    assert_eq!(send_through(&replica, Method::GET, "/user", &headers, "").await.status, 204);
    world.as_user(&login, Method::POST, "/logout?scope=local", "").await;
    let refused = send_through(&replica, Method::GET, "/user", &headers, "").await;
    assert_eq!(refused.error_code(), Some("session_not_found"));
}

/// Redis hangs while a refresh is recorded by one replica and a logout by the other; both go on without
/// it, and both writes are made when it wakes up, in whatever order.
#[tokio::test]
async fn a_write_that_timed_out_and_is_made_later_brings_nothing_back() {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 1);
    let flags = ["--jwt-secret", SECRET, "--store-timeout", "1s", "--lookup", "false"];
    let world = World::with(&flags, renewing(&renewed)).await;
    let replica = another(&world.redis, &world.upstream, &world.clock, &flags);
    world.know(&[&login]).await;
    // both have a connection that stands
    for sidecar in [&world.sidecar, &replica] {
        send_through(sidecar, Method::POST, REFRESH, &[], &refresh_body(&login)).await;
    }
    world.pass(1000);
    world.redis.hang();
    let authorization = format!("Bearer {}", login.access(&world.signer));
    let headers = [("authorization", authorization.as_str())];
    let (refresh, logout) = tokio::join!(
        world.refresh(&login),
        send_through(&replica, Method::POST, "/logout?scope=local", &headers, "")
    );
    assert_eq!((refresh.status.as_u16(), logout.status.as_u16()), (200, 204));
    world.redis.go_on();
    until("the session is revoked", async || {
        let sought = Sought::of(login.user, login.session);
        let state = world.store.lookup(&sought, world.clock.seconds()).await;
        state == Ok(State::Revoked)
    })
    .await;
    // at once, as soon as the sidecar trusts the store again
    until("a refresh is refused", async || {
        world.refresh(&renewed).await.error_code() == Some("refresh_token_not_found")
    })
    .await;
    assert_eq!(world.state(&login).await, State::Revoked);
}

#[tokio::test]
async fn the_same_refresh_recorded_by_two_replicas_is_one() {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 1);
    let world = World::new(renewing(&renewed)).await;
    let replica = another(&world.redis, &world.upstream, &world.clock, &["--jwt-secret", SECRET]);
    world.know(&[&login]).await;
    world.pass(1000);
    let body = refresh_body(&login);
    tokio::join!(
        send_through(&world.sidecar, Method::POST, REFRESH, &[], &body),
        send_through(&replica, Method::POST, REFRESH, &[], &body)
    );
    let record = world.live(&login).await;
    assert_eq!(
        (record.refresh_ref, record.previous_ref),
        (Some(reference(&renewed)), Some(reference(&login)))
    );
    assert_eq!(record.counter, Some(1));
}

/// Contract §5 and §7: all of a user's sessions, also those that the mirror never saw. Their tokens say when they
/// began, whenever they were refreshed since.
#[tokio::test]
async fn what_revokes_all_revokes_sessions_that_the_mirror_never_saw() {
    let flags = ["--jwt-secret", SECRET, "--enforce", "true", "--session-api-enabled", "true"];
    for by_admin in [false, true] {
        let world = World::with(&flags, always(no_content())).await;
        let login = Login::new(NOW - 10);
        let (older, younger) = (Login::of(login.user, NOW - 10), Login::of(login.user, NOW));
        let renewed = Login { expires: NOW + 9999, ..older.refreshed(NOW + 1) };
        let stranger = Login::new(NOW - 10);
        let status = async |login| world.as_user(login, Method::GET, "/user", "").await.status.as_u16();
        for login in [&older, &renewed, &younger, &stranger] {
            assert_eq!(status(login).await, 204);
        }
        let answer = if by_admin {
            let key = world.signer.sign(&json!({"role": "service_role", "exp": NOW + 99}));
            let target = format!("/admin/users/{}/sessions", login.user);
            world.with_token(&key, Method::DELETE, &target, "").await
        } else {
            world.as_user(&login, Method::POST, "/logout?scope=global", "").await
        };
        assert_eq!(answer.status, 204);
        world.pass(2000);
        let later = Login::of(login.user, NOW + 2);
        for (login, expected) in
            [(&older, 403), (&renewed, 403), (&younger, 204), (&later, 204), (&stranger, 204)]
        {
            assert_eq!(status(login).await, expected, "{login:?}");
        }
        let refused = world.as_user(&renewed, Method::GET, "/user", "").await;
        assert_eq!(refused.error_code(), Some("session_not_found"));
        assert_eq!(world.as_user(&older, Method::GET, "/sessions", "").await.status, 403);
        assert_eq!(world.as_user(&younger, Method::GET, "/sessions", "").await.status, 200);
    }
}

/// Threat: clocks of replicas differ, and with them what each takes for earlier. What is revoked by name is revoked
/// whenever it began; how long anything lives is Redis' to count, by its own clock.
#[tokio::test]
async fn replicas_whose_clocks_differ_refuse_what_either_revoked() {
    let skew = 50_000;
    let flags = ["--jwt-secret", SECRET, "--enforce", "true", "--session-api-enabled", "true"];
    for (ahead, behind) in [(NOW_MS + skew, NOW_MS), (NOW_MS, NOW_MS - skew)] {
        let world = World::with(&flags, always(no_content())).await;
        let [early, late] =
            [ahead, behind].map(|ms| another(&world.redis, &world.upstream, &Clock::standing_at(ms), &flags));
        for (revokes, asked, its_ms) in [(&early, &late, behind), (&late, &early, ahead)] {
            // it began by GoTrue's clock, which one of them is right about
            let login = Login::new(NOW);
            world.know(&[&login]).await;
            let bearer = format!("Bearer {}", login.access(&world.signer));
            let headers = [("authorization", bearer.as_str())];
            let get = async |at| send_through(at, Method::GET, "/user", &headers, "").await.status.as_u16();
            assert_eq!((get(revokes).await, get(asked).await), (204, 204));
            let target = format!("/sessions/{}", login.session);
            assert_eq!(send_through(revokes, Method::DELETE, &target, &headers, "").await.status, 204);
            assert_eq!((get(revokes).await, get(asked).await), (403, 403));
            let tombstone = format!("gotrue:{{{}}}:revoked:{}", login.user, login.session);
            let mut ttl = ::redis::cmd("TTL");
            let left: u64 = ttl.arg(&tombstone).query_async(&mut world.redis.client().await).await.unwrap();
            let lives = login.expires - its_ms / 1000; // the access token, as the other replica sees it
            assert!(left >= lives, "{left} {lives}");
        }
    }
}
