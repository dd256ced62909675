//! Follows the master that Sentinels watch over.
//!
//! They are asked twice a second, and whenever the master does not do what it is asked. All of them are asked at
//! once, and the one with the newest configuration is believed, if the server that it names says itself that it is a
//! master: the others may not have heard of a failover yet. Sentinels that do not answer change nothing: a master
//! that is in doubt stays the one, as long as none of them names another and it says that it is.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::redis::{Pipeline, Value};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    asking::answers,
    flight::Flight,
    link::Link,
    node::{Node, Terms},
    reply,
    target::{Role, Target},
};
use crate::{
    config::store_url::Address,
    store::{About, Code, Error},
};

/// How often they are asked who is the master.
const LOOK: Duration = Duration::from_millis(500);

/// An answer is so long good enough for whoever doubts the master.
const FRESH: Duration = Duration::from_millis(100);

/// The master, wherever it is.
#[derive(Debug)]
pub(super) struct Sentinel {
    watched: AtomicBool,
    shared: Arc<Shared>,
}

struct Shared {
    terms: Terms,
    /// What the Sentinels call the master.
    name: String,
    master: Mutex<Known>,
    sentinels: Mutex<HashMap<Address, Arc<Link>>>,
    search: Flight<Result<Arc<Node>, Error>>,
}

/// What is known of the master.
enum Known {
    Nothing,
    /// It is the one.
    Sure(Arc<Node>),
    /// It was the one, at that address. Nobody is sent there before that was asked again.
    Doubtful(Address),
}

impl Known {
    fn sure(&self) -> Option<Arc<Node>> {
        match self {
            Self::Sure(node) => Some(Arc::clone(node)),
            Self::Nothing | Self::Doubtful(_) => None,
        }
    }

    fn doubtful(&self) -> Option<Address> {
        match self {
            Self::Doubtful(address) => Some(address.clone()),
            Self::Nothing | Self::Sure(_) => None,
        }
    }
}

/// What a Sentinel says of the master.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// How new it is: every failover has the next number.
    pub(super) epoch: u64,
    /// Where the master is.
    pub(super) master: Address,
}

impl Sentinel {
    /// Asks nobody yet.
    pub(super) fn new(terms: Terms, name: String) -> Self {
        let shared = Shared {
            terms,
            name,
            master: Mutex::new(Known::Nothing),
            sentinels: Mutex::new(HashMap::new()),
            search: Flight::new(),
        };
        Self { watched: AtomicBool::new(false), shared: Arc::new(shared) }
    }

    /// Sends a pipeline to the master, for so many replicas; once more, if another one is found because this one does not do its work.
    ///
    /// # Errors
    /// When there are no replies.
    pub(super) async fn send(&self, pipeline: &Pipeline, replicas: u32) -> Result<Vec<Value>, Error> {
        self.watch();
        match timeout(self.shared.terms.timeout, self.deliver(pipeline, replicas)).await {
            Ok(replies) => replies,
            Err(_elapsed) => {
                let shared = Arc::clone(&self.shared);
                self.shared.search.beside(FRESH, || search(shared));
                Err(Error::Timeout)
            }
        }
    }

    /// Where the master is now.
    ///
    /// # Errors
    /// When no Sentinel says.
    pub(super) async fn master(&self) -> Result<Option<Address>, Error> {
        self.watch();
        let known = self.shared.master().sure();
        let master = match known {
            Some(master) => master,
            None => self.look().await?,
        };
        Ok(master.address.clone())
    }

    /// Asks again who the master is before the next call. One that was away may have woken up as a master, and
    /// takes changes until it is told that another is.
    pub(super) fn renew(&self) {
        let mut master = self.shared.master();
        if let Some(address) = master.sure().and_then(|node| node.address.clone()) {
            *master = Known::Doubtful(address);
        }
    }

    async fn deliver(&self, pipeline: &Pipeline, replicas: u32) -> Result<Vec<Value>, Error> {
        let known = self.shared.master().sure();
        let master = match known {
            Some(master) => master,
            None => self.look().await?,
        };
        let sent = master.send(pipeline, replicas).await;
        let doubtful = match &sent {
            Ok(replies) => replies.iter().any(is_no_master),
            Err(error) => error.about() == About::Store,
        };
        if !doubtful {
            return sent;
        }
        match self.look().await {
            Ok(other) if !Arc::ptr_eq(&other, &master) => other.send(pipeline, replicas).await,
            _ => sent,
        }
    }

    /// Asks who is the master.
    ///
    /// # Errors
    /// When no Sentinel says, or none of those that they name is one.
    pub(super) async fn look(&self) -> Result<Arc<Node>, Error> {
        let shared = Arc::clone(&self.shared);
        let found = self.shared.search.outcome(FRESH, || search(shared)).await;
        found.unwrap_or(Err(Error::Timeout))
    }

    /// From the first call on, the Sentinels are asked again and again until this is dropped.
    fn watch(&self) {
        if self.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = Arc::downgrade(&self.shared);
        tokio::spawn(async move {
            loop {
                sleep(LOOK).await;
                let Some(shared) = shared.upgrade() else { return };
                let searched = Arc::clone(&shared);
                shared.search.outcome(FRESH, || search(searched)).await;
            }
        });
    }
}

impl Shared {
    fn master(&self) -> MutexGuard<'_, Known> {
        self.master.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to each Sentinel that the address names now.
    fn links(&self, target: &Target) -> Vec<(Address, Arc<Link>)> {
        let mut links = self.sentinels.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|address, _| target.addresses.contains(address));
        for address in &target.addresses {
            links.entry(address.clone()).or_insert_with(|| {
                let access = Arc::clone(&self.terms.access);
                Arc::new(Link::new(access, Some(address.clone()), Role::Sentinel, self.terms.timeout))
            });
        }
        links.iter().map(|(address, link)| (address.clone(), Arc::clone(link))).collect()
    }

    /// The node at that address, if it is the one in use or says that it is a master.
    async fn verified(&self, address: Address) -> Result<Arc<Node>, Error> {
        let known = self.master().sure().filter(|node| node.address.as_ref() == Some(&address));
        if let Some(node) = known {
            return Ok(node);
        }
        let node = Arc::new(Node::new(&self.terms, Some(address)));
        let mut role = Pipeline::with_capacity(1);
        role.cmd("ROLE");
        let replies = node.send(&role, 0).await?;
        reply::is_master(reply::first(&replies)?)?;
        *self.master() = Known::Sure(Arc::clone(&node));
        Ok(node)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A reply that a master would not give.
fn is_no_master(reply: &Value) -> bool {
    matches!(reply::sound(reply), Err(Error::ReadOnly | Error::ClusterDown))
}

/// Asks all Sentinels, and takes the newest master that is one; where none of them says anything, the one in doubt.
async fn search(shared: Arc<Shared>) -> Result<Arc<Node>, Error> {
    let doubtful = shared.master().doubtful();
    // whoever waits for this has time to hear from the one in doubt, too
    let patience = shared.terms.timeout / if doubtful.is_some() { 2 } else { 1 };
    let (mut said, mut failure) = ask(&shared, patience).await;
    said.sort_by_key(|said| std::cmp::Reverse(said.epoch));
    said.dedup();
    let mut masters: Vec<_> = said.into_iter().map(|said| said.master).collect();
    if masters.is_empty() {
        masters.extend(doubtful);
    }
    for master in masters {
        match shared.verified(master).await {
            Ok(master) => return Ok(master),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What those say that answer in time, and what happened to another one.
async fn ask(shared: &Shared, patience: Duration) -> (Vec<Said>, Error) {
    let target = shared.terms.access.target();
    let mut asking = JoinSet::new();
    for (address, link) in shared.links(&target) {
        let name = shared.name.clone();
        asking.spawn(async move { ask_one(&link, &name, &address).await });
    }
    answers(asking, patience).await
}

async fn ask_one(link: &Link, name: &str, asked: &Address) -> Result<Said, Error> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("SENTINEL").arg("get-master-addr-by-name").arg(name);
    pipeline.cmd("SENTINEL").arg("MASTER").arg(name);
    let replies = link.send(&pipeline).await?;
    let [address, master] = replies.as_slice() else {
        return Err(Error::Protocol);
    };
    reply::sound(address)?;
    if *address == Value::Nil {
        return Err(Error::Other(Code::new("NOMASTER")));
    }
    reply::said_of_master(address, master, asked)
}
