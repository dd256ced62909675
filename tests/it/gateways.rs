//! The check behind real gateways, each run with the very file that `docs/gateways/` offers (§8).

mod forged;
mod services;
mod snippets;
mod statuses;
mod uses;

use serde_json::json;

use crate::support::{
    client::{Client, Tokens},
    gateway::Gateway,
    issuer,
    process::Process,
    redis::RedisServer,
    upstream::Upstream,
};

/// `check.timeout` as it is unless set, in time for every gateway: they give up after 250 ms to 1 s.
const IN_TIME: &str = "--check-timeout=100ms";

/// The headers by which the application knows whom it serves.
const IDENTITY: [&str; 6] =
    ["X-Auth-User", "X-Auth-Session", "X-Auth-Role", "X-Auth-Email", "X-Auth-Aal", "X-Auth-Expires"];

/// A sidecar with its Redis, before a GoTrue that hands tokens out.
struct Site {
    redis: RedisServer,
    sidecar: Process,
    gotrue: Client,
    _upstream: Upstream,
}

impl Site {
    async fn new(flags: &[&str]) -> Self {
        let redis = RedisServer::start();
        let upstream = Upstream::start(issuer::gotrue).await;
        let (store, gotrue) =
            (format!("--store-url={}", redis.url()), format!("--upstream-url={}", upstream.url));
        let secret = format!("--jwt-secret={}", issuer::SECRET);
        let mut flags = [flags, &[&store, &gotrue, &secret, "--jwt-jwks=off"]].concat();
        for patience in ["--store-timeout=10s", "--check-timeout=10s"] {
            let (name, _) = patience.split_once('=').unwrap();
            if !flags.iter().any(|flag| flag.starts_with(name)) {
                flags.push(patience); // no test here is about it unless it says so
            }
        }
        let sidecar = Process::start(&flags).await;
        let gotrue = Client::new(&sidecar.url);
        Self { redis, sidecar, gotrue, _upstream: upstream }
    }

    async fn gateways(&self) -> Vec<Gateway> {
        Gateway::all_before(self.sidecar.admin).await
    }

    async fn sign_in(&self) -> Tokens {
        Tokens::of(&self.gotrue.post("/token?grant_type=password", &json!({})).await)
    }

    async fn sign_out(&self, tokens: &Tokens) {
        assert_eq!(self.gotrue.logout(tokens, "?scope=local").await.status, 204);
    }
}

/// The header line of a request with that token.
fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// What the application must be told of a user of [`issuer::gotrue`].
fn identity(tokens: &Tokens) -> [(&'static str, String); 6] {
    let claims = tokens.claims();
    let values = [
        tokens.user.to_string(),
        tokens.session.to_string(),
        "authenticated".to_owned(),
        issuer::EMAIL.to_owned(),
        "aal1".to_owned(),
        claims["exp"].to_string(),
    ];
    let mut values = values.into_iter();
    IDENTITY.map(|name| (name, values.next().unwrap()))
}
