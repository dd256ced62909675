//! supabase-js has the same day with the sidecar as without it (contract I1).

use crate::support::{
    client_js,
    gotrue::{Gotrue, Kind},
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
    if !Kind::of_this_run().knows_error_versions() {
        return; // A refusal of the sidecar's own has the form that GoTrue would have given it.
    }
    let gotrue = Gotrue::start().await;
    let without = client_js::transcript(&gotrue.url).await;
    let redis = RedisServer::start();
    let enforcing = before(&gotrue, &redis, &["--enforce=true"]);
    assert_same(&client_js::transcript(&enforcing.url).await, &without);
}

/// Says where two transcripts part, which are long.
fn assert_same(through: &str, direct: &str) {
    let lines = || through.lines().zip(direct.lines());
    let Some(at) = lines().position(|(one, other)| one != other) else {
        assert_eq!(through.len(), direct.len());
        return;
    };
    let around =
        |text: &str| text.lines().skip(at.saturating_sub(12)).take(24).collect::<Vec<_>>().join("\n");
    panic!("through the sidecar:\n{}\ndirectly:\n{}", around(through), around(direct));
}
