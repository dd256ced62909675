//! Nothing stays behind: connections, requests, open files, threads, keys. Invariants I8 and I10.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Method;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet};

use crate::support::{
    client::Client,
    issuer::{self, SECRET},
    process::{Process, eventually},
    redis::RedisServer,
    upstream::{Seen, Step, Upstream},
};

/// At once.
const CLIENTS: usize = 16;
/// Sign-ins and logouts of each.
const TURNS: usize = 100;
/// Of each kind that clients break off.
const BROKEN_OFF: usize = 200;

/// GoTrue, which takes its time over `/slow`.
fn script(seen: &Seen) -> Vec<Step> {
    let wait = seen.request_line().starts_with("GET /slow").then_some(Step::Wait(Duration::from_millis(50)));
    wait.into_iter().chain([Step::Send(issuer::said(seen))]).collect()
}

async fn started(upstream: &Upstream, redis: &RedisServer, more: &[&str]) -> Process {
    let flags = [
        format!("--upstream-url={}", upstream.url),
        format!("--store-url={}", redis.url()),
        format!("--jwt-secret={SECRET}"),
    ];
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--jwt-jwks=off", "--log-access=false"]);
    flags.extend(["--store-timeout=10s", "--check-timeout=10s"]); // a busy machine is no store that fails
    flags.extend(more);
    Process::start(&flags).await
}

async fn sign_in_and_out(process: &Process, turns: usize) {
    let client = Arc::new(Client::new(&process.url));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = Arc::clone(&client);
        clients.spawn(async move {
            for _ in 0..turns {
                let tokens = client.sign_in("a@b.example").await;
                assert_eq!(client.logout(&tokens, "").await.status, 204);
            }
        });
    }
    clients.join_all().await;
}

/// Asks about a live session, about one that has ended, and about none.
async fn check(process: &Process, turns: usize) {
    let client = Client::new(&format!("http://{}", process.admin));
    for _ in 0..turns {
        let tokens = issuer::somebody();
        for bearer in [Some(tokens.access.as_str()), Some("forged"), None] {
            let answer = client.request(Method::POST, "/check/rest/v1/todos", bearer, Some(&json!({}))).await;
            assert_eq!(answer.status, if bearer == Some(&tokens.access) { 200 } else { 401 });
        }
    }
}

/// Opens connections, sends this on each, and leaves.
async fn break_off(process: &Process, sent: &str) {
    break_off_at(process.address, sent).await;
}

async fn break_off_at(address: SocketAddr, sent: &str) {
    for _ in 0..BROKEN_OFF {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
    }
}

fn threads(process: &Process) -> String {
    let status = process.proc("status");
    status.lines().find(|line| line.starts_with("Threads:")).unwrap().to_owned()
}

#[tokio::test]
async fn after_thousands_of_requests_nothing_is_left_open() {
    let (upstream, redis) = (Upstream::start(script).await, RedisServer::start());
    let process = started(&upstream, &redis, &["--upstream-idle-timeout=100ms"]).await;
    let is_quiet = || async {
        let left = process.metric("gotrue_sidecar_connections").await
            + process.metric("gotrue_sidecar_http_requests_in_flight").await;
        (left == 0).then_some(())
    };
    sign_in_and_out(&process, 2).await;
    check(&process, 2).await;
    let quiet = || eventually(is_quiet, || "connections or requests stay".to_owned());
    quiet().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await; // idle connections to GoTrue are closed
    let (files, threads_before) = (process.open_files(), threads(&process));

    sign_in_and_out(&process, TURNS).await;
    check(&process, TURNS).await;
    break_off_at(process.admin, "").await;
    let bearer = issuer::somebody().access;
    let asked = format!("GET /check HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n\r\n");
    break_off_at(process.admin, &asked).await;
    break_off_at(process.admin, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    break_off(&process, "").await;
    break_off(&process, "GET /slow HTTP/1.1\r\n").await;
    break_off(&process, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    break_off(&process, "POST /token?grant_type=password HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        .await;
    break_off(&process, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;

    quiet().await;
    // one more or less: the probes come and go
    let as_before = || async { (process.open_files() <= files + 1).then_some(()) };
    eventually(as_before, || format!("{} files are open, {files} were", process.open_files())).await;
    assert_eq!(threads(&process), threads_before);
    assert_eq!(process.metric(r#"gotrue_sidecar_mirror_dropped_total{reason="store_failed"}"#).await, 0);
}

#[tokio::test]
async fn every_key_expires() {
    let (upstream, redis) = (Upstream::start(script).await, RedisServer::start());
    let process = started(&upstream, &redis, &["--session-ttl=2h"]).await;
    let client = Client::new(&process.url);
    for scope in ["?scope=local", "?scope=others", "?scope=global", ""] {
        let tokens = client.sign_in("a@b.example").await;
        client.refresh(&tokens).await;
        client.logout(&tokens, scope).await;
    }
    let mut commands = redis.client().await;
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("*").query_async(&mut commands).await.unwrap();
    for kind in ["session", "sessions", "revoked", "marks", "refresh"] {
        assert!(keys.iter().any(|key| key.contains(&format!(":{kind}"))), "no {kind} in {keys:?}");
    }
    for key in keys {
        let ttl: i64 = ::redis::cmd("TTL").arg(&key).query_async(&mut commands).await.unwrap();
        // as long as session.ttl, at most
        assert!((0..=2 * 60 * 60).contains(&ttl), "{key} lives for {ttl} s");
    }
}

#[tokio::test]
async fn after_sessions_and_their_time_no_key_is_left() {
    const LIFE: u64 = 2;
    let upstream =
        Upstream::start(|_| vec![Step::Send(issuer::signed_in(&issuer::somebody_for(LIFE)))]).await;
    let redis = RedisServer::start();
    let process = started(&upstream, &redis, &["--session-ttl=1s"]).await;
    let client = Client::new(&process.url);
    for _ in 0..50 {
        client.sign_in("a@b.example").await;
    }
    let keys = || async {
        let count: u64 = ::redis::cmd("DBSIZE").query_async(&mut redis.client().await).await.unwrap();
        count
    };
    assert!(keys().await > 0);
    // DBSIZE counts what has expired and was not cleaned up yet, which takes Redis some seconds
    eventually(|| async { (keys().await == 0).then_some(()) }, || "keys are left".to_owned()).await;
}
