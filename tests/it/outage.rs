//! A store outage, seen from both ends: what clients notice (contract §9, I5), and what the store holds afterwards.
//! The sidecar is its own binary, Redis is real; GoTrue is scripted, so that signing in costs nothing.

mod breaker;
mod cluster;
mod drain;
mod full;
mod late;
mod queue;
mod spool;

use std::time::Duration;

use gotrue_sidecar::session::{SessionId, UserId};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    client::{Client, Tokens},
    issuer::{self, SECRET},
    process::{Process, eventually},
    redis::RedisServer,
    relay::{Does, Relay},
    upstream::{Seen, Step, Upstream, answer},
};

const OPEN: &str = "gotrue_sidecar_store_breaker_open";
const LENGTH: &str = "gotrue_sidecar_mirror_queue_length";
const AGE: &str = "gotrue_sidecar_mirror_queue_age_seconds";
const BYTES: &str = "gotrue_sidecar_mirror_queue_bytes";

/// A sidecar with its own way to a Redis, through a relay.
struct Replica {
    process: Process,
    relay: Relay,
}

impl Replica {
    async fn start(upstream: &Upstream, redis: &RedisServer, more: &[&str]) -> Self {
        let relay = Relay::to(redis.port()).await;
        let mut flags = vec![
            format!("--upstream-url={}", upstream.url),
            format!("--store-url=redis://127.0.0.1:{}", relay.port),
            format!("--jwt-secret={SECRET}"),
            "--jwt-jwks=off".to_owned(),
        ];
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        let process = Process::start(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
        process.metric_becomes("gotrue_sidecar_store_up", 1).await;
        Self { process, relay }
    }

    fn client(&self) -> Client {
        Client::new(&self.process.url)
    }

    async fn sign_in(&self) -> Tokens {
        self.client().sign_in("a@b.example").await
    }

    /// Signs in until nobody waits for the store any more.
    async fn opens(&self) {
        let began = Instant::now();
        while self.process.metric(OPEN).await == 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", self.process.stderr());
            self.sign_in().await;
        }
    }

    /// Signs in until the store is used again.
    async fn closes(&self) {
        let began = Instant::now();
        while self.process.metric(OPEN).await > 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", self.process.stderr());
            self.sign_in().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How many sign-ins Redis holds. The probe runs a script, too, so those are not counted.
async fn sign_ins_made(redis: &RedisServer) -> usize {
    let keys: ::redis::RedisResult<Vec<String>> =
        ::redis::cmd("KEYS").arg("gotrue:{*}:session:*").query_async(&mut redis.client().await).await;
    keys.unwrap().len()
}

/// A record is there, or a tombstone.
async fn has(redis: &RedisServer, kind: &str, user: UserId, session: SessionId) -> bool {
    let key = format!("gotrue:{{{user}}}:{kind}:{session}");
    ::redis::cmd("EXISTS").arg(key).query_async(&mut redis.client().await).await.unwrap()
}

async fn field(redis: &RedisServer, of: &Tokens, name: &str) -> Option<String> {
    let key = format!("gotrue:{{{}}}:session:{}", of.user, of.session);
    ::redis::cmd("HGET").arg(key).arg(name).query_async(&mut redis.client().await).await.unwrap()
}

async fn command(redis: &RedisServer, words: &[&str]) {
    let mut command = ::redis::cmd(words[0]);
    command.arg(&words[1..]).exec_async(&mut redis.client().await).await.unwrap();
}

/// Agrees to everything but to refresh, for which it does not know the token.
fn knows_no_refresh_token(seen: &Seen) -> Vec<Step> {
    let refused = r#"{"code":400,"error_code":"refresh_token_not_found","msg":"no"}"#;
    vec![Step::Send(if seen.request_line().contains("grant_type=refresh_token") {
        answer("400 Bad Request", &[("Content-Type", "application/json")], refused)
    } else {
        issuer::said(seen)
    })]
}
