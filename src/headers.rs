//! What a proxy changes about headers, and nothing else (contract §11): hop-by-hop fields go, the
//! client's address is added, names that only we may set are removed from what clients send.
//!
//! A map is only rebuilt when something has to go, because removing from it in place would disturb
//! the order of the rest.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{CONNECTION, COOKIE, HOST},
};
use ipnet::IpNet;

/// `X-Forwarded-For`: GoTrue takes the first valid address in it (`utilities.GetIPAddress`).
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Request-Id`: GoTrue logs it when `GOTRUE_API_REQUEST_ID_HEADER` says so.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `traceparent`, W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The identity headers of the check endpoint (contract §8): user, session, role, e-mail, level, expiry. Nobody may
/// send them through us.
pub const IDENTITY: [&str; 6] =
    ["x-auth-user", "x-auth-session", "x-auth-role", "x-auth-email", "x-auth-aal", "x-auth-expires"];

/// End-to-end headers that a client must not be able to remove by naming them in `Connection`
/// (Traefik CVE-2024-45410 and its kind).
const PROTECTED: [&str; 22] = [
    "accept",
    "apikey",
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "origin",
    "redirect_to",
    "referer",
    "sb-forwarded-for",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-client-info",
    "x-jwt-aud",
    "x-request-id",
    "x-supabase-api-version",
    "x-real-ip",
];

/// The client at the other end of a connection, as headers name it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub ip: IpAddr,
    text: HeaderValue,
    trusted: bool,
}

impl Peer {
    /// `trusted_proxies`: `forwarded.trusted_proxies`; empty trusts everybody.
    pub fn new(ip: IpAddr, trusted_proxies: &[IpNet]) -> Self {
        let ip = ip.to_canonical();
        let trusted = trusted_proxies.is_empty() || trusted_proxies.iter().any(|net| net.contains(&ip));
        let text =
            HeaderValue::try_from(ip.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { ip, text, trusted }
    }

    /// The client's address as `read` finds it in what is forwarded; a peer that is not trusted is
    /// the client itself.
    pub fn client_ip(&self, headers: &HeaderMap, read: impl Fn(&HeaderMap, IpAddr) -> IpAddr) -> IpAddr {
        if self.trusted { read(headers, self.ip) } else { self.ip }
    }
}

/// Makes a client's request headers ready for GoTrue. `authority` is the one that the request's target
/// has: always in HTTP/2, else where it is a whole address.
///
/// # Errors
/// A request whose host two readers could understand differently.
pub fn for_upstream(
    headers: &mut HeaderMap,
    version: Version,
    authority: Option<&str>,
    peer: &Peer,
) -> Result<(), AmbiguousHost> {
    one_host(headers, version, authority)?;
    if headers.iter().any(|(name, value)| !passes_upstream(name, value, peer)) {
        let named = named_in_connection(headers);
        retain(headers, |name, value| passes_upstream(name, value, peer) && !is_named(&named, name));
    }
    if version == Version::HTTP_2 {
        join_cookies(headers);
    }
    forwarded_for(headers, peer);
    Ok(())
}

/// Removes from trailers what nobody may send through us (Traefik CVE-2026-88004).
pub fn trailers_for_upstream(trailers: &mut HeaderMap) {
    if trailers.keys().any(|name| is_ours(name.as_str())) {
        retain(trailers, |name, _| !is_ours(name.as_str()));
    }
}

/// Removes what GoTrue said to its connection with us.
pub fn for_client(headers: &mut HeaderMap, version: Version) {
    let chunked_passes = version == Version::HTTP_11;
    if headers.keys().any(|name| !passes_downstream(name, chunked_passes)) {
        let named = named_in_connection(headers);
        retain(headers, |name, _| passes_downstream(name, chunked_passes) && !is_named(&named, name));
    }
}

/// More than one `Host`, none where HTTP/1.1 demands one, or one that is no text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request does not name one host")]
pub struct AmbiguousHost;

fn one_host(headers: &mut HeaderMap, version: Version, authority: Option<&str>) -> Result<(), AmbiguousHost> {
    let mut hosts = headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() || (first.is_none() && version == Version::HTTP_11) {
        return Err(AmbiguousHost);
    }
    let Some(authority) = authority else { return Ok(()) };
    // HTTP/2's authority and Host say the same (RFC 9113 §8.3.1); in a whole address it wins (RFC 9112 §3.2.2)
    let differs = first.is_some_and(|host| host.as_bytes() != authority.as_bytes());
    if authority.contains('@') || (version == Version::HTTP_2 && differs) {
        return Err(AmbiguousHost);
    }
    let host = HeaderValue::from_str(authority).map_err(|_| AmbiguousHost)?;
    headers.insert(HOST, host);
    Ok(())
}

/// Whether a request header may stay as it is. `Connection: keep-alive` may: we say it to GoTrue, too.
fn passes_upstream(name: &HeaderName, value: &HeaderValue, peer: &Peer) -> bool {
    match name.as_str() {
        "connection" => value.as_bytes().eq_ignore_ascii_case(b"keep-alive"),
        "expect" => false,
        "sb-forwarded-for" | "forwarded" | "x-real-ip" => peer.trusted,
        name if name.starts_with("x-forwarded-") && name != X_FORWARDED_FOR => peer.trusted,
        name => !is_hop_by_hop(name) && !is_ours(name),
    }
}

fn passes_downstream(name: &HeaderName, chunked_passes: bool) -> bool {
    match name.as_str() {
        "transfer-encoding" => chunked_passes, // hyper frames the body by it, so it must see it
        "connection" => false,
        name => !is_hop_by_hop(name),
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "te" | "upgrade" | "keep-alive" | "proxy-connection" | "proxy-authorization" | "proxy-authenticate"
    )
}

/// Names that only GoTrue (`sb-auth-*`) or the sidecar (identity) may set; some servers read `_` as `-`.
fn is_ours(name: &str) -> bool {
    let bytes = name.as_bytes();
    match bytes.first() {
        Some(b's') => bytes.len() > 8 && same(bytes.get(..8).unwrap_or_default(), b"sb-auth-"),
        Some(b'x') => {
            bytes.get(2..6) == Some(b"auth") && IDENTITY.iter().any(|ours| same(bytes, ours.as_bytes()))
        }
        _ => false,
    }
}

/// Equal where `_` and `.` count as `-`.
fn same(name: &[u8], ours: &[u8]) -> bool {
    name.len() == ours.len()
        && name.iter().zip(ours).all(|(a, b)| a == b || (*b == b'-' && matches!(a, b'_' | b'.')))
}

/// The headers that `Connection` names and that may go because of it.
fn named_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
    names.filter(|name: &HeaderName| !is_protected(name.as_str())).collect()
}

fn is_protected(name: &str) -> bool {
    PROTECTED.contains(&name) || name.starts_with("x-forwarded-") || name.starts_with("sb-")
}

fn is_named(named: &[HeaderName], name: &HeaderName) -> bool {
    !named.is_empty() && named.contains(name)
}

/// Keeps the order of what stays.
fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName, &HeaderValue) -> bool) {
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        if keep(name, value) {
            kept.append(name.clone(), value.clone());
        }
    }
    *headers = kept;
}

/// HTTP/2 clients may split a cookie into several fields; HTTP/1.1 has one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let parts: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Appends the peer and keeps what was there, first value first; a peer that is not trusted does not
/// get its say.
fn forwarded_for(headers: &mut HeaderMap, peer: &Peer) {
    let mut before = headers.get_all(X_FORWARDED_FOR).iter();
    let value = match before.next() {
        Some(first) if peer.trusted => {
            let mut joined = first.as_bytes().to_vec();
            for more in before {
                joined.extend_from_slice(b", ");
                joined.extend_from_slice(more.as_bytes());
            }
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(peer.text.as_bytes());
            HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)).unwrap_or_else(|_| peer.text.clone())
        }
        _ => peer.text.clone(),
    };
    headers.insert(X_FORWARDED_FOR, value);
}

#[cfg(test)]
mod tests {
    use http::header::TRANSFER_ENCODING;

    use super::*;

    const VERSION: Version = Version::HTTP_11;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    fn peer(trusted: &[&str]) -> Peer {
        let nets: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
        Peer::new("192.0.2.1".parse().unwrap(), &nets)
    }

    fn upstream(sent: &[(&str, &str)]) -> Vec<String> {
        let mut headers = map(sent);
        for_upstream(&mut headers, VERSION, None, &peer(&[])).unwrap();
        lines(&headers)
    }

    #[test]
    fn what_is_end_to_end_stays_in_order_with_duplicates() {
        let sent = [
            ("host", "a"),
            ("b", "1"),
            ("a", "2"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("z", "1"),
        ];
        assert_eq!(upstream(&sent), ["host: a", "b: 1", "a: 2", "z: 1", "x-forwarded-for: 192.0.2.1"]);
        let twice = [("host", "a"), ("accept", "x"), ("b", "1"), ("accept", "y")];
        let mut headers = map(&twice);
        for_upstream(&mut headers, VERSION, None, &peer(&[])).unwrap();
        assert_eq!(headers.get_all("accept").iter().collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn a_kept_alive_connection_changes_nothing() {
        let kept = upstream(&[("host", "a"), ("connection", "keep-alive"), ("z", "1")]);
        assert_eq!(kept, ["host: a", "connection: keep-alive", "z: 1", "x-forwarded-for: 192.0.2.1"]);
    }

    #[test]
    fn connection_cannot_remove_what_matters() {
        let sent = [
            ("host", "a"),
            ("authorization", "Bearer x"),
            ("x-forwarded-for", "198.51.100.7"),
            ("connection", "authorization, x-forwarded-for, x-supabase-api-version, sb-forwarded-for"),
            ("x-supabase-api-version", "2024-01-01"),
        ];
        assert_eq!(
            upstream(&sent),
            [
                "host: a",
                "authorization: Bearer x",
                "x-forwarded-for: 198.51.100.7, 192.0.2.1",
                "x-supabase-api-version: 2024-01-01"
            ]
        );
    }

    #[test]
    fn clients_cannot_send_what_only_we_may_say() {
        let sent = [
            ("host", "a"),
            ("sb-auth-user-id", "x"),
            ("sb_auth_session_id", "x"),
            ("x-auth-user", "x"),
            ("x_auth_user", "x"),
            ("x-auth.role", "x"),
            ("x-auth-other", "stays"),
            ("sb-lang", "stays"),
        ];
        assert_eq!(
            upstream(&sent),
            ["host: a", "x-auth-other: stays", "sb-lang: stays", "x-forwarded-for: 192.0.2.1"]
        );
    }

    #[test]
    fn forwarding_is_appended_or_replaced() {
        let table: [(&[&str], &[&str], &str); 5] = [
            (&[], &[], "192.0.2.1"),
            (&[], &["198.51.100.7"], "198.51.100.7, 192.0.2.1"),
            (&[], &["198.51.100.7", "10.0.0.1"], "198.51.100.7, 10.0.0.1, 192.0.2.1"),
            (&["192.0.2.0/24"], &["198.51.100.7"], "198.51.100.7, 192.0.2.1"),
            (&["10.0.0.0/8"], &["198.51.100.7"], "192.0.2.1"),
        ];
        for (trusted, sent, expected) in table {
            let mut headers = map(&[("host", "a")]);
            for value in sent {
                headers.append(X_FORWARDED_FOR, value.parse().unwrap());
            }
            for_upstream(&mut headers, VERSION, None, &peer(trusted)).unwrap();
            let found: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
            assert_eq!(found, [expected], "{trusted:?} {sent:?}");
        }
    }

    #[test]
    fn one_host_and_no_other() {
        let mut two = map(&[("host", "a"), ("host", "b")]);
        assert_eq!(for_upstream(&mut two, VERSION, None, &peer(&[])), Err(AmbiguousHost));
        let mut none = map(&[]);
        assert_eq!(for_upstream(&mut none, VERSION, None, &peer(&[])), Err(AmbiguousHost));
        assert_eq!(for_upstream(&mut none, Version::HTTP_10, None, &peer(&[])), Ok(()));
        let mut h2 = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        for_upstream(&mut h2, Version::HTTP_2, Some("example.com"), &peer(&[])).unwrap();
        assert_eq!(h2.get(HOST).unwrap(), "example.com");
        assert_eq!(h2.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        let mut other = map(&[("host", "evil.example")]);
        assert_eq!(
            for_upstream(&mut other, Version::HTTP_2, Some("example.com"), &peer(&[])),
            Err(AmbiguousHost)
        );
    }

    #[test]
    fn answers_lose_what_was_said_to_our_connection() {
        let mut headers = map(&[
            ("content-type", "a"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
        ]);
        for_client(&mut headers, Version::HTTP_11);
        assert_eq!(
            lines(&headers),
            ["content-type: a", "transfer-encoding: chunked", "set-cookie: a", "set-cookie: b"]
        );
        for_client(&mut headers, Version::HTTP_2);
        assert!(!headers.contains_key(TRANSFER_ENCODING));
    }
}
