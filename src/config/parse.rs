//! From one value's text to its type. Pure: no file, no environment, no clock. `None` for a text that is not
//! such a value; what was expected is said by [`Kind::expected`](super::kind::Kind::expected).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use http::Uri;
use ipnet::IpNet;

use super::{Jwks, LogFormat, LogLevel, UpstreamUrl};

/// In place of a number: the process decides.
pub const AUTO: &str = "auto";

/// A duration's units in milliseconds, the largest first.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

/// A size's units in bytes; none for bytes.
const SIZES: [(&str, usize); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];

/// `0.0.0.0:9999`, `[::1]:9999`. Port 0 is the system's choice.
pub fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// `true`, `false`.
pub fn switch(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// Digits only: no sign, no spaces.
pub fn count(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// `250ms`, `5s`, `2m`, `1h`, `30d`, `0`.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, unit) = UNITS.iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, *ms)))?;
    count(number)?.checked_mul(unit).map(Duration::from_millis)
}

/// `65536`, `64KiB`, `1MiB`, `1GiB`: bytes.
pub fn size(text: &str) -> Option<usize> {
    let (number, unit) = SIZES.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)))?;
    usize::try_from(count(number)?).ok()?.checked_mul(unit)
}

/// The items of comma-separated text, trimmed; none for no text.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim();
    text.split(',').map(str::trim).filter(move |_| !text.is_empty())
}

/// `10.0.0.0/8, fd00::/8, 192.168.1.7`; a single address is a network of its own.
pub fn networks(text: &str) -> Option<Vec<IpNet>> {
    list(text)
        .map(|item| item.parse().ok().or_else(|| item.parse::<IpAddr>().ok().map(IpNet::from)))
        .collect()
}

/// Empty, or a path whose segments mean themselves.
pub fn path_prefix(text: &str) -> Option<String> {
    (text.is_empty() || is_path(text)).then(|| text.to_owned())
}

/// `http://127.0.0.1:9997`, `https://auth.internal/auth/v1`.
pub fn upstream_url(text: &str) -> Option<UpstreamUrl> {
    let uri = plain_uri(text)?;
    let tls = uri.scheme_str() == Some("https");
    let authority = uri.authority()?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path().strip_suffix('/').unwrap_or(uri.path()).to_owned();
    (path.is_empty() || is_path(&path)).then_some(UpstreamUrl { tls, authority, host, port, path })
}

/// `upstream`, `off`, or an address.
pub fn jwks(text: &str) -> Option<Jwks> {
    match text {
        "upstream" => Some(Jwks::Upstream),
        "off" => Some(Jwks::Off),
        _ => absolute_uri(text).map(Jwks::Url),
    }
}

/// A JSON array of objects; what they hold is for the verifier to judge.
pub fn json_keys(text: &str) -> Option<()> {
    serde_json::from_str::<Vec<serde_json::Map<String, serde_json::Value>>>(text).ok().map(drop)
}

/// Braces would move a key to another Cluster slot (contract §5), spaces would not survive a shell.
pub fn key_prefix(text: &str) -> Option<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte));
    (plain && (1..=64).contains(&text.len())).then(|| text.to_owned())
}

/// `log.format`
pub fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "json" => Some(LogFormat::Json),
        "text" => Some(LogFormat::Text),
        _ => None,
    }
}

/// `log.level`
pub fn log_level(text: &str) -> Option<LogLevel> {
    match text {
        "off" => Some(LogLevel::Off),
        "error" => Some(LogLevel::Error),
        "warn" => Some(LogLevel::Warn),
        "info" => Some(LogLevel::Info),
        "debug" => Some(LogLevel::Debug),
        "trace" => Some(LogLevel::Trace),
        _ => None,
    }
}

/// An `http` or `https` address with a host and without user information or fragment.
fn absolute_uri(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = !authority.host().is_empty() && !authority.as_str().contains('@');
    let ported = authority.as_str().len() > authority.host().len();
    let port = !ported || authority.port_u16().is_some_and(|port| port != 0);
    (scheme && host && port && !text.contains('#')).then_some(uri)
}

/// An address without a query too.
fn plain_uri(text: &str) -> Option<Uri> {
    absolute_uri(text).filter(|_| !text.contains('?'))
}

/// `/a/b`: visible ASCII, no empty or dotted segment, nothing that ends a path.
fn is_path(text: &str) -> bool {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\%".contains(&byte));
    let segments = text.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|segment| !segment.is_empty() && segment != "." && segment != "..")
    });
    visible && segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        let table = [
            ("250ms", Some(Duration::from_millis(250))),
            ("5s", Some(Duration::from_secs(5))),
            ("2m", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3600))),
            ("30d", Some(Duration::from_secs(30 * 86_400))),
            ("0", Some(Duration::ZERO)),
            ("0s", Some(Duration::ZERO)),
            ("", None),
            ("s", None),
            ("5", None),
            ("-5s", None),
            ("+5s", None),
            ("1.5s", None),
            ("5 s", None),
            ("5S", None),
            ("5w", None),
            ("1h30m", None),
            ("18446744073709551615d", None),
            ("99999999999999999999s", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_size_is_bytes_or_a_binary_unit() {
        let table = [
            ("0", Some(0)),
            ("65536", Some(65536)),
            ("64KiB", Some(65536)),
            ("1MiB", Some(1 << 20)),
            ("2GiB", Some(2 << 30)),
            ("", None),
            ("KiB", None),
            ("64KB", None),
            ("64k", None),
            ("64 KiB", None),
            ("-1", None),
            ("99999999999GiB", None),
        ];
        for (text, expected) in table {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn a_list_is_separated_by_commas() {
        let items = |text: &'static str| list(text).collect::<Vec<_>>();
        assert_eq!(items(""), Vec::<&str>::new());
        assert_eq!(items("  "), Vec::<&str>::new());
        assert_eq!(items("a"), ["a"]);
        assert_eq!(items(" a , b,c "), ["a", "b", "c"]);
        assert_eq!(items("a,,b"), ["a", "", "b"], "an empty item is for the kind to refuse");
    }

    #[test]
    fn a_network_may_be_one_address() {
        let parsed = networks("10.0.0.0/8, fd00::/8,192.168.1.7")
            .map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(parsed, Some(vec!["10.0.0.0/8".into(), "fd00::/8".into(), "192.168.1.7/32".into()]));
        assert_eq!(networks(""), Some(vec![]));
        for text in ["10.0.0.0/33", "localhost", "10.0.0.0/8,", "10/8"] {
            assert_eq!(networks(text), None, "{text}");
        }
    }

    #[test]
    fn a_path_prefix_begins_with_a_slash_and_does_not_end_with_one() {
        for text in ["", "/auth", "/auth/v1", "/a-b_c.d/~e"] {
            assert_eq!(path_prefix(text).as_deref(), Some(text));
        }
        for text in [
            "/", "auth", "/auth/", "//auth", "/a//b", "/a?b", "/a#b", "/a b", "/a/../b", "/.", "/a%2fb", "/ü",
        ] {
            assert_eq!(path_prefix(text), None, "{text}");
        }
    }

    #[test]
    fn an_upstream_is_scheme_host_port_and_path() {
        let table = [
            ("http://127.0.0.1:9997", (false, "127.0.0.1", 9997, "")),
            ("http://gotrue", (false, "gotrue", 80, "")),
            ("https://auth.internal/", (true, "auth.internal", 443, "")),
            ("http://127.0.0.1:54321/auth/v1", (false, "127.0.0.1", 54321, "/auth/v1")),
            ("http://127.0.0.1:54321/auth/v1/", (false, "127.0.0.1", 54321, "/auth/v1")),
            ("https://[::1]:8443", (true, "::1", 8443, "")),
        ];
        for (text, (tls, host, port, path)) in table {
            let url = upstream_url(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((url.tls, url.host.as_str(), url.port, url.path.as_str()), (tls, host, port, path));
        }
        for text in [
            "",
            "gotrue",
            "127.0.0.1:9997",
            "/auth",
            "ftp://gotrue",
            "http://",
            "http:///auth",
            "http://:80",
            "http://gotrue:",
            "http://gotrue:0",
            "http://gotrue:99999",
            "http://user@gotrue",
            "http://user:password@gotrue",
            "http://gotrue/?a=b",
            "http://gotrue/#a",
            "http://gotrue//a",
            "http://gotrue/a/../b",
            "http://go true",
            "unix:///run/gotrue.sock",
        ] {
            assert_eq!(upstream_url(text), None, "{text}");
        }
    }

    #[test]
    fn keys_come_from_gotrue_an_address_or_nowhere() {
        assert_eq!(jwks("upstream"), Some(Jwks::Upstream));
        assert_eq!(jwks("off"), Some(Jwks::Off));
        assert!(matches!(jwks("https://id.example/jwks.json?v=1"), Some(Jwks::Url(_))));
        for text in ["", "on", "Upstream", "jwks.json", "ftp://a/b", "https://user:password@id.example/"] {
            assert_eq!(jwks(text), None, "{text}");
        }
    }

    #[test]
    fn key_sets_are_arrays_of_objects() {
        for text in ["[]", r#"[{"kty":"oct","k":"c2VjcmV0"}]"#] {
            assert!(json_keys(text).is_some(), "{text}");
        }
        for text in ["", "{}", r#"{"keys":[]}"#, "[1]", "[{]", "secret"] {
            assert!(json_keys(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_prefix_cannot_move_a_cluster_slot() {
        for text in ["gotrue", "prod:auth", "a.b_c-1"] {
            assert_eq!(key_prefix(text).as_deref(), Some(text));
        }
        for text in ["", "{a}", "a b", "a\n", "ü", "a/b", &"a".repeat(65)] {
            assert_eq!(key_prefix(text), None, "{text}");
        }
    }
}
