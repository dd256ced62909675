//! What is broken behind the sidecar, and what its clients notice: contract §9 and invariants I1, I2, I5,
//! I7; dependency pitfalls 5, 6. The sidecar is its own binary, Redis is real; GoTrue is scripted, so that
//! it can fail half-way and be asked how often it was called.

mod gotrue;
mod redis;
mod returns;

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use http::{Method, Request, header};
use tokio::time::Instant;

use crate::support::{
    client::{Client, Tokens},
    http::{Answer, send},
    issuer::{self, SECRET},
    process::{PATIENCE, Process},
    upstream::Upstream,
};

/// `store.timeout` and `upstream.timeout` in these tests.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Where the store is not what fails.
const PATIENT_STORE: &str = "--store-timeout=10s";

/// What a request may take: less than two timeouts, so that two store calls in one request would show.
const BOUND: Duration = Duration::from_millis(1_800);

/// A sidecar that keeps sessions at `store`, in front of `upstream`.
async fn sidecar(upstream: &str, store: &str, more: &[&str]) -> Process {
    let mut flags = vec![
        format!("--upstream-url={upstream}"),
        format!("--store-url={store}"),
        format!("--upstream-timeout={}ms", TIMEOUT.as_millis()),
        format!("--jwt-secret={SECRET}"),
        "--jwt-jwks=off".to_owned(),
    ];
    if !more.contains(&PATIENT_STORE) {
        flags.push(format!("--store-timeout={}ms", TIMEOUT.as_millis()));
    }
    flags.extend(more.iter().map(|&flag| flag.to_owned()));
    Process::start(&flags.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Login,
    Refresh,
    Logout,
    User,
}

impl Ask {
    const ALL: [Self; 4] = [Self::Login, Self::Refresh, Self::Logout, Self::User];

    /// As a client of the session that `tokens` belong to.
    fn request(self, url: &str, tokens: &Tokens) -> Request<String> {
        let (method, path, body) = match self {
            Self::Login => (
                Method::POST,
                "/token?grant_type=password",
                r#"{"email":"a@b.example","password":"x"}"#.to_owned(),
            ),
            Self::Refresh => (
                Method::POST,
                "/token?grant_type=refresh_token",
                format!(r#"{{"refresh_token":"{}"}}"#, tokens.refresh),
            ),
            Self::Logout => (Method::POST, "/logout", String::new()),
            Self::User => (Method::GET, "/user", String::new()),
        };
        let request = Request::builder().method(method).uri(format!("{url}{path}"));
        let request = if matches!(self, Self::Logout | Self::User) {
            request.header(header::AUTHORIZATION, format!("Bearer {}", tokens.access))
        } else {
            request.header(header::CONTENT_TYPE, "application/json")
        };
        request.body(body).unwrap()
    }

    /// Sends it, and says how long the answer took.
    async fn send(self, url: &str, tokens: &Tokens) -> (Answer, Duration) {
        let began = Instant::now();
        let answer = send(self.request(url, tokens)).await.unwrap();
        (answer, began.elapsed())
    }
}

/// Whether Redis knows the session.
async fn is_recorded(redis: &mut MultiplexedConnection, tokens: &Tokens) -> bool {
    let key = format!("gotrue:{{{}}}:session:{}", tokens.user, tokens.session);
    ::redis::cmd("EXISTS").arg(key).query_async(redis).await.unwrap()
}

async fn readiness(process: &Process) -> u16 {
    let request = Request::get(format!("http://{}/readyz", process.admin)).body(String::new()).unwrap();
    send(request).await.unwrap().status.as_u16()
}

async fn liveness(process: &Process) -> u16 {
    let request = Request::get(format!("http://{}/livez", process.admin)).body(String::new()).unwrap();
    send(request).await.unwrap().status.as_u16()
}
