//! For axum, hyper and whatever else has `http` types: asks gotrue-sidecar about a request.
//!
//! Opens a connection for each question, to stand alone; the pooled client that a service has anyway (reqwest,
//! hyper-util's) asks the same question with fewer.

use std::{error::Error, time::Duration};

use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// Whom the check says it is. What it does not know is empty.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) session: String,
    pub(crate) role: String,
}

/// Asks the sidecar's admin listener, such as `auth:9464`. An error is the status to answer with: 401 and 403 are
/// the check's; anything else, or no answer in time, is an outage, and never a yes.
pub(crate) async fn identity(check: &str, headers: &HeaderMap) -> Result<Identity, StatusCode> {
    // More than the sidecar's `check.timeout` (100 ms), which answers 503 by then.
    let asked = timeout(Duration::from_millis(500), ask(check, headers)).await;
    let answer = asked.ok().and_then(Result::ok).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    match answer.status() {
        StatusCode::OK => {}
        refused @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => return Err(refused),
        _ => return Err(StatusCode::SERVICE_UNAVAILABLE),
    }
    // From the check's answer: the request's own `X-Auth-*` are whatever its sender liked to write.
    let said = |name: &str| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    Ok(Identity { user: said("x-auth-user"), session: said("x-auth-session"), role: said("x-auth-role") })
}

async fn ask(check: &str, headers: &HeaderMap) -> Result<Response<Incoming>, Box<dyn Error + Send + Sync>> {
    let stream = TcpStream::connect(check).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get("/check").header(header::HOST, check).body(Empty::<Bytes>::new())?;
    // All of them, so that two are refused.
    for credential in headers.get_all(header::AUTHORIZATION) {
        request.headers_mut().append(header::AUTHORIZATION, credential.clone());
    }
    Ok(sender.send_request(request).await?)
}
