//! What a change to many sessions left to do is done in the end, whatever becomes of Redis meanwhile.

use std::sync::Arc;

use gotrue_sidecar::{
    audit::{Actor, By},
    breaker::Breaker,
    config::{self, RedisTarget, Secret, SecretSource, StoreTarget},
    metrics::Metrics,
    mirror::Mirror,
    replay::{Queue, What},
    session::{Outcome, Wanted},
    sessions::{Demand, Sessions, change},
    store::Source,
    worker::Mirroring,
};
use redis::AsyncCommands;
use tokio_util::task::TaskTracker;

use super::*;

/// So many sessions a user has.
const MANY: usize = 20;

const BY: By<'_> = By { route: "/test", request_id: b"test" };

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

/// Twenty sessions of one user in the store.
async fn signed_in_often(sessions: &Arc<Sessions>) -> UserId {
    let first = Login::new(NOW);
    let logins: Vec<_> = (0..MANY).map(|_| Login::of(first.user, NOW)).collect();
    let changes: Vec<_> = logins.iter().map(recorded).collect();
    sessions.store.apply(&changes, NOW).await.unwrap();
    sessions.clock.set(NOW_MS + 1000);
    first.user
}

/// Redis is killed amid a sweep, and is there again.
async fn interrupted(sessions: &Arc<Sessions>, redis: &mut RedisServer, of: UserId) {
    redis.kill();
    sessions.tasks.close();
    sessions.tasks.wait().await; // as a drain does: nothing waits for a Redis that is gone
    assert_eq!(list(sessions, Login::new(NOW).user).await, None);
    sessions.tasks.reopen();
    redis.restart();
    let client = redis.client().await;
    let left = async || client.clone().zcard::<_, u64>(waiting(of)).await;
    until("Redis has read its data", async || left().await.is_ok()).await;
    assert!(left().await.unwrap() > 2, "it was not in the middle of it");
}

fn waiting(user: UserId) -> String {
    format!("gotrue:{{{user}}}:ending:1")
}

/// Waits for the end of the sweep; `meanwhile` is done again and again.
async fn is_over(redis: &RedisServer, of: UserId, meanwhile: impl AsyncFn()) {
    let mut client = redis.client().await;
    until("the sweep is over", async || {
        meanwhile().await;
        !client.clone().exists::<_, bool>(waiting(of)).await.unwrap()
    })
    .await;
    let tombstones: Vec<String> = client.keys(format!("gotrue:{{{of}}}:revoked:*")).await.unwrap();
    assert_eq!(tombstones.len(), MANY);
}

#[tokio::test]
async fn a_sweep_that_redis_broke_off_goes_on_when_redis_is_back() {
    let mut redis = RedisServer::with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
    let sessions = in_small_steps(&redis);
    let user = signed_in_often(&sessions).await;
    let demand = Demand { user, which: Which::All, actor: Actor::Operator(0) };
    let outcome = sessions.revoke(&demand, &mut sessions.budget(), BY).await;
    assert_eq!(outcome, Ok(Outcome::Pending(2)));
    interrupted(&sessions, &mut redis, user).await;
    let somebody_else = Login::new(NOW).user;
    let ask = async || {
        list(&sessions, somebody_else).await;
    };
    is_over(&redis, user, ask).await;
}

/// Whoever writes what waited has no requests that ask Redis anything.
#[tokio::test]
async fn so_does_one_of_a_change_that_waited() {
    let mut redis = RedisServer::with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
    let sessions = in_small_steps(&redis);
    let user = signed_in_often(&sessions).await;
    let everything = change(user, Which::All, sessions.clock.millis());
    assert!(sessions.queue.put(What::Change(everything), BY, sessions.clock.millis()));
    tokio::select! {
        () = sessions.replay() => {}
        () = sessions.queue.emptied() => {}
    }
    interrupted(&sessions, &mut redis, user).await;
    let writing = Arc::clone(&sessions);
    let writing = tokio::spawn(async move { writing.replay().await });
    is_over(&redis, user, async || {}).await;
    writing.abort();
}
