//! What both listeners do: accept connections, speak TLS where configured, and run each as HTTP/1.1 or
//! HTTP/2 until it ends, is drained, or the client has kept us waiting for too long.

mod answers;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::MissedTickBehavior,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::answers::Answers;
use crate::{
    body::Body,
    config::Limits,
    metrics::{Metrics, UpstreamFailure},
    tls,
    wire::{
        Wire,
        pace::{CoarseClock, Overdue, Pace},
    },
};

/// On what terms connections are had.
#[derive(Clone)]
pub struct Terms {
    /// Accepts TLS, where the listener speaks it.
    pub tls: Option<TlsAcceptor>,
    /// `limits.*`
    pub limits: Limits,
    /// `forwarded.trusted_proxies`
    pub trusted_proxies: Vec<IpNet>,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// What a drain waits for.
    pub tasks: TaskTracker,
    /// Open at once, at most: a worker's share of `limits.connections`.
    pub places: usize,
}

/// What every connection of one worker to one listener needs.
pub struct Connections<A> {
    answers: Arc<A>,
    terms: Terms,
    clock: Arc<CoarseClock>,
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
}

#[derive(Debug)]
struct Open {
    pace: Arc<Pace>,
    task: Option<AbortHandle>,
}

impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terms").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<A> std::fmt::Debug for Connections<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl<A: Answers> Connections<A> {
    /// A worker's connections, whose requests are answered by `answers`.
    pub fn new(answers: Arc<A>, terms: Terms, clock: Arc<CoarseClock>) -> Self {
        let mut http1 = http1_builder(&terms.limits);
        http1.auto_date_header(A::DATES);
        let mut http2 = http2_builder(&terms.limits);
        http2.auto_date_header(A::DATES);
        Self { http1, http2, open: Mutex::default(), next: AtomicU64::default(), answers, terms, clock }
    }

    /// Accepts until `stop` and ends what is overdue meanwhile; then asks what is left to finish.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.sweep_interval());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut accepting = pin!(Arc::clone(&self).accept(listener, stop));
        loop {
            tokio::select! {
                () = accepting.as_mut() => break,
                _ = tick.tick() => self.sweep(),
            }
        }
        self.close();
    }

    /// Accepts until `stop`. When all places are taken, more wait in the backlog.
    pub async fn accept(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.terms.places.max(1)));
        while let Some((stream, peer, place)) = stop.run_until_cancelled(next(&listener, &places)).await {
            self.take(stream, peer, place);
        }
        // To these the system has said yes already; closing the listener would reset them.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok(place) = Arc::clone(&places).try_acquire_owned()
            && let Ok((stream, peer)) = listener.accept()
        {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.take(stream, peer, Some(place));
            }
        }
    }

    /// Runs a connection in a task of its own.
    fn take(self: &Arc<Self>, stream: TcpStream, address: SocketAddr, permit: Option<OwnedSemaphorePermit>) {
        self.clock.set();
        let id = self.next.fetch_add(1, Relaxed);
        let pace = Arc::new(Pace::new(self.clock.get()));
        self.lock().insert(id, Open { pace: Arc::clone(&pace), task: None });
        self.answers.opened(&self.terms);
        let closed = Closed { connections: Arc::clone(self), id, _place: permit };
        let run = Arc::clone(self).run(stream, address, pace);
        let task = self.terms.tasks.spawn(async move {
            let _closed = closed;
            run.await;
        });
        if let Some(open) = self.lock().get_mut(&id) {
            open.task = Some(task.abort_handle());
        }
    }

    /// Ends what is overdue; to be called every so often.
    pub fn sweep(&self) {
        let now = self.clock.set();
        for open in self.lock().values() {
            match (open.pace.overdue(now, &self.terms.limits), &open.task) {
                (Some(Overdue::Stuck), Some(task)) => task.abort(),
                (Some(Overdue::Stalled), Some(task)) => {
                    self.terms.metrics.upstream_failed(UpstreamFailure::Timeout);
                    task.abort();
                }
                (Some(Overdue::Idle), _) => open.pace.close(),
                _ => {}
            }
        }
    }

    /// How often [`sweep`](Self::sweep) should run to keep the limits to within an eighth.
    pub fn sweep_interval(&self) -> Duration {
        let limits = &self.terms.limits;
        let shortest = limits.header_read_timeout.min(limits.idle_timeout).min(limits.body_timeout);
        (shortest / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Sends HTTP/2 clients elsewhere (GOAWAY); HTTP/1.1 clients learn of the drain from their next answer.
    pub fn announce(&self) {
        for open in self.lock().values().filter(|open| open.pace.is_http2()) {
            open.pace.close();
        }
    }

    /// Asks every connection to finish what it has begun.
    pub fn close(&self) {
        for open in self.lock().values() {
            open.pace.close();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection, from its first byte to its last.
    async fn run(self: Arc<Self>, stream: TcpStream, address: SocketAddr, pace: Arc<Pace>) {
        let _ = stream.set_nodelay(true); // only costs speed where it fails
        let peer = self.answers.peer(&stream, address, &self.terms);
        let ended = match &self.terms.tls {
            None => self.plain(stream, peer, pace).await,
            Some(acceptor) => Box::pin(self.encrypted(acceptor, stream, peer, pace)).await,
        };
        if let Err(error) = ended {
            tracing::debug!(error = &*error, client = %address.ip(), "connection ended");
        }
    }

    async fn plain(&self, stream: TcpStream, peer: A::Peer, pace: Arc<Pace>) -> Result<(), Failure> {
        if tls::begins_with_h2_preface(&stream).await? {
            Box::pin(self.http2(stream, peer, pace)).await // large: not what an HTTP/1.1 connection should weigh
        } else {
            self.http1(stream, peer, pace).await
        }
    }

    async fn encrypted(
        &self,
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        peer: A::Peer,
        pace: Arc<Pace>,
    ) -> Result<(), Failure> {
        let stream = acceptor.accept(stream).await?;
        if tls::is_h2(&stream) {
            self.http2(stream, peer, pace).await
        } else {
            self.http1(stream, peer, pace).await
        }
    }

    async fn http1<S>(&self, stream: S, peer: A::Peer, pace: Arc<Pace>) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wire =
            Wire::http1(stream, self.terms.limits.header_bytes, Arc::clone(&pace), Arc::clone(&self.clock));
        let requests = self.requests(peer, &pace);
        let service = service_fn(move |request| Arc::clone(&requests).answer(request));
        let connection = self.http1.serve_connection(TokioIo::new(wire), service);
        drive(connection, &pace, http1::Connection::graceful_shutdown).await
    }

    async fn http2<S>(&self, stream: S, peer: A::Peer, pace: Arc<Pace>) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        pace.set_http2();
        let wire = Wire::http2(stream, Arc::clone(&pace), Arc::clone(&self.clock));
        let requests = self.requests(peer, &pace);
        let service = service_fn(move |request| Arc::clone(&requests).answer(request));
        let connection = self.http2.serve_connection(TokioIo::new(wire), service);
        drive(connection, &pace, http2::Connection::graceful_shutdown).await
    }

    fn requests(&self, peer: A::Peer, pace: &Arc<Pace>) -> Arc<Requests<A>> {
        Arc::new(Requests { answers: Arc::clone(&self.answers), peer, pace: Arc::clone(pace) })
    }
}

/// What every request of one connection needs.
struct Requests<A: Answers> {
    answers: Arc<A>,
    peer: A::Peer,
    pace: Arc<Pace>,
}

impl<A: Answers> Requests<A> {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        Ok(self.answers.answer(request, &self.peer, &self.pace).await)
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a connection to its end; when its pace is told to close, it finishes what it has begun.
async fn drive<C, E>(connection: C, pace: &Pace, finish: impl Fn(Pin<&mut C>)) -> Result<(), Failure>
where
    C: Future<Output = Result<(), E>>,
    E: Into<Failure>,
{
    let mut connection = pin!(connection);
    let mut close = pin!(pace.closed());
    let mut waiting = false; // for `close`: registering once is enough, a task's waker stays the same
    let mut finishing = false;
    std::future::poll_fn(move |cx| {
        // first, so that it reads what has arrived: one that has read nothing yet would be closed at once
        let ended = connection.as_mut().poll(cx);
        if ended.is_ready() || finishing {
            return ended;
        }
        if pace.is_closing() || (!waiting && close.as_mut().poll(cx).is_ready()) {
            finish(connection.as_mut());
            finishing = true;
            return connection.as_mut().poll(cx);
        }
        waiting = true;
        Poll::Pending
    })
    .await
    .map_err(Into::into)
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: let some close
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Forgets a connection, however its task ends.
struct Closed<A: Answers> {
    connections: Arc<Connections<A>>,
    id: u64,
    _place: Option<OwnedSemaphorePermit>,
}

impl<A: Answers> Drop for Closed<A> {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
        self.connections.answers.closed(&self.connections.terms);
    }
}

/// No timer: [`Pace`] watches what hyper's would, and tells a slow head from an idle connection.
fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None);
    builder.writev(false); // one flat write is cheaper than gathering head and a small body
    // twice the limit: our own refusal comes first, and has GoTrue's form
    builder.max_buf_size(limits.header_bytes.saturating_mul(2).max(16 * 1024));
    builder
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.header_read_timeout)
        .keep_alive_timeout(limits.header_read_timeout);
    builder
}
