//! A request passes through.

use http::Request;

use crate::support::{
    http::send,
    sidecar::Sidecar,
    upstream::{Upstream, answer},
};

#[tokio::test]
async fn a_request_passes_through() {
    let upstream = Upstream::answering(answer("200 OK", &[("X-A", "b")], "hello")).await;
    let sidecar = Sidecar::start(&["--upstream-url", &upstream.url]);
    let got =
        send(Request::get(format!("{}/user?x=1", sidecar.url)).body(String::new()).unwrap()).await.unwrap();
    assert_eq!((got.status.as_u16(), got.body.as_ref()), (200, &b"hello"[..]));
    assert_eq!(upstream.seen()[0].request_line(), "GET /user?x=1 HTTP/1.1");
    drop(sidecar);
}

#[tokio::test]
async fn an_answer_that_must_be_read_is_asked_for_uncompressed_and_no_other() {
    let upstream = Upstream::answering(answer("400 Bad Request", &[], "")).await;
    let sidecar = Sidecar::start(&["--upstream-url", &upstream.url, "--store-url=memory:"]);
    for (path, expected) in [("/signup", vec!["identity"]), ("/otp", vec!["gzip", "br;q=0"])] {
        let request = Request::post(format!("{}{path}", sidecar.url))
            .header("accept-encoding", "gzip")
            .header("accept-encoding", "br;q=0");
        send(request.body(String::new()).unwrap()).await.unwrap();
        assert_eq!(upstream.seen().last().unwrap().header("accept-encoding"), expected, "{path}");
    }
}
