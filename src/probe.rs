//! Clients of the admin listener, for the subcommands `healthcheck` and `drain`.
//!
//! They run in the sidecar's own container, which has no shell and no curl: a blocking socket and one
//! status line are all they need.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// For the whole exchange; container runtimes give a health check two seconds.
const DEADLINE: Duration = Duration::from_secs(1);
/// `HTTP/1.1 200`: as much of an answer as matters.
const STATUS_LINE_BYTES: usize = 12;

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody listens there, or not in time.
    #[error("no connection to the admin listener at {admin}: {source}")]
    Connect {
        /// The address that was tried.
        admin: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke, or there was no answer in time.
    #[error("no answer from the admin listener at {admin}: {source}")]
    NoAnswer {
        /// The address that was asked.
        admin: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Something else listens there.
    #[error("what listens at {admin} does not speak HTTP/1.1: is that the admin listener?")]
    NotHttp {
        /// The address that was asked.
        admin: SocketAddr,
    },
    /// It answered, but not that all is well.
    #[error("{path} at {admin} answered {status}, expected {expected}")]
    Status {
        /// The address that was asked.
        admin: SocketAddr,
        /// What was asked.
        path: &'static str,
        /// What came.
        status: u16,
        /// What should have come.
        expected: u16,
    },
}

/// Whether the sidecar that listens on `admin` is alive; within one second.
///
/// `/livez` and not `/readyz`: runtimes restart what is unhealthy, and neither GoTrue's absence nor a
/// drain is a reason for that.
pub fn healthcheck(admin: SocketAddr) -> Result<(), ProbeError> {
    ask(admin, "GET", "/livez", 200)
}

/// Tells the sidecar that listens on `admin` to drain, and does not wait for the end of it.
pub fn drain(admin: SocketAddr) -> Result<(), ProbeError> {
    ask(admin, "POST", "/drain", 202)
}

fn ask(admin: SocketAddr, method: &str, path: &'static str, expected: u16) -> Result<(), ProbeError> {
    let admin = reachable(admin);
    let until = Instant::now() + DEADLINE;
    let stream = TcpStream::connect_timeout(&admin, DEADLINE)
        .map_err(|source| ProbeError::Connect { admin, source })?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let line =
        status_line(stream, &request, until).map_err(|source| ProbeError::NoAnswer { admin, source })?;
    match status(&line) {
        Some(status) if status == expected => Ok(()),
        Some(status) => Err(ProbeError::Status { admin, path, status, expected }),
        None => Err(ProbeError::NotHttp { admin }),
    }
}

/// A listener on every address is asked on the loopback one.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}

/// Sends the request and reads the beginning of the answer; fewer bytes where the peer closed.
fn status_line(mut stream: TcpStream, request: &str, until: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(request.as_bytes())?;
    let mut line = Vec::with_capacity(STATUS_LINE_BYTES);
    while line.len() < STATUS_LINE_BYTES {
        let mut chunk = [0; STATUS_LINE_BYTES];
        stream.set_read_timeout(Some(left(until)?))?;
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        line.extend(chunk.iter().take(read));
    }
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

/// The status in `HTTP/1.x nnn`.
fn status(line: &[u8]) -> Option<u16> {
    let after = line.strip_prefix(b"HTTP/1.")?.get(1..)?;
    let digits = after.strip_prefix(b" ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (admin, asked) in
            [("0.0.0.0:9464", "127.0.0.1:9464"), ("[::]:9464", "[::1]:9464"), ("127.0.0.2:1", "127.0.0.2:1")]
        {
            assert_eq!(reachable(admin.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn only_the_beginning_of_an_http_answer_has_a_status() {
        for (line, expected) in [
            (&b"HTTP/1.1 200"[..], Some(200)),
            (b"HTTP/1.0 503 Service Unavailable", Some(503)),
            (b"HTTP/1.1 20", None),
            (b"HTTP/2 200 OK", None),
            (b"HTTP/1.1  200", None),
            (b"SSH-2.0-OpenSSH", None),
            (b"HTTP/1.1 \xff\xff\xff", None),
        ] {
            assert_eq!(status(line), expected, "{line:?}");
        }
    }
}
