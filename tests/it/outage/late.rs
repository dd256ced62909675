//! What waited for longer than the store remembers who has ended.

use gotrue_sidecar::clock::{self, Clock};

use super::*;
use crate::support::{sidecar::Sidecar, until};

/// I3: a tombstone lives as long as the tokens that it is for. A replica that was cut off for longer must not bring the
/// session back.
#[tokio::test]
async fn what_has_ended_elsewhere_does_not_come_back_when_its_tombstone_is_gone() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let relay = Relay::to(redis.port()).await;
    let clock = Clock::standing_at(clock::millis());
    let sidecar = Sidecar::start_at(
        &clock,
        &[
            &format!("--upstream-url={}", upstream.url),
            &format!("--store-url=redis://127.0.0.1:{}", relay.port),
            &format!("--jwt-secret={SECRET}"),
            "--jwt-jwks=off",
            "--store-timeout=200ms",
        ],
    );
    let client = Client::new(&sidecar.url);
    let (gone, kept) = (client.sign_in("a@b.example").await, client.sign_in("a@b.example").await);
    let waiting = async || sidecar.metric(LENGTH).await.to_string();
    // also where the machine was too busy for the store to be waited for
    until("both are recorded, and nothing waits", async || {
        let there = [&gone, &kept].map(|it| has(&redis, "session", it.user, it.session));
        let [gone_there, kept_there] = there;
        gone_there.await && kept_there.await && waiting().await == "0"
    })
    .await;
    relay.does(Does::Lose);
    for tokens in [&gone, &kept] {
        Tokens::of(&client.refresh(tokens).await);
    }
    let idle = client.sign_in("a@b.example").await;
    assert_eq!(waiting().await, "3");
    // as another replica leaves it, once the tombstone's time is over
    command(&redis, &["DEL", &format!("gotrue:{{{0}}}:session:{1}", gone.user, gone.session)]).await;
    command(&redis, &["DEL", &format!("gotrue:{{{}}}:sessions", gone.user)]).await;
    clock.set(clock.millis() + 2 * 3600 * 1000);
    relay.swallow();
    relay.does(Does::Pass);
    let written = async || (waiting().await == "0").then_some(());
    eventually(written, || sidecar.access_log()).await;
    assert!(!has(&redis, "session", gone.user, gone.session).await, "it came back");
    assert!(field(&redis, &kept, "previous_ref").await.is_some(), "its refresh is lost");
    // nobody can tell it from one that has ended; its next refresh does
    assert!(!has(&redis, "session", idle.user, idle.session).await);
    let expired = r#"gotrue_sidecar_mirror_replayed_total{result="expired"}"#;
    // counted after they were taken out
    until("both are counted", async || sidecar.metric(expired).await.to_string() == "2").await;
}

/// I3: what GoTrue handed out just before the end may be recorded after it, when the token that was known is over.
#[tokio::test]
async fn a_session_that_was_refreshed_just_before_it_ended_elsewhere_stays_ended() {
    const AGE: u64 = 3500; // of an access token that lives for an hour
    let signs_in = |seen: &Seen| {
        vec![Step::Send(if seen.request_line().contains("grant_type=password") {
            issuer::signed_in(&issuer::somebody_since(AGE))
        } else {
            issuer::said(seen)
        })]
    };
    let (upstream, redis) = (Upstream::start(signs_in).await, RedisServer::start());
    let relay = Relay::to(redis.port()).await;
    let clock = Clock::standing_at(clock::millis());
    let start = |port: u16| {
        let flags = [
            &format!("--upstream-url={}", upstream.url),
            &format!("--store-url=redis://127.0.0.1:{port}"),
            &format!("--jwt-secret={SECRET}"),
            "--jwt-jwks=off",
            "--store-timeout=200ms",
        ];
        Sidecar::start_at(&clock, &flags)
    };
    let (away, here) = (start(relay.port), start(redis.port()));
    let client = Client::new(&away.url);
    let old = client.sign_in("a@b.example").await;
    assert!(has(&redis, "session", old.user, old.session).await);
    relay.does(Does::Lose);
    Tokens::of(&client.refresh(&old).await);
    assert_eq!(Client::new(&here.url).logout(&old, "?scope=local").await.status, 204);
    clock.set(clock.millis() + 200_000);
    passes(&redis, &format!("gotrue:{{{}}}:revoked:{}", old.user, old.session), 200).await;
    relay.swallow();
    relay.does(Does::Pass);
    let written = async || (away.metric(LENGTH).await.to_string() == "0").then_some(());
    eventually(written, || away.access_log()).await;
    assert!(!has(&redis, "session", old.user, old.session).await, "it came back");
    assert!(has(&redis, "revoked", old.user, old.session).await, "its new token is let in");
}

/// So many seconds pass for a key, as by Redis' own clock.
async fn passes(redis: &RedisServer, key: &str, seconds: i64) {
    let left: i64 = ::redis::cmd("TTL").arg(key).query_async(&mut redis.client().await).await.unwrap();
    assert!(left > 0, "{left}");
    command(redis, &["EXPIRE", key, &(left - seconds).to_string()]).await; // none left: it goes
}
