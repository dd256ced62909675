//! Request targets: every byte of path and query that can be passed on is; what cannot is refused.

use super::{exchange, exchange_with, start};
use crate::support::{
    raw::Raw,
    upstream::{Upstream, answer},
};

const NOTHING: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[tokio::test]
async fn odd_targets_pass_verbatim() {
    for target in [
        "/",
        "//",
        "/token/",
        "//token",
        "/Token",
        "/%74oken",
        "/%2Ftoken",
        "/a/../token",
        "/./a//b/%2e%2e/c",
        "/a;b=c/d,e",
        "/a%00b",
        "/a%zz",
        "/a?b?c",
        "/a?",
        "/?&&=&%26=%3D&a=b=c",
        "/a?b=+%20\u{fc}",
        "/a\u{fc}",
        "/a:b@c!$&'()*+,;=~-._",
        "/a?b={[1]}|^`",
        "/a\"b{c}|d^",
        "/a?x=http://b/c?d",
        "*",
    ] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        let (seen, _) = exchange(&format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"), NOTHING).await;
        assert_eq!(seen.request_line(), format!("{method} {target} HTTP/1.1"));
    }
}

#[tokio::test]
async fn a_whole_address_is_sent_on_as_its_path() {
    for (target, path) in [
        ("http://b.example/user?a=b", "/user?a=b"),
        ("http://b.example", "/"),
        ("http://b.example?a", "/?a"),
        ("https://b.example:8443//x", "//x"),
    ] {
        let (seen, _) = exchange(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), NOTHING).await;
        assert_eq!(seen.request_line(), format!("GET {path} HTTP/1.1"), "{target}");
    }
}

/// It is never an address to connect to; RFC 9112 §3.2.2 lets it win over `Host`.
#[tokio::test]
async fn a_whole_address_names_the_host() {
    let (seen, _) = exchange("GET http://b.example:81/ HTTP/1.1\r\nHost: a\r\n\r\n", NOTHING).await;
    assert_eq!(seen.header("host"), ["b.example:81"]);
}

#[tokio::test]
async fn a_prefix_is_taken_off_and_a_path_put_before() {
    let prefixed = ["--path-prefix=/auth/v1"];
    for (target, path) in [
        ("/auth/v1/token?a=b", "/token?a=b"),
        ("/auth/v1", "/"),
        ("/auth/v1//token", "//token"),
        ("/auth/v1/../token", "/../token"),
        ("http://b/auth/v1/x", "/x"),
    ] {
        let (seen, _) =
            exchange_with(&prefixed, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), NOTHING).await;
        assert_eq!(seen.request_line(), format!("GET {path} HTTP/1.1"));
    }
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let url = format!("--upstream-url={}/b/c", upstream.url);
    let sidecar = crate::support::sidecar::Sidecar::start(&["--path-prefix=/a", &url]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send("GET /a/user?x=%2f HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    // beside it the sidecar asks whether GoTrue is well, below the same path
    let lines: Vec<_> = upstream.seen().iter().map(|seen| seen.request_line().to_owned()).collect();
    let (probes, requests): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| *line == "GET /b/c/health HTTP/1.1");
    assert_eq!(requests, ["GET /b/c/user?x=%2f HTTP/1.1"], "{probes:?}");
}

#[tokio::test]
async fn a_path_without_the_prefix_is_not_found_here() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &["--path-prefix=/auth/v1"]);
    for target in [
        "/",
        "/token",
        "/auth/v1x",
        "/auth/v1token",
        "/AUTH/V1/token",
        "/auth//v1/token",
        "/%61uth/v1/x",
        "*",
    ] {
        let mut client = Raw::connect(sidecar.address).await;
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let got = client.answer().await;
        assert_eq!((got.status(), got.header("x-sb-error-code")), (404, vec!["not_found"]), "{target}");
    }
    assert!(upstream.connections().is_empty());
}

/// Targets that no reader may guess at: no tunnels, and no fragments, which GoTrue would take for a
/// part of the path and others would drop (CVE-2026-41059).
#[tokio::test]
async fn targets_that_cannot_be_passed_on_are_refused() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &[]);
    for line in [
        "CONNECT auth.example.com:443 HTTP/1.1",
        "CONNECT /token HTTP/1.1",
        "GET /token#fragment HTTP/1.1",
        "GET /token?a#b HTTP/1.1",
        "GET token HTTP/1.1",
        // GoTrue would read these; the http crate does not, and no client sends them
        "GET /a<b> HTTP/1.1",
        "GET /a?b=\"c\" HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET auth.example.com:80 HTTP/1.1",
        "GET http://user:password@auth.example.com/ HTTP/1.1",
    ] {
        let mut client = Raw::connect(sidecar.address).await;
        client.send(format!("{line}\r\nHost: a\r\n\r\n")).await;
        let got = client.answer().await;
        assert_eq!((got.status(), got.header("x-sb-error-code")), (400, vec!["validation_failed"]), "{line}");
    }
    assert!(upstream.connections().is_empty());
}
