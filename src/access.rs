//! The access log: one line for every request, once it is over. Never a query string, a token, a
//! cookie or an e-mail (contract §13).

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use crate::{
    config::{self, LogFormat, LogLevel},
    request_id,
    session::{SessionId, UserId},
    telemetry::{LogBuffer, line::Line},
};

/// Where access lines go, and how they look.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: LogFormat,
    buffer: LogBuffer,
}

/// What is known of a request that is over.
#[derive(Debug)]
pub struct AccessLine<'a> {
    /// `Route::template`.
    pub route: &'a str,
    /// `route::method_label`.
    pub method: &'a str,
    /// The client's; 499 when it left before there was one.
    pub status: u16,
    /// From the request's head to the last byte of the answer.
    pub duration: Duration,
    /// How much of that was spent waiting for GoTrue.
    pub upstream: Duration,
    /// Of the answer's body, handed over.
    pub bytes: u64,
    /// The peer, or whom a trusted proxy names.
    pub client: IpAddr,
    /// `X-Request-Id`, the client's or ours; from outside, so of any content.
    pub request_id: &'a [u8],
    /// `traceparent`; from outside, so of any content.
    pub traceparent: Option<&'a [u8]>,
    /// Whose session it was, where that is known.
    pub user: Option<UserId>,
    /// Which session it was.
    pub session: Option<SessionId>,
    /// The answer was not handed over to its end.
    pub aborted: bool,
}

impl AccessLog {
    /// `None` where `log.access` is off or `log.level` is above `info`.
    pub fn new(log: &config::Log, buffer: LogBuffer) -> Option<Self> {
        (log.access && log.level >= LogLevel::Info).then_some(Self { format: log.format, buffer })
    }

    /// Adds the line. Never waits, never fails: a line that finds no room is counted by the buffer.
    pub fn write(&self, line: &AccessLine<'_>) {
        self.buffer.line(|out| line.print(out, self.format, SystemTime::now()));
    }
}

impl AccessLine<'_> {
    fn print(&self, out: &mut Vec<u8>, format: LogFormat, at: SystemTime) {
        let mut line = Line::begin(out, format, at, "info", "access");
        line.text("route", self.route.as_bytes());
        line.text("method", self.method.as_bytes());
        line.number("status", self.status.into());
        line.millis("duration_ms", self.duration);
        line.millis("upstream_ms", self.upstream);
        line.number("bytes", self.bytes);
        line.address("client", self.client);
        line.text("request_id", request_id::shown(self.request_id));
        if let Some(trace) = self.traceparent.and_then(trace_id) {
            line.text("trace_id", trace);
        }
        if let Some(user) = self.user {
            line.word("user", user);
        }
        if let Some(session) = self.session {
            line.word("session", session);
        }
        line.flag("aborted", self.aborted);
        line.end();
    }
}

/// The trace id of a valid `traceparent`: 32 lower-case hexadecimal digits, not all zero.
///
/// W3C Trace Context §3.2: `version "-" trace-id "-" parent-id "-" trace-flags`. Version `ff` is
/// invalid, `00` ends there, later ones may go on after another `-`.
fn trace_id(traceparent: &[u8]) -> Option<&[u8]> {
    let (version, rest) = hex(traceparent, 2)?;
    let (trace, rest) = hex(rest.strip_prefix(b"-")?, 32)?;
    let (parent, rest) = hex(rest.strip_prefix(b"-")?, 16)?;
    let (_, rest) = hex(rest.strip_prefix(b"-")?, 2)?;
    let ends = rest.is_empty() || (version != b"00" && rest.first() == Some(&b'-'));
    let says_something = |id: &[u8]| id.iter().any(|digit| *digit != b'0');
    (ends && version != b"ff" && says_something(trace) && says_something(parent)).then_some(trace)
}

/// So many lower-case hexadecimal digits, and what follows them.
fn hex(text: &[u8], digits: usize) -> Option<(&[u8], &[u8])> {
    let (found, rest) = text.split_at_checked(digits)?;
    found.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')).then_some((found, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn line() -> AccessLine<'static> {
        AccessLine {
            route: "/token",
            method: "POST",
            status: 200,
            duration: Duration::from_micros(12_345),
            upstream: Duration::from_micros(11_007),
            bytes: 1_234,
            client: [10, 0, 255, 7].into(),
            request_id: b"0123456789abcdef-1f",
            traceparent: None,
            user: None,
            session: None,
            aborted: false,
        }
    }

    fn printed(line: &AccessLine<'_>, format: LogFormat) -> String {
        let mut out = Vec::new();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_478_870_108);
        line.print(&mut out, format, at);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_is_one_json_object() {
        let full = AccessLine {
            traceparent: Some(TRACE),
            user: UserId::parse("0191d1a0-0000-7000-8000-00000000000a"),
            session: SessionId::parse("0191d1a0-0000-7000-8000-000000000001"),
            client: "2001:db8::1".parse().unwrap(),
            aborted: true,
            ..line()
        };
        assert_eq!(
            printed(&full, LogFormat::Json),
            concat!(
                r#"{"ts":"2026-11-24T00:07:50.108Z","level":"info","target":"access","route":"/token","#,
                r#""method":"POST","status":200,"duration_ms":12.345,"upstream_ms":11.007,"bytes":1234,"#,
                r#""client":"2001:db8::1","request_id":"0123456789abcdef-1f","#,
                r#""trace_id":"0af7651916cd43dd8448eb211c80319c","#,
                r#""user":"0191d1a0-0000-7000-8000-00000000000a","#,
                r#""session":"0191d1a0-0000-7000-8000-000000000001","aborted":true}"#,
                "\n"
            )
        );
        let read: serde_json::Value = serde_json::from_str(&printed(&line(), LogFormat::Json)).unwrap();
        assert_eq!(read["duration_ms"], 12.345);
        assert_eq!(read.get("user"), None);
    }

    #[test]
    fn text_has_the_same_fields() {
        assert_eq!(
            printed(&line(), LogFormat::Text),
            "2026-11-24T00:07:50.108Z info access route=/token method=POST status=200 duration_ms=12.345 \
             upstream_ms=11.007 bytes=1234 client=10.0.255.7 request_id=0123456789abcdef-1f aborted=false\n"
        );
    }

    #[test]
    fn a_request_id_from_outside_cannot_leave_its_place() {
        // sent, read back from JSON, in text
        let table: [(&[u8], &str, &str); 7] = [
            (b"a\",\"status\":500", "a\",\"status\":500", r#""a\",\"status\":500""#),
            (b"a b", "a b", r#""a b""#),
            (b"a=b", "a=b", r#""a=b""#),
            (b"\t\\\x1b[2J", "\t\\\u{1b}[2J", r#""\t\\\u001b[2J""#),
            (b"\xff\xfex", "\u{fffd}\u{fffd}x", "\"\u{fffd}\u{fffd}x\""),
            ("é\u{9b}2J".as_bytes(), "é\u{9b}2J", "\"é\\u009b2J\""),
            (b"", "", r#""""#),
        ];
        for (sent, read, text) in table {
            let line = AccessLine { request_id: sent, ..line() };
            let json = printed(&line, LogFormat::Json);
            assert_eq!(json.matches('\n').count(), 1, "{json}");
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["request_id"], read);
            assert_eq!(json["status"], 200);
            let printed = printed(&line, LogFormat::Text);
            assert!(printed.ends_with(&format!(" request_id={text} aborted=false\n")), "{printed}");
        }
    }

    #[test]
    fn a_long_request_id_is_cut() {
        let long = vec![b'x'; 60_000];
        let line = AccessLine { request_id: &long, ..line() };
        let json: serde_json::Value = serde_json::from_str(&printed(&line, LogFormat::Json)).unwrap();
        assert_eq!(json["request_id"].as_str().unwrap().len(), 128);
    }

    #[test]
    fn only_a_valid_traceparent_gives_a_trace_id() {
        let id: &[u8] = b"0af7651916cd43dd8448eb211c80319c";
        let table: [(&[u8], bool); 16] = [
            (TRACE, true),
            (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff", true),
            (b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", true),
            (b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
            (b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what", false),
            (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", false),
            (b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            (b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", false),
            (b"00-00000000000000000000000000000000-b7ad6b7169203331-01", false),
            (b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", false),
            (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0", false),
            (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", false),
            (b"00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            (b" 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            (b"00-\"af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", false),
            (b"", false),
        ];
        for (sent, valid) in table {
            let shown = String::from_utf8_lossy(sent);
            assert_eq!(trace_id(sent), valid.then_some(id), "{shown}");
        }
    }

    #[test]
    fn there_is_no_access_log_where_none_is_asked_for() {
        let (buffer, _guard) = LogBuffer::new(Box::new(std::io::sink())).unwrap();
        let table = [
            (true, LogLevel::Trace, true),
            (true, LogLevel::Info, true),
            (true, LogLevel::Warn, false),
            (true, LogLevel::Off, false),
            (false, LogLevel::Info, false),
        ];
        for (access, level, there) in table {
            let log = config::Log { format: LogFormat::Json, level, access };
            assert_eq!(AccessLog::new(&log, buffer.clone()).is_some(), there, "{log:?}");
        }
    }
}
