//! What it says of what it does, in the log, in metrics and in Redis; and what must be in none of them.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream as Blocking,
    sync::{Arc, Mutex},
};

use http::{Method, header};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::*;
use crate::support::{
    client::{Client, PASSWORD, Tokens},
    http::send,
    issuer::{self, EMAIL},
    process::eventually,
    redis::RedisServer,
    upstream::{Gate, Seen, Step},
};

/// The lines of a target, from a log in JSON.
fn lines(process: &Process, target: &str) -> Vec<Value> {
    let text = process.stderr();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line| line["target"] == target).collect()
}

/// So many lines of a target, once they are there.
async fn wait_for(process: &Process, target: &str, count: usize) -> Vec<Value> {
    let there = || async { (lines(process, target).len() >= count).then(|| lines(process, target)) };
    eventually(there, || format!("not {count} lines of {target} in\n{}", process.stderr())).await
}

#[tokio::test]
async fn every_request_is_a_line_whether_answered_refused_or_left() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen: &Seen| {
        let wait = seen.request_line().starts_with("GET /settings").then(|| Step::Until(held.clone()));
        wait.into_iter().chain([Step::Send(issuer::said(seen))]).collect()
    })
    .await;
    let process = started(&upstream, &["--path-prefix=/auth/v1"]).await;
    let traced = [
        ("X-Request-Id", "mine-1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let answered = get(&format!("{}/auth/v1/user?apikey=canary", process.url), &traced).await;
    assert!(answered.headers.get("x-request-id").is_none(), "answers get no header added");
    assert_eq!(get(&format!("{}/elsewhere", process.url), &[]).await.status, 404);
    let mut client = TcpStream::connect(process.address).await.unwrap();
    client.write_all(b"GET /auth/v1/settings HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    eventually(|| async { (upstream.seen().len() == 2).then_some(()) }, || "it does not arrive".to_owned())
        .await;
    drop(client);

    let said = wait_for(&process, "access", 3).await;
    let of = |name: &str| said.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("route"), ["/user", "other", "/settings"]);
    assert_eq!(of("status"), [200, 404, 499]);
    assert_eq!(of("aborted"), [false, false, true]);
    assert_eq!(
        (&said[0]["request_id"], &said[0]["trace_id"]),
        (&"mine-1".into(), &"0af7651916cd43dd8448eb211c80319c".into())
    );
    assert_eq!((&said[0]["method"], &said[0]["client"]), (&"GET".into(), &"127.0.0.1".into()));
    assert_eq!(said[0]["bytes"], answered.body.len());
    for line in &said {
        assert!(line["duration_ms"].is_number() && line["upstream_ms"].is_number(), "{line}");
        assert!(!line["request_id"].as_str().unwrap().is_empty(), "{line}");
    }
    // GoTrue gets the id that the log has
    assert_eq!(upstream.seen()[1].header("x-request-id"), [said[2]["request_id"].as_str().unwrap()]);
}

#[tokio::test]
async fn who_ended_what_and_why_is_an_audit_line() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let process = started(&upstream, &["--store-url=memory:", "--enforce=true"]).await;
    let client = Client::new(&process.url);
    let tokens = client.sign_in("a@b.example").await;
    assert_eq!(client.logout(&tokens, "?scope=local").await.status, 204);
    assert_eq!(client.user(&tokens).await.status, 403);
    assert_eq!(client.refresh(&tokens).await.status, 400);

    let mut said = wait_for(&process, "audit", 4).await;
    // GoTrue's 204 says it once more, when there is nothing left to end
    assert_eq!(said.remove(1)["count"], 0);
    for line in &said {
        assert_eq!(line["user"], tokens.user.to_string(), "{line}");
        assert_eq!(line["session"], tokens.session.to_string(), "{line}");
        assert!(line["request_id"].is_string(), "{line}");
    }
    let told = |line: &Value| {
        ["message", "reason", "result", "route"]
            .map(|name| line[name].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(told(&said[0]), ["sessions ended", "logout", "ended", "/logout"]);
    assert_eq!(told(&said[1]), ["a request was refused", "session_revoked", "refused", "/user"]);
    assert_eq!(
        told(&said[2]),
        ["a refresh of a revoked session was refused", "refresh_revoked", "refused", "/token"]
    );
}

#[tokio::test]
async fn the_log_can_be_text() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let process = started(&upstream, &["--store-url=memory:", "--log-format=text"]).await;
    let client = Client::new(&process.url);
    let tokens = client.sign_in("a@b.example").await;
    assert_eq!(client.logout(&tokens, "?scope=local").await.status, 204);
    let audit = process.line("sessions ended").await;
    for part in ["audit", &format!("session={}", tokens.session), "reason=logout", "result=ended"] {
        assert!(audit.contains(part), "{part}: {audit}");
    }
    let access = process.line("access route=/logout").await;
    assert!(access.contains("status=204") && access.contains("aborted=false"), "{access}");
    assert!(process.stderr().lines().all(|line| !line.starts_with('{')));
}

#[tokio::test]
async fn a_level_above_info_leaves_requests_out() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let process = started(&upstream, &["--log-access=false"]).await;
    assert_eq!(get(&format!("{}/user", process.url), &[]).await.status, 200);
    process.signal(Signal::TERM);
    process.line("drained").await;
    assert_eq!(lines(&process, "access"), Vec::<Value>::new());
}

#[tokio::test]
async fn metrics_come_as_text_and_as_openmetrics() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let process = started(&upstream, &[]).await;
    assert_eq!(get(&format!("{}/user", process.url), &[]).await.status, 200);
    let page = format!("http://{}/metrics", process.admin);
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let (text, open) = (get(&page, &[]).await, get(&page, &[("Accept", prometheus)]).await);
    assert!(text.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(open.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(!text.body.ends_with(b"# EOF\n") && open.body.ends_with(b"# EOF\n"));
    let counted = r#"gotrue_sidecar_http_requests_total{route="/user",method="GET",code="200"} 1"#;
    for answer in [text, open] {
        assert!(String::from_utf8_lossy(&answer.body).lines().any(|line| line.starts_with(counted)));
    }
}

/// Everything that was ever sent to a Redis from here on, as `MONITOR` shows it.
fn monitored(redis: &RedisServer) -> Arc<Mutex<String>> {
    let mut stream = Blocking::connect(("127.0.0.1", redis.port())).unwrap();
    stream.write_all(b"AUTH redis-canary\r\nMONITOR\r\n").unwrap();
    let mut lines = BufReader::new(stream);
    let mut ready = String::new();
    lines.read_line(&mut ready).unwrap();
    lines.read_line(&mut ready).unwrap();
    assert_eq!(ready, "+OK\r\n+OK\r\n");
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap_or(0) > 0 {
            kept.lock().unwrap().push_str(&line);
            line.clear();
        }
    });
    seen
}

#[tokio::test]
async fn no_secret_is_in_the_log_in_metrics_or_in_redis() {
    let redis = RedisServer::with_options(&["--requirepass", "redis-canary"]);
    let monitor = monitored(&redis);
    let upstream = Upstream::start(issuer::gotrue).await;
    let store = format!("--store-url=redis://:redis-canary@127.0.0.1:{}", redis.port());
    let process = started(&upstream, &[&store, "--enforce=true", "--log-level=trace"]).await;
    let client = Client::new(&process.url);
    let mut all = Vec::new();
    for query in ["?scope=local", "?scope=global", "?scope=others"] {
        let tokens = client.sign_in(EMAIL).await;
        let refreshed = Tokens::of(&client.refresh(&tokens).await);
        assert_eq!(client.user(&refreshed).await.status, 200);
        assert_eq!(client.logout(&refreshed, query).await.status, 204);
        client.user(&refreshed).await;
        client.refresh(&refreshed).await; // refused, for the first two
        all.extend([tokens, refreshed]);
    }
    // what is wrong is not shown either
    let odd = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/logout?access_token=query-canary", process.url))
        .header(header::AUTHORIZATION, "Bearer bearer-canary.e30.x")
        .header(header::COOKIE, "sb-access-token=cookie-canary")
        .body("body-canary".to_owned());
    send(odd.unwrap()).await.unwrap();
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    stream.write_all(b"GET /user?q=raw-canary HTTP/1.1\r\nAuthorization: Bearer raw-canary\r\nContent-Length: x\r\n\r\n").await.unwrap();

    let recorded =
        String::from_utf8(get(&format!("http://{}/metrics", process.admin), &[]).await.body.to_vec())
            .unwrap();
    process.signal(Signal::TERM);
    process.line("drained").await;
    let sent = monitor.lock().unwrap().clone();
    assert!(sent.contains("EVALSHA") && process.stderr().contains("sessions ended"), "something was said");

    let mut secrets: Vec<&str> =
        all.iter().flat_map(|tokens| [tokens.access.as_str(), &tokens.refresh]).collect();
    // a signature is as good as its token
    secrets.extend(all.iter().map(|tokens| tokens.access.rsplit('.').next().unwrap()));
    secrets.extend([
        PASSWORD,
        EMAIL,
        SECRET,
        "query-canary",
        "bearer-canary",
        "cookie-canary",
        "body-canary",
        "raw-canary",
    ]);
    let stderr = process.stderr();
    for secret in secrets {
        for (place, text) in [("the log", &stderr), ("metrics", &recorded), ("Redis", &sent)] {
            assert!(!text.contains(secret), "{secret} is in {place}");
        }
    }
    assert!(!stderr.contains("redis-canary") && !recorded.contains("redis-canary"));
    assert_eq!(sent.matches("redis-canary").count(), 0, "Redis itself hides it");
}
