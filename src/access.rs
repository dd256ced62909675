//! The access log: one line for every request, once it is over. Never a query string, a token, a
//! cookie or an e-mail (contract §13).

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use crate::{
    config::{self, LogFormat, LogLevel},
    session::{SessionId, UserId},
    telemetry::{LogBuffer, line::Line},
};

/// Longest request id that is printed; a longer one is cut.
const REQUEST_ID_BYTES: usize = 128;

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
        (log.access && log.level >= LogLevel::Info).then_some(Self {
            format: log.format,
            buffer,
        })
    }

    /// Adds the line. Never waits, never fails: a line that finds no room is counted by the buffer.
    pub fn write(&self, line: &AccessLine<'_>) {
        self.buffer
            .line(|out| line.print(out, self.format, SystemTime::now()));
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
        let id = self.request_id;
        line.text("request_id", id.get(..REQUEST_ID_BYTES).unwrap_or(id));
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
    found
        .iter()
        .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        .then_some((found, rest))
}
