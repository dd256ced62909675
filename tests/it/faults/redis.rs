//! Redis is broken: every client gets GoTrue's answer, in time.

use serde_json::Value;

use super::*;
use crate::support::{
    process::eventually,
    redis::{PASSWORD, RedisServer, Setup, another_password},
    redis_cluster::{RedisCluster, take_over},
    relay::{Does, Relay},
};

/// What is behind the sidecar in one of these tests.
struct House {
    upstream: Upstream,
    redis: RedisServer,
    relay: Relay,
    /// Looks sessions up beside the request, the default.
    plain: Process,
    /// Refuses revoked sessions.
    enforcing: Process,
}

/// What the sidecar says of a fault.
struct Signs {
    /// In `store_commands_total`.
    cause: &'static str,
    /// Which requests' changes have to wait.
    kept: &'static [Ask],
}

const CHANGES: &[Ask] = &[Ask::Login, Ask::Refresh, Ask::Logout];

impl House {
    async fn build(options: &[&str]) -> Self {
        let redis = RedisServer::with_options(options);
        let relay = Relay::to(redis.port()).await;
        let store = format!("redis://127.0.0.1:{}", relay.port);
        Self::with(redis, relay, store).await
    }

    /// Whose `store.url` is no plain one, and does not lead through the relay.
    async fn at(redis: RedisServer, store: String) -> Self {
        let relay = Relay::to(redis.port()).await;
        Self::with(redis, relay, store).await
    }

    async fn with(redis: RedisServer, relay: Relay, store: String) -> Self {
        let upstream = Upstream::start(issuer::gotrue).await;
        let plain = sidecar(&upstream.url, &store, &[]).await;
        let enforcing = sidecar(&upstream.url, &store, &["--enforce=true"]).await;
        for process in [&plain, &enforcing] {
            process.metric_becomes("gotrue_sidecar_store_up", 1).await;
        }
        Self { upstream, redis, relay, plain, enforcing }
    }

    /// Breaks the store, asks for everything, and mends it.
    async fn survives(
        mut self,
        signs: Signs,
        break_it: impl AsyncFnOnce(&mut Self),
        mend: impl AsyncFnOnce(&mut Self),
    ) {
        let sessions = [self.sign_in().await, self.sign_in().await, self.sign_in().await];
        break_it(&mut self).await;
        let before = Counts::of(&self.plain, signs.cause).await;
        for ask in Ask::ALL {
            self.answers(&self.plain, ask, &sessions[0]).await;
        }
        self.answers(&self.enforcing, Ask::User, &sessions[1]).await;
        let after = Counts::of(&self.plain, signs.cause).await;
        assert!(after.failed > before.failed, "{} is not counted", signs.cause);
        assert!(after.kept >= before.kept + signs.kept.len() as u64, "{:?} are kept", signs.kept);

        for process in [&self.plain, &self.enforcing] {
            process.metric_becomes("gotrue_sidecar_store_up", 0).await;
            assert_eq!((liveness(process).await, readiness(process).await), (200, 200));
        }
        for _ in 0..5 {
            self.answers(&self.plain, Ask::Login, &sessions[2]).await;
        }
        let line = self.plain.line("the store does not answer").await;
        assert!(line.contains(&format!(r#""cause":"{}""#, signs.cause)), "{line}");
        assert_eq!(said_again(&self.plain.stderr()), [""; 0], "{}", self.plain.stderr());
        mend(&mut self).await;
        self.comes_back().await;
    }

    /// GoTrue's answer, asked for once, within the bound. A busy machine may take its time, so the best
    /// of three counts.
    async fn answers(&self, process: &Process, ask: Ask, tokens: &Tokens) {
        let mut took = Vec::new();
        while took.len() < 3 && took.iter().all(|took| *took > BOUND) {
            let called = self.upstream.seen().len();
            let (answer, waited) = ask.send(&process.url, tokens).await;
            assert_eq!(self.upstream.seen().len(), called + 1, "{ask:?}: GoTrue is called once");
            match ask {
                Ask::Login => drop(Tokens::of(&answer)),
                Ask::Refresh => assert_eq!(Tokens::of(&answer).session, tokens.session),
                Ask::Logout => assert_eq!(answer.status, 204),
                Ask::User => assert_eq!(answer.json()["email"], issuer::EMAIL),
            }
            took.push(waited);
        }
        assert!(took.iter().any(|took| *took <= BOUND), "{ask:?} took {took:?}");
    }

    async fn comes_back(&self) {
        for process in [&self.plain, &self.enforcing] {
            process.metric_becomes("gotrue_sidecar_store_up", 1).await;
            process.metric_becomes("gotrue_sidecar_store_breaker_open", 0).await;
        }
        let mut redis = self.redis.client().await;
        let began = Instant::now();
        let mut tokens = self.sign_in().await;
        while !is_recorded(&mut redis, &tokens).await {
            assert!(began.elapsed() < PATIENCE, "sign-ins are not recorded again");
            tokens = self.sign_in().await;
        }
        assert_eq!(Ask::Logout.send(&self.plain.url, &tokens).await.0.status, 204);
        assert!(!is_recorded(&mut redis, &tokens).await);
        assert_eq!(Ask::User.send(&self.enforcing.url, &tokens).await.0.status, 403);
        for process in [&self.plain, &self.enforcing] {
            process.metric_becomes("gotrue_sidecar_mirror_queue_length", 0).await;
            let lost = process.metric(r#"gotrue_sidecar_mirror_dropped_total{reason="store_failed"}"#).await;
            assert_eq!(lost, 0, "{}", process.stderr());
            process.nth_line(2, "the store answers").await;
            let said = (process.count("the store does not answer"), process.count("the store answers"));
            assert_eq!(said, (1, 2), "one line for each change:\n{}", process.stderr());
        }
    }

    async fn sign_in(&self) -> Tokens {
        Tokens::of(&Ask::Login.send(&self.plain.url, &issuer::somebody()).await.0)
    }

    async fn command(&self, words: &[&str]) {
        let mut redis = self.redis.client().await;
        let mut command = ::redis::cmd(words[0]);
        command.arg(&words[1..]).exec_async(&mut redis).await.unwrap();
    }
}

/// What was said more than once of what is wrong.
fn said_again(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let loud = lines.filter(|line| line["level"] == "warn" || line["level"] == "error");
    let mut said: Vec<_> = loud.map(|line| line["message"].to_string()).collect();
    said.sort();
    said.chunk_by(|one, next| one == next).filter(|same| same.len() > 1).map(|same| same[0].clone()).collect()
}

/// What the plain sidecar has counted.
struct Counts {
    failed: u64,
    kept: u64,
}

impl Counts {
    async fn of(process: &Process, cause: &str) -> Self {
        let mut failed = 0;
        for command in ["apply", "lookup"] {
            let series =
                format!(r#"gotrue_sidecar_store_commands_total{{command="{command}",result="{cause}"}}"#);
            failed += process.metric(&series).await;
        }
        let mut kept = 0;
        for event in ["sign_in", "refresh", "end"] {
            let series = format!(r#"gotrue_sidecar_mirror_events_total{{event="{event}",result="queued"}}"#);
            kept += process.metric(&series).await;
        }
        Self { failed, kept }
    }
}

#[tokio::test]
async fn a_redis_that_was_killed_costs_no_answer() {
    let house = House::build(&[]).await;
    let signs = Signs { cause: "refused", kept: CHANGES };
    house.survives(signs, async |house| house.redis.kill(), async |house| house.redis.restart()).await;
}

#[tokio::test]
async fn a_redis_that_hangs_costs_the_timeout_once_a_request() {
    let house = House::build(&[]).await;
    let signs = Signs { cause: "timeout", kept: CHANGES };
    house.survives(signs, async |house| house.redis.hang(), async |house| house.redis.go_on()).await;
}

#[tokio::test]
async fn a_redis_that_is_slower_than_the_timeout_costs_the_timeout_once_a_request() {
    let house = House::build(&[]).await;
    let signs = Signs { cause: "timeout", kept: CHANGES };
    let slow = async |house: &mut House| house.relay.does(Does::Delay(TIMEOUT * 2));
    house.survives(signs, slow, async |house| house.relay.does(Does::Pass)).await;
}

#[tokio::test]
async fn a_redis_that_closes_amid_an_answer_costs_no_answer() {
    let house = House::build(&[]).await;
    let signs = Signs { cause: "refused", kept: CHANGES };
    let cut = async |house: &mut House| house.relay.does(Does::Cut);
    house.survives(signs, cut, async |house| house.relay.does(Does::Pass)).await;
}

#[tokio::test]
async fn a_redis_that_answers_garbage_costs_no_answer() {
    let house = House::build(&[]).await;
    let signs = Signs { cause: "protocol", kept: CHANGES };
    let garbage = async |house: &mut House| house.relay.does(Does::Say(b"\x16\x03\x01 220 ready\r\n"));
    house.survives(signs, garbage, async |house| house.relay.does(Does::Pass)).await;
}

#[tokio::test]
async fn a_redis_that_became_a_replica_costs_no_answer() {
    let house = House::build(&[]).await;
    let signs = Signs { cause: "read_only", kept: CHANGES };
    let demote = async |house: &mut House| house.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let promote = async |house: &mut House| house.command(&["REPLICAOF", "NO", "ONE"]).await;
    house.survives(signs, demote, promote).await;
}

#[tokio::test]
async fn a_full_redis_costs_no_answer_and_takes_logouts() {
    let house = House::build(&["--maxmemory-policy", "noeviction"]).await;
    let signs = Signs { cause: "out_of_memory", kept: &[Ask::Login, Ask::Refresh] };
    let fill = async |house: &mut House| house.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let free = async |house: &mut House| house.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    house.survives(signs, fill, free).await;
}

#[tokio::test]
async fn a_redis_that_wants_another_password_costs_no_answer() {
    let house = House::build(&[]).await;
    let signs = Signs { cause: "auth", kept: CHANGES };
    let lock = async |house: &mut House| {
        house.command(&["CONFIG", "SET", "requirepass", "another"]).await;
        let mut redis = house.redis.client_with("another").await;
        let _: () = ::redis::cmd("CLIENT")
            .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
            .query_async(&mut redis)
            .await
            .unwrap();
    };
    let unlock = async |house: &mut House| {
        let mut redis = house.redis.client_with("another").await;
        let _: () =
            ::redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).query_async(&mut redis).await.unwrap();
    };
    house.survives(signs, lock, unlock).await;
}

#[tokio::test]
async fn a_redis_with_another_password_for_the_user_costs_no_answer() {
    let redis = RedisServer::launch(Setup::new().with_user());
    let store = redis.url_of_user();
    let house = House::at(redis, store).await;
    let signs = Signs { cause: "auth", kept: CHANGES };
    let lock = async |house: &mut House| another_password(house.redis.client().await, "another").await;
    let unlock = async |house: &mut House| another_password(house.redis.client().await, PASSWORD).await;
    house.survives(signs, lock, unlock).await;
}

#[tokio::test]
async fn a_redis_that_reads_its_data_costs_no_answer() {
    let house = House::build(&[
        "--enable-debug-command",
        "yes",
        "--rdbcompression",
        "no",
        "--loading-process-events-interval-bytes",
        "1024",
    ])
    .await;
    let signs = Signs { cause: "loading", kept: CHANGES };
    let load = async |house: &mut House| {
        house.command(&["DEBUG", "POPULATE", "60000", "key", "100"]).await;
        house.command(&["CONFIG", "SET", "key-load-delay", "500"]).await; // half a minute, in microseconds each
        let mut reloading = house.redis.client().await;
        tokio::spawn(async move {
            let _done: Result<(), _> = ::redis::cmd("DEBUG").arg("RELOAD").query_async(&mut reloading).await;
        });
        let redis = house.redis.client().await;
        let loads = async || {
            let pong: Result<(), _> = ::redis::cmd("PING").query_async(&mut redis.clone()).await;
            pong.is_err_and(|error| error.code() == Some("LOADING")).then_some(())
        };
        eventually(loads, || "it does not read its data again".to_owned()).await;
    };
    let done = async |house: &mut House| house.command(&["CONFIG", "SET", "key-load-delay", "0"]).await;
    house.survives(signs, load, done).await;
}

#[tokio::test]
async fn a_cluster_that_serves_no_slot_costs_no_answer() {
    let mut cluster = RedisCluster::start_with(Setup::new(), 1, 0).await;
    let store = cluster.url();
    let house = House::at(cluster.nodes.remove(0), store).await;
    let signs = Signs { cause: "cluster_down", kept: CHANGES };
    let take = async |house: &mut House| house.command(&["CLUSTER", "DELSLOTSRANGE", "0", "16383"]).await;
    let give = async |house: &mut House| house.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    house.survives(signs, take, give).await;
}

/// Of a Cluster, with an address as if it were the only server.
#[tokio::test]
async fn a_redis_whose_keys_another_server_has_costs_no_answer() {
    let mut cluster = RedisCluster::start_with(Setup::new(), 1, 1).await;
    let (redis, other) = (cluster.nodes.remove(0), cluster.nodes.remove(0));
    let store = redis.url_of_user();
    let house = House::at(redis, store).await;
    let signs = Signs { cause: "moved", kept: CHANGES };
    let leave = async |_: &mut House| take_over(&other).await;
    house.survives(signs, leave, async |house| take_over(&house.redis).await).await;
}

#[tokio::test]
async fn a_half_open_connection_is_replaced_while_logins_go_on() {
    let house = House::build(&[]).await;
    let mut redis = house.redis.client().await;
    let before = house.sign_in().await;
    house.relay.swallow();
    house.answers(&house.plain, Ask::User, &before).await;
    let began = Instant::now();
    loop {
        let (answer, _) = Ask::Login.send(&house.plain.url, &before).await;
        if is_recorded(&mut redis, &Tokens::of(&answer)).await {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the connection is not replaced");
    }
    // three timeouts make a connection suspect
    let series = r#"gotrue_sidecar_store_commands_total{command="apply",result="timeout"}"#;
    assert!((1..=4).contains(&house.plain.metric(series).await));
    assert_eq!(said_again(&house.plain.stderr()), [""; 0], "{}", house.plain.stderr());
}

#[tokio::test]
async fn a_redis_that_is_slow_but_within_the_timeout_loses_nothing() {
    let house = House::build(&[]).await;
    let mut redis = house.redis.client().await;
    house.relay.does(Does::Delay(TIMEOUT / 6));
    let tokens = house.sign_in().await;
    assert!(is_recorded(&mut redis, &tokens).await);
    house.answers(&house.plain, Ask::Refresh, &tokens).await;
    house.answers(&house.plain, Ask::Logout, &tokens).await;
    assert!(!is_recorded(&mut redis, &tokens).await);
    assert_eq!(house.plain.metric(r#"gotrue_sidecar_mirror_dropped_total{reason="store_failed"}"#).await, 0);
}

#[tokio::test]
async fn after_everything_was_flushed_traffic_goes_on() {
    let house = House::build(&[]).await;
    let mut redis = house.redis.client().await;
    let tokens = [house.sign_in().await, house.sign_in().await, house.sign_in().await];
    house.command(&["FLUSHALL"]).await;
    house.command(&["SCRIPT", "FLUSH"]).await;
    for process in [&house.plain, &house.enforcing] {
        house.answers(process, Ask::User, &tokens[0]).await;
    }
    house.answers(&house.plain, Ask::Logout, &tokens[1]).await;
    house.answers(&house.plain, Ask::Refresh, &tokens[2]).await;
    assert!(is_recorded(&mut redis, &tokens[2]).await, "a refresh brings an unknown session in");
    assert!(is_recorded(&mut redis, &house.sign_in().await).await);
}
