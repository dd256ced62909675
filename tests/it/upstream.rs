//! GoTrue absent, slow, broken or hung up (contract §11: 502 and 504 in GoTrue's form, never 500), the
//! connections to it, and TLS towards it.

use std::fs;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    certificates,
    raw::{Raw, Received},
    redis::free_port,
    sidecar::Sidecar,
    until,
    upstream::{Connection, Step, Upstream, answer},
};

const GET: &str = "GET /settings HTTP/1.1\r\nHost: a\r\n\r\n";

async fn get(sidecar: &Sidecar) -> Received {
    let mut client = Raw::connect(sidecar.address).await;
    client.send(GET).await;
    client.answer().await
}

fn start(url: &str, flags: &[&str]) -> Sidecar {
    let url = format!("--upstream-url={url}");
    let flags: Vec<&str> = flags.iter().copied().chain([url.as_str()]).collect();
    Sidecar::start(&flags)
}

async fn errors(sidecar: &Sidecar, reason: &str) -> f64 {
    sidecar.metric(&format!("gotrue_sidecar_upstream_errors_total{{reason=\"{reason}\"}}")).await
}

/// Waits until the kernel knows on the sidecar's side that they were closed: on a busy machine the news may still be on
/// its way when whoever closed them has gone on.
async fn are_known_to_be_closed(connections: &[Connection]) {
    let ends: Vec<_> = connections.iter().map(|one| format!(":{:04X}", one.from)).collect();
    until("closed", async || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut established = sockets.filter(|fields| fields[3] == "01");
        !established.any(|fields| ends.iter().any(|end| fields[1].ends_with(end)))
    })
    .await;
}

/// An address that refuses, and that nobody else is given meanwhile.
fn nobody() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_502_in_either_form() {
    let sidecar = start(&nobody(), &[]);
    let got = get(&sidecar).await;
    // Dated, as GoTrue's own answers are.
    let (undated, date) = got.head.split_once("date: ").unwrap();
    let (date, rest) = date.split_once("\r\n").unwrap();
    assert_eq!((date.len(), date.ends_with(" GMT")), (29, true), "{date}");
    assert_eq!(
        undated.to_owned() + rest,
        "HTTP/1.1 502 Bad Gateway\r\nvary: Origin\r\ncontent-type: application/json\r\nx-sb-error-code: bad_gateway\r\n\
         content-length: 91\r\n\r\n"
    );
    assert_eq!(
        got.text(),
        r#"{"code":502,"error_code":"bad_gateway","msg":"The authentication server cannot be reached"}"#
    );
    let mut client = Raw::connect(sidecar.address).await;
    for _ in 0..2 {
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nX-Supabase-Api-Version: 2024-01-01\r\nOrigin: https://b.example\r\n\r\n")
            .await;
        let got = client.answer().await;
        assert_eq!(got.status(), 502);
        assert_eq!(
            got.text(),
            r#"{"code":"bad_gateway","message":"The authentication server cannot be reached"}"#
        );
        assert_eq!(got.header("x-supabase-api-version"), ["2024-01-01"]);
        assert_eq!(got.header("access-control-allow-origin"), ["*"]);
        assert_eq!(got.header("vary"), ["Origin"]);
    }
    assert!((errors(&sidecar, "connect").await - 3.0).abs() < 0.5);
}

#[tokio::test]
async fn an_upstream_that_comes_later_is_found() {
    let url = nobody();
    let sidecar = start(&url, &[]);
    assert_eq!(get(&sidecar).await.status(), 502);
    let listener = TcpListener::bind(url.strip_prefix("http://").unwrap()).await.unwrap();
    let _upstream = Upstream::on(listener, |_| vec![Step::Send(answer("200 OK", &[], "hello"))]);
    assert_eq!(get(&sidecar).await.status(), 200);
}

#[tokio::test]
async fn an_upstream_that_hangs_up_without_an_answer_is_502() {
    let upstream = Upstream::answering_in_turn(vec![vec![Step::Close]]).await;
    for flags in [&[][..], &["--store-url=memory:"]] {
        let sidecar = start(&upstream.url, flags);
        for request in ["GET /settings", "POST /token?grant_type=password", "POST /logout", "POST /verify"] {
            let mut client = Raw::connect(sidecar.address).await;
            client.send(format!("{request} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
            let got = client.answer().await;
            assert_eq!(
                (got.status(), got.header("x-sb-error-code")),
                (502, vec!["bad_gateway"]),
                "{request}"
            );
        }
        assert!((errors(&sidecar, "reset").await - 4.0).abs() < 0.5);
    }
}

/// A request is sent once: whoever hung up may have acted on it.
#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    let upstream = Upstream::answering_in_turn(vec![
        vec![Step::Send(answer("200 OK", &[], "hello"))],
        vec![Step::Close],
        vec![Step::Send(answer("200 OK", &[], "hello"))],
    ])
    .await;
    let sidecar = start(&upstream.url, &[]);
    let statuses = [get(&sidecar).await.status(), get(&sidecar).await.status(), get(&sidecar).await.status()];
    assert_eq!(statuses, [200, 502, 200]);
    assert_eq!(upstream.seen().len(), 3);
}

/// A connection that was closed while nobody used it costs nobody an answer.
#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_not_missed() {
    let upstream =
        Upstream::answering_in_turn(vec![vec![Step::Send(answer("200 OK", &[], "hello")), Step::Close]])
            .await;
    for flags in [&[][..], &["--store-url=memory:"]] {
        let sidecar = start(&upstream.url, flags);
        let mut client = Raw::connect(sidecar.address).await;
        for turn in 0..50 {
            client.send("POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}").await;
            assert_eq!(client.answer().await.status(), 200, "{turn}");
            upstream.until("closed", |all| all.iter().all(|one| one.ended)).await;
            are_known_to_be_closed(&upstream.connections()).await;
        }
    }
    assert_eq!(upstream.seen().len(), 100);
}

#[tokio::test]
async fn answers_that_announce_the_end_of_their_connection_are_passed_on() {
    let upstream = Upstream::answering(answer("200 OK", &[("Connection", "close")], "hello")).await;
    let sidecar = start(&upstream.url, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    for _ in 0..5 {
        client.send(GET).await;
        assert_eq!(client.answer().await.text(), "hello");
    }
    assert_eq!(upstream.connections().len(), 5);
}

#[tokio::test]
async fn idle_connections_are_closed_after_their_time() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar =
        start(&upstream.url, &["--upstream-idle-timeout=100ms", "--limits-header-read-timeout=200ms"]);
    get(&sidecar).await;
    upstream.until("closed", |all| all.iter().all(|one| one.ended)).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_of_connections_wait_their_turn() {
    let upstream =
        Upstream::start(|seen| vec![Step::Hold, Step::Send(answer("200 OK", &[], seen.request_line()))])
            .await;
    let sidecar = start(&upstream.url, &["--upstream-max-connections=1"]);
    let mut first = Raw::connect(sidecar.address).await;
    first.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.until("the first", |all| all.len() == 1).await;
    let mut second = Raw::connect(sidecar.address).await;
    second.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(second.is_silent_for(std::time::Duration::from_millis(50)).await);
    assert_eq!(upstream.seen().len(), 1);
    upstream.go_on();
    assert_eq!(first.answer().await.text(), "GET /1 HTTP/1.1");
    upstream.go_on();
    assert_eq!(second.answer().await.text(), "GET /2 HTTP/1.1");
    assert_eq!(upstream.connections().len(), 1);
}

/// An answer before the request's end leaves a connection that still waits for the client: nobody else
/// must wait there, too.
#[tokio::test]
async fn a_client_that_stalls_after_its_answer_holds_up_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = start(&format!("http://{}", listener.local_addr().unwrap()), &["--upstream-timeout=2s"]);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1024];
                while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(&answer("401 Unauthorized", &[], "early")).await;
                }
            });
        }
    });
    let mut stalling = Raw::connect(sidecar.address).await;
    stalling.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n").await;
    assert_eq!(stalling.answer().await.text(), "early");
    for _ in 0..3 {
        assert_eq!(get(&sidecar).await.status(), 401);
    }
}

/// A client that leaves takes its request back, where no session can hang on it.
#[tokio::test]
async fn a_client_that_leaves_frees_its_connection() {
    let upstream = Upstream::answering_in_turn(vec![vec![Step::Hold]]).await;
    let sidecar = start(&upstream.url, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send(GET).await;
    upstream.until("the request", |all| all.len() == 1).await;
    drop(client);
    upstream.until("the end", |all| all.iter().all(|one| one.ended)).await;
}

/// "Requests that got no complete answer from GoTrue."
#[tokio::test]
async fn an_answer_that_breaks_off_is_counted() {
    let half = Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec());
    let upstream =
        Upstream::answering_in_turn(vec![vec![half.clone(), Step::Close], vec![half, Step::Hold]]).await;
    let sidecar = start(&upstream.url, &["--limits-body-timeout=100ms"]);
    for reason in ["reset", "timeout"] {
        let mut client = Raw::connect(sidecar.address).await;
        client.send(GET).await;
        client.rest().await;
        assert!((errors(&sidecar, reason).await - 1.0).abs() < 0.5, "{reason}");
    }
}

#[tokio::test]
async fn an_upstream_behind_tls_is_trusted_by_its_ca_only() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates::make(folder.path());
    certificates::make(other.path());
    let upstream =
        Upstream::with_tls(folder.path(), |_| vec![Step::Send(answer("200 OK", &[], "hello"))]).await;
    let ca = |folder: &std::path::Path| format!("--upstream-ca-file={}", folder.join("ca.pem").display());
    let sidecar = start(&upstream.url, &[&ca(folder.path())]);
    for _ in 0..3 {
        assert_eq!(get(&sidecar).await.text(), "hello");
    }
    assert_eq!(upstream.connections().len(), 1);
    let sidecar = start(&upstream.url, &[&ca(other.path())]);
    let got = get(&sidecar).await;
    assert_eq!(got.status(), 502);
    assert!(!got.text().to_lowercase().contains("certificate"), "the reason is ours to know: {got:?}");
    assert!(errors(&sidecar, "connect").await > 0.5);
    assert_eq!(upstream.seen().len(), 3);
    fs::remove_file(folder.path().join("ca.pem")).unwrap();
}

/// GoTrue on the right port without TLS, or the other way round.
#[tokio::test]
async fn the_wrong_protocol_is_502() {
    let folder = tempfile::tempdir().unwrap();
    certificates::make(folder.path());
    let plain = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let ca = format!("--upstream-ca-file={}", folder.path().join("ca.pem").display());
    let sidecar = start(&plain.url.replace("http:", "https:"), &[&ca, "--upstream-connect-timeout=300ms"]);
    assert_eq!(get(&sidecar).await.status(), 502);
    let encrypted = Upstream::with_tls(folder.path(), |_| vec![]).await;
    let sidecar = start(&encrypted.url.replace("https:", "http:"), &[]);
    assert_eq!(get(&sidecar).await.status(), 502);
}
