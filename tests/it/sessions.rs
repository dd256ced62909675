//! How sessions come into the store and go from it: a sidecar before an upstream that answers what a
//! test wants, on a real Redis. Modules follow the contract's sections; tests name its invariants.

mod answers;
mod api;
mod bans;
mod cap;
mod check;
mod keys;
mod limits;
mod logout;
mod lookup;
mod order;
mod proof;
mod refused;
mod revoked;
mod sign_in;
mod sweeps;
mod unknowable;
mod witness;

use std::time::Duration;

use gotrue_sidecar::{
    clock::Clock,
    session::{Change, Origin, Reason, Record, Seconds, SessionId, Sought, State, UserId, Wanted, Which},
    store::Store,
};
use http::{Method, Request};

use crate::support::{
    http::{Answer, send},
    redis::RedisServer,
    refresh_tokens::{holder, session_of},
    sidecar::{Sidecar, sample},
    signer::{Login, SECRET, Signer},
    until,
    upstream::{Seen, Step, Upstream, answer},
};

/// When tests begin, in seconds and milliseconds since the epoch.
const NOW: Seconds = 1_800_000_000;
const NOW_MS: u64 = NOW * 1000;

/// What nobody waits for is done within so many steps of two milliseconds, on however busy a machine.
const PATIENCE: usize = 5000;

/// A sidecar between an upstream and a Redis, by a clock that stands still.
struct World {
    redis: RedisServer,
    upstream: Upstream,
    sidecar: Sidecar,
    clock: Clock,
    store: Store,
    signer: Signer,
}

impl World {
    /// The sidecar knows the signer's secret.
    async fn new(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::with(&["--jwt-secret", SECRET], script).await
    }

    async fn with(flags: &[&str], script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::publishing(&[], flags, script).await
    }

    /// With keys that GoTrue publishes, and that the sidecar has fetched.
    async fn publishing(
        signers: &[&Signer],
        flags: &[&str],
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let (redis, upstream) = (RedisServer::start(), Upstream::start(script).await);
        upstream.publish(&Signer::jwks(signers));
        let clock = Clock::standing_at(NOW_MS);
        let sidecar = another(&redis, &upstream, &clock, flags);
        let store = sidecar.store();
        let world = Self { redis, upstream, sidecar, clock, store, signer: Signer::trusted() };
        world.counts("gotrue_sidecar_jwks_fetches_total{result=\"ok\"}", 1).await;
        world
    }

    /// Moves the clock on.
    fn pass(&self, ms: u64) {
        self.clock.set(self.clock.millis() + ms);
    }

    async fn state(&self, login: &Login) -> State {
        self.state_of(login.user, login.session).await
    }

    async fn state_of(&self, user: UserId, session: SessionId) -> State {
        self.store.lookup(&Sought::of(user, session), self.clock.seconds()).await.unwrap()
    }

    /// The live record, or a failed test.
    async fn live(&self, login: &Login) -> Record {
        match self.state(login).await {
            State::Live(record) => *record,
            other => panic!("expected a live session, found {other:?}"),
        }
    }

    async fn is_live(&self, login: &Login) -> bool {
        matches!(self.state(login).await, State::Live(_))
    }

    /// Waits for what nobody waits for.
    async fn becomes(&self, login: &Login, fits: impl Fn(&State) -> bool) -> State {
        for _ in 0..PATIENCE {
            let state = self.state(login).await;
            if fits(&state) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("stays {:?}", self.state(login).await);
    }

    /// Waits until a counter has come so far.
    async fn counts(&self, series: &str, least: usize) {
        until(series, async || self.count(series).await >= least).await;
    }

    async fn count(&self, series: &str) -> usize {
        sample(self.sidecar.admin, series).await.parse().unwrap()
    }

    /// Puts sessions into the store by signing in; to be used before the script matters.
    async fn know(&self, logins: &[&Login]) {
        let changes: Vec<_> = logins.iter().map(|login| recorded(login)).collect();
        // some tests' store is not waited for long: on a busy machine it is told twice
        let told = async || self.store.apply(&changes, self.clock.seconds()).await.is_ok();
        until("the sessions are known", told).await;
    }

    /// Revokes one without GoTrue's knowing, as another replica would.
    async fn revoke(&self, login: &Login) {
        let change = Change::End {
            user: login.user,
            which: Which::One(login.session),
            reason: Reason::Revoked,
            sent_ms: self.clock.millis(),
            expires_at: None,
            ended_in_gotrue: false,
        };
        self.store.apply(&[change], self.clock.seconds()).await.unwrap();
    }

    async fn send(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        send_through(&self.sidecar, method, target, headers, body).await
    }

    async fn post(&self, target: &str, body: &str) -> Answer {
        self.send(Method::POST, target, &[], body).await
    }

    /// With the session's access token.
    async fn as_user(&self, login: &Login, method: Method, target: &str, body: &str) -> Answer {
        self.with_token(&login.access(&self.signer), method, target, body).await
    }

    async fn with_token(&self, token: &str, method: Method, target: &str, body: &str) -> Answer {
        self.send(method, target, &[("authorization", &format!("Bearer {token}"))], body).await
    }

    async fn refresh(&self, login: &Login) -> Answer {
        self.post(REFRESH, &refresh_body(login)).await
    }

    async fn redis<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> T {
        redis_cli(&self.redis, command).await
    }

    async fn dropped(&self, reason: &str) -> usize {
        self.count(&dropped(reason)).await
    }
}

const PASSWORD: &str = "/token?grant_type=password";
const REFRESH: &str = "/token?grant_type=refresh_token";

fn refresh_body(login: &Login) -> String {
    format!(r#"{{"refresh_token":"{}"}}"#, login.refresh())
}

fn dropped(reason: &str) -> String {
    format!("gotrue_sidecar_mirror_dropped_total{{reason=\"{reason}\"}}")
}

/// One more replica.
fn another(redis: &RedisServer, upstream: &Upstream, clock: &Clock, flags: &[&str]) -> Sidecar {
    let store = redis.url();
    let mut all = vec!["--upstream-url", upstream.url.as_str()];
    all.extend(flags);
    if !flags.contains(&"--store-url") {
        all.extend(["--store-url", store.as_str()]);
    }
    if !flags.contains(&"--store-timeout") {
        all.extend(["--store-timeout", "10s"]); // no test here is about it unless it says so
    }
    if !flags.contains(&"--check-timeout") {
        all.extend(["--check-timeout", "10s"]); // likewise
    }
    Sidecar::start_at(clock, &all)
}

async fn send_through(
    sidecar: &Sidecar,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("{}{target}", sidecar.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(request.body(body.to_owned()).unwrap()).await.unwrap()
}

/// As an operator would, who has nothing else.
async fn redis_cli<T: ::redis::FromRedisValue>(redis: &RedisServer, command: &[&str]) -> T {
    let (name, arguments) = command.split_first().unwrap();
    ::redis::cmd(name).arg(arguments).query_async(&mut redis.client().await).await.unwrap()
}

/// What a sign-in records.
fn recorded(login: &Login) -> Change {
    use gotrue_sidecar::session::{Aal, Origin};
    Change::Record {
        origin: Origin::SignIn,
        record: Box::new(Record {
            factor_id: None,
            user: login.user,
            session: login.session,
            refresh_ref: Some(reference(login)),
            previous_ref: None,
            counter: Some(login.counter),
            created_at: login.began,
            began_ms: login.began * 1000,
            begun_by_ms: 0,
            refreshed_at: login.issued,
            seen_at: Some(login.began),
            expires_at: login.expires,
            aal: Aal::parse(login.aal),
            amr: Some("password".to_owned()),
            role: Some("authenticated".to_owned()),
            client_id: None,
            anonymous: false,
            ip: None,
            user_agent: None,
        }),
        allowed_ms: None,
    }
}

/// What stands for its refresh token.
fn reference(login: &Login) -> gotrue_sidecar::session::RefreshRef {
    use gotrue_sidecar::token::{RefKey, RefreshToken};
    RefKey::derived(SECRET.as_bytes()).reference(&RefreshToken::new(login.refresh()))
}

/// GoTrue's error in its older form.
fn error(status: &str, code: &str) -> Vec<u8> {
    let number = status.split(' ').next().unwrap();
    let body = format!(r#"{{"code":{number},"error_code":"{code}","msg":"no"}}"#);
    answer(status, &[("Content-Type", "application/json"), ("X-Sb-Error-Code", code)], &body)
}

fn no_content() -> Vec<u8> {
    b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
}

fn json(body: &str) -> Vec<u8> {
    answer("200 OK", &[("Content-Type", "application/json")], body)
}

/// Always these bytes.
fn always(bytes: Vec<u8>) -> impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static {
    move |_| vec![Step::Send(bytes.clone())]
}
