//! Where commands go: to the one server, to the master that Sentinels name, or to the masters of a Cluster.

use std::{ops::Range, sync::Arc, time::Instant};

use ::redis::{Pipeline, Value};

use super::{
    cluster::Cluster,
    node::{Batch, Node, Terms},
    sentinel::Sentinel,
    slots::{self, SLOTS},
};
use crate::{
    config::store_url::{Address, Shape},
    store::Error,
};

/// A Cluster's slots are told apart in so many groups when it is said what is out of order.
const LANES: u16 = 64;

/// So many slots are in each.
const EACH: u16 = SLOTS / LANES;

/// The way for one shape of Redis.
#[derive(Debug)]
pub(super) enum Route {
    /// One server.
    Single(Arc<Node>),
    /// Of several servers, one is the master.
    Sentinel(Sentinel),
    /// Several masters.
    Cluster(Cluster),
}

/// Where a server is that takes changes; `None` is the configured one. Together they have every key.
pub(super) type Master = Option<Address>;

impl Route {
    /// Connects to nothing yet.
    pub(super) fn new(terms: Terms) -> Self {
        match terms.access.target().shape.clone() {
            Shape::Single => Self::Single(Arc::new(Node::new(&terms, None))),
            Shape::Sentinel { master } => Self::Sentinel(Sentinel::new(terms, master)),
            Shape::Cluster => Self::Cluster(Cluster::new(terms)),
        }
    }

    /// Keys of one pipeline may lie on several servers, of which one may be lost.
    pub(super) fn is_spread(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// See [`Store::lanes`](crate::store::Store::lanes).
    pub(super) fn lanes(&self) -> usize {
        if self.is_spread() { usize::from(LANES) } else { 1 }
    }

    /// The lane of a key, which is made only where there are several.
    pub(super) fn lane_of(&self, key: impl FnOnce() -> String) -> usize {
        if self.is_spread() { usize::from(slots::slot_of(&key()) / EACH) } else { 0 }
    }

    /// Something that stands in braces in a key of that lane.
    pub(super) fn tag_of(&self, lane: usize) -> String {
        let mut tags = (0..=u16::MAX).map(|number| number.to_string());
        tags.find(|tag| self.lane_of(|| tag.clone()) == lane).unwrap_or_default()
    }

    /// Sends commands in one round-trip time; the replies are in their order, errors of single commands among them.
    ///
    /// # Errors
    /// When some of them have no reply.
    pub(super) async fn send(&self, batch: &Batch) -> Result<Vec<Value>, Error> {
        // boxed, all of them: every request's future would keep room for what the largest does, several times
        match self {
            Self::Single(node) => Box::pin(node.send(&batch.pipeline, batch.replicas)).await,
            Self::Sentinel(sentinel) => Box::pin(sentinel.send(&batch.pipeline, batch.replicas)).await,
            Self::Cluster(cluster) => Box::pin(cluster.send(batch)).await,
        }
    }

    /// Every server that takes changes.
    ///
    /// # Errors
    /// When nobody says.
    pub(super) async fn masters(&self) -> Result<Vec<Master>, Error> {
        match self {
            Self::Single(_) => Ok(vec![None]),
            Self::Sentinel(sentinel) => Ok(vec![sentinel.master().await?]),
            Self::Cluster(cluster) => Ok(cluster.masters().await?.into_iter().map(Some).collect()),
        }
    }

    /// As [`send`](Self::send), and says of each command by itself how it went.
    pub(super) async fn try_each(&self, batch: &Batch) -> Vec<Result<Value, Error>> {
        if let Self::Cluster(cluster) = self {
            return Box::pin(cluster.try_each(batch)).await;
        }
        match self.send(batch).await {
            Ok(replies) => replies.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); batch.len()],
        }
    }

    /// See [`Store::renew`](crate::store::Store::renew).
    pub(super) fn renew(&self, lane: usize, since: Instant) {
        match self {
            Self::Single(node) => node.renew(since),
            Self::Sentinel(sentinel) => sentinel.renew(),
            Self::Cluster(cluster) => cluster.renew(slots_of(lane), since),
        }
    }

    /// Sends a pipeline to one of the masters; where only one can be, to whoever that is by now.
    ///
    /// # Errors
    /// When there are no replies.
    pub(super) async fn send_to(&self, master: &Master, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        match (self, master) {
            (Self::Cluster(cluster), Some(master)) => cluster.send_to(master, pipeline).await,
            (Self::Sentinel(sentinel), _) => sentinel.send(pipeline, 0).await,
            (Self::Single(node), _) => node.send(pipeline, 0).await,
            (Self::Cluster(_), None) => Err(Error::Protocol),
        }
    }
}

/// The slots of a lane.
fn slots_of(lane: usize) -> Range<u16> {
    let first = u16::try_from(lane).unwrap_or(LANES).min(LANES) * EACH;
    first..(first + EACH).min(SLOTS)
}
