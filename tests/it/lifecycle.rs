//! The command from its start on: what keeps it from starting, what it takes up while it runs, and what
//! it says of what it does. Contract §12, §13 and I7.

mod reload;
mod said;
mod start;

use http::Request;

use crate::support::{
    http::{Answer, send},
    issuer::SECRET,
    process::Process,
    upstream::Upstream,
};

/// A sidecar in front of `upstream` that knows GoTrue's secret, unless the flags say otherwise.
async fn started(upstream: &Upstream, more: &[&str]) -> Process {
    let (url, secret) = (format!("--upstream-url={}", upstream.url), format!("--jwt-secret={SECRET}"));
    let mut flags = vec![url.as_str(), "--jwt-jwks=off"];
    if !more.iter().any(|flag| flag.starts_with("--jwt-secret")) {
        flags.push(&secret);
    }
    flags.extend(more);
    Process::start(&flags).await
}

async fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    let request =
        headers.iter().fold(Request::get(url), |request, (name, value)| request.header(*name, *value));
    send(request.body(String::new()).unwrap()).await.unwrap()
}
