//! supabase-js has the same day with the sidecar as without it (contract I1).

use crate::support::{
    client_js::{self, assert_same, assert_same_but_for_refusals},
    gotrue::Gotrue,
    pod::{Pod, before},
    redis::RedisServer,
    sidecar::Sidecar,
};

#[tokio::test]
async fn the_official_client_sees_no_difference_with_a_store() {
    let pod = Pod::start().await;
    let without = client_js::transcript(&pod.gotrue.url).await;
    assert_same(&client_js::transcript(&pod.sidecar.url).await, &without);
    assert_eq!(pod.gotrue.sessions().await, []);
    pod.assert_true("the client's day").await;
}

#[tokio::test]
async fn the_official_client_sees_no_difference_without_a_store() {
    let gotrue = Gotrue::start().await;
    let without = client_js::transcript(&gotrue.url).await;
    let stateless = Sidecar::start(&["--upstream-url", &gotrue.url]);
    assert_same(&client_js::transcript(&stateless.url).await, &without);
}

#[tokio::test]
async fn the_official_client_sees_no_difference_with_enforce() {
    let gotrue = Gotrue::start().await;
    let without = client_js::transcript(&gotrue.url).await;
    let redis = RedisServer::start();
    let enforcing = before(&gotrue, &redis, &["--enforce=true"]);
    let through = client_js::transcript(&enforcing.url).await;
    assert_same_but_for_refusals(gotrue.kind(), &through, &without);
}

/// As many sessions as the client's day has at once are allowed.
#[tokio::test]
async fn the_official_client_sees_no_difference_with_everything_switched_on() {
    let gotrue = Gotrue::start().await;
    let without = client_js::transcript(&gotrue.url).await;
    let redis = RedisServer::start();
    let everything = before(
        &gotrue,
        &redis,
        &[
            "--enforce=true",
            "--session-api-enabled=true",
            "--revoke-upstream=mint",
            "--session-idle-timeout=30m",
            "--session-absolute-timeout=24h",
            "--session-max-per-user=20",
            "--check-unknown=deny",
        ],
    );
    let through = client_js::transcript(&everything.url).await;
    assert_same_but_for_refusals(gotrue.kind(), &through, &without);
}
