//! A store that has lost its sessions learns them again from traffic, and nobody notices (I5, issue 5).

use super::*;

/// Redis forgets everything.
async fn flush(world: &World) {
    let mut redis = world.redis.client().await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
}

#[tokio::test]
async fn a_session_that_the_store_lost_is_known_again_after_it_was_used() {
    for flags in [&["--jwt-secret", SECRET][..], &["--jwt-secret", SECRET, "--enforce", "true"]] {
        let login = Login::new(NOW);
        let world = World::with(flags, always(json("{}"))).await;
        world.know(&[&login]).await;
        flush(&world).await;
        assert_eq!(world.state(&login).await, State::Unknown);
        until("the session is known again", async || {
            assert_eq!(world.as_user(&login, Method::GET, "/user", "").await.status, 200);
            world.is_live(&login).await
        })
        .await;
        let record = world.live(&login).await;
        assert_eq!((record.refreshed_at, record.expires_at), (login.issued, login.expires));
        assert_eq!((record.created_at, record.refresh_ref), (login.began, None));
    }
}

#[tokio::test]
async fn a_refresh_afterwards_completes_the_record() {
    let login = Login::new(NOW);
    let next = login.refreshed(NOW + 60);
    let tokens = next.answer(&Signer::trusted());
    let script = move |seen: &Seen| {
        let answer = if seen.request_line().starts_with("GET /user ") { json("{}") } else { tokens.clone() };
        vec![Step::Send(answer)]
    };
    let world = World::new(script).await;
    until("the session is known", async || {
        world.as_user(&login, Method::GET, "/user", "").await;
        world.is_live(&login).await
    })
    .await;
    world.pass(60_000);
    assert_eq!(world.refresh(&login).await.status, 200);
    let record = world.live(&login).await;
    assert_eq!((record.refreshed_at, record.refresh_ref), (next.issued, Some(reference(&next))));
    assert_eq!(record.created_at, login.began);
}

#[tokio::test]
async fn what_was_revoked_is_not_learned_again() {
    let login = Login::new(NOW);
    let world = World::new(always(json("{}"))).await;
    world.revoke(&login).await;
    for _ in 0..3 {
        world.as_user(&login, Method::GET, "/user", "").await;
        world.pass(61_000);
    }
    world.counts("gotrue_sidecar_store_commands_total{command=\"lookup\",result=\"ok\"}", 3).await;
    assert_eq!(world.state(&login).await, State::Revoked);
}

#[tokio::test]
async fn only_gotrues_word_on_a_verified_token_counts() {
    let login = Login::new(NOW);
    let forged = login.access(&Signer::hs256(b"another-secret-with-at-least-32-characters"));
    let unknown_key = login.access(&Signer::es256("nobody's"));
    let good = login.access(&Signer::trusted());
    let refusing = |status: &'static str| always(error(status, "no"));
    let table: [(&str, &str, World); 4] = [
        ("/user", &forged, World::new(always(json("{}"))).await),
        ("/user", &unknown_key, World::new(always(json("{}"))).await),
        ("/user", &good, World::new(refusing("500 Internal Server Error")).await),
        ("/user/identities/authorize", &good, World::new(always(json("{}"))).await),
    ];
    for (target, token, world) in table {
        for _ in 0..3 {
            world.with_token(token, Method::GET, target, "").await;
        }
        let World { redis: _redis, sidecar, store, .. } = world;
        sidecar.stop(); // finishes what nobody waits for
        let state = store.lookup(&Sought::of(login.user, login.session), NOW).await.unwrap();
        assert_eq!(state, State::Unknown, "{target}");
    }
}
