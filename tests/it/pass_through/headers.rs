//! Headers (contract §11): what is said to a connection stays there, what only we may say is said by
//! nobody else, the rest passes.

use super::{exchange, exchange_with, start};
use crate::support::{
    raw::Raw,
    upstream::{Upstream, answer},
};

const NOTHING: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// A request with these header lines after its host; what the upstream saw of them.
async fn sent_on(flags: &[&str], lines: &str) -> Vec<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let (seen, _) = exchange_with(flags, &request, NOTHING).await;
    seen.lines().into_iter().skip(1).map(str::to_owned).collect()
}

#[tokio::test]
async fn what_is_said_to_a_connection_stays_there() {
    let lines = "Connection: X-Hop, close , TE\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: h2c\r\n\
                 Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\n\
                 End: 1\r\n";
    assert_eq!(sent_on(&[], lines).await, ["end: 1"]);
    let (_, got) = exchange(
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
         Proxy-Connection: close\r\nEnd: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(got.head, "HTTP/1.1 200 OK\r\nend: 1\r\ncontent-length: 0\r\n\r\n");
}

#[tokio::test]
async fn connection_cannot_remove_what_matters() {
    for name in [
        "Authorization",
        "ApiKey",
        "Cookie",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Real-IP",
        "Sb-Forwarded-For",
        "X-Supabase-Api-Version",
        "X-JWT-AUD",
        "Redirect_to",
        "Origin",
        "Referer",
        "User-Agent",
        "Content-Type",
        "Accept",
        "Traceparent",
        "CF-IPCountry",
    ] {
        let sent = sent_on(&[], &format!("Connection: {name}\r\n{name}: value\r\n")).await;
        let kept = sent == [format!("{}: value", name.to_ascii_lowercase())];
        assert_eq!(kept, name != "CF-IPCountry", "{name}: {sent:?}");
    }
    let (seen, _) = exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Content-Length, Host, X-Forwarded-For, X-Request-Id\r\n\
         Content-Length: 2\r\nX-Forwarded-For: 198.51.100.7\r\nX-Request-Id: one\r\n\r\nab",
        NOTHING,
    )
    .await;
    assert_eq!(seen.lines(), ["host: a", "content-length: 2"]);
    assert_eq!(seen.header("x-forwarded-for"), ["198.51.100.7, 127.0.0.1"]);
    assert_eq!(seen.header("x-request-id"), ["one"]);
}

#[tokio::test]
async fn nobody_else_says_what_only_we_may_say() {
    let mut lines = String::new();
    for name in ["Auth-User", "Auth-Session", "Auth-Role", "Auth-Email", "Auth-Aal", "Auth-Expires"] {
        for name in [format!("X-{name}"), format!("X-{name}").replace('-', "_"), format!("x_{name}")] {
            lines.extend([name.as_str(), ": mallory\r\n"]);
        }
    }
    for name in ["sb-auth-user-id", "Sb_Auth_Session_Id", "SB-AUTH_ANY", "sb-auth-x"] {
        lines.extend([name, ": mallory\r\n"]);
    }
    assert_eq!(sent_on(&[], &lines).await, [""; 0]);
    let (_, got) = exchange(
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nsb-auth-user-id: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(got.header("sb-auth-user-id"), ["1"], "GoTrue may say it");
}

#[tokio::test]
async fn the_peer_is_appended_to_whoever_forwarded() {
    for (flags, sent, expected) in [
        (&[][..], "", "127.0.0.1"),
        (&[], "X-Forwarded-For: 198.51.100.7\r\n", "198.51.100.7, 127.0.0.1"),
        (
            &[],
            "X-Forwarded-For: 198.51.100.7\r\nx-forwarded-for: 10.0.0.1\r\n",
            "198.51.100.7, 10.0.0.1, 127.0.0.1",
        ),
        (
            &["--forwarded-trusted-proxies=127.0.0.0/8"],
            "X-Forwarded-For: 198.51.100.7\r\n",
            "198.51.100.7, 127.0.0.1",
        ),
        (&["--forwarded-trusted-proxies=10.0.0.0/8"], "X-Forwarded-For: 198.51.100.7\r\n", "127.0.0.1"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{sent}\r\n");
        let (seen, _) = exchange_with(flags, &request, NOTHING).await;
        assert_eq!(seen.header("x-forwarded-for"), [expected], "{flags:?} {sent}");
    }
}

/// "Peers whose X-Forwarded-* headers are kept; other peers' are replaced": GoTrue builds links from
/// host and scheme, and limits rates by `Sb-Forwarded-For`.
#[tokio::test]
async fn nothing_of_what_an_untrusted_peer_forwards_is_believed() {
    let lines = "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: http\r\nSb-Forwarded-For: 198.51.100.7\r\nEnd: 1\r\n";
    assert_eq!(sent_on(&["--forwarded-trusted-proxies=10.0.0.0/8"], lines).await, ["end: 1"]);
    assert_eq!(sent_on(&[], lines).await.len(), 4);
}

#[tokio::test]
async fn a_request_id_is_kept_or_made_and_shown_in_no_answer() {
    let (seen, _) = exchange("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n", NOTHING).await;
    assert_eq!(seen.header("x-request-id"), ["mine"]);
    let (one, got) = exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", NOTHING).await;
    let (two, _) = exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", NOTHING).await;
    let ids = [one.header("x-request-id"), two.header("x-request-id")].concat();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(got.header("x-request-id"), [""; 0]);
}

#[tokio::test]
async fn traces_and_hosts_are_kept() {
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(
        sent_on(&[], &format!("{trace}\r\ntracestate: a=b,c=d\r\n")).await,
        [trace, "tracestate: a=b,c=d"]
    );
    for host in ["auth.example.com", "AUTH.example.com:8443", "[::1]:80", ""] {
        let (seen, _) = exchange(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), NOTHING).await;
        assert_eq!(seen.header("host"), [host]);
    }
}

#[tokio::test]
async fn a_request_names_one_host() {
    for lines in ["", "Host: a\r\nHost: b\r\n", "Host: a\r\nHost: a\r\n"] {
        let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
        let sidecar = start(&upstream, &[]);
        let mut client = Raw::connect(sidecar.address).await;
        client.send(format!("GET / HTTP/1.1\r\n{lines}\r\n")).await;
        assert_eq!(client.answer().await.status(), 400, "{lines}");
        assert!(upstream.connections().is_empty());
    }
}

/// A body that is asked to be followed by another protocol is followed by none (Pingora CVE-2026-2833).
#[tokio::test]
async fn an_upgrade_is_a_request_like_any_other() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    client
        .send(
            "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
             GET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    client.answer().await;
    client.answer().await;
    let seen: Vec<String> = upstream.seen().iter().map(|seen| seen.request_line().to_owned()).collect();
    assert_eq!(seen, ["GET /a HTTP/1.1", "GET /b HTTP/1.1"]);
    assert_eq!(upstream.seen()[0].lines(), ["host: a"]);
}

/// Whatever an upstream says about switching protocols, no tunnel is made.
#[tokio::test]
async fn an_answer_that_switches_protocols_is_none() {
    let upstream = Upstream::answering(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\nbytes",
    )
    .await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 502);
}
