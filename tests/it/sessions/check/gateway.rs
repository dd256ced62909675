//! A gateway: asks over a connection that is kept.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use super::*;

pub(super) struct Gateway {
    sender: SendRequest<Empty<Bytes>>,
}

impl Gateway {
    pub(super) async fn to(admin: std::net::SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(admin).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    /// The status of the answer.
    pub(super) async fn check(&mut self, token: &str) -> u16 {
        let request = Request::get("/check").header("host", "sidecar");
        let request = request.header("authorization", format!("Bearer {token}"));
        self.sender.ready().await.unwrap();
        let answer = self.sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        body.collect().await.unwrap();
        head.status.as_u16()
    }
}
