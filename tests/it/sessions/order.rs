//! Answers and writes that come in another order than GoTrue's (I3, I9). `revoked` has what a revocation
//! must withstand, `tests/it/model.rs` random orders.

use super::*;
use crate::support::{
    relay::{Does, Relay},
    upstream::Gate,
};

/// Each of two refreshes is held at GoTrue, and let go in either order, through one replica or two.
#[tokio::test]
async fn two_refreshes_answered_in_either_order_leave_the_newer() {
    for (newer_first, by_two) in [(false, false), (true, false), (false, true), (true, true)] {
        let login = Login::new(NOW);
        let first = login.refreshed(NOW + 1);
        let second = first.refreshed(NOW + 1); // within the same second
        let gates = [Gate::new(), Gate::new()];
        let held = gates.clone();
        let (sent, answers) = (first.refresh(), [&first, &second].map(|it| it.answer(&Signer::trusted())));
        let world = World::new(move |seen: &Seen| {
            let is_second = String::from_utf8_lossy(&seen.body).contains(&sent);
            let which = usize::from(is_second);
            vec![Step::Until(held[which].clone()), Step::Send(answers[which].clone())]
        })
        .await;
        let replica = another(&world.redis, &world.upstream, &world.clock, &["--jwt-secret", SECRET]);
        world.know(&[&login]).await;
        world.pass(1000);
        let through = if by_two { &replica } else { &world.sidecar };
        let mut order = [(0, &login), (1, &first)];
        if newer_first {
            order.reverse();
        }
        let body = refresh_body(&first);
        tokio::join!(
            world.refresh(&login),
            send_through(through, Method::POST, REFRESH, &[], &body),
            async {
                world.upstream.arrived_times("POST /token", 2).await;
                for (number, (which, _)) in order.iter().enumerate() {
                    gates[*which].open();
                    // recorded, one after the other
                    let recorded = async || {
                        let one =
                            "gotrue_sidecar_mirror_events_total{event=\"refresh\",result=\"refreshed\"}";
                        let none =
                            "gotrue_sidecar_mirror_events_total{event=\"refresh\",result=\"unchanged\"}";
                        let mut sum = 0.0;
                        for sidecar in [&world.sidecar, &replica] {
                            sum += sidecar.metric(one).await + sidecar.metric(none).await;
                        }
                        sum > f64::from(u8::try_from(number).unwrap())
                    };
                    until("it is recorded", recorded).await;
                }
            }
        );
        let record = world.live(&login).await;
        assert_eq!(record.refresh_ref, Some(reference(&second)), "{newer_first} {by_two}");
        assert_eq!((record.counter, record.previous_ref), (Some(2), Some(reference(&first))));
    }
}

#[tokio::test]
async fn the_same_answer_recorded_twice_is_recorded_once() {
    let login = Login::new(NOW);
    let world = World::new(always(login.answer(&Signer::trusted()))).await;
    world.post(PASSWORD, "{}").await;
    let once = world.live(&login).await;
    world.post(PASSWORD, "{}").await;
    assert_eq!(world.live(&login).await, once);
    let unchanged = "gotrue_sidecar_mirror_events_total{event=\"sign_in\",result=\"unchanged\"}";
    assert_eq!(world.count(unchanged).await, 1);
}

/// The revocation is another replica's, made while GoTrue has the refresh; the client gets no tokens.
#[tokio::test]
async fn a_revocation_between_a_refreshs_request_and_its_answer_stands() {
    let login = Login::new(NOW);
    let (gate, bytes) = (Gate::new(), login.refreshed(NOW + 1).answer(&Signer::trusted()));
    let held = gate.clone();
    let world = World::new(move |seen: &Seen| {
        if seen.request_line().starts_with("POST /logout") {
            return vec![Step::Send(no_content())];
        }
        vec![Step::Until(held.clone()), Step::Send(bytes.clone())]
    })
    .await;
    world.know(&[&login]).await;
    let (refreshed, ()) = tokio::join!(world.refresh(&login), async {
        world.upstream.arrived("POST /token").await;
        world.revoke(&login).await;
        gate.open();
    });
    assert_eq!(refreshed.error_code(), Some("refresh_token_not_found"));
    assert_eq!(world.state(&login).await, State::Revoked);
    world.upstream.arrived("POST /logout?scope=local").await;
}

/// Redis takes the write of a refresh, but its word comes too late; meanwhile another replica logs out. Slow
/// on both sides: GoTrue holds the logout's answer back.
#[tokio::test]
async fn a_write_whose_answer_is_late_and_a_logout_leave_the_session_revoked() {
    let login = Login::new(NOW);
    let gate = Gate::new();
    let (held, bytes) = (gate.clone(), login.refreshed(NOW + 1).answer(&Signer::trusted()));
    let world = World::new(move |seen: &Seen| {
        if seen.request_line().starts_with("POST /logout") {
            return vec![Step::Until(held.clone()), Step::Send(no_content())];
        }
        vec![Step::Send(bytes.clone())]
    })
    .await;
    let relay = Relay::to(world.redis.port()).await;
    let store = format!("redis://127.0.0.1:{}", relay.port);
    let flags = ["--upstream-url", &world.upstream.url, "--store-url", &store, "--jwt-secret", SECRET];
    let slow = Sidecar::start_at(&world.clock, &[&flags[..], &["--store-timeout", "100ms"]].concat());
    world.know(&[&login]).await;
    world.pass(1000);
    relay.does(Does::Delay(Duration::from_millis(400)));
    let body = refresh_body(&login);
    let (refreshed, logout, ()) = tokio::join!(
        send_through(&slow, Method::POST, REFRESH, &[], &body),
        world.as_user(&login, Method::POST, "/logout?scope=local", ""),
        async {
            world.upstream.arrived("POST /logout").await;
            world.upstream.arrived("POST /token").await;
            gate.open();
        }
    );
    // GoTrue's answer, unless the refusal was known in time
    assert!([200, 400].contains(&refreshed.status.as_u16()));
    assert_eq!(logout.status, 204);
    assert_eq!(world.state(&login).await, State::Revoked);
    relay.does(Does::Pass);
    let again = send_through(&slow, Method::POST, REFRESH, &[], &body).await;
    assert!([200, 400].contains(&again.status.as_u16()));
    assert_eq!(world.state(&login).await, State::Revoked);
}

/// A global logout means the logins that GoTrue had answered before it, also one that is recorded after it: in another
/// replica, or late. One that is answered later lives; if GoTrue ended it, its next 403 tells (contract §6.1).
#[tokio::test]
async fn a_login_that_is_recorded_after_a_global_logout_lives_if_it_was_answered_later() {
    let own = Login::new(NOW);
    let world = World::new(|seen: &Seen| {
        let logout = seen.request_line().starts_with("POST /logout");
        vec![Step::Send(if logout { no_content() } else { error("403 Forbidden", "session_not_found") })]
    })
    .await;
    world.know(&[&own]).await;
    world.pass(500);
    world.as_user(&own, Method::POST, "/logout", "").await;
    for began in [NOW - 1, NOW] {
        let mut before = Login::of(own.user, NOW);
        before.began = began;
        world.know(&[&before]).await;
        assert_eq!(world.state(&before).await, State::Revoked, "{began}");
    }
    let late = Login::of(own.user, NOW + 1);
    world.know(&[&late]).await;
    assert!(world.is_live(&late).await);
    world.as_user(&late, Method::GET, "/user", "").await;
    world.becomes(&late, |state| *state == State::Revoked).await;
}
