//! Sessions whose time is over (contract §6.5): refused by whichever replica is asked, and ended by the first that finds
//! out, while their access tokens are as good as before.

use super::*;

const ENDED: &str = "gotrue_sidecar_sessions_ended_total{reason=\"expired\"}";
const MINUTE_MS: u64 = 60_000;

/// Threat: an access token outlives the limits of its session, wherever tokens are verified offline.
#[tokio::test]
async fn whose_time_is_over_is_refused_and_ended_by_the_check_that_finds_out() {
    for (limit, minutes) in
        [(["--session-idle-timeout", "10m"], 10), (["--session-absolute-timeout", "30m"], 30)]
    {
        let (limit, login) = (&limit[..], Login { expires: NOW + 9999, ..Login::new(NOW) });
        let world = World::checking(limit).await;
        // one that has no limits: it only knows what is in the store
        let other = world.replica(&NEVER);
        hears(&other).await;
        world.know(&[&login]).await;
        let token = login.access(&world.signer);
        remembered(&other, &token).await;
        world.pass(minutes * MINUTE_MS - 1000);
        assert!(world.is_live(&login).await);
        world.pass(1000);
        assert_eq!(said(&world.check(&login).await), REVOKED, "{limit:?}");
        let tombstone = format!("gotrue:{{{}}}:revoked:{}", login.user, login.session);
        until("there is a tombstone", async || {
            let text: Option<String> = world.redis(&["GET", &tombstone]).await;
            text.is_some_and(|text| text.starts_with("expired:"))
        })
        .await;
        until("the other replica refuses it", async || said(&check(&other, &token).await) == REVOKED).await;
        // once, however many ask
        for _ in 0..5 {
            assert_eq!(said(&world.check(&login).await), REVOKED);
        }
        world.counts(ENDED, 1).await;
        assert_eq!(world.count("gotrue_sidecar_refused_total{reason=\"session_expired\"}").await, 6);
        assert_eq!(world.checked("forbidden").await, 6);
        assert_eq!(world.count(ENDED).await, 1);
        // nothing is wrong with the token: who knows nothing of its session takes it
        let empty = RedisServer::start();
        let elsewhere = another(&empty, &world.upstream, &world.clock, &UNHURRIED);
        assert_eq!(check(&elsewhere, &token).await.status, 200);
    }
}

#[tokio::test]
async fn the_embedded_store_refuses_and_ends_whose_time_is_over() {
    let flags = ["--store-url", "memory:", "--session-absolute-timeout", "30m"];
    let world = World::checking(&flags).await;
    let login = Login { expires: NOW + 9999, ..Login::new(NOW) };
    world.know(&[&login]).await;
    assert_eq!(world.check(&login).await.status, 200);
    world.pass(30 * MINUTE_MS);
    for _ in 0..3 {
        assert_eq!(said(&world.check(&login).await), REVOKED);
    }
    world.counts(ENDED, 1).await;
    assert_eq!(world.state(&login).await, State::Expired);
}
