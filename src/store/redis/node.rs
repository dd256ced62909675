//! One server that holds data.

use std::{sync::Arc, time::Duration};

use ::redis::{Cmd, Pipeline, Value};

use super::{access::Access, link::Link, reply, scripts::Scripts, slots::slot_of, target::Role};
use crate::{config::store_url::Address, store::Error};

/// What all nodes are made with.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The way in.
    pub(super) access: Arc<Access>,
    /// What they may have to be taught.
    pub(super) scripts: Arc<Scripts>,
    /// `store.timeout`
    pub(super) timeout: Duration,
}

/// The connections to one server, made when they are needed.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it is; else at the first address of the configuration.
    pub(super) address: Option<Address>,
    link: Link,
    scripts: Arc<Scripts>,
}

impl Node {
    /// Connects to nothing yet.
    pub(super) fn new(terms: &Terms, address: Option<Address>) -> Self {
        let link = Link::new(Arc::clone(&terms.access), address.clone(), Role::Server, terms.timeout);
        Self { address, link, scripts: Arc::clone(&terms.scripts) }
    }

    /// Makes the next call over a new connection.
    pub(super) fn renew(&self) {
        self.link.renew();
    }

    /// Sends a pipeline; teaches the server the scripts when it does not know them (a restart, `SCRIPT FLUSH`)
    /// and sends it once more: they are all known or none is, so nothing was done out of order.
    ///
    /// # Errors
    /// When there are no replies.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        let replies = self.link.send(pipeline).await?;
        if !replies.iter().any(reply::is_unknown_script) {
            return Ok(replies);
        }
        let loaded = self.link.send(&self.scripts.loading()).await?;
        loaded.iter().try_for_each(reply::sound)?;
        self.link.send(pipeline).await
    }
}

/// Commands that go out at once, each with the slot of its keys.
#[derive(Debug)]
pub(super) struct Batch {
    /// All of them.
    pub(super) pipeline: Pipeline,
    /// The slot of each.
    pub(super) slots: Vec<u16>,
}

impl Batch {
    /// With room for so many.
    pub(super) fn with_capacity(commands: usize) -> Self {
        Self { pipeline: Pipeline::with_capacity(commands), slots: Vec::with_capacity(commands) }
    }

    /// With one.
    pub(super) fn of(key: &str, command: Cmd) -> Self {
        let mut batch = Self::with_capacity(1);
        batch.add(key, command);
        batch
    }

    /// One more, whose keys all lie in the slot of this one.
    pub(super) fn add(&mut self, key: &str, command: Cmd) {
        self.slots.push(slot_of(key));
        self.pipeline.add_command(command);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Some of them, by their places, each of them after `before` if that is given.
    pub(super) fn some(&self, places: &[usize], before: Option<&Cmd>) -> Pipeline {
        let all: Vec<&Cmd> = self.pipeline.cmd_iter().collect();
        let mut pipeline = Pipeline::with_capacity(places.len() * 2);
        for command in places.iter().filter_map(|place| all.get(*place).copied()) {
            for command in before.into_iter().chain([command]) {
                pipeline.add_command(command.clone());
            }
        }
        pipeline
    }
}
