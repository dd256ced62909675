//! Redis fails while people sign in and out (contract I5, §9).

use http::StatusCode;

use crate::support::{
    client::{Tokens, new_email},
    gotrue::{Gotrue, Settings},
    pod::{Pod, before},
    redis::RedisServer,
    until,
};

#[tokio::test]
async fn a_killed_redis_costs_nobody_a_login_or_a_logout() {
    let mut pod = Pod::start().await;
    let client = pod.client();
    let email = new_email();
    let phone = client.sign_up(&email).await;
    pod.redis.kill();
    let laptop = client.sign_in(&email).await;
    let refreshed = Tokens::of(&client.refresh(&laptop).await);
    assert_eq!(client.user(&phone).await.status, StatusCode::OK);
    assert_eq!(client.logout(&phone, "?scope=local").await.status, StatusCode::NO_CONTENT);
    assert_eq!(pod.gotrue.sessions().await, [(laptop.session, laptop.user)]);

    pod.redis.restart();
    until("what waited is written", async || {
        pod.sidecar.metric("gotrue_sidecar_mirror_queue_length").await == 0.0
    })
    .await;
    pod.assert_true("the outage").await;
    assert_eq!(client.user(&phone).await.status, StatusCode::FORBIDDEN);
    assert_eq!(client.refresh(&refreshed).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_hanging_redis_delays_answers_and_changes_none() {
    let pod = Pod::start_with(Settings::default(), &["--store-timeout=20ms"]).await;
    let client = pod.client();
    let email = new_email();
    client.sign_up(&email).await;
    pod.redis.hang();
    let laptop = client.sign_in(&email).await;
    assert_eq!(client.refresh(&laptop).await.status, StatusCode::OK);
    assert_eq!(client.logout(&laptop, "?scope=global").await.status, StatusCode::NO_CONTENT);
    assert_eq!(pod.gotrue.sessions().await, []);
    pod.redis.go_on();
}

#[tokio::test]
async fn a_sidecar_starts_without_redis_and_connects_later() {
    let gotrue = Gotrue::start().await;
    let mut redis = RedisServer::start();
    redis.kill();
    let sidecar = before(&gotrue, &redis, &[]);
    let pod = Pod { sidecar, redis, gotrue };
    let early = pod.client().sign_up(&new_email()).await;
    assert_eq!(pod.client().user(&early).await.status, StatusCode::OK);

    let mut pod = pod;
    pod.redis.restart();
    until("the store answers", async || pod.sidecar.metric("gotrue_sidecar_store_up").await > 0.0).await;
    let late = pod.client().sign_up(&new_email()).await;
    pod.record(late.session).await;
    assert_eq!(pod.client().refresh(&early).await.status, StatusCode::OK);
    pod.assert_true("Redis came late").await;
}

#[tokio::test]
async fn a_flushed_redis_knows_everybody_again_after_they_were_here() {
    let pod = Pod::start().await;
    let client = pod.client();
    let email = new_email();
    let (phone, laptop) = (client.sign_up(&email).await, client.sign_in(&email).await);
    let gone = client.sign_in(&email).await;
    assert_eq!(client.logout(&gone, "?scope=local").await.status, StatusCode::NO_CONTENT);
    let mut redis = pod.redis.client().await;
    let _: () = ::redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();

    assert_eq!(client.refresh(&phone).await.status, StatusCode::OK);
    until("the other session is known again", async || {
        assert_eq!(client.user(&laptop).await.status, StatusCode::OK);
        pod.stored().await.iter().any(|stored| stored.session == laptop.session)
    })
    .await;
    assert_eq!(client.user(&gone).await.status, StatusCode::FORBIDDEN);
    pod.assert_true("Redis was flushed").await;
}
