//! A client's connection below HTTP: the bytes as they come, watched for framing that two readers
//! could understand differently ([`framing`]) and for clients that keep us waiting ([`pace`]).

pub mod framing;
mod grammar;
pub mod pace;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::framing::{Framing, Stage, Violation};
use self::pace::{CoarseClock, Pace};

/// The stream that hyper reads and writes. HTTP/2 frames itself, so there only the pace is watched.
#[derive(Debug)]
pub struct Wire<S> {
    io: S,
    framing: Option<Framing>,
    /// The beginning of a head's line: hyper gets whole ones, so that a head can be ended after any.
    unfinished: Vec<u8>,
    /// What hyper gets next, before anything more is read.
    next: Vec<u8>,
    /// Nothing after a refused request is read.
    refused: bool,
    pace: Arc<Pace>,
    clock: Arc<CoarseClock>,
}

impl<S> Wire<S> {
    /// Watches an HTTP/1.1 connection.
    pub fn http1(io: S, max_head: usize, pace: Arc<Pace>, clock: Arc<CoarseClock>) -> Self {
        Self { framing: Some(Framing::new(max_head)), ..Self::http2(io, pace, clock) }
    }

    /// Watches an HTTP/2 connection.
    pub fn http2(io: S, pace: Arc<Pace>, clock: Arc<CoarseClock>) -> Self {
        Self { io, framing: None, unfinished: Vec::new(), next: Vec::new(), refused: false, pace, clock }
    }

    /// Looks at what was just read.
    fn inspect(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let Some(framing) = &mut self.framing else { return Ok(()) };
        let read = buf.filled().get(before..).unwrap_or_default();
        match framing.advance(read) {
            Err((violation, good)) => self.refuse(violation, good, buf, before),
            Ok(()) if framing.is_lost() => return Err(io::ErrorKind::InvalidData.into()),
            Ok(()) => {
                self.pace.at_stage(framing.stage(), self.clock.get());
                let unfinished = framing.unfinished_line();
                if unfinished > 0 || !self.unfinished.is_empty() {
                    self.hold_back(unfinished, buf, before);
                }
            }
        }
        Ok(())
    }

    /// Keeps the last bytes that were read until the rest of their line comes.
    fn hold_back(&mut self, unfinished: usize, buf: &mut ReadBuf<'_>, before: usize) {
        let read = buf.filled().get(before..).unwrap_or_default();
        let (whole, rest) = match read.len().checked_sub(unfinished) {
            None => (&[][..], read), // the line began before
            Some(whole) => read.split_at_checked(whole).unwrap_or_default(),
        };
        if self.unfinished.is_empty() {
            self.unfinished.extend_from_slice(rest);
            let whole = whole.len();
            buf.set_filled(before + whole);
            return;
        }
        if unfinished <= read.len() {
            self.next.append(&mut self.unfinished);
            self.next.extend_from_slice(whole);
        }
        self.unfinished.extend_from_slice(rest);
        buf.set_filled(before);
    }

    /// Cuts a request that is refused off before the line that is wrong and ends it there, so that hyper
    /// hands it over and it is answered like any other, after those before it.
    fn refuse(&mut self, violation: Violation, good: usize, buf: &mut ReadBuf<'_>, before: usize) {
        let Some(framing) = self.framing.take() else { return };
        self.pace.refuse(violation, framing.heads() + 1);
        self.pace.at_stage(Stage::Between, self.clock.get());
        if good > 0 {
            self.next.append(&mut self.unfinished);
            self.next.extend_from_slice(buf.filled().get(before..before + good).unwrap_or_default());
        }
        self.next.extend_from_slice(if framing.head_lines() > 0 { END_OF_HEAD } else { REFUSED });
        self.refused = true;
        buf.set_filled(before);
    }

    /// Hands over what does not come from the client as it is.
    fn take_next(&mut self, buf: &mut ReadBuf<'_>) {
        let taken = self.next.len().min(buf.remaining());
        buf.put_slice(self.next.get(..taken).unwrap_or_default());
        self.next.drain(..taken);
    }
}

/// Ends a head whose first lines hyper has.
const END_OF_HEAD: &[u8] = b"\r\n";
/// Stands for a request whose first line is wrong already.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while buf.filled().len() == before {
            if !self.next.is_empty() {
                self.take_next(buf);
                return Poll::Ready(Ok(()));
            }
            if self.refused {
                return Poll::Pending;
            }
            let read = Pin::new(&mut self.io).poll_read(cx, buf);
            self.pace.reading(read.is_pending(), self.clock.get());
            ready!(read)?;
            if buf.filled().len() == before {
                break; // the end
            }
            self.inspect(buf, before)?;
        }
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
