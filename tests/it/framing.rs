//! Framing (contract §11 "Ambiguous framing is refused", peers' smuggling reports): every client
//! speaks to the sidecar in bytes, and what reached the upstream is counted in bytes.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::support::{
    raw::Raw,
    sidecar::Sidecar,
    upstream::{Step, Upstream, answer},
};

async fn start() -> (Upstream, Sidecar) {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = Sidecar::start(&[&format!("--upstream-url={}", upstream.url)]);
    (upstream, sidecar)
}

const LEGACY: &str =
    r#"{"code":400,"error_code":"validation_failed","msg":"The request is malformed or ambiguous"}"#;
const DATED: &str = r#"{"code":"validation_failed","message":"The request is malformed or ambiguous"}"#;

/// Refused in GoTrue's form, and the end of the connection.
async fn assert_refused(client: &mut Raw, status: u16, body: &str, what: &str) {
    let got = client.answer().await;
    assert_eq!((got.status(), got.text()), (status, body), "{what}");
    assert_eq!(got.header("content-type"), ["application/json"], "{what}");
    assert_eq!(got.header("connection"), ["close"], "{what}");
    client.closed().await;
}

/// Heads that two readers could understand differently, or that none can.
fn ambiguous() -> Vec<(&'static str, String)> {
    let post = |lines: &str, body: &str| format!("POST /token HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}");
    vec![
        ("a length and chunks", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("chunks and a length", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")),
        ("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello")),
        ("one length twice", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("a list of lengths", post("Content-Length: 5, 5\r\n", "hello")),
        ("a length with a sign", post("Content-Length: +5\r\n", "hello")),
        ("a negative length", post("Content-Length: -5\r\n", "hello")),
        ("a hexadecimal length", post("Content-Length: 0x5\r\n", "hello")),
        ("no length", post("Content-Length:\r\n", "")),
        ("a length that no number holds", post("Content-Length: 99999999999999999999\r\n", "")),
        ("a blank before the colon", post("Content-Length : 5\r\n", "hello")),
        ("a blank before the colon of chunks", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        ("a coding that is none", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        ("identity", post("Transfer-Encoding: identity\r\n", "")),
        ("two codings", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("chunks twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("chunks and then something", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        ("a tab around chunks", post("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n")),
        ("a quoted coding", post("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n")),
        (
            "chunks in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("a folded line", post("X: a\r\n b\r\n", "")),
        ("a folded coding", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        ("a folded first line", "POST / HTTP/1.1\r\n Host: a\r\n\r\n".into()),
        ("LF alone", "POST / HTTP/1.1\nHost: a\n\n".into()),
        ("LF alone after a header", "POST / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n".into()),
        ("LF alone at the end", "POST / HTTP/1.1\r\nHost: a\r\n\n".into()),
        ("CR alone", "POST / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n".into()),
        ("CR CR LF", "POST / HTTP/1.1\r\nHost: a\r\r\n\r\n".into()),
        ("NUL in a value", post("X: a\0b\r\n", "")),
        ("NUL in a name", post("X\0: a\r\n", "")),
        ("NUL in the target", "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a control in a value", post("X: a\x1bb\r\n", "")),
        ("a line that is no header", post("no colon\r\n", "")),
        ("a name that is none", post(": a\r\n", "")),
        ("a name with a blank", post("Transfer Encoding: chunked\r\n", "")),
        ("garbage", "\u{1}\u{2}\u{3}garbage\r\n\r\n".into()),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".into()),
        ("no version", "GET /\r\nHost: a\r\n\r\n".into()),
        ("another version", "GET / HTTP/3.0\r\nHost: a\r\n\r\n".into()),
        ("two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a blank before the method", " GET / HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("two hosts", post("Host: b\r\n", "")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into()),
    ]
}

#[tokio::test]
async fn what_two_readers_could_understand_differently_is_refused() {
    let (upstream, sidecar) = start().await;
    for (what, request) in ambiguous() {
        let mut client = Raw::connect(sidecar.address).await;
        client.send(&request).await;
        assert_refused(&mut client, 400, LEGACY, what).await;
    }
    assert!(upstream.connections().is_empty(), "{:?}", upstream.connections());
    let refused = sidecar.metric("gotrue_sidecar_refused_total{reason=\"bad_framing\"}").await;
    assert_eq!(refused.to_string(), ambiguous().len().to_string());
}

/// However the bytes come: a line may begin in one packet and end in another.
#[tokio::test]
async fn it_is_refused_byte_by_byte_too() {
    let (upstream, sidecar) = start().await;
    let mut clients = JoinSet::new();
    for (what, request) in ambiguous() {
        let address = sidecar.address;
        clients.spawn(async move {
            let mut client = Raw::connect(address).await;
            for byte in request.bytes() {
                client.send([byte]).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_refused(&mut client, 400, LEGACY, what).await;
        });
    }
    clients.join_all().await;
    assert!(upstream.connections().is_empty());
}

#[tokio::test]
async fn a_refusal_has_the_form_that_the_request_asked_for() {
    let (_upstream, sidecar) = start().await;
    for pause in [false, true] {
        let mut client = Raw::connect(sidecar.address).await;
        client
            .send("POST /token HTTP/1.1\r\nHost: a\r\nX-Supabase-Api-Version: 2024-01-01\r\nOrigin: https://b\r\nContent-Le")
            .await;
        if pause {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client.send("ngth: 1\r\nContent-Length: 2\r\n\r\n").await;
        let got = client.answer().await;
        assert_eq!((got.status(), got.text()), (400, DATED));
        assert_eq!(got.header("x-supabase-api-version"), ["2024-01-01"]);
        assert_eq!(got.header("x-sb-error-code"), ["validation_failed"]);
        assert_eq!(got.header("access-control-allow-origin"), ["*"]);
        client.closed().await;
    }
}

/// Heads that are too large, in bytes or in lines: 431 at once, not only at their end.
#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar =
        Sidecar::start(&[&format!("--upstream-url={}", upstream.url), "--limits-header-bytes=8KiB"]);
    let long = "a".repeat(9000);
    for (what, request) in [
        ("a long value", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")),
        ("a long value without an end", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}")),
        ("a long name", format!("GET / HTTP/1.1\r\nHost: a\r\n{long}: a\r\n\r\n")),
        ("a long target", format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a long target without an end", format!("GET /{long}")),
        (
            "many bytes",
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", format!("X: {}\r\n", "a".repeat(100)).repeat(90)),
        ),
        ("101 lines", format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(100))),
    ] {
        let mut client = Raw::connect(sidecar.address).await;
        client.send(&request).await;
        let got = client.answer().await;
        assert_eq!((got.status(), got.header("connection")), (431, vec!["close"]), "{what}");
        assert!(
            got.text().starts_with(r#"{"code":431,"error_code":"request_header_fields_too_large","#),
            "{got:?}"
        );
    }
    assert!(upstream.connections().is_empty());
    let refused = sidecar.metric("gotrue_sidecar_refused_total{reason=\"head_too_large\"}").await;
    assert!((refused - 7.0).abs() < 0.5, "{refused}");
}

#[tokio::test]
async fn a_head_up_to_the_limit_passes() {
    let (upstream, sidecar) = start().await;
    let mut client = Raw::connect(sidecar.address).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(64 * 1024 - 60))).await;
    assert_eq!(client.answer().await.status(), 200);
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(99))).await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(upstream.seen()[1].header("x").len(), 99);
}

/// A good request is answered, whatever follows it in the same packet.
#[tokio::test]
async fn what_follows_a_good_request_does_not_spoil_it() {
    let (upstream, sidecar) = start().await;
    for (what, request) in ambiguous() {
        let before = upstream.seen().len();
        let mut client = Raw::connect(sidecar.address).await;
        let good = "POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        client.send(format!("{good}{good}{request}GET /after HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        for _ in 0..2 {
            let got = client.answer().await;
            assert_eq!((got.status(), got.header("connection")), (200, vec![]), "before {what}");
        }
        assert_eq!(client.answer().await.status(), 400, "{what}");
        client.closed().await;
        assert_eq!(upstream.seen().len(), before + 2, "{what}");
    }
    assert!(upstream.seen().iter().all(|seen| seen.request_line() == "POST /good HTTP/1.1"));
}

/// Bodies whose chunks cannot be read. What hides in them is no request.
#[tokio::test]
async fn a_broken_body_makes_no_second_request() {
    let hidden = "GET /admin/users HTTP/1.1\r\nHost: a\r\n\r\n";
    for (what, body) in [
        ("a size that is no number", "xyz\r\n"),
        ("a negative size", "-1\r\n"),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("a blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("a size that no number holds", "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
        ("a size with leading zeros", "0000000000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("data longer than its size", "5\r\nhello!\r\n0\r\n\r\n"),
        ("LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("LF after the last chunk", "5\r\nhello\r\n0\n\n"),
        ("a folded trailer", "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
        ("a trailer that is none", "5\r\nhello\r\n0\r\nabc\r\n\r\n"),
    ] {
        let (upstream, sidecar) = start().await;
        let mut client = Raw::connect(sidecar.address).await;
        client
            .send(format!(
                "POST /token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}{hidden}"
            ))
            .await;
        let got = client.try_answer_to("").await;
        assert!(got.as_ref().is_none_or(|got| got.status() == 400), "{what}: {got:?}");
        client.rest().await;
        let connections = upstream.connections();
        upstream.until("the broken request is given up", |all| all.iter().all(|one| one.ended)).await;
        assert!(upstream.seen().is_empty(), "{what}: {:?}", upstream.seen());
        for connection in connections {
            let text = String::from_utf8_lossy(&connection.bytes).into_owned();
            assert!(!text.contains("\r\n0\r\n") && !text.contains("/admin"), "{what}: {text}");
        }
    }
}

#[tokio::test]
async fn a_request_whose_body_breaks_half_way_never_becomes_whole() {
    let (upstream, sidecar) = start().await;
    let mut client = Raw::connect(sidecar.address).await;
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    upstream.until("the first chunk", |all| all.iter().any(|one| one.bytes.ends_with(b"hello\r\n"))).await;
    client.send("oh\r\n").await;
    let got = client.try_answer_to("").await;
    assert!(got.as_ref().is_none_or(|got| got.status() == 400), "{got:?}");
    client.rest().await;
    upstream.until("the end", |all| all.iter().all(|one| one.ended)).await;
    assert!(upstream.seen().is_empty());
    assert!(upstream.connections()[0].bytes.ends_with(b"hello\r\n"));
}

#[tokio::test]
async fn a_client_that_leaves_half_way_leaves_half_a_request() {
    for (lines, body) in [("Content-Length: 10", "hello"), ("Transfer-Encoding: chunked", "a\r\nhello")] {
        let (upstream, sidecar) = start().await;
        let mut client = Raw::connect(sidecar.address).await;
        client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}")).await;
        upstream
            .until("the half", |all| all.iter().any(|one| one.bytes.windows(5).any(|five| five == b"hello")))
            .await;
        client.finish_sending().await;
        upstream.until("the end", |all| all.iter().all(|one| one.ended)).await;
        assert!(upstream.seen().is_empty());
    }
}

#[tokio::test]
async fn many_chunks_and_some_extensions_are_a_body_like_any_other() {
    let (upstream, sidecar) = start().await;
    let mut client = Raw::connect(sidecar.address).await;
    let chunks = "1\r\na\r\n".repeat(40_000) + "2;name=\"value\"\r\nbc\r\n0\r\n\r\n";
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;
    assert_eq!(client.answer().await.status(), 200);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 200);
    assert_eq!(upstream.seen().len(), 2);
}

/// A `GET` with a body is followed by the next request where the body ends.
#[tokio::test]
async fn every_method_may_have_a_body() {
    let (upstream, sidecar) = start().await;
    let mut client = Raw::connect(sidecar.address).await;
    let smuggled = "GET /admin HTTP/1.1\r\nX: ";
    client
        .send(format!(
            "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}GET /b HTTP/1.1\r\nHost: a\r\n\r\n",
            smuggled.len()
        ))
        .await;
    client.answer().await;
    client.answer().await;
    let lines: Vec<String> = upstream.seen().iter().map(|seen| seen.request_line().to_owned()).collect();
    assert_eq!(lines, ["GET /a HTTP/1.1", "GET /b HTTP/1.1"]);
    assert_eq!(upstream.seen()[0].body, smuggled.as_bytes());
}

/// An answer that comes before the request's end: what is left of the request is no new one.
#[tokio::test]
async fn the_rest_of_an_answered_request_is_no_new_one() {
    let upstream = Upstream::start(|_| vec![Step::Send(answer("200 OK", &[], "hello"))]).await;
    let sidecar = Sidecar::start(&["--path-prefix=/auth", &format!("--upstream-url={}", upstream.url)]);
    let mut client = Raw::connect(sidecar.address).await;
    client.send("POST /elsewhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await;
    assert_eq!(client.answer().await.status(), 404);
    client.send("GET /auth/admin HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (rest, _) = client.rest().await;
    assert_eq!(rest, b"");
    assert!(upstream.seen().is_empty());
}

/// Answers that cannot be read are none.
#[tokio::test]
async fn an_upstream_that_speaks_ambiguously_is_not_understood() {
    for (what, sent) in [
        ("garbage", "\u{1}\u{2}garbage\r\n\r\n"),
        ("no HTTP", "220 smtp ready\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello"),
        ("a control in a header", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("a split header", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"),
        ("half a head", "HTTP/1.1 200 OK\r\nX: "),
    ] {
        let upstream =
            Upstream::start(move |_| vec![Step::Send(sent.as_bytes().to_vec()), Step::Close]).await;
        let sidecar = Sidecar::start(&[&format!("--upstream-url={}", upstream.url)]);
        let mut client = Raw::connect(sidecar.address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let got = client.answer().await;
        assert_eq!(
            (got.status(), got.header("x-sb-error-code")),
            (502, vec!["bad_gateway"]),
            "{what}: {got:?}"
        );
    }
}
