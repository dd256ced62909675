//! How one signs in at oauth2-proxy, and what it asks its provider: the upstream.

use std::net::SocketAddr;

use crate::{
    load::{LoadError, connect},
    wire::{Message, Wire},
    workload::check_beside,
};

/// What `--redeem-url` answers.
pub const TOKEN: &str = r#"{"access_token":"bench","token_type":"bearer","expires_in":86400}"#;
/// What `--profile-url` answers.
pub const USER: &str = r#"{"account":{"email":"user@example.com"}}"#;

/// Signs in so many times; gives back the cookies.
pub async fn sign_in(proxy: SocketAddr, times: usize) -> Result<Vec<String>, LoadError> {
    let mut wire = connect(proxy).await?;
    let mut cookies = Vec::with_capacity(times);
    for _ in 0..times {
        cookies.push(sign_in_once(&mut wire).await?);
    }
    Ok(cookies)
}

async fn sign_in_once(wire: &mut Wire) -> Result<String, LoadError> {
    let begun = ask(wire, "/oauth2/start?rd=%2F", "").await?;
    let state = begun.location.split(['?', '&']).find_map(|part| part.strip_prefix("state="));
    let callback = format!("/oauth2/callback?code=bench&state={}", state.unwrap_or_default());
    let signed_in = ask(wire, &callback, &begun.cookie).await?;
    Ok(signed_in.cookie)
}

/// The check of who has this cookie.
pub fn check(cookie: &str) -> Vec<u8> {
    check_beside("/oauth2/auth", &format!("cookie: {cookie}\r\n"))
}

/// What matters of a redirection.
struct Redirection {
    location: String,
    /// `name=value`
    cookie: String,
}

async fn ask(wire: &mut Wire, target: &str, cookie: &str) -> Result<Redirection, LoadError> {
    let cookie = if cookie.is_empty() { String::new() } else { format!("cookie: {cookie}\r\n") };
    wire.send(format!("GET {target} HTTP/1.1\r\nhost: bench.example.com\r\n{cookie}\r\n").as_bytes()).await?;
    wire.receive(redirection).await?.ok_or(LoadError::NoAnswer)?
}

fn redirection(answer: Message<'_>) -> Result<Redirection, LoadError> {
    let head = String::from_utf8_lossy(answer.head);
    let value_of = |wanted: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        // a cookie that is deleted is empty
        let (_, value) = headers.find(|(name, value)| {
            name.eq_ignore_ascii_case(wanted)
                && !value.split(';').next().is_some_and(|it| it.ends_with("_csrf="))
        })?;
        Some(value.split(';').next().unwrap_or_default().to_owned())
    };
    let status = head.lines().next().unwrap_or_default();
    match (value_of("location"), value_of("set-cookie")) {
        (Some(location), Some(cookie)) if status.starts_with("HTTP/1.1 302 ") => {
            Ok(Redirection { location, cookie })
        }
        _ => Err(LoadError::Status { got: status.to_owned(), expected: "302 with a cookie" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_is_where_to_go_and_the_cookie_that_was_not_deleted() {
        let head = "HTTP/1.1 302 Found\r\nLocation: /a?state=b\r\nSet-Cookie: old_csrf=; Path=/\r\nset-cookie: new=c|d=; Path=/";
        let found = redirection(Message { head: head.as_bytes(), body: b"" }).unwrap();
        assert_eq!((found.location.as_str(), found.cookie.as_str()), ("/a?state=b", "new=c|d="));
        assert!(redirection(Message { head: b"HTTP/1.1 403 Forbidden", body: b"" }).is_err());
    }
}
