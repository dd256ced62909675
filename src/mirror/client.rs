//! Who asked, as GoTrue writes it into its session row.

use std::net::IpAddr;

use http::header::USER_AGENT;

use super::Asked;
use crate::token::cut;

/// Bytes kept of a `User-Agent`.
const USER_AGENT_MAX: usize = 512;

/// The client's address as GoTrue reads it: the first valid one in the first `X-Forwarded-For`
/// value, else the peer's (`internal/utilities/request.go:GetIPAddress`). `headers` are those that
/// are sent on.
pub fn client_ip(headers: &http::HeaderMap, peer: IpAddr) -> IpAddr {
    let forwarded = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first = forwarded.split(',').find_map(|part| part.trim().parse().ok());
    first.unwrap_or(peer).to_canonical()
}

impl Asked<'_> {
    pub(super) fn user_agent(&self) -> Option<String> {
        let value = self.headers.get(USER_AGENT)?;
        let text = String::from_utf8_lossy(value.as_bytes());
        Some(cut(&text, USER_AGENT_MAX).to_owned()).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::route::Route;

    #[test]
    fn the_first_valid_forwarded_address_counts() {
        let table = [
            (None, "10.0.0.1"),
            (Some(""), "10.0.0.1"),
            (Some("203.0.113.7"), "203.0.113.7"),
            (Some("203.0.113.7, 10.0.0.9"), "203.0.113.7"),
            (Some(" unknown ,, 203.0.113.7:80, 203.0.113.8"), "203.0.113.8"),
            (Some("2001:DB8::1"), "2001:db8::1"),
            (Some("::ffff:203.0.113.7"), "203.0.113.7"),
            (Some("nonsense"), "10.0.0.1"),
        ];
        for (forwarded, expected) in table {
            let mut headers = HeaderMap::new();
            if let Some(forwarded) = forwarded {
                headers.insert("x-forwarded-for", HeaderValue::from_static(forwarded));
            }
            let ip = client_ip(&headers, IpAddr::from([10, 0, 0, 1]));
            assert_eq!(ip.to_string(), expected, "{forwarded:?}");
        }
    }

    #[test]
    fn a_long_user_agent_is_cut_between_characters() {
        let mut headers = HeaderMap::new();
        let long = format!("a{}", "é".repeat(400));
        headers.insert(USER_AGENT, HeaderValue::from_bytes(long.as_bytes()).unwrap());
        let asked = Asked {
            route: Route::Token,
            method: &Method::POST,
            path: "/token",
            query: "",
            headers: &headers,
            body: None,
            bearer: None,
            client_ip: None,
            sent_ms: 0,
        };
        assert_eq!(asked.user_agent().map(|text| text.len()), Some(511));
    }
}
