//! One server that holds data.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ::redis::{Cmd, Pipeline, Value};

use super::{access::Access, link::Link, reply, scripts::Scripts, slots::slot_of, target::Role};
use crate::{config::store_url::Address, store::Error};

/// So many wait for replicas of one server at once.
const PATIENT: usize = 8;

/// This part of the time that is left Redis waits for replicas; the rest is for the way there and back.
const WAITED: f64 = 0.8;

/// For so long after they were waited for in vain, nobody waits longer than [`HARDLY`]: they are away.
const AWAY: Duration = Duration::from_secs(1);

/// What a replica needs that is there, about.
const HARDLY: Duration = Duration::from_millis(5);

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
    /// For what waits for replicas. Redis does nothing else on a connection meanwhile, so each is for one at a time.
    patient: Mutex<Vec<Arc<Link>>>,
    /// When replicas were last waited for in vain.
    in_vain: Mutex<Option<Instant>>,
    terms: Terms,
}

impl Node {
    /// Connects to nothing yet.
    pub(super) fn new(terms: &Terms, address: Option<Address>) -> Self {
        let link = link(terms, address.as_ref());
        Self { address, link, patient: Mutex::default(), in_vain: Mutex::default(), terms: terms.clone() }
    }

    /// Makes the next calls over new connections, but for those that have done since then what they were asked. Calls
    /// that are under way keep theirs.
    pub(super) fn renew(&self, since: Instant) {
        self.link.renew(since);
        self.patient().iter().for_each(|link| link.renew(since));
    }

    /// Sends a pipeline, and waits for so many replicas to have what it changed.
    ///
    /// # Errors
    /// When there are no replies; [`Error::Replicas`] when all was done, but on fewer replicas.
    pub(super) async fn send(&self, pipeline: &Pipeline, replicas: u32) -> Result<Vec<Value>, Error> {
        match replicas {
            0 => self.send_over(&self.link, pipeline).await,
            // boxed: it is rare, and would make every request's future larger
            _ => Box::pin(self.send_and_wait(pipeline, replicas)).await,
        }
    }

    async fn send_and_wait(&self, pipeline: &Pipeline, replicas: u32) -> Result<Vec<Value>, Error> {
        let Some(link) = self.idle() else {
            // the others wait in vain, or there are very many: at least it is done
            let replies = self.send_over(&self.link, pipeline).await?;
            return if replies.iter().all(is_sound) { Err(Error::Replicas) } else { Ok(replies) };
        };
        let began = Instant::now();
        link.connected().await?;
        let mut left = self.terms.timeout.saturating_sub(began.elapsed()).mul_f64(WAITED);
        let are_away = self.in_vain().is_some_and(|at| at.elapsed() < AWAY);
        if are_away {
            left = left.min(HARDLY);
        }
        let mut waiting = pipeline.clone();
        waiting.cmd("WAIT").arg(replicas).arg(left.as_millis().max(1).to_string()); // 0 would be for ever
        let mut replies = self.send_over(&link, &waiting).await?;
        let reached = reply::count(&replies.pop().ok_or(Error::Protocol)?)?;
        let enough = reached >= u64::from(replicas);
        if enough || !are_away {
            *self.in_vain() = (!enough).then(Instant::now);
        }
        // what was refused or is to be asked of somebody else was not done at all
        if !enough && replies.iter().all(is_sound) {
            return Err(Error::Replicas);
        }
        Ok(replies)
    }

    /// Teaches the server the scripts when it does not know them (a restart, `SCRIPT FLUSH`) and sends the pipeline
    /// once more: they are all known or none is, so nothing was done out of order.
    async fn send_over(&self, link: &Link, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        let replies = link.send(pipeline).await?;
        if !replies.iter().any(reply::is_unknown_script) {
            return Ok(replies);
        }
        Box::pin(self.teach(link)).await?;
        Box::pin(link.send(pipeline)).await
    }

    async fn teach(&self, link: &Link) -> Result<(), Error> {
        let loaded = link.send(&self.terms.scripts.loading()).await?;
        loaded.iter().try_for_each(reply::sound)
    }

    /// One on which nobody waits.
    fn idle(&self) -> Option<Arc<Link>> {
        let mut links = self.patient();
        let idle = links.iter().find(|link| Arc::strong_count(link) == 1).map(Arc::clone);
        if idle.is_none() && links.len() < PATIENT {
            links.push(Arc::new(link(&self.terms, self.address.as_ref())));
            return links.last().map(Arc::clone);
        }
        idle
    }

    fn in_vain(&self) -> MutexGuard<'_, Option<Instant>> {
        self.in_vain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patient(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.patient.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn link(terms: &Terms, address: Option<&Address>) -> Link {
    Link::new(Arc::clone(&terms.access), address.cloned(), Role::Server, terms.timeout)
}

fn is_sound(reply: &Value) -> bool {
    reply::sound(reply).is_ok()
}

/// Commands that go out at once, each with the slot of its keys.
#[derive(Debug)]
pub(super) struct Batch {
    /// All of them.
    pub(super) pipeline: Pipeline,
    /// The slot of each.
    pub(super) slots: Vec<u16>,
    /// So many replicas shall have what they change.
    pub(super) replicas: u32,
}

impl Batch {
    /// With room for so many.
    pub(super) fn with_capacity(commands: usize) -> Self {
        Self { pipeline: Pipeline::with_capacity(commands), slots: Vec::with_capacity(commands), replicas: 0 }
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
