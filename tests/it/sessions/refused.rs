//! Refreshes of sessions that have ended, refused before GoTrue renews anything (contract §6.3, §6.5): where the refresh index knows the token, and nowhere else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use redis::AsyncCommands;

use super::*;
use crate::support::upstream::Gate;

const ENFORCE: [&str; 4] = ["--jwt-secret", SECRET, "--enforce", "true"];
const IDLE: [&str; 4] = ["--jwt-secret", SECRET, "--session-idle-timeout", "10m"];
const RESOLVED: &str = "gotrue_sidecar_store_commands_total{command=\"resolve\",result=\"ok\"}";
const APPLIED: &str = "gotrue_sidecar_store_commands_total{command=\"apply\",result=\"ok\"}";

/// Hands out `login`'s tokens to whoever asks, and agrees to logouts.
fn renewing(login: &Login) -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + Clone + 'static {
    let bytes = login.answer(&Signer::trusted());
    move |seen| {
        let logout = seen.request_line().starts_with("POST /logout");
        vec![Step::Send(if logout { no_content() } else { bytes.clone() })]
    }
}

async fn on_both_stores(flags: &[&str], login: &Login) -> [World; 2] {
    let with_memory = [flags, &["--store-url", "memory:"]].concat();
    [World::with(flags, renewing(login)).await, World::with(&with_memory, renewing(login)).await]
}

/// A sidecar that enforces and knows a session, that session, and what GoTrue renews it to.
async fn enforcing(more: &[&str]) -> (World, Login, Login) {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 1);
    let world = World::with(&[&ENFORCE[..], more].concat(), renewing(&renewed)).await;
    world.know(&[&login]).await;
    (world, login, renewed)
}

async fn hint(world: &World, login: &Login) -> (redis::aio::MultiplexedConnection, String) {
    (world.redis.client().await, format!("gotrue:refresh:{}", reference(login).as_str()))
}

/// Ends one as GoTrue's own logout would.
async fn end_in_both(world: &World, login: &Login) {
    let change = Change::End {
        user: login.user,
        which: Which::One(login.session),
        reason: Reason::Logout,
        sent_ms: world.clock.millis(),
        expires_at: None,
        ended_in_gotrue: true,
    };
    world.store.apply(&[change], world.clock.seconds()).await.unwrap();
}

#[tokio::test]
async fn a_refused_refresh_has_gotrues_form_and_needs_no_gotrue() {
    let old_form = r#"{"code":400,"error_code":"refresh_token_not_found","msg":"Invalid Refresh Token: Refresh Token Not Found"}"#;
    let new_form =
        r#"{"code":"refresh_token_not_found","message":"Invalid Refresh Token: Refresh Token Not Found"}"#;
    let first = Login::new(NOW);
    let second = first.refreshed(NOW + 1);
    for world in on_both_stores(&ENFORCE, &second).await {
        world.know(&[&first]).await;
        assert_eq!(world.refresh(&first).await.status, 200);
        world.revoke(&first).await;
        // the current one and the one before
        for token in [&second, &first] {
            for (version, form) in [("2023-01-01", old_form), ("2024-01-01", new_form)] {
                let headers = [("x-supabase-api-version", version)];
                let answer = world.send(Method::POST, REFRESH, &headers, &refresh_body(token)).await;
                let code = Some("refresh_token_not_found");
                assert_eq!((answer.status.as_u16(), answer.error_code()), (400, code));
                assert_eq!(answer.body, form);
            }
            let form = [("content-type", "application/x-www-form-urlencoded")];
            let body = format!("grant_type=refresh_token&refresh_token={}", token.refresh());
            let answer = world.send(Method::POST, "/oauth/token", &form, &body).await;
            assert_eq!(answer.error_code(), Some("refresh_token_not_found"));
        }
        assert_eq!(world.count("gotrue_sidecar_refused_total{reason=\"refresh_revoked\"}").await, 6);
        assert_eq!(world.state(&first).await, State::Revoked);
    }
}

/// Contract I1: GoTrue renews nothing of what it has ended, and says so itself.
#[tokio::test]
async fn what_gotrue_has_ended_it_refuses_in_its_own_words() {
    let login = Login::new(NOW);
    let refusal = error("400 Bad Request", "refresh_token_not_found");
    let world = World::with(&ENFORCE, always(refusal.clone())).await;
    world.know(&[&login]).await;
    end_in_both(&world, &login).await;
    let answer = world.refresh(&login).await;
    assert!(answer.status == 400 && refusal.ends_with(&answer.body));
    assert_eq!(world.upstream.seen().len(), 1);
    assert_eq!(world.count("gotrue_sidecar_refused_total{reason=\"refresh_revoked\"}").await, 0);
}

/// GoTrue is told beside the answer, with tokens that nobody gets.
#[tokio::test]
async fn a_refresh_of_a_revoked_session_is_refused_before_gotrue_answers() {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 1);
    let (gate, bytes) = (Gate::new(), renewed.answer(&Signer::trusted()));
    let held = gate.clone();
    let world = World::with(&ENFORCE, move |seen: &Seen| {
        if seen.request_line().starts_with("POST /logout") {
            vec![Step::Send(no_content())]
        } else {
            vec![Step::Until(held.clone()), Step::Send(bytes.clone())]
        }
    })
    .await;
    world.know(&[&login]).await;
    world.revoke(&login).await;
    world.pass(1000);
    assert_eq!(world.refresh(&login).await.error_code(), Some("refresh_token_not_found"));
    gate.open();
    let logout = world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
    assert_eq!(logout.header("authorization"), [format!("Bearer {}", renewed.access(&world.signer))]);
    until("GoTrue is known to know", async || {
        let holder = holder(&world.store, &reference(&login), NOW).await.unwrap();
        holder.is_some_and(|holder| holder.ended_in_gotrue)
    })
    .await;
    assert_eq!(world.state(&login).await, State::Revoked);
}

#[tokio::test]
async fn a_refresh_of_a_session_whose_time_is_over_ends_it_in_both() {
    let form =
        r#"{"code":400,"error_code":"session_expired","msg":"Invalid Refresh Token: Session Expired"}"#;
    for (mint, asked) in [("off", ["POST /token", "POST /logout"].as_slice()), ("mint", &["POST /logout"])] {
        let login = Login::new(NOW);
        let flags = [&IDLE[..], &["--revoke-upstream", mint]].concat();
        for world in on_both_stores(&flags, &login.refreshed(NOW + 600)).await {
            world.know(&[&login]).await;
            world.pass(599_000);
            assert!(world.is_live(&login).await);
            world.pass(1000);
            assert_eq!(world.refresh(&login).await.body, form);
            world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
            until("GoTrue is known to know", async || {
                let holder = holder(&world.store, &reference(&login), world.clock.seconds()).await.unwrap();
                holder.is_some_and(|holder| holder.ended_in_gotrue)
            })
            .await;
            assert_eq!(world.state(&login).await, State::Expired);
            let seen = world.upstream.seen();
            let lines: Vec<_> =
                seen.iter().map(|seen| seen.request_line().split('?').next().unwrap()).collect();
            assert_eq!(lines, asked);
            assert_eq!(world.count("gotrue_sidecar_sessions_ended_total{reason=\"expired\"}").await, 1);
        }
    }
}

/// Contract §5: a refresh costs one round trip, and two more where it is judged beforehand.
#[tokio::test]
async fn a_refresh_is_judged_beforehand_only_where_something_asks_for_it() {
    for (flags, judged) in [(&ENFORCE[..2], 0), (&ENFORCE[..], 2), (&IDLE[..], 2)] {
        let login = Login::new(NOW);
        let renewed = login.refreshed(NOW + 1);
        for world in on_both_stores(flags, &renewed).await {
            world.know(&[&login]).await;
            world.pass(1000);
            let answer = world.refresh(&login).await;
            assert_eq!(answer.body, renewed.body(&world.signer));
            assert_eq!((world.count(RESOLVED).await, world.count(APPLIED).await), (judged, 1));
            // a sign-in never is
            world.post(PASSWORD, r#"{"refresh_token":"x"}"#).await;
            assert_eq!((world.count(RESOLVED).await, world.count(APPLIED).await), (judged, 2));
        }
    }
}

#[tokio::test]
async fn what_the_index_does_not_know_is_gotrues_to_judge() {
    let victim = Login::new(NOW);
    let flags = [&ENFORCE[..], &["--session-idle-timeout", "10m"]].concat();
    let world = World::with(&flags, always(error("400 Bad Request", "refresh_token_not_found"))).await;
    world.know(&[&victim]).await;
    world.revoke(&victim).await;
    // somebody else's, and one that names the revoked session and was never handed out
    let forged = Login { counter: 9, ..victim.clone() };
    for token in [&Login::new(NOW), &forged] {
        assert_eq!(world.refresh(token).await.status, 400);
    }
    assert_eq!(world.post(REFRESH, r#"{"refresh_token":""}"#).await.status, 400);
    assert_eq!(world.post(REFRESH, "no JSON").await.status, 400);
    assert_eq!(world.upstream.seen().len(), 4);
}

/// GoTrue takes the previous token again: a hint alone says nothing against it.
#[tokio::test]
async fn a_hint_without_record_and_tombstone_refuses_nobody() {
    let (world, login, renewed) = enforcing(&["--session-absolute-timeout", "10m"]).await;
    let (mut redis, hint) = hint(&world, &login).await;
    let _: () = redis.del(format!("gotrue:{{{}}}:session:{}", login.user, login.session)).await.unwrap();
    assert!(redis.exists::<_, bool>(&hint).await.unwrap());
    world.pass(1000);
    assert_eq!(world.refresh(&login).await.body, renewed.body(&world.signer));
    assert!(world.is_live(&login).await);
}

/// Contract §6.3: GoTrue is away when it should be told. A refused refresh lengthens the tombstone, so that it outlives
/// the hint, and GoTrue is told at last.
#[tokio::test]
async fn a_hint_that_is_gone_leaves_the_rest_to_what_follows_gotrues_answer() {
    let login = Login::new(NOW);
    let renewed = login.refreshed(NOW + 1);
    let (is_up, renewing) = (Arc::new(AtomicBool::new(false)), renewing(&renewed));
    let up = Arc::clone(&is_up);
    let script = move |seen: &Seen| {
        let is_up = up.load(Relaxed);
        if is_up { renewing(seen) } else { vec![Step::Send(error("503 Service Unavailable", "away"))] }
    };
    let world = World::with(&ENFORCE, script).await;
    world.know(&[&login]).await;
    world.revoke(&login).await;
    let (mut redis, hint) = hint(&world, &login).await;
    let tombstone = format!("gotrue:{{{}}}:revoked:{}", login.user, login.session);
    let _: () = redis.expire(&tombstone, 100).await.unwrap();
    assert_eq!(world.refresh(&login).await.status, 400);
    until("the tombstone lives on", async || {
        redis.clone().ttl::<_, i64>(&tombstone).await.unwrap() > 29 * 24 * 3600
    })
    .await;
    world.upstream.arrived("POST /token").await;
    let _: () = redis.del(&hint).await.unwrap();
    is_up.store(true, Relaxed);
    assert_eq!(world.refresh(&login).await.error_code(), Some("refresh_token_not_found"));
    world.upstream.arrived("POST /logout?scope=local HTTP/1.1").await;
    assert_eq!(world.state(&login).await, State::Revoked);
}

/// Contract §9: the store is away, so GoTrue decides. And of a ban only GoTrue knows whether it still holds.
#[tokio::test]
async fn a_store_that_does_not_answer_and_a_ban_refuse_no_refresh() {
    let (world, login, renewed) = enforcing(&["--store-timeout", "1s"]).await;
    let ban = Change::Suspend { user: login.user, until: Some(NOW + 50), decided_ms: NOW_MS };
    world.store.apply(&[ban], NOW).await.unwrap();
    assert_eq!(world.refresh(&login).await.status, 200);
    world.revoke(&login).await;
    world.redis.hang();
    assert_eq!(world.refresh(&login).await.body, renewed.body(&world.signer));
    world.redis.go_on();
}
