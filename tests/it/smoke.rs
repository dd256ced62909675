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
