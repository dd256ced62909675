//! Input that nobody should send, from clients and from GoTrue: it passes untouched or is refused
//! clearly, nothing is stored, nothing panics, and nothing secret shows (contract I7, issue "Bad input").

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::support::{
    http::send,
    process::Process,
    raw::Raw,
    redis::RedisServer,
    sidecar::Sidecar,
    upstream::{Step, Upstream, answer},
};

const SECRET: &str = "--jwt-secret=super-secret-jwt-token-with-at-least-32-characters";

fn start(upstream: &Upstream, flags: &[&str]) -> Sidecar {
    let url = format!("--upstream-url={}", upstream.url);
    let flags: Vec<&str> = flags.iter().copied().chain([url.as_str()]).collect();
    Sidecar::start(&flags)
}

/// Routes where bodies are read, tokens matter or answers are inspected.
const ROUTES: [&str; 9] = [
    "POST /token?grant_type=password",
    "POST /token?grant_type=refresh_token",
    "POST /token?grant_type=%zz&&",
    "POST /signup",
    "POST /verify",
    "POST /logout?scope=%00",
    "PUT /user",
    "POST /oauth/token",
    "PUT /admin/users/not-a-uuid",
];

#[tokio::test]
async fn bodies_that_mean_nothing_pass_as_they_are() {
    let upstream =
        Upstream::answering(answer("400 Bad Request", &[("Content-Type", "application/json")], "{}")).await;
    let redis = RedisServer::start();
    let sidecar = start(&upstream, &[SECRET, &format!("--store-url={}", redis.url())]);
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\"text\"",
        b"{\"refresh_token\":1}",
        b"{\"refresh_token\":null,\"refresh_token\":{}}",
        b"{\"refresh_token\":\"\xff\xfe\"}",
        b"{\"refresh_token\":\"a\"} trailing",
        b"\xef\xbb\xbf{\"refresh_token\":\"a\"}",
        b"\0\0\0",
        deep.as_bytes(),
    ];
    for route in ROUTES {
        let mut client = Raw::connect(sidecar.address).await;
        for body in bodies {
            let head = format!(
                "{route} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            client.send(&[head.as_bytes(), body].concat()).await;
            assert_eq!(client.answer().await.text(), "{}", "{route}");
            assert!(upstream.seen().pop().unwrap().body == body, "{route}: {body:?} has changed");
        }
    }
    assert_eq!(keys(&redis).await, [""; 0]);
}

async fn keys(redis: &RedisServer) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query_async(&mut redis.client().await).await.unwrap()
}

#[tokio::test]
async fn answers_that_mean_nothing_pass_as_they_are() {
    let deep = "[".repeat(100_000);
    let session = r#""user":{"id":"5e551040-0000-4000-8000-000000000001"}"#;
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[1]".to_vec(),
        b"\xff\xfe".to_vec(),
        b"<html>".to_vec(),
        deep.into_bytes(),
        format!(r#"{{"access_token":1,"refresh_token":2,{session}}}"#).into_bytes(),
        format!(r#"{{"access_token":"a.b.c","refresh_token":"x",{session}}}"#).into_bytes(),
        format!(r#"{{"access_token":"","refresh_token":"",{session}}}"#).into_bytes(),
        format!(r#"{{"access_token":"..","refresh_token":"{}",{session}}}"#, "x".repeat(10_000)).into_bytes(),
        br#"{"access_token":"e30.e30.e30","refresh_token":"x","user":{"id":"not-a-uuid"}}"#.to_vec(),
    ];
    let redis = RedisServer::start();
    for body in bodies {
        let head = format!(
            "HTTP/1.1 200 OK\r\nsb-auth-user-id: not-a-uuid\r\nsb-auth-session-id: \u{fc}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let upstream = Upstream::answering([head.as_bytes(), &body].concat()).await;
        let sidecar = start(&upstream, &[SECRET, &format!("--store-url={}", redis.url())]);
        let mut client = Raw::connect(sidecar.address).await;
        for route in ROUTES {
            client.send(format!("{route} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
            let got = client.answer().await;
            assert!(got.status() == 200 && got.body == body, "{route}: {got:?}");
            assert_eq!(got.header("sb-auth-user-id"), ["not-a-uuid"]);
        }
    }
    assert_eq!(keys(&redis).await, [""; 0]);
}

#[tokio::test]
async fn credentials_that_mean_nothing_pass_as_they_are() {
    let upstream = Upstream::answering(answer("401 Unauthorized", &[], "{}")).await;
    let redis = RedisServer::start();
    let sidecar = start(&upstream, &[SECRET, "--enforce=true", &format!("--store-url={}", redis.url())]);
    let long = format!("Bearer {}", "a".repeat(30_000));
    for credential in [
        "",
        "Bearer",
        "Bearer ",
        "bearer x",
        "Bearer a b c",
        "Basic dXNlcjpwYXNz",
        "Bearer ..",
        "Bearer a.b",
        "Bearer a.b.c.d.e",
        "Bearer e30.e30.e30",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6Ii4uLy4uIn0.e30.AA",
        "Bearer \u{fc}",
        &long,
    ] {
        for route in ["GET /user", "POST /logout", "PUT /user", "DELETE /factors/x", "GET /settings"] {
            let mut client = Raw::connect(sidecar.address).await;
            client
                .send(format!(
                    "{route} HTTP/1.1\r\nHost: a\r\nAuthorization: {credential}\r\nContent-Length: 0\r\n\r\n"
                ))
                .await;
            assert_eq!(client.answer().await.status(), 401, "{route} {credential}");
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(seen.header("authorization"), [credential.trim()], "{route}");
        }
    }
    assert_eq!(keys(&redis).await, [""; 0]);
}

/// Bytes as they come: good requests with something replaced, cut out, doubled or put in.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let good = prop_oneof![
        Just(&b"POST /token?grant_type=refresh_token HTTP/1.1\r\nHost: a\r\nContent-Length: 21\r\n\r\n{\"refresh_token\":\"a\"}"[..]),
        Just(&b"POST /logout HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a.b.c\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"[..]),
        Just(&b"GET http://a/b?c HTTP/1.0\r\nConnection: keep-alive, x\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]),
        Just(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a"[..]),
    ];
    let bytes = prop::collection::vec(
        prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), any::<u8>()],
        0..6,
    );
    let change = (any::<prop::sample::Index>(), 0..8_usize, bytes);
    (good, prop::collection::vec(change, 0..5)).prop_map(|(good, changes)| {
        let mut bytes = good.to_vec();
        for (at, cut, new) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, new);
        }
        bytes
    })
}

#[tokio::test]
async fn no_bytes_of_a_client_are_fatal() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &[SECRET, "--store-url=memory:", "--limits-header-read-timeout=300ms"]);
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::default()));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let bytes = mutated().new_tree(&mut runner).unwrap().current();
        let address = sidecar.address;
        clients.spawn(async move {
            let mut client = Raw::connect(address).await;
            let middle = bytes.len() / 2;
            client.send(&bytes[..middle]).await;
            tokio::task::yield_now().await;
            client.send(&bytes[middle..]).await;
            client.finish_sending().await;
            let (got, _) = client.rest().await;
            let got = String::from_utf8_lossy(&got).into_owned();
            assert!(!got.contains("HTTP/1.1 500"), "{got}");
        });
        if clients.len() >= 40 {
            clients.join_next().await.unwrap().unwrap();
        }
    }
    clients.join_all().await;
    let mut client = Raw::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "hello");
    for seen in upstream.seen() {
        assert_eq!(seen.header("host").len(), 1, "{seen:?}");
        assert!(
            seen.header("content-length").len() + seen.header("transfer-encoding").len() <= 1,
            "{seen:?}"
        );
    }
}

/// Something secret in every place that a request and its answer have.
const CANARY: &str = "c4n4ry";

#[tokio::test]
async fn nothing_secret_shows_in_log_metrics_or_errors() {
    let upstream = Upstream::start(|seen| match seen.request_line().split(' ').nth(1).unwrap() {
        path if path.starts_with("/hang-up") => vec![Step::Close],
        path if path.starts_with("/garbage") => vec![Step::Send(format!("{CANARY}\r\n\r\n").into_bytes()), Step::Close],
        path if path.starts_with("/half") => {
            vec![Step::Send(format!("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{CANARY}").into_bytes()), Step::Close]
        }
        _ => vec![Step::Send(answer(
            "200 OK",
            &[("Content-Type", "application/json"), ("Set-Cookie", "a=c4n4ry"), ("Location", "/#access_token=c4n4ry")],
            r#"{"access_token":"c4n4ry.c4n4ry.c4n4ry","refresh_token":"c4n4ry","user":{"email":"c4n4ry@example.com"}}"#,
        ))],
    })
    .await;
    let url = format!("--upstream-url={}", upstream.url);
    let mut process =
        Process::start(&[&url, SECRET, "--store-url=memory:", "--log-level=trace", "--path-prefix=/p"]).await;
    let mut errors = String::new();
    for route in ROUTES.iter().copied().chain([
        "GET /user",
        "GET /verify",
        "GET /hang-up",
        "GET /garbage",
        "GET /half",
        "C4N4RY /x",
    ]) {
        let (method, target) = route.split_once(' ').unwrap();
        let (path, mark) = (target, if target.contains('?') { '&' } else { '?' });
        for (prefix, more) in [
            ("/p", ""),
            ("", ""),
            ("/p", "Content-Length: c4n4ry\r\n"),
            ("/p", "c4n4ry\r\n"),
            ("/p", "Connection: c4n4ry\r\nX-Forwarded-For: c4n4ry\r\n"),
        ] {
            let request = format!(
                "{method} {prefix}{path}{mark}token=c4n4ry&email=c4n4ry@example.com HTTP/1.1\r\nHost: c4n4ry\r\n\
                 Authorization: Bearer c4n4ry.c4n4ry.c4n4ry\r\nApikey: c4n4ry\r\nCookie: c4n4ry=c4n4ry\r\nX-C4n4ry: c4n4ry\r\n\
                 User-Agent: c4n4ry\r\nReferer: http://c4n4ry/\r\n{more}\r\n"
            );
            let mut client = Raw::connect(process.address).await;
            client.send(request).await;
            match client.try_answer_to(method).await {
                Some(got) if got.status() != 200 => {
                    errors += &(got.head + &String::from_utf8_lossy(&got.body));
                }
                _ => {}
            }
        }
    }
    let metrics =
        http::Request::get(format!("http://{}/metrics", process.admin)).body(String::new()).unwrap();
    let metrics = send(metrics).await.unwrap();
    process.line("\"/user\"").await;
    process.signal(rustix::process::Signal::TERM);
    process.ended().await;
    let log = process.stderr();
    assert!(errors.contains("502") && errors.contains("400") && errors.contains("404"), "{errors}");
    for (place, text) in [
        ("an error", errors),
        ("the metrics", String::from_utf8(metrics.body.to_vec()).unwrap()),
        ("the log", log),
    ] {
        let lines: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains(CANARY)).collect();
        assert!(lines.is_empty(), "{place} shows {lines:?}");
    }
}
