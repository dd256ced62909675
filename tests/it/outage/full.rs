//! Redis is full when it comes back: it takes no sign-in, and what it takes all the same waits for none.

use super::*;

/// More than so many users are tried, of whom a full Redis takes nothing, before the rest is left for later.
const MANY: usize = 24;

/// A full Redis that a replica has just lost sight of.
async fn full_and_away(replica: &Replica, redis: &RedisServer) {
    command(redis, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    command(redis, &["CONFIG", "SET", "maxmemory", "1mb"]).await;
    replica.relay.does(Does::Lose);
}

/// Which it sees again.
fn is_back(replica: &Replica) {
    replica.relay.swallow();
    replica.relay.does(Does::Pass);
}

async fn ends(replica: &Replica, redis: &RedisServer, tokens: &Tokens) {
    let ended = || async { has(redis, "revoked", tokens.user, tokens.session).await.then_some(()) };
    eventually(ended, || format!("{} is not ended\n{}", tokens.session, replica.process.stderr())).await;
}

#[tokio::test]
async fn logouts_wait_for_no_sign_in_that_finds_no_room() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &["--store-timeout=200ms"]).await;
    let leaving = [replica.sign_in().await, replica.sign_in().await];
    full_and_away(&replica, &redis).await;
    replica.opens().await;
    for _ in 0..MANY {
        replica.sign_in().await;
    }
    let client = replica.client();
    assert_eq!(client.logout(&leaving[0], "?scope=local").await.status, 204);
    // behind something of the same user for which there is no room
    Tokens::of(&client.refresh(&issuer::another_session_of(leaving[1].user)).await);
    assert_eq!(client.logout(&leaving[1], "?scope=local").await.status, 204);
    is_back(&replica);
    for tokens in &leaving {
        ends(&replica, &redis, tokens).await;
    }
    assert!(replica.process.metric(LENGTH).await > MANY as u64, "there is room after all");
    command(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    replica.process.metric_becomes(LENGTH, 0).await;
}

/// A key of another type under a session's name, and no room either.
#[tokio::test]
async fn a_change_that_it_refuses_holds_up_nobody() {
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &["--store-timeout=200ms"]).await;
    let (odd, leaving) = (replica.sign_in().await, replica.sign_in().await);
    let key = format!("gotrue:{{{}}}:sessions", odd.user);
    command(&redis, &["SET", &key, "odd", "EX", "600"]).await;
    full_and_away(&replica, &redis).await;
    let client = replica.client();
    assert_eq!(client.logout(&odd, "?scope=local").await.status, 204);
    replica.opens().await;
    assert_eq!(client.logout(&leaving, "?scope=local").await.status, 204);
    is_back(&replica);
    ends(&replica, &redis, &leaving).await;
    replica.process.line("refuses a change that waited").await;
}

/// GoTrue refuses a refresh of a session whose sign-in still waits.
#[tokio::test]
async fn an_ending_that_only_a_refresh_token_names_is_of_the_session_that_waits() {
    let (upstream, redis) = (Upstream::start(knows_no_refresh_token).await, RedisServer::start());
    let replica = Replica::start(&upstream, &redis, &["--store-timeout=200ms"]).await;
    full_and_away(&replica, &redis).await;
    replica.opens().await;
    let tokens = replica.sign_in().await;
    assert_eq!(replica.client().refresh(&tokens).await.status, 400);
    is_back(&replica);
    let resolved = || async {
        let series = |result| format!("gotrue_sidecar_mirror_replayed_total{{result=\"{result}\"}}");
        let (written, not) = (series("written"), series("unresolved"));
        (replica.process.metric(&written).await + replica.process.metric(&not).await > 0).then_some(())
    };
    eventually(resolved, || replica.process.stderr()).await;
    command(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    replica.process.metric_becomes(LENGTH, 0).await;
    assert!(!has(&redis, "session", tokens.user, tokens.session).await, "the ending was lost");
    assert!(has(&redis, "revoked", tokens.user, tokens.session).await);
}
