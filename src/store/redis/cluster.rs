//! The masters of a Cluster, each with its part of the slots.
//!
//! Commands go to the master that has their slot, those of one master in one pipeline, all masters at once: one
//! round-trip time. Which master that is, a map says. It is corrected by what a node says of a slot (`MOVED`), and
//! fetched anew when a node is lost or says that something has changed: from the node that knows of the newest, for one that
//! was cut off or left behind still tells what was.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ::redis::{Pipeline, Value, cmd};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    asking::answers,
    flight::Flight,
    node::{Batch, Node, Terms},
    redirect::{self, News, Said},
    reply,
    slots::SlotMap,
};
use crate::{
    config::store_url::Address,
    store::{About, Error},
};

/// The map is not fetched more often than this.
const FRESH: Duration = Duration::from_millis(500);

/// So many nodes are asked for it at once.
const ASKED: usize = 6;

/// So often a command is sent at most: once more for each redirection, and while its slot is between two nodes.
const ATTEMPTS: u32 = 5;

/// The first pause before a command whose slot is between two nodes is sent again; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(10);

/// All masters.
#[derive(Debug)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    terms: Terms,
    state: Mutex<State>,
    fetch: Flight<Result<(), Error>>,
}

#[derive(Default)]
struct State {
    map: Option<SlotMap>,
    nodes: HashMap<Address, Arc<Node>>,
    /// Who is asked first for the next map.
    turn: usize,
}

/// Which node a command goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// Its slot's master.
    Master,
    /// This one, which is just getting the slot.
    Ask(Address),
}

/// A command that is still to be sent.
#[derive(Clone, Debug)]
struct Errand {
    /// Its place in the batch.
    place: usize,
    way: Way,
}

/// Commands that go to one node.
struct Group {
    node: Arc<Node>,
    asking: bool,
    places: Vec<usize>,
}

/// How one command went.
type Answer = Result<Value, Error>;

/// How the commands of one node went.
type Sent = Result<Vec<Value>, Error>;

/// What one round brought.
#[derive(Default)]
struct Round {
    again: Vec<Errand>,
    /// Slots are between two nodes.
    pause: bool,
}

impl Cluster {
    /// Connects to nothing yet.
    pub(super) fn new(terms: Terms) -> Self {
        let state = Mutex::new(State::default());
        Self { shared: Arc::new(Shared { terms, state, fetch: Flight::new() }) }
    }

    /// Sends commands to where their slots are; the replies are in their order.
    ///
    /// # Errors
    /// When some of them have no reply.
    pub(super) async fn send(&self, batch: &Batch) -> Result<Vec<Value>, Error> {
        match timeout(self.shared.terms.timeout, self.try_each(batch)).await {
            Ok(replies) => replies.into_iter().collect(),
            Err(_elapsed) => {
                self.fetch_beside();
                Err(Error::Timeout)
            }
        }
    }

    /// As [`send`](Self::send), in a task of its own: whoever waits for it may give up.
    pub(super) fn send_beside(&self, batch: Batch) -> JoinHandle<()> {
        let cluster = Self { shared: Arc::clone(&self.shared) };
        tokio::spawn(async move { drop(cluster.send(&batch).await) })
    }

    /// As [`send`](Self::send), and says of each command by itself how it went. A master that hangs keeps the others'
    /// replies waiting, for a few times `store.timeout` at most.
    pub(super) async fn try_each(&self, batch: &Batch) -> Vec<Result<Value, Error>> {
        let mut replies = vec![Err(Error::Timeout); batch.len()];
        let mut left: Vec<Errand> =
            (0..batch.len()).map(|place| Errand { place, way: Way::Master }).collect();
        let mut pause = PAUSE;
        for _ in 0..ATTEMPTS {
            let round = self.round(batch, &left, &mut replies).await;
            if round.again.is_empty() {
                break;
            }
            if round.pause {
                sleep(pause).await;
                pause *= 2;
            }
            left = round.again;
        }
        replies
    }

    /// Makes the next calls to the masters of these slots over new connections: see [`Node::renew`].
    pub(super) fn renew(&self, slots: Range<u16>, since: Instant) {
        let state = self.shared.state();
        let masters: HashSet<_> = slots.filter_map(|slot| state.map.as_ref()?.master(slot)).collect();
        for node in masters.into_iter().filter_map(|master| state.nodes.get(master)) {
            node.renew(since);
        }
    }

    /// Sends a pipeline to one of the masters.
    ///
    /// # Errors
    /// When there are no replies.
    pub(super) async fn send_to(&self, master: &Address, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        let node = self.shared.node(master);
        node.send(pipeline, 0).await
    }

    /// Every master there is now.
    ///
    /// # Errors
    /// When no node says.
    pub(super) async fn masters(&self) -> Result<Vec<Address>, Error> {
        self.fetch().await?;
        let state = self.shared.state();
        Ok(state.map.as_ref().map(|map| map.masters().to_vec()).unwrap_or_default())
    }

    async fn round(&self, batch: &Batch, left: &[Errand], replies: &mut [Answer]) -> Round {
        let mut round = Round::default();
        for (group, sent) in send_all(batch, self.groups(batch, left, replies).await).await {
            match sent {
                Ok(sent) => self.take(batch, &group, sent, replies, &mut round),
                Err(error) => self.after_loss(batch, &group, &error, replies, &mut round).await,
            }
        }
        round
    }

    /// Who gets which commands. Those whose master nobody knows have their answer with that.
    async fn groups(&self, batch: &Batch, left: &[Errand], replies: &mut [Answer]) -> Vec<Group> {
        let (mut groups, mut nobodys) = self.shared.groups(batch, left);
        if nobodys.is_empty() {
            return groups;
        }
        let failure = self.fetch().await.err().unwrap_or(Error::ClusterDown);
        (groups, nobodys) = self.shared.groups(batch, left);
        for place in nobodys {
            set(replies, place, Err(failure.clone()));
        }
        groups
    }

    /// Sorts a node's replies into those that count and those that say where to ask instead. These count, too,
    /// until there is a better one.
    fn take(
        &self,
        batch: &Batch,
        group: &Group,
        sent: Vec<Value>,
        replies: &mut [Answer],
        round: &mut Round,
    ) {
        for (&place, reply) in group.places.iter().zip(sent) {
            match redirect::said(&reply, group.node.address.as_ref()) {
                Said::Reply => {}
                Said::Moved(to) => {
                    if let (Some(map), Some(slot)) = (&mut self.shared.state().map, batch.slots.get(place)) {
                        map.moved(*slot, &to);
                    }
                    self.fetch_beside();
                    round.again.push(Errand { place, way: Way::Master });
                }
                Said::Ask(way) => round.again.push(Errand { place, way: Way::Ask(way) }),
                Said::Between => {
                    round.pause = true;
                    round.again.push(Errand { place, way: Way::Master });
                }
                Said::Down => self.fetch_beside(),
            }
            set(replies, place, Ok(reply));
        }
    }

    /// Sends again what a node was to get that was lost, as far as its slots are elsewhere now.
    async fn after_loss(
        &self,
        batch: &Batch,
        group: &Group,
        error: &Error,
        replies: &mut [Answer],
        round: &mut Round,
    ) {
        let lost = error.about() == About::Store;
        let fetched = lost && self.fetch().await.is_ok();
        let state = self.shared.state();
        for &place in &group.places {
            let master = batch.slots.get(place).and_then(|slot| state.map.as_ref()?.master(*slot));
            if fetched && master.is_some_and(|master| Some(master) != group.node.address.as_ref()) {
                round.again.push(Errand { place, way: Way::Master });
            }
            set(replies, place, Err(error.clone()));
        }
    }

    async fn fetch(&self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        self.shared.fetch.outcome(FRESH, || fetch(shared)).await.unwrap_or(Err(Error::Timeout))
    }

    fn fetch_beside(&self) {
        let shared = Arc::clone(&self.shared);
        self.shared.fetch.beside(FRESH, || fetch(shared));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        self.state().node(&self.terms, address)
    }

    /// Who gets which commands; and the places of those whose slot has no master, as far as is known.
    fn groups(&self, batch: &Batch, left: &[Errand]) -> (Vec<Group>, Vec<usize>) {
        let mut state = self.state();
        let (mut groups, mut nobodys): (Vec<Group>, _) = (Vec::new(), Vec::new());
        for &Errand { place, ref way } in left {
            let slot = batch.slots.get(place);
            let (address, asking) = match way {
                Way::Ask(address) => (Some(address.clone()), true),
                Way::Master => (slot.and_then(|slot| state.map.as_ref()?.master(*slot).cloned()), false),
            };
            let Some(address) = address else {
                nobodys.push(place);
                continue;
            };
            let same =
                |group: &&mut Group| group.asking == asking && group.node.address.as_ref() == Some(&address);
            if let Some(group) = groups.iter_mut().find(same) {
                group.places.push(place);
            } else {
                let node = state.node(&self.terms, &address);
                groups.push(Group { node, asking, places: vec![place] });
            }
        }
        (groups, nobodys)
    }

    /// Nodes that may have a map: those in the last one and in the configuration, a few of them, others each time.
    fn asked(&self) -> Vec<Arc<Node>> {
        let configured = self.terms.access.target();
        let mut state = self.state();
        let mut asked: Vec<Address> = state.map.iter().flat_map(SlotMap::masters).cloned().collect();
        asked.extend(configured.addresses.iter().cloned());
        let mut known = HashSet::new();
        asked.retain(|address| known.insert(address.clone()));
        let turn = state.turn % asked.len().max(1);
        asked.rotate_left(turn);
        asked.truncate(ASKED);
        state.turn = state.turn.wrapping_add(ASKED - 1);
        asked.iter().map(|address| state.node(&self.terms, address)).collect()
    }

    /// Takes a map up; nodes that are neither in it nor in the configuration are left.
    fn adopt(&self, map: SlotMap) {
        let configured = self.terms.access.target();
        let mut state = self.state();
        state
            .nodes
            .retain(|address, _| map.masters().contains(address) || configured.addresses.contains(address));
        state.map = Some(map);
    }
}

impl State {
    fn node(&mut self, terms: &Terms, address: &Address) -> Arc<Node> {
        let node = || Arc::new(Node::new(terms, Some(address.clone())));
        Arc::clone(self.nodes.entry(address.clone()).or_insert_with(node))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

fn set(replies: &mut [Answer], place: usize, answer: Answer) {
    if let Some(reply) = replies.get_mut(place) {
        *reply = answer;
    }
}

/// Sends each node its commands, all at once.
async fn send_all(batch: &Batch, groups: Vec<Group>) -> Vec<(Group, Sent)> {
    match <[Group; 1]>::try_from(groups) {
        Ok([only]) if !only.asking && only.places.len() == batch.len() => {
            let sent = only.node.send(&batch.pipeline, batch.replicas).await;
            vec![(only, sent)]
        }
        Ok(only) => send_each(batch, only.into()).await,
        Err(several) => send_each(batch, several).await,
    }
}

async fn send_each(batch: &Batch, groups: Vec<Group>) -> Vec<(Group, Sent)> {
    let mut sending = JoinSet::new();
    let asking = cmd("ASKING");
    for group in groups {
        let (pipeline, replicas) =
            (batch.some(&group.places, group.asking.then_some(&asking)), batch.replicas);
        sending.spawn(async move {
            let mut sent = group.node.send(&pipeline, replicas).await;
            if let (true, Ok(replies)) = (group.asking, &mut sent) {
                let mut number = 0;
                replies.retain(|_| {
                    number += 1;
                    number % 2 == 0 // the others answer ASKING
                });
            }
            (group, sent)
        });
    }
    sending.join_all().await
}

/// Asks some nodes for a map, and takes the newest; of equals the first that came.
async fn fetch(shared: Arc<Shared>) -> Result<(), Error> {
    let mut asking = JoinSet::new();
    for node in shared.asked() {
        asking.spawn(async move { ask(&node).await });
    }
    let (told, failure) = answers(asking, shared.terms.timeout).await;
    let newest = told.into_iter().rev().max_by_key(|(news, _)| *news);
    let (_, map) = newest.ok_or(failure)?;
    shared.adopt(map);
    Ok(())
}

async fn ask(node: &Node) -> Result<(News, SlotMap), Error> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("CLUSTER").arg("SLOTS");
    pipeline.cmd("CLUSTER").arg("INFO");
    let replies = node.send(&pipeline, 0).await?;
    let ranges = redirect::ranges(reply::first(&replies)?, node.address.as_ref())?;
    if ranges.is_empty() {
        return Err(Error::ClusterDown); // it was never told of others, or forgot them
    }
    Ok((replies.get(1).map(redirect::news).unwrap_or_default(), SlotMap::new(&ranges)))
}
