//! A client's connection below HTTP: the bytes as they come, watched for framing that two readers
//! could understand differently ([`framing`]) and for clients that keep us waiting ([`pace`]).

pub mod framing;
pub mod pace;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::framing::{Framing, Stage};
use self::pace::{CoarseClock, Pace};

/// The stream that hyper reads and writes. HTTP/2 frames itself, so there only the pace is watched.
#[derive(Debug)]
pub struct Wire<S> {
    io: S,
    framing: Option<Framing>,
    pace: Arc<Pace>,
    clock: Arc<CoarseClock>,
}

impl<S> Wire<S> {
    /// Watches an HTTP/1.1 connection.
    pub fn http1(io: S, max_head: usize, pace: Arc<Pace>, clock: Arc<CoarseClock>) -> Self {
        Self { io, framing: Some(Framing::new(max_head)), pace, clock }
    }

    /// Watches an HTTP/2 connection.
    pub fn http2(io: S, pace: Arc<Pace>, clock: Arc<CoarseClock>) -> Self {
        Self { io, framing: None, pace, clock }
    }

    /// Looks at what was just read. A request that is refused is cut off before the line that is
    /// wrong and ended there, so that hyper can hand it over and it is answered like any other.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let Some(framing) = &mut self.framing else { return };
        let read = buf.filled().get(before..).unwrap_or_default();
        if let Err((violation, good)) = framing.advance(read) {
            self.pace.refuse(violation);
            self.pace.at_stage(Stage::Between, self.clock.get());
            let end = match (framing.in_first_line(), good == 0 && before == 0) {
                (_, true) => REFUSED,
                (true, _) => END_OF_FIRST_LINE,
                (false, _) => END_OF_HEAD,
            };
            self.framing = None;
            buf.set_filled(before + good);
            buf.put_slice(end.get(..buf.remaining().min(end.len())).unwrap_or_default());
        } else {
            self.pace.at_stage(framing.stage(), self.clock.get());
        }
    }
}

/// Ends a head whose first lines hyper has, or is about to get.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// Ends a request line of which hyper has the method and a part of the target.
const END_OF_FIRST_LINE: &[u8] = b" HTTP/1.1\r\n\r\n";
/// Stands for a request whose first line is wrong already.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.pace.violation().is_some() {
            return Poll::Pending; // nothing after a refused request is read
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        self.pace.reading(read.is_pending(), self.clock.get());
        ready!(read)?;
        self.inspect(buf, before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.pace.writing(wrote.is_pending(), self.clock.get());
        wrote
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.pace.writing(wrote.is_pending(), self.clock.get());
        wrote
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
