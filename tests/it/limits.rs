//! Limits (contract §11, I8): whoever keeps us waiting is cut off in time, and costs nobody else.
//! Bounds are short by flags; waits end with what the other side sees, not with a clock.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::{
    raw::{End, Raw},
    sidecar::Sidecar,
    upstream::{Step, Upstream, answer},
};

async fn hello() -> Upstream {
    Upstream::answering(answer("200 OK", &[], "hello")).await
}

fn start(upstream: &Upstream, flags: &[&str]) -> Sidecar {
    let url = format!("--upstream-url={}", upstream.url);
    let flags: Vec<&str> = flags.iter().copied().chain([url.as_str()]).collect();
    Sidecar::start(&flags)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_connection_that_sends_no_request_is_closed() {
    let upstream = hello().await;
    let sidecar = start(&upstream, &["--limits-header-read-timeout=300ms"]);
    let mut clients = JoinSet::new();
    for sent in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: a\r\nX",
    ] {
        let address = sidecar.address;
        clients.spawn(async move {
            let began = Instant::now();
            let mut client = Raw::connect(address).await;
            client.send(sent).await;
            let (got, _) = client.rest().await;
            let took = began.elapsed();
            assert!(!got.starts_with(b"HTTP/1.1 2"), "{sent:?}: {got:?}");
            assert!(took >= Duration::from_millis(290), "{sent:?} was closed after {took:?}");
        });
    }
    clients.join_all().await;
    assert!(upstream.connections().is_empty());
}

/// The time counts from the first byte of the head, whatever trickles in.
#[tokio::test]
async fn a_slow_head_is_not_waited_for() {
    let upstream = hello().await;
    let sidecar = start(&upstream, &["--limits-header-read-timeout=400ms"]);
    let mut client = Raw::connect(sidecar.address).await;
    let began = Instant::now();
    let mut sent = 0;
    while client.is_silent_for(Duration::from_millis(40)).await {
        client.send("G").await;
        sent += 1;
        assert!(began.elapsed() < Duration::from_secs(10), "still open after {sent} bytes");
    }
    client.closed().await;
}

/// The second head of a connection, too, and not only after the time for idle ones.
#[tokio::test]
async fn a_second_slow_head_is_not_waited_for() {
    let upstream = hello().await;
    let sidecar = start(&upstream, &["--limits-header-read-timeout=300ms", "--limits-idle-timeout=1h"]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send(format!("{GET}GET / HTT")).await;
    assert_eq!(client.answer().await.status(), 200);
    client.closed().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_later_than_a_silent_one() {
    let upstream = hello().await;
    let sidecar = start(&upstream, &["--limits-header-read-timeout=100ms", "--limits-idle-timeout=3s"]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send(GET).await;
    client.answer().await;
    assert!(client.is_silent_for(Duration::from_millis(300)).await, "kept alive");
    client.send(GET).await;
    client.answer().await;
    let began = Instant::now();
    assert_eq!(client.closed().await, End::Closed);
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_body_that_makes_no_progress_is_given_up() {
    let upstream = hello().await;
    for flags in
        [&["--limits-body-timeout=300ms"][..], &["--limits-body-timeout=300ms", "--store-url=memory:"]]
    {
        let sidecar = start(&upstream, flags);
        for path in ["/settings", "/token?grant_type=password", "/token?grant_type=refresh_token", "/logout"]
        {
            let before = upstream.connections().len();
            let mut client = Raw::connect(sidecar.address).await;
            client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")).await;
            client.rest().await;
            upstream.until("the end", |all| all[before.min(all.len())..].iter().all(|one| one.ended)).await;
        }
        drop(sidecar);
    }
    assert!(upstream.seen().is_empty());
}

/// Slow is not stuck: every part in time keeps a body going, whatever it takes in all.
#[tokio::test]
async fn a_slow_body_passes() {
    let upstream = hello().await;
    let sidecar = start(&upstream, &["--limits-body-timeout=2s"]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        client.send("x").await;
    }
    assert_eq!(client.answer().await.status(), 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::start(|_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 30);
        std::iter::once(Step::Send(head.into_bytes()))
            .chain(std::iter::repeat_n(Step::Send(vec![0; 1 << 20]), 1 << 10))
            .collect()
    })
    .await;
    let sidecar = start(&upstream, &["--limits-body-timeout=300ms"]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send(GET).await;
    upstream.until("the upstream is let go", |all| all.iter().any(|one| one.ended)).await;
    wait_until("the connection is closed", async || sidecar.metric("gotrue_sidecar_connections").await < 0.5)
        .await;
}

async fn wait_until(what: &str, mut true_: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !true_().await {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: never");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_upstream_that_stalls_half_way_ends_the_connection_without_an_end_of_the_body() {
    for (what, framing, part) in [
        ("sized", "Content-Length: 10", "hello"),
        ("chunked", "Transfer-Encoding: chunked", "5\r\nhello\r\n"),
    ] {
        for last in [Step::Hold, Step::Close] {
            let sent = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{part}");
            let steps = vec![Step::Send(sent.clone().into_bytes()), last];
            let upstream = Upstream::answering_in_turn(vec![steps]).await;
            for flags in [
                &["--limits-body-timeout=300ms"][..],
                &["--limits-body-timeout=300ms", "--store-url=memory:"],
            ] {
                let sidecar = start(&upstream, flags);
                for request in ["GET /settings", "POST /token?grant_type=password", "POST /elsewhere"] {
                    let mut client = Raw::connect(sidecar.address).await;
                    client.send(format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
                    let (got, _) = client.rest().await;
                    let got = String::from_utf8(got).unwrap();
                    let head = format!("HTTP/1.1 200 OK\r\n{}\r\n\r\n", framing.to_ascii_lowercase());
                    assert_eq!(got, format!("{head}{part}"), "{what} {request}");
                    drop(client);
                }
                upstream.until("the upstream is let go", |all| all.iter().all(|one| one.ended)).await;
            }
        }
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_given_up_in_time() {
    let upstream = Upstream::start(|_| vec![Step::Hold]).await;
    for flags in [&["--upstream-timeout=300ms"][..], &["--upstream-timeout=300ms", "--store-url=memory:"]] {
        let sidecar = start(&upstream, flags);
        for request in ["GET /settings", "POST /token?grant_type=password", "POST /logout"] {
            let mut client = Raw::connect(sidecar.address).await;
            client.send(format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
            let got = client.answer().await;
            assert_eq!(
                (got.status(), got.header("x-sb-error-code")),
                (504, vec!["request_timeout"]),
                "{request}"
            );
            assert_eq!(got.header("connection"), [""; 0], "the client's connection is none the worse");
        }
        let failed = sidecar.metric("gotrue_sidecar_upstream_errors_total{reason=\"timeout\"}").await;
        assert!((failed - 3.0).abs() < 0.5, "{failed}");
        upstream.until("the upstream is let go", |all| all.iter().all(|one| one.ended)).await;
    }
}

/// Those beyond the limit wait in the backlog, and get their turn.
#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let upstream = hello().await;
    let sidecar = start(&upstream, &["--limits-connections=2"]);
    let mut first = Raw::connect(sidecar.address).await;
    let mut second = Raw::connect(sidecar.address).await;
    let mut third = Raw::connect(sidecar.address).await;
    for client in [&mut first, &mut second] {
        client.send(GET).await;
        assert_eq!(client.answer().await.status(), 200);
    }
    third.send(GET).await;
    assert!(third.is_silent_for(Duration::from_millis(100)).await);
    drop(first);
    assert_eq!(third.answer().await.status(), 200);
    second.send(GET).await;
    assert_eq!(second.answer().await.status(), 200);
}

/// The two bodies that are read here (contract §11), and none other.
#[tokio::test]
async fn only_bodies_that_are_read_here_have_a_limit() {
    let upstream = hello().await;
    let sidecar = start(&upstream, &["--store-url=memory:", "--limits-request-body-bytes=1KiB"]);
    let post = |path: &str, size: usize, chunked: bool| {
        let body = "x".repeat(size);
        if chunked {
            let lines = "Transfer-Encoding: chunked";
            format!("POST {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\n")
        } else {
            format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}")
        }
    };
    for chunked in [false, true] {
        for (path, size, status) in [
            ("/token?grant_type=refresh_token", 1024, 200),
            ("/token?grant_type=refresh_token", 1025, 413),
            ("/settings", 1025, 200),
            ("/logout", 1025, 200),
            ("/signup", 1025, 200),
        ] {
            let mut client = Raw::connect(sidecar.address).await;
            client.send(post(path, size, chunked)).await;
            let got = client.answer().await;
            assert_eq!(got.status(), status, "{path} {size} {chunked} {got:?}");
            if status == 413 {
                assert_eq!(got.header("x-sb-error-code"), ["request_entity_too_large"]);
            }
        }
    }
    assert_eq!(upstream.seen().len(), 8);
    let sidecar = start(&upstream, &["--limits-request-body-bytes=1KiB"]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send(post("/token?grant_type=refresh_token", 5000, false)).await;
    assert_eq!(client.answer().await.status(), 200, "nothing is read without a store");
}

/// The answer to a body that is too large comes before the body.
#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_not_read() {
    let upstream = hello().await;
    let sidecar = start(&upstream, &["--store-url=memory:"]);
    let mut client = Raw::connect(sidecar.address).await;
    client
        .send("POST /token?grant_type=refresh_token HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1073741824\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status(), 413);
    client.closed().await;
    assert!(upstream.connections().is_empty());
}

#[tokio::test]
async fn a_thousand_clients_at_once_are_served_over_few_connections() {
    let upstream = Upstream::start(|seen| {
        vec![Step::Wait(Duration::from_millis(5)), Step::Send(answer("200 OK", &[], seen.request_line()))]
    })
    .await;
    let sidecar = start(&upstream, &["--upstream-max-connections=20"]);
    let mut clients = JoinSet::new();
    for number in 0..1000 {
        let address = sidecar.address;
        clients.spawn(async move {
            let mut client = Raw::connect(address).await;
            client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let got = client.answer().await;
            assert_eq!(got.text(), format!("GET /{number} HTTP/1.1"));
        });
    }
    clients.join_all().await;
    assert!(upstream.connections().len() <= 20, "{}", upstream.connections().len());
}
