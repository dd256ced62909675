//! HTTP/2 without TLS, by prior knowledge (contract §11): what changes on the way to HTTP/1.1, and what
//! one connection may cost.

mod floods;
mod frames;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use self::frames::Frames;
use crate::support::{
    raw::Raw,
    sidecar::Sidecar,
    upstream::{Step, Upstream, answer},
};

fn start(upstream: &Upstream, flags: &[&str]) -> Sidecar {
    let url = format!("--upstream-url={}", upstream.url);
    let flags: Vec<&str> = flags.iter().copied().chain([url.as_str()]).collect();
    Sidecar::start(&flags)
}

type Body = BoxBody<Bytes, Infallible>;

/// One connection.
struct Client {
    sender: SendRequest<Body>,
    driver: JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn connect(sidecar: &Sidecar) -> Self {
        let stream = TcpStream::connect(sidecar.address).await.unwrap();
        let (sender, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
        Self { sender, driver: tokio::spawn(connection) }
    }

    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    async fn get(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        self.send(request("GET", path, full(""))).await
    }
}

fn request(method: &str, path: &str, body: Body) -> Request<Body> {
    let uri = format!("http://auth.example.com:9999{path}");
    Request::builder().method(method).uri(uri).body(body).unwrap()
}

fn full(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).boxed()
}

/// A body that is sent as the test says.
fn by_hand() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, frames) = mpsc::channel(1);
    (sender, ByHand(frames).boxed())
}

struct ByHand(mpsc::Receiver<Frame<Bytes>>);

impl http_body::Body for ByHand {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_becomes_one_of_http_1_1() {
    let upstream = Upstream::answering(answer(
        "200 OK",
        &[
            ("Set-Cookie", "a=1"),
            ("Connection", "close, x-hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "1"),
            ("Set-Cookie", "b=2"),
        ],
        "hello",
    ))
    .await;
    let sidecar = start(&upstream, &[]);
    let mut client = Client::connect(&sidecar).await;
    let mut sent = request("POST", "/token?a=%2f", full("ab"));
    for (name, value) in
        [("cookie", "a=1"), ("b", "2"), ("cookie", "c=3"), ("te", "trailers"), ("x-auth-user", "mallory")]
    {
        sent.headers_mut().append(name, value.parse().unwrap());
    }
    let got = client.send(sent).await.unwrap();
    let names: Vec<String> =
        got.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    assert_eq!(names, ["set-cookie: a=1", "set-cookie: b=2", "content-length: 5"]);
    assert_eq!(text(got).await, "hello");
    let seen = &upstream.seen()[0];
    assert_eq!(seen.request_line(), "POST /token?a=%2f HTTP/1.1");
    assert_eq!(
        seen.lines(),
        ["cookie: a=1; c=3", "b: 2", "content-length: 2", "host: auth.example.com:9999"]
    );
    assert_eq!(seen.body, b"ab");
}

#[tokio::test]
async fn streamed_bodies_and_trailers_pass_both_ways() {
    let upstream = Upstream::answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 6\r\n\r\n",
    )
    .await;
    let sidecar = start(&upstream, &[]);
    let mut client = Client::connect(&sidecar).await;
    let (frames, body) = by_hand();
    tokio::spawn(async move {
        frames.send(Frame::data(Bytes::from_static(b"abc"))).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "5".parse().unwrap());
        trailers.insert("x-auth-user", "mallory".parse().unwrap());
        frames.send(Frame::trailers(trailers)).await.unwrap();
    });
    let mut sent = request("POST", "/", body);
    sent.headers_mut().insert("trailer", "x-sum, x-auth-user".parse().unwrap());
    let got = client.send(sent).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(got.trailers().unwrap()["x-sum"], "6");
    assert_eq!(got.to_bytes(), "hello");
    let seen = &upstream.seen()[0];
    assert_eq!(seen.header("transfer-encoding"), ["chunked"]);
    assert_eq!(seen.body, b"3\r\nabc\r\n0\r\nx-sum: 5\r\n\r\n");
}

#[tokio::test]
async fn streams_run_side_by_side_up_to_their_limit() {
    let upstream = Upstream::start(|seen| {
        let said = Step::Send(answer("200 OK", &[], seen.request_line()));
        if seen.request_line() == "GET /first HTTP/1.1" { vec![said] } else { vec![Step::Hold, said] }
    })
    .await;
    let sidecar = start(&upstream, &["--limits-streams=5"]);
    let mut client = Client::connect(&sidecar).await;
    assert_eq!(client.get("/first").await.unwrap().status(), 200, "the client knows the limit from here on");
    let mut streams = JoinSet::new();
    for number in 0..8 {
        let mut sender = client.sender.clone();
        streams.spawn(async move {
            let got = sender.send_request(request("GET", &format!("/{number}"), full(""))).await.unwrap();
            assert_eq!(text(got).await, format!("GET /{number} HTTP/1.1"));
        });
    }
    upstream.until("five at once", |_| upstream.seen().len() == 6).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(upstream.seen().len(), 6);
    while !streams.is_empty() {
        upstream.go_on();
        if let Some(ended) = streams.try_join_next() {
            ended.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(upstream.seen().len(), 9);
}

#[tokio::test]
async fn a_drain_sends_clients_elsewhere_and_finishes_what_they_began() {
    let upstream = Upstream::start(|_| vec![Step::Hold, Step::Send(answer("200 OK", &[], "hello"))]).await;
    let sidecar = start(&upstream, &[]);
    let client = Client::connect(&sidecar).await;
    let mut sender = client.sender.clone();
    let begun = tokio::spawn(async move { sender.send_request(request("GET", "/", full(""))).await });
    upstream.until("the request", |all| all.len() == 1).await;
    sidecar.drain.begin();
    let mut raw = Raw::connect(sidecar.address).await; // still accepted, not ready
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.until("the other request", |all| all.len() == 2).await;
    upstream.go_on();
    upstream.go_on();
    let got = begun.await.unwrap().unwrap();
    assert!(!got.headers().contains_key("connection"));
    assert_eq!(text(got).await, "hello");
    assert_eq!(raw.answer().await.header("connection"), ["close"]);
    client.driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431_and_the_connection_goes_on() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &["--limits-header-bytes=8KiB"]);
    let mut client = Client::connect(&sidecar).await;
    let mut sent = request("GET", "/", full(""));
    sent.headers_mut().insert("x", "a".repeat(9000).parse().unwrap());
    assert_eq!(client.send(sent).await.unwrap().status(), 431);
    assert_eq!(client.get("/").await.unwrap().status(), 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_resets_its_stream_only() {
    let upstream = Upstream::answering_in_turn(vec![
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec()),
            Step::Close,
        ],
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec()),
            Step::Hold,
        ],
        vec![Step::Send(answer("200 OK", &[], "hello"))],
    ])
    .await;
    let sidecar = start(&upstream, &["--limits-body-timeout=200ms"]);
    let mut client = Client::connect(&sidecar).await;
    for _ in 0..2 {
        let broken = client.get("/").await.unwrap();
        assert!(broken.into_body().collect().await.is_err(), "half a body must not look whole");
    }
    let got = client.get("/").await.unwrap();
    assert_eq!(text(got).await, "hello");
}

/// What HTTP/1.1 clients are cut off for, on a stream (contract I8).
#[tokio::test]
async fn a_body_that_makes_no_progress_is_given_up() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    for flags in [&["--upstream-timeout=300ms"][..], &["--limits-body-timeout=300ms", "--store-url=memory:"]]
    {
        let sidecar = start(&upstream, flags);
        let mut client = Client::connect(&sidecar).await;
        for path in ["/settings", "/token?grant_type=refresh_token"] {
            if flags.len() == 2 && path == "/settings" {
                continue; // bounded by upstream.timeout, as in the first turn
            }
            let (frames, body) = by_hand();
            frames.send(Frame::data(Bytes::from_static(b"abc"))).await.unwrap();
            let got = tokio::time::timeout(Duration::from_secs(10), client.send(request("POST", path, body)));
            let got = got.await.expect("given up in time").unwrap();
            assert!(matches!(got.status().as_u16(), 400 | 504), "{path}: {}", got.status());
            drop(frames);
        }
    }
    upstream.until("let go", |all| all.iter().all(|one| one.ended)).await;
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::answering(answer("200 OK", &[], &"a".repeat(200_000))).await;
    let sidecar = start(&upstream, &["--limits-body-timeout=300ms"]);
    let mut client = Frames::connect(sidecar.address, &[(4, 0)]).await; // a window of nothing
    client.get(1).await;
    let answered = loop {
        let frame = client.next().await.expect("an answer");
        if frame.kind == frames::HEADERS {
            break frame;
        }
    };
    assert_eq!((answered.stream, answered.flags & 1), (1, 0), "{answered:?}");
    while let Some(frame) = client.next().await {
        assert_ne!(frame.kind, frames::DATA, "{frame:?}");
    }
    upstream.until("let go", |all| all.iter().all(|one| one.ended)).await;
}

/// Nor does it help to take a byte: what is left belongs to a connection that does nothing any more.
#[tokio::test]
async fn a_client_that_takes_one_byte_is_cut_off() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &["--limits-body-timeout=200ms", "--limits-idle-timeout=200ms"]);
    let mut client = Frames::connect(sidecar.address, &[(4, 1)]).await;
    client.get(1).await;
    let mut taken = Vec::new();
    while let Some(frame) = client.next().await {
        if frame.kind == frames::DATA {
            taken.extend(frame.payload);
        }
    }
    assert_eq!(taken, b"h");
}

/// An answer before the request's end leaves a connection to the upstream that still waits for the
/// client: nobody else must wait there, too.
#[tokio::test]
async fn a_stream_that_stalls_after_its_answer_holds_up_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("--upstream-url=http://{}", listener.local_addr().unwrap());
    let sidecar = Sidecar::start(&[&url, "--upstream-timeout=2s"]);
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
    let mut client = Client::connect(&sidecar).await;
    let (frames, body) = by_hand();
    let mut sent = request("POST", "/", body);
    sent.headers_mut().insert("content-length", "100".parse().unwrap());
    let got = client.send(sent).await.unwrap();
    assert_eq!(text(got).await, "early");
    for _ in 0..3 {
        assert_eq!(client.get("/").await.unwrap().status(), 401);
    }
    drop(frames);
}

#[tokio::test]
async fn an_idle_connection_is_sent_away() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &["--limits-idle-timeout=200ms"]);
    let mut client = Client::connect(&sidecar).await;
    assert_eq!(client.get("/").await.unwrap().status(), 200);
    client.driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_gone() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &["--limits-header-read-timeout=100ms"]);
    let mut silent = Frames::connect(sidecar.address, &[]).await;
    silent.get(1).await;
    // frames arrive, pings among them, and none is answered
    let began = std::time::Instant::now();
    while sidecar.metric("gotrue_sidecar_connections").await > 0.5 {
        assert!(began.elapsed() < Duration::from_secs(10), "still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// HTTP/2 says where a message is; what HTTP/1.1 says of it is malformed (RFC 9113 §8.2.2, §8.3).
#[tokio::test]
async fn what_is_malformed_is_reset() {
    let upstream = Upstream::answering(answer("200 OK", &[], "hello")).await;
    let sidecar = start(&upstream, &[]);
    for (what, block) in [
        ("transfer-encoding", &b"\x82\x86\x84\x41\x01a\x40\x11transfer-encoding\x07chunked"[..]),
        ("connection", b"\x82\x86\x84\x41\x01a\x40\x0aconnection\x05close"),
        ("an upper-case name", b"\x82\x86\x84\x41\x01a\x40\x01X\x01a"),
        ("a line end in a value", b"\x82\x86\x84\x41\x01a\x40\x01x\x06a\r\nb:c"),
        ("a line end in the path", b"\x82\x86\x44\x06/\r\nb:c\x41\x01a"),
        ("no method", b"\x86\x84\x41\x01a"),
        ("two paths", b"\x82\x86\x84\x84\x41\x01a"),
        ("another host", b"\x82\x86\x84\x41\x01a\x40\x04host\x01b"),
    ] {
        let mut client = Frames::connect(sidecar.address, &[]).await;
        client.send(frames::HEADERS, 5, 1, block).await;
        let frame = loop {
            let frame = client.next().await.unwrap_or_else(|| panic!("{what}: no answer"));
            if frame.kind != 8 {
                break frame;
            }
        };
        let refused = matches!(frame.kind, frames::RST_STREAM | frames::GOAWAY);
        let bad_request = frame.kind == frames::HEADERS && frame.payload.first() == Some(&0x8c); // :status 400
        assert!(refused || bad_request, "{what}: {frame:?}");
    }
    assert!(upstream.connections().is_empty(), "{:?}", upstream.seen());
}
