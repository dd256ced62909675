//! What passes through is unchanged (contract I1, §2 "Stateless", §11): bytes on the wire, both sides.

mod bodies;
mod headers;
mod targets;

use crate::support::{
    raw::{Raw, Received},
    sidecar::Sidecar,
    upstream::{Seen, Step, Upstream, answer},
};

/// One request, as bytes, and one answer, as bytes: what the upstream saw, and what the client got.
async fn exchange(request: &str, answer: &str) -> (Seen, Received) {
    exchange_with(&[], request, answer).await
}

async fn exchange_with(flags: &[&str], request: &str, answer: &str) -> (Seen, Received) {
    let upstream = Upstream::start({
        let answer = answer.to_owned();
        move |_| vec![Step::Send(answer.clone().into_bytes()), Step::Close]
    })
    .await;
    let sidecar = start(&upstream, flags);
    let mut client = Raw::connect(sidecar.address).await;
    client.send(request).await;
    let method = request.split(' ').next().unwrap();
    let got = client.answer_to(method).await;
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1, "the upstream saw {seen:?}, the client got {got:?}");
    (seen[0].clone(), got)
}

/// A sidecar without a store before `upstream`.
fn start(upstream: &Upstream, flags: &[&str]) -> Sidecar {
    let url = format!("--upstream-url={}", upstream.url);
    let flags: Vec<&str> = flags.iter().copied().chain([url.as_str()]).collect();
    Sidecar::start(&flags)
}

#[tokio::test]
async fn a_request_and_its_answer_pass_unchanged() {
    let (seen, got) = exchange(
        "POST /user?b=2&a=%31&a HTTP/1.1\r\nHost: auth.example.com\r\nB: 2\r\nA: \"x\"; y\t z\r\nB: 1\r\n\
         Content-Type: application/json\r\nContent-Length: 7\r\nX-Utf8: gr\u{fc}n\r\nEmpty: \r\n\r\n{\"a\":1}",
        "HTTP/1.1 422 Unprocessable Entity\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nSet-Cookie: a=1; Path=/\r\n\
         X-B: 2\r\nSet-Cookie: b=2\r\nX-A: gr\u{fc}n\r\nServer: GoTrue\r\nContent-Length: 5\r\nSet-Cookie: a=3\r\n\r\n{\"b\"}",
    )
    .await;
    assert_eq!(seen.request_line(), "POST /user?b=2&a=%31&a HTTP/1.1");
    assert_eq!(
        seen.lines(),
        [
            "host: auth.example.com",
            "b: 2",
            "b: 1",
            "a: \"x\"; y\t z",
            "content-type: application/json",
            "content-length: 7",
            "x-utf8: gr\u{fc}n",
            "empty: ",
        ]
    );
    assert_eq!(seen.body, br#"{"a":1}"#);
    assert_eq!(
        got.head.lines().collect::<Vec<_>>(),
        [
            "HTTP/1.1 422 Unprocessable Entity",
            "date: Mon, 01 Jan 2024 00:00:00 GMT",
            "set-cookie: a=1; Path=/",
            "set-cookie: b=2",
            "set-cookie: a=3",
            "x-b: 2",
            "x-a: gr\u{fc}n",
            "server: GoTrue",
            "content-length: 5",
            ""
        ]
    );
    assert_eq!(got.body, b"{\"b\"}");
}

/// What hyper does not keep: the case of names, which means nothing in HTTP, and where the second of
/// two equal names stood among others, which means nothing either (RFC 9110 §5.3).
#[tokio::test]
async fn names_come_in_lower_case_and_equal_names_together() {
    let (seen, got) = exchange(
        "GET / HTTP/1.1\r\nHOST: a\r\nX-One: 1\r\nX-Two: 2\r\nx-ONE: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-One: 1\r\nX-Two: 2\r\nX-ONE: 3\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(seen.lines(), ["host: a", "x-one: 1", "x-one: 3", "x-two: 2"]);
    assert_eq!(got.head.lines().nth(1).unwrap(), "x-one: 1");
    assert_eq!(got.header("X-One"), ["1", "3"]);
}

#[tokio::test]
async fn no_header_is_added_to_an_answer() {
    let (_, got) =
        exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(got.head, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
}

#[tokio::test]
async fn every_status_passes() {
    for status in
        [200, 201, 204, 205, 302, 303, 304, 400, 401, 404, 409, 418, 422, 429, 451, 500, 503, 529, 599]
    {
        let upstream = Upstream::answering(match status {
            204 | 304 => format!("HTTP/1.1 {status} X\r\nETag: a\r\n\r\n").into_bytes(),
            _ => answer(&format!("{status} X"), &[("ETag", "a")], "x"),
        })
        .await;
        let sidecar = start(&upstream, &[]);
        let mut client = Raw::connect(sidecar.address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let got = client.answer().await;
        assert_eq!((got.status(), got.header("etag")), (status, vec!["a"]), "{}", got.head);
    }
}

#[tokio::test]
async fn a_connection_serves_request_after_request_and_so_does_the_one_behind_it() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    for turn in 0..20 {
        client.send(format!("POST /{turn} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab")).await;
        assert_eq!(client.answer().await.text(), "hello");
    }
    assert_eq!(upstream.seen().len(), 20);
    assert_eq!(upstream.connections().len(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|seen| vec![Step::Send(answer("200 OK", &[], seen.request_line()))]).await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    let requests: Vec<String> = (0..10)
        .map(|turn| format!("POST /{turn} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n{turn}\r\n"))
        .collect();
    client.send(requests.concat()).await;
    for turn in 0..10 {
        assert_eq!(client.answer().await.text(), format!("POST /{turn} HTTP/1.1"));
        assert_eq!(upstream.seen()[turn].body, format!("{turn}\r\n").into_bytes());
    }
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_body_that_ends_with_the_connection() {
    let upstream =
        Upstream::answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            .await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let got = client.answer().await;
    assert_eq!(got.text(), "hello");
    assert_eq!(got.header("transfer-encoding"), [""; 0]);
    assert_eq!(upstream.seen()[0].request_line(), "GET / HTTP/1.1");
    let host = upstream.url.strip_prefix("http://").unwrap().to_owned();
    assert_eq!(upstream.seen()[0].header("host"), [host], "HTTP/1.1 demands one");
}

/// GoTrue sends none; hyper's client passes over them.
#[tokio::test]
async fn interim_answers_are_passed_over() {
    let (_, got) = exchange(
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    assert_eq!(got.status(), 200);
}

#[tokio::test]
async fn a_client_that_expects_to_be_told_to_continue_is_told() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &[]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert_eq!(client.answer().await.head, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ab").await;
    assert_eq!(client.answer().await.text(), "hello");
    assert_eq!(upstream.seen()[0].header("expect"), [""; 0]);
    assert_eq!(upstream.seen()[0].body, b"ab");
}
