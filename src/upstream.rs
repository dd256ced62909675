//! The GoTrue behind us: its address, a small pool of HTTP/1.1 connections to it, and what can go wrong.
//!
//! A pool of our own because it is on the path of every request: last in, first out, no task or timer
//! of its own, and it knows whether a request was sent. Each worker has one, so nothing is contended.

mod connect;
mod outgoing;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use tokio::sync::Semaphore;

pub use self::{
    connect::{Connector, TlsError},
    outgoing::Outgoing,
};
use crate::{config, wire::pace::CoarseClock};

/// Why there is no answer from GoTrue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection: refused, unreachable, not resolved, TLS failed.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// No response head within `upstream.timeout`.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke before the response head.
    #[error("the connection broke")]
    Reset(#[source] hyper::Error),
    /// The answer switches to another protocol, which nobody has asked for.
    #[error("the answer switches protocols")]
    Switching,
    /// What came is not HTTP.
    #[error("the answer is not HTTP")]
    Protocol(#[source] hyper::Error),
    /// The client's body broke off or was malformed, so the request could not be sent to its end.
    #[error("the client's request body is broken")]
    ClientBody(#[source] hyper::Error),
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        if error.is_user() {
            Self::ClientBody(error)
        } else if error.is_parse() {
            Self::Protocol(error)
        } else {
            Self::Reset(error)
        }
    }
}

/// One worker's way to one origin.
#[derive(Debug)]
pub struct Upstream {
    connector: Arc<Connector>,
    pool: Arc<Pool>,
    timeout: Duration,
    idle_timeout: Duration,
}

#[derive(Debug)]
struct Pool {
    idle: Mutex<Vec<Idle>>,
    clock: Arc<CoarseClock>,
    /// Bounds the connections, idle ones aside: one place for every exchange under way.
    places: Semaphore,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Outgoing>,
    /// The coarse clock's milliseconds.
    since: u64,
}

/// The connection of one exchange. Goes back to the pool when the answer was read to its end, is
/// closed when it is dropped before.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    sender: Option<SendRequest<Outgoing>>,
}

impl Upstream {
    /// A worker's share of `upstream.max_connections` is `max_connections`.
    pub fn new(
        connector: Arc<Connector>,
        config: &config::Upstream,
        max_connections: usize,
        clock: Arc<CoarseClock>,
    ) -> Self {
        let places = Semaphore::new(max_connections.max(1));
        let pool = Pool { idle: Mutex::new(Vec::new()), clock, places };
        Self { connector, pool: Arc::new(pool), timeout: config.timeout, idle_timeout: config.idle_timeout }
    }

    /// Sends a request and waits for the head of its answer, `upstream.timeout` at most.
    ///
    /// The request's target is in origin form, as GoTrue shall see it. A request is sent once: one that
    /// reached a connection is never repeated, whatever became of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(&self, request: Request<Outgoing>) -> Result<(Response<Incoming>, Lease), Error> {
        let answered = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        let (response, lease) = answered.unwrap_or(Err(Error::Timeout))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Switching);
        }
        Ok((response, lease))
    }

    async fn exchange(&self, mut request: Request<Outgoing>) -> Result<(Response<Incoming>, Lease), Error> {
        let lease = self.pool.lease().await;
        while let Some(mut sender) = self.pool.take() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, lease.with(sender))),
                // closed while it was idle: the request comes back unsent, and tries the next one
                Err(mut unsent) => match unsent.take_message() {
                    Some(message) => request = message,
                    None => return Err(unsent.into_error().into()),
                },
            }
        }
        // rare and large: in a box, so that every other request's future stays small
        let mut sender = Box::pin(self.connector.connect()).await.map_err(Error::Connect)?;
        let response = sender.send_request(request).await?;
        Ok((response, lease.with(sender)))
    }

    /// Closes connections that were idle for longer than `upstream.idle_timeout`.
    pub fn close_idle(&self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.pool.clock.get();
        let fresh = |one: &Idle| u128::from(now.saturating_sub(one.since)) < self.idle_timeout.as_millis();
        idle.retain(|one| fresh(one) && !one.sender.is_closed());
    }
}

impl Pool {
    /// Waits for a place; the caller's timeout bounds the wait.
    async fn lease(self: &Arc<Self>) -> Lease {
        if let Ok(place) = self.places.acquire().await {
            place.forget(); // given back when the lease is dropped
        }
        Lease { pool: Arc::clone(self), sender: None }
    }

    fn take(&self) -> Option<SendRequest<Outgoing>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(one) = idle.pop() {
            if !one.sender.is_closed() {
                return Some(one.sender);
            }
        }
        None
    }
}

impl Lease {
    fn with(mut self, sender: SendRequest<Outgoing>) -> Self {
        self.sender = Some(sender);
        self
    }

    /// The answer was read to its end: the connection can serve another request.
    pub fn give_back(mut self) {
        if let Some(sender) = self.sender.take()
            && !sender.is_closed()
        {
            let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(Idle { sender, since: self.pool.clock.get() });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.places.add_permits(1);
    }
}
