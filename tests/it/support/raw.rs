//! A client that sends exactly the bytes it is given and shows exactly those that come back.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longer than anything here takes on a busy machine; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer: the head with its line ends, and the body as it was on the wire, chunk lines included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }

    /// Values of a header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Reset,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() }
    }

    /// Sends, and does not mind if the other side has gone.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await.expect("nobody reads").is_ok()
    }

    /// The next answer, which must have a body unless it is one to `HEAD`, a 1xx, 204 or 304.
    pub(crate) async fn answer(&mut self) -> Received {
        self.answer_to("").await
    }

    /// The next answer to a request with that method.
    pub(crate) async fn answer_to(&mut self, method: &str) -> Received {
        self.try_answer_to(method).await.unwrap_or_else(|| panic!("the answer broke off: {:?}", self.text()))
    }

    /// The next answer, if it comes whole.
    pub(crate) async fn try_answer_to(&mut self, method: &str) -> Option<Received> {
        let end = loop {
            match self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more().await.ok()?,
            }
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let mut received = Received { head, body: Vec::new() };
        let bodyless = method == "HEAD" || matches!(received.status(), 100..=199 | 204 | 304);
        let length = received.header("content-length").first().map(|length| length.parse().unwrap());
        if bodyless {
        } else if let Some(length) = length {
            while self.buffer.len() < length {
                self.more().await.ok()?;
            }
            received.body = self.buffer.drain(..length).collect();
        } else if received.header("transfer-encoding") == ["chunked"] {
            let end = loop {
                match end_of_chunks(&self.buffer) {
                    Some(end) => break end,
                    None => self.more().await.ok()?,
                }
            };
            received.body = self.buffer.drain(..end).collect();
        } else {
            while self.more().await.is_ok() {}
            received.body = std::mem::take(&mut self.buffer);
        }
        Some(received)
    }

    /// Everything up to the end of the connection, and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.more().await {
                return (std::mem::take(&mut self.buffer), end);
            }
        }
    }

    /// Waits until the connection has ended without a further byte.
    pub(crate) async fn closed(&mut self) -> End {
        let (rest, end) = self.rest().await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "before the end");
        end
    }

    /// Waits until so many bytes have come, and takes them.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.try_bytes(count).await.expect("more bytes")
    }

    /// The same, unless the connection ends before.
    pub(crate) async fn try_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.more().await.ok()?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    /// Nothing has come, and nothing comes within this time.
    pub(crate) async fn is_silent_for(&mut self, time: Duration) -> bool {
        self.buffer.is_empty() && timeout(time, self.stream.read_buf(&mut self.buffer)).await.is_err()
    }

    /// No more bytes are sent; answers can still be read.
    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    async fn more(&mut self) -> Result<(), End> {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        match read.unwrap_or_else(|_| panic!("neither more nor the end came after {:?}", self.text())) {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }
}

/// Where a chunked body ends, trailers included, if it is all there.
pub(crate) fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let line = |from: usize| {
        let length = bytes.get(from..)?.windows(2).position(|two| two == b"\r\n")?;
        Some((&bytes[from..from + length], from + length + 2))
    };
    let mut at = 0;
    loop {
        let (size, after) = line(at)?;
        let size = std::str::from_utf8(size).unwrap().split(';').next().unwrap().trim();
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        at = after;
        if size == 0 {
            loop {
                let (trailer, after) = line(at)?;
                at = after;
                if trailer.is_empty() {
                    return Some(at);
                }
            }
        }
        at += size + 2;
    }
}
