//! Bodies on their way through: streamed frame by frame, or held while an answer is acted on.
//!
//! Nothing is copied: frames are reference-counted bytes. A body that makes no progress for
//! `limits.body_timeout` is given up.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::{exchange::Exchange, metrics::UpstreamFailure, session::Unrecorded, upstream::Lease};

/// Why an answer's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// GoTrue closed the connection, or its framing is wrong.
    #[error("the answer broke off")]
    CutOff(#[source] hyper::Error),
    /// No progress within `limits.body_timeout`.
    #[error("the answer stalled")]
    Stalled,
}

impl Error {
    /// What metrics call it.
    fn failure(&self) -> UpstreamFailure {
        match self {
            Self::CutOff(error) if error.is_parse() => UpstreamFailure::Protocol,
            Self::CutOff(_) => UpstreamFailure::Reset,
            Self::Stalled => UpstreamFailure::Timeout,
        }
    }
}

/// An answer's body on its way to the client.
#[derive(Debug)]
pub struct Body {
    content: Content,
    /// Ends with the body: then the request is counted and logged.
    exchange: Option<Exchange>,
}

#[derive(Debug)]
enum Content {
    Full(Option<Bytes>),
    Held(Held),
    Stream(Stream),
    Piped(Piped),
}

impl Body {
    /// An answer made here; of an empty one nobody has to take anything.
    pub fn full(bytes: Bytes) -> Self {
        Self { content: Content::Full(Some(bytes).filter(|bytes| !bytes.is_empty())), exchange: None }
    }

    /// An answer that was read to its end.
    pub fn held(held: Held) -> Self {
        Self { content: Content::Held(held), exchange: None }
    }

    /// An answer as it comes.
    pub fn stream(stream: Stream) -> Self {
        Self { content: Content::Stream(stream), exchange: None }
    }

    /// Ties the account of the request to the end of its answer.
    #[must_use]
    pub fn ending(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        if self.is_end_stream() {
            self.finished();
        }
        self
    }

    fn finished(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.completed();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = match &mut self.content {
            Content::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Held(held) => Poll::Ready(held.next().map(Ok)),
            Content::Stream(stream) => stream.poll_next(cx),
            Content::Piped(piped) => piped.frames.poll_recv(cx),
        };
        if let Some(exchange) = &self.exchange {
            exchange.waits_for_gotrue(polled.is_pending());
        }
        let frame = ready!(polled);
        match (&mut self.exchange, &frame) {
            (Some(exchange), Some(Ok(frame))) => exchange.sent(frame.data_ref().map_or(0, Bytes::len)),
            (Some(exchange), Some(Err(error))) => exchange.broke_off(error.failure()),
            _ => {}
        }
        // with a Content-Length nobody polls past the last frame
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && self.content_ended()) {
            self.finished();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content_ended()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Held(held) => held.size_hint(),
            Content::Stream(stream) => stream.size_hint(),
            Content::Piped(piped) => piped.hint,
        }
    }
}

impl Body {
    fn content_ended(&self) -> bool {
        match &self.content {
            Content::Full(bytes) => bytes.is_none(),
            Content::Held(held) => held.frames.is_empty() && held.trailers.is_none(),
            Content::Stream(stream) => stream.is_end(),
            Content::Piped(_) => false,
        }
    }
}

/// A whole answer body, frame by frame as it came.
#[derive(Debug, Default)]
pub struct Held {
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    length: u64,
    /// It came with a length; else it goes out chunked, as it came.
    sized: bool,
}

impl Held {
    /// The body in one piece; copies only where it came in several.
    pub fn contiguous(&self) -> Bytes {
        match (self.frames.front(), self.frames.len()) {
            (None, _) => Bytes::new(),
            (Some(only), 1) => only.clone(),
            _ => self.frames.iter().flat_map(|frame| frame.iter().copied()).collect(),
        }
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        match self.frames.pop_front() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { SizeHint::with_exact(self.length) } else { SizeHint::default() }
    }

    fn take(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => {
                self.length += data.len() as u64;
                self.frames.push_back(data);
            }
            Err(other) => self.trailers = other.into_trailers().ok(),
        }
    }
}

/// An answer body as it comes from GoTrue, after what was read of it already.
#[derive(Debug)]
pub struct Stream {
    read: Option<Box<Held>>,
    incoming: Incoming,
    /// Goes back to the pool at the end of the body.
    lease: Option<Lease>,
    /// How long it may keep us waiting, where nobody else watches that.
    patience: Option<Duration>,
    /// It broke off while it was read here; the client learns of it after what came before.
    broken: Option<Error>,
    /// Made when the body first keeps us waiting: most come in one piece with their head.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    /// Streams `incoming`, giving `lease` back at its end. Waits for as long as it takes: the pace of an
    /// HTTP/1.1 connection watches that, without a timer for every answer.
    pub fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut stream =
            Self { read: None, incoming, lease: Some(lease), patience: None, broken: None, stalled: None };
        stream.give_back_at_end();
        stream
    }

    /// Gives up when it has made no progress for so long.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(frame) = self.read.as_mut().and_then(|held| held.next()) {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            return self.poll_patience(cx);
        };
        if let (Some(sleep), Some(patience)) = (&mut self.stalled, self.patience) {
            sleep.as_mut().reset(Instant::now() + patience);
        }
        match frame {
            Some(Err(error)) => {
                self.lease = None;
                return Poll::Ready(Some(Err(Error::CutOff(error))));
            }
            Some(Ok(_)) => self.give_back_at_end(),
            None => self.give_back(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Error::CutOff)))
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(patience) = self.patience else { return Poll::Pending };
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(sleep.as_mut().poll(cx));
        self.lease = None;
        Poll::Ready(Some(Err(Error::Stalled)))
    }

    fn give_back_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    fn is_end(&self) -> bool {
        let passed_on = self.read.as_ref().is_none_or(|held| held.frames.is_empty());
        passed_on && self.broken.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        match (&self.read, rest.exact()) {
            (None, _) => rest,
            (Some(held), Some(rest)) => {
                SizeHint::with_exact(rest + held.frames.iter().map(|frame| frame.len() as u64).sum::<u64>())
            }
            (Some(_), None) => SizeHint::default(),
        }
    }
}

/// What came of reading an answer before passing it on.
#[derive(Debug)]
pub enum Read {
    /// All of it.
    Whole(Held),
    /// It is larger than the bound: what was read, and the rest as it comes.
    TooLarge(Stream),
    /// It broke off or stalled: what was read, then the same error for the client.
    CutOff(Stream),
}

/// Reads an answer of at most `limit` bytes, within `patience` for all of it.
pub async fn read(mut stream: Stream, limit: usize, patience: Duration) -> Read {
    let mut held = Box::<Held>::default();
    let took = tokio::time::timeout(patience, fill(&mut held, &mut stream, limit)).await;
    match took {
        Ok(Filled::Whole) => return Read::Whole(*held),
        Ok(Filled::TooLarge) => {}
        Ok(Filled::CutOff(error)) => stream.broken = Some(error),
        Err(_) => stream.broken = Some(Error::Stalled),
    }
    // what was read goes out before the rest; broken, it must not look whole to the client
    stream.read = Some(held);
    if stream.broken.is_some() { Read::CutOff(stream) } else { Read::TooLarge(stream) }
}

enum Filled {
    Whole,
    TooLarge,
    CutOff(Error),
}

async fn fill(held: &mut Held, stream: &mut Stream, limit: usize) -> Filled {
    let size = stream.incoming.size_hint();
    held.sized = size.exact().is_some();
    if size.lower() > limit as u64 {
        return Filled::TooLarge;
    }
    while !stream.incoming.is_end_stream() {
        match std::future::poll_fn(|cx| stream.poll_next(cx)).await {
            None => break,
            Some(Ok(frame)) => held.take(frame),
            Some(Err(error)) => return Filled::CutOff(error),
        }
        if held.length > limit as u64 {
            return Filled::TooLarge;
        }
    }
    Filled::Whole
}

/// Streams a body while a copy of it, of `limit` bytes at most, is made. The second part must be run
/// for the first to move; it goes on to the end when nobody wants the first any more.
pub fn tee(mut stream: Stream, limit: usize) -> (Body, impl Future<Output = Result<Held, Unrecorded>>) {
    let (frames, piped) = tokio::sync::mpsc::channel(4);
    let body =
        Body { content: Content::Piped(Piped { frames: piped, hint: stream.size_hint() }), exchange: None };
    let copied = async move {
        let mut held = Held::default();
        let mut wanted = true;
        while let Some(frame) = std::future::poll_fn(|cx| stream.poll_next(cx)).await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    let _ = frames.send(Err(error)).await;
                    return Err(Unrecorded::CutOff);
                }
            };
            if held.length <= limit as u64 {
                held.take(copy(&frame));
            } else if !wanted {
                break; // neither of us wants the rest
            }
            wanted = wanted && frames.send(Ok(frame)).await.is_ok();
        }
        if held.length > limit as u64 { Err(Unrecorded::TooLarge) } else { Ok(held) }
    };
    (body, copied)
}

/// Data is shared, not copied; trailers do not matter to a copy.
fn copy(frame: &Frame<Bytes>) -> Frame<Bytes> {
    Frame::data(frame.data_ref().cloned().unwrap_or_default())
}

#[derive(Debug)]
struct Piped {
    frames: tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, Error>>,
    hint: SizeHint,
}

/// Why a request's body was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// Larger than `limits.request_body_bytes`.
    #[error("the request body is too large")]
    TooLarge,
    /// It broke off, or its framing is wrong.
    #[error("the request body is broken")]
    Broken(#[source] hyper::Error),
    /// No progress within `limits.body_timeout`.
    #[error("the request body stalled")]
    Stalled,
}

/// Reads a request's body of at most `limit` bytes, which may make no progress for `patience`.
///
/// # Errors
/// [`Unread`].
pub async fn read_request(mut incoming: Incoming, limit: usize, patience: Duration) -> Result<Bytes, Unread> {
    if incoming.size_hint().lower() > limit as u64 {
        return Err(Unread::TooLarge);
    }
    let mut held = Held::default();
    loop {
        let next = tokio::time::timeout(patience, incoming.frame()).await;
        match next.map_err(|_| Unread::Stalled)? {
            None => return Ok(held.contiguous()),
            Some(frame) => held.take(frame.map_err(Unread::Broken)?),
        }
        if held.length > limit as u64 {
            return Err(Unread::TooLarge);
        }
    }
}
