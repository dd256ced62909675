//! What a change to many sessions left to do is done in the end, whatever becomes of Redis meanwhile.

use std::sync::Arc;

use gotrue_sidecar::{
    audit::{Actor, By},
    breaker::Breaker,
    config::{self, RedisTarget, Secret, SecretSource, StoreTarget},
    metrics::Metrics,
    mirror::Mirror,
    replay::Queue,
    session::{Outcome, Wanted},
    sessions::{Demand, Sessions},
    store::Source,
    worker::Mirroring,
};
use redis::AsyncCommands;
use tokio_util::task::TaskTracker;

use super::*;

/// For whoever looks at a Redis without a sidecar.
pub(super) fn store_config(redis: &RedisServer) -> config::Store {
    let url = SecretSource::Value(Secret::new(redis.url()));
    config::Store {
        target: StoreTarget::Redis(Box::new(RedisTarget::at(url))),
        key_prefix: "gotrue".to_owned(),
        timeout: Duration::from_secs(5),
        wait_replicas: 0,
        ref_key: None,
        memory_max_sessions: 1,
    }
}

/// A worker's hand on a Redis, which it lets deal with two sessions at once.
fn in_small_steps(redis: &RedisServer) -> Arc<Sessions> {
    let config = store_config(redis);
    let metrics = Arc::new(Metrics::new().unwrap());
    let bounds = config::Queue { changes: 1000, bytes: 1 << 20, spool_dir: None };
    let mirroring = Mirroring {
        queue: Arc::new(Queue::open(&bounds, Arc::clone(&metrics)).unwrap()),
        session: config::Session {
            ttl: Duration::from_secs(3600),
            limits: gotrue_sidecar::session::Limits::default(),
            mint: false,
        },
        source: Arc::new(Source::new(&config, Duration::from_secs(3600)).unwrap().with_step(2)),
        breaker: Arc::new(Breaker::new(1, Arc::clone(&metrics))),
        mirror: Mirror::new(None, Duration::ZERO),
        budget: config.timeout,
        lookup: true,
        enforce: false,
        session_api: None,
        check: None,
        clock: Clock::standing_at(NOW_MS),
    };
    Arc::new(mirroring.sessions(metrics, TaskTracker::new()))
}

async fn list(sessions: &Arc<Sessions>, user: UserId) -> Option<u64> {
    let wanted = Wanted::Page { skip: 0, take: 1 };
    sessions.list(user, wanted, &mut sessions.budget()).await.ok().map(|listed| listed.total)
}

#[tokio::test]
async fn a_sweep_that_redis_broke_off_goes_on_when_redis_is_back() {
    let mut redis = RedisServer::with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
    let sessions = in_small_steps(&redis);
    let (first, somebody_else) = (Login::new(NOW), Login::new(NOW));
    let logins: Vec<_> = (0..20).map(|_| Login::of(first.user, NOW)).collect();
    let changes: Vec<_> = logins.iter().map(recorded).collect();
    sessions.store.apply(&changes, NOW).await.unwrap();

    sessions.clock.set(NOW_MS + 1000);
    let demand = Demand { user: first.user, which: Which::All, actor: Actor::Operator(0) };
    let by = By { route: "/test", request_id: b"test" };
    let outcome = sessions.revoke(&demand, &mut sessions.budget(), by).await;
    assert_eq!(outcome, Ok(Outcome::Pending(2)));
    redis.kill();
    sessions.tasks.close();
    sessions.tasks.wait().await; // as a drain does: nothing waits for a Redis that is gone
    assert_eq!(list(&sessions, somebody_else.user).await, None);
    sessions.tasks.reopen();

    redis.restart();
    let mut client = redis.client().await;
    let waiting = format!("gotrue:{{{}}}:ending:1", first.user);
    until("Redis has read its data", async || client.clone().zcard::<_, u64>(&waiting).await.is_ok()).await;
    assert!(client.zcard::<_, u64>(&waiting).await.unwrap() > 2, "it was not in the middle of it");
    until("the sweep is over", async || {
        list(&sessions, somebody_else.user).await;
        !client.clone().exists::<_, bool>(&waiting).await.unwrap()
    })
    .await;
    let tombstones: Vec<String> = client.keys(format!("gotrue:{{{}}}:revoked:*", first.user)).await.unwrap();
    assert_eq!(tombstones.len(), logins.len());
}
