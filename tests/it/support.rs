//! What several suites need: the real parts that they run on, who talks to those, and what was recorded.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod client_js;
pub(crate) mod corpus;
pub(crate) mod dice;
pub(crate) mod documents;
pub(crate) mod gateway;
pub(crate) mod gotrue;
pub(crate) mod http;
pub(crate) mod issuer;
pub(crate) mod openapi;
pub(crate) mod pod;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod redis;
pub(crate) mod redis_cluster;
pub(crate) mod redis_sentinel;
pub(crate) mod refresh_tokens;
pub(crate) mod relay;
pub(crate) mod sidecar;
pub(crate) mod signer;
pub(crate) mod upstream;

use std::time::Duration;

/// Waits for something that happens beside the answer to a request; fails after thirty seconds, for a Sentinel on a busy
/// machine begins a failover more than once.
pub(crate) async fn until(what: &str, happened: impl AsyncFn() -> bool) {
    for _ in 0..3000 {
        if happened().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
