//! GoTrue, Redis and a sidecar between them and the clients: what stands in one pod, and what is compared.

use std::collections::BTreeMap;

use gotrue_sidecar::session::{SessionId, UserId};
use redis::aio::MultiplexedConnection;

use super::{
    client::Client,
    gotrue::{Gotrue, Settings},
    redis::RedisServer,
    sidecar::Sidecar,
};

/// All three, with nobody signed in.
pub(crate) struct Pod {
    pub(crate) sidecar: Sidecar,
    pub(crate) redis: RedisServer,
    pub(crate) gotrue: Gotrue,
}

/// A session as Redis has it, read without the product's help.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) session: SessionId,
    pub(crate) user: UserId,
    pub(crate) fields: BTreeMap<String, String>,
}

impl Pod {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default(), &[]).await
    }

    pub(crate) async fn start_with(settings: Settings, flags: &[&str]) -> Self {
        let gotrue = Gotrue::start_with(settings).await;
        let redis = RedisServer::start();
        let sidecar = before(&gotrue, &redis, flags);
        Self { sidecar, redis, gotrue }
    }

    /// On a PostgreSQL, for whoever looks into it.
    pub(crate) async fn on_postgres() -> Self {
        let gotrue = Gotrue::on_postgres().await;
        let redis = RedisServer::start();
        let sidecar = before(&gotrue, &redis, &[]);
        Self { sidecar, redis, gotrue }
    }

    /// Somebody who comes through the sidecar.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.sidecar.url)
    }

    /// Every record in Redis, in the order of session ids.
    pub(crate) async fn stored(&self) -> Vec<Stored> {
        stored(&mut self.redis.client().await).await
    }

    /// The record of one session, which must be there.
    pub(crate) async fn record(&self, session: SessionId) -> BTreeMap<String, String> {
        let found = self.stored().await.into_iter().find(|stored| stored.session == session);
        found.unwrap_or_else(|| panic!("the store has no session {session}")).fields
    }

    /// The store's sessions are the rows of `auth.sessions` (contract I4).
    pub(crate) async fn assert_true(&self, after: &str) {
        let stored: Vec<_> =
            self.stored().await.into_iter().map(|stored| (stored.session, stored.user)).collect();
        assert_eq!(stored, self.gotrue.sessions().await, "left: the store, right: auth.sessions; {after}");
    }
}

/// A sidecar before that GoTrue, which verifies what its secret signs.
pub(crate) fn before(gotrue: &Gotrue, redis: &RedisServer, flags: &[&str]) -> Sidecar {
    let (upstream, store) =
        (format!("--upstream-url={}", gotrue.url), format!("--store-url={}", redis.url()));
    let mut all = vec![upstream.as_str(), store.as_str()];
    all.extend(flags);
    if !flags.iter().any(|flag| flag.starts_with("--store-timeout")) {
        all.push("--store-timeout=10s"); // a busy machine is no store that fails; tests about one say so
    }
    Sidecar::start_with(&all, &[("GOTRUE_JWT_SECRET", gotrue.secret)])
}

/// Every record in a Redis, in the order of session ids.
pub(crate) async fn stored(redis: &mut MultiplexedConnection) -> Vec<Stored> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("gotrue:*:session:*").query_async(redis).await.unwrap();
    let mut all = Vec::new();
    for key in keys {
        let (user, session) =
            key.strip_prefix("gotrue:{").and_then(|rest| rest.split_once("}:session:")).unwrap();
        let fields = redis::cmd("HGETALL").arg(&key).query_async(redis).await.unwrap();
        all.push(Stored {
            session: SessionId::parse(session).unwrap(),
            user: UserId::parse(user).unwrap(),
            fields,
        });
    }
    all.sort_by_key(|stored| stored.session);
    all
}

/// Who is suspended in a Redis at this time, in seconds since the epoch.
pub(crate) async fn suspended(redis: &mut MultiplexedConnection, now: u64) -> Vec<UserId> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("gotrue:*:marks").query_async(redis).await.unwrap();
    let mut all = Vec::new();
    for key in keys {
        let until: Option<u64> =
            redis::cmd("HGET").arg(&key).arg("suspended_until").query_async(redis).await.unwrap();
        if until.is_some_and(|until| until > now) {
            let user = key.strip_prefix("gotrue:{").and_then(|rest| rest.strip_suffix("}:marks")).unwrap();
            all.push(UserId::parse(user).unwrap());
        }
    }
    all
}

/// The keys of a Redis that never expire: there must be none (contract I10).
pub(crate) async fn keys_without_ttl(redis: &mut MultiplexedConnection) -> Vec<String> {
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(redis).await.unwrap();
    let mut eternal = Vec::new();
    for key in keys {
        let ttl: i64 = redis::cmd("TTL").arg(&key).query_async(redis).await.unwrap();
        if ttl == -1 {
            eternal.push(key);
        }
    }
    eternal
}
