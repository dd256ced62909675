//! One HTTP/1.1 request on a connection of its own, and the whole answer.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body, which must be JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// GoTrue's word for what went wrong.
    pub(crate) fn error_code(&self) -> Option<&str> {
        self.header("x-sb-error-code")
    }

    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Sends a request whose URI is absolute.
pub(crate) async fn send(
    request: Request<String>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the URI is not absolute")?.clone();
    head.headers.insert(header::HOST, authority.as_str().parse()?);
    head.uri = Uri::from(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    send_to(authority.as_str(), Request::from_parts(head, Bytes::from(body))).await
}

/// Sends a request as it is to an address.
pub(crate) async fn send_to(
    address: &str,
    request: Request<Bytes>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Answer { status: head.status, headers: head.headers, body })
}
