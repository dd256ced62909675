//! Just enough HTTP/1.1 to find where a message ends: a head, and `Content-Length`. The measuring side
//! must cost less than what it measures, so nothing else is read.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The other side closed before the message was complete.
    #[error("the connection was closed in the middle of a message")]
    Closed,
    /// More than fits the buffer.
    #[error("a message has more than {CAPACITY} bytes")]
    TooLarge,
}

const CAPACITY: usize = 8 * 1024;

/// One side of a connection, which reads one message after the other.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Wire {
    /// Takes a connection over.
    pub fn new(stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; CAPACITY], filled: 0 })
    }

    /// Sends a complete message.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), WireError> {
        Ok(self.stream.write_all(message).await?)
    }

    /// Waits for a complete message and hands it to `read`; `None` where the other side closed between two.
    pub async fn receive<T>(&mut self, read: impl FnOnce(Message<'_>) -> T) -> Result<Option<T>, WireError> {
        loop {
            let received = self.buffer.get(..self.filled).unwrap_or_default();
            if let Some((message, length)) = Message::find(received) {
                let result = read(message);
                self.buffer.copy_within(length..self.filled, 0);
                self.filled -= length;
                return Ok(Some(result));
            }
            let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
            if free.is_empty() {
                return Err(WireError::TooLarge);
            }
            match self.stream.read(free).await? {
                0 if self.filled == 0 => return Ok(None),
                0 => return Err(WireError::Closed),
                more => self.filled += more,
            }
        }
    }
}

/// A complete message.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Start line and headers, without the empty line.
    pub head: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first message in `received` and how many bytes it takes, if it is all there.
    fn find(received: &'a [u8]) -> Option<(Self, usize)> {
        let end = memchr::memmem::find(received, b"\r\n\r\n")?;
        let (head, rest) = received.split_at_checked(end)?;
        let length = content_length(head);
        let body = rest.get(4..)?.get(..length)?;
        Some((Self { head, body }, end + 4 + length))
    }
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (name, value) = line.split_at_checked(NAME.len())?;
            name.eq_ignore_ascii_case(NAME).then_some(value)
        })
        .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_length_says() {
        let received = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 3\r\n\r\nabcHTTP/1.1";
        let (message, length) = Message::find(received).unwrap();
        assert_eq!(message.body, b"abc");
        assert_eq!(length, received.len() - 8);
    }

    #[test]
    fn an_incomplete_message_is_waited_for() {
        for received in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcd"] {
            assert!(Message::find(received.as_bytes()).is_none());
        }
    }
}
