//! One line of the log, in either format: the same fields in the same order, written by hand
//! because the access log has a line for every request.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use crate::{
    config::LogFormat,
    rfc3339::{self, decimal},
};

/// A line under way.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: LogFormat,
}

impl<'a> Line<'a> {
    /// Begins a line. `level` and `target` are our own words.
    pub(crate) fn begin(
        out: &'a mut Vec<u8>,
        format: LogFormat,
        at: SystemTime,
        level: &str,
        target: &str,
    ) -> Self {
        match format {
            LogFormat::Json => {
                out.extend_from_slice(b"{\"ts\":\"");
                rfc3339::write(out, at);
                out.extend_from_slice(b"\",\"level\":\"");
                out.extend_from_slice(level.as_bytes());
                out.extend_from_slice(b"\",\"target\":\"");
                out.extend_from_slice(target.as_bytes());
                out.push(b'"');
            }
            LogFormat::Text => {
                rfc3339::write(out, at);
                out.push(b' ');
                out.extend_from_slice(level.as_bytes());
                out.push(b' ');
                out.extend_from_slice(target.as_bytes());
            }
        }
        Self { out, format }
    }

    /// Ends the line.
    pub(crate) fn end(self) {
        self.out.extend_from_slice(match self.format {
            LogFormat::Json => b"}\n",
            LogFormat::Text => b"\n",
        });
    }

    /// What the line is about: plain words in the text format, wherever they come from.
    pub(crate) fn message(&mut self, value: &[u8]) {
        match self.format {
            LogFormat::Json => self.text("message", value),
            LogFormat::Text => {
                self.out.extend_from_slice(b": ");
                escape(self.out, value);
            }
        }
    }

    /// Text from wherever: escaped; what is not UTF-8 becomes U+FFFD.
    pub(crate) fn text(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        if self.format == LogFormat::Text && is_word(value) {
            self.out.extend_from_slice(value);
            return;
        }
        self.out.push(b'"');
        escape(self.out, value);
        self.out.push(b'"');
    }

    /// Something that prints itself as letters, digits and `-`, `.`, `:` only.
    pub(crate) fn word(&mut self, key: &str, value: impl fmt::Display) {
        self.quoted(key, |out| {
            // a Vec takes everything
            let _ = write!(Bytes(out), "{value}");
        });
    }

    /// An address, without brackets.
    pub(crate) fn address(&mut self, key: &str, value: IpAddr) {
        self.quoted(key, |out| match value {
            IpAddr::V4(address) => {
                for (at, octet) in address.octets().into_iter().enumerate() {
                    if at > 0 {
                        out.push(b'.');
                    }
                    decimal(out, octet.into(), 1);
                }
            }
            IpAddr::V6(address) => {
                let _ = write!(Bytes(out), "{address}");
            }
        });
    }

    /// A number.
    pub(crate) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        decimal(self.out, value, 1);
    }

    /// A number that may be negative.
    pub(crate) fn signed(&mut self, key: &str, value: i64) {
        self.key(key);
        if value < 0 {
            self.out.push(b'-');
        }
        decimal(self.out, value.unsigned_abs(), 1);
    }

    /// Yes or no.
    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.out.extend_from_slice(word);
    }

    /// Milliseconds, with the microseconds behind the point.
    pub(crate) fn millis(&mut self, key: &str, value: Duration) {
        self.key(key);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        decimal(self.out, micros / 1_000, 1);
        self.out.push(b'.');
        decimal(self.out, micros % 1_000, 3);
    }

    fn key(&mut self, key: &str) {
        match self.format {
            LogFormat::Json => {
                self.out.extend_from_slice(b",\"");
                self.out.extend_from_slice(key.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
            LogFormat::Text => {
                self.out.push(b' ');
                self.out.extend_from_slice(key.as_bytes());
                self.out.push(b'=');
            }
        }
    }

    fn quoted(&mut self, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        match self.format {
            LogFormat::Json => {
                self.out.push(b'"');
                value(self.out);
                self.out.push(b'"');
            }
            LogFormat::Text => value(self.out),
        }
    }
}

/// Lets things print themselves into bytes.
struct Bytes<'a>(&'a mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Can stand in a line of text without quotes, and is told apart from what surrounds it.
fn is_word(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| is_plain(*byte) && !matches!(byte, b' ' | b'='))
}

/// Printable ASCII that means nothing inside quotes.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// As a JSON string escapes; control characters of every kind, so that a terminal obeys nothing.
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    if value.iter().copied().all(is_plain) {
        out.extend_from_slice(value);
        return;
    }
    for chunk in value.utf8_chunks() {
        for letter in chunk.valid().chars() {
            escape_letter(out, letter);
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escape_letter(out: &mut Vec<u8>, letter: char) {
    match letter {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        letter if letter.is_control() => {
            let _ = write!(Bytes(out), "\\u{:04x}", u32::from(letter));
        }
        letter => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}
