//! Answers that must be read here are asked for in a form that can be read.

use http::Request;

use crate::support::{
    http::send,
    sidecar::Sidecar,
    upstream::{Upstream, answer},
};

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
