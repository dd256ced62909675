//! Redis comes and goes: what is said of it, and what readiness makes of it.

use super::*;
use crate::support::redis::RedisServer;

#[tokio::test]
async fn it_starts_without_redis_serves_says_so_once_and_connects_later() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut server = RedisServer::start();
    server.kill();
    let process = sidecar(&upstream.url, &server.url(), &[]).await;
    for ask in Ask::ALL {
        let (answer, took) = ask.send(&process.url, &issuer::somebody()).await;
        assert!(answer.status.is_success() && took < BOUND, "{ask:?}: {} in {took:?}", answer.status);
    }
    process.line("the store does not answer").await;
    server.restart();
    process.metric_becomes("gotrue_sidecar_store_up", 1).await;
    let tokens = Client::new(&process.url).sign_in("a@b.example").await;
    process.metric_becomes("gotrue_sidecar_mirror_queue_length", 0).await; // what came before it connected, too
    assert!(is_recorded(&mut server.client().await, &tokens).await);
    process.line("the store answers").await;
    assert_eq!(process.count("the store does not answer"), 1);
}

#[tokio::test]
async fn a_store_that_is_required_costs_readiness_and_nothing_else() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut server = RedisServer::start();
    let process = sidecar(&upstream.url, &server.url(), &["--readiness-require=upstream,store"]).await;
    process.metric_becomes("gotrue_sidecar_store_up", 1).await;
    server.kill();
    process.metric_becomes("gotrue_sidecar_store_up", 0).await;
    assert_eq!((readiness(&process).await, liveness(&process).await), (503, 200));
    Client::new(&process.url).sign_in("a@b.example").await;
}

/// Down, and then up with another password: whoever reads the log looks for the password, not for the server.
#[tokio::test]
async fn another_cause_that_lasts_is_said_once_too() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut server = RedisServer::with_options(&["--requirepass", "first"]);
    let store = server.url().replace("://", "://:first@");
    let process = sidecar(&upstream.url, &store, &[]).await;
    process.metric_becomes("gotrue_sidecar_store_up", 1).await;
    server.kill();
    let line = process.line("the store does not answer").await;
    assert!(line.contains(r#""cause":"refused""#), "{line}");
    server.option_is("--requirepass", "second");
    server.restart();
    let line = process.line("the store still does not answer").await;
    assert!(line.contains(r#""cause":"auth""#), "{line}");
    let set = ["SET", "requirepass", "first"];
    ::redis::cmd("CONFIG").arg(&set).exec_async(&mut server.client_with("second").await).await.unwrap();
    process.nth_line(2, "the store answers").await;
    assert_eq!(process.count("not answer"), 2, "{}", process.stderr());
}
