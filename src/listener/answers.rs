//! Who answers what comes over a listener's connections.

use std::{future::Future, net::SocketAddr, sync::Arc};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::Terms;
use crate::{body::Body, headers::Peer, proxy::Proxy, wire::pace::Pace};

/// Answers the requests of connections.
pub trait Answers: Send + Sync + 'static {
    /// What every request of one connection is told of its other end.
    type Peer: Send + Sync;

    /// Whether an answer without a `Date` gets one.
    const DATES: bool;

    /// A connection was accepted.
    fn opened(&self, terms: &Terms);

    /// A connection is closed.
    fn closed(&self, terms: &Terms);

    /// Whoever is at the other end, at this address.
    fn peer(&self, stream: &TcpStream, address: SocketAddr, terms: &Terms) -> Self::Peer;

    /// Answers one request of `peer`, whose connection's bytes are watched by `pace`.
    fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: &Self::Peer,
        pace: &Arc<Pace>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// The public listener's.
impl Answers for Proxy {
    type Peer = Peer;

    const DATES: bool = false; // they are GoTrue's, and get no header added

    fn opened(&self, terms: &Terms) {
        terms.metrics.connection_opened();
    }

    fn closed(&self, terms: &Terms) {
        terms.metrics.connection_closed();
    }

    fn peer(&self, _: &TcpStream, address: SocketAddr, terms: &Terms) -> Peer {
        Peer::new(address.ip(), &terms.trusted_proxies)
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: &Peer,
        pace: &Arc<Pace>,
    ) -> Response<Body> {
        self.handle(request, peer, pace).await
    }
}
