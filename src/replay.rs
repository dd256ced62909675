//! Changes that wait for the store: what could not be written while it was away, in order for each user, bounded in
//! number and bytes. Who writes them at last is `sessions`; what is kept of them is decided in `replay/held.rs`, and
//! `replay/spool.rs` has them on disk, where that is wanted.

mod form;
mod held;
mod spool;
mod spooling;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{Notify, watch};

use self::{
    held::{Held, Room},
    spool::Spool,
};
pub use self::{
    held::{Queued, What},
    spool::SpoolError,
};
use crate::{
    audit::By,
    clock::Millis,
    config,
    metrics::{Metrics, QueuedKind},
    mirror::ByRef,
    session::{Change, SessionId, Unrecorded, UserId},
};

/// The queue of one process. Requests ask it with one load of an atomic while it is empty.
#[derive(Debug)]
pub struct Queue {
    held: Mutex<Held>,
    /// Of what is held; changed only while `held` is locked.
    length: AtomicUsize,
    lengths: watch::Sender<usize>,
    /// Losses that the log does not know of yet, by kind.
    lost: [AtomicU64; QueuedKind::ALL.len()],
    /// The file, until somebody keeps it.
    spool: Mutex<Option<Spool>>,
    /// Something was put in or taken out.
    touched: Notify,
    /// There is a file.
    filing: AtomicBool,
    /// The file does not know all of it yet.
    unwritten: AtomicBool,
    /// Changes with ids up to this one are in the file.
    written_to: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Queue {
    /// With these bounds; where one of them is 0 nothing is ever kept. Begins with what is in `store.spool_dir`.
    ///
    /// # Errors
    /// When that folder cannot be used.
    pub fn open(config: &config::Queue, metrics: Arc<Metrics>) -> Result<Self, SpoolError> {
        let room = Room { changes: config.changes, bytes: config.bytes };
        let queue = Self {
            held: Mutex::new(Held::new(room)),
            length: AtomicUsize::new(0),
            lengths: watch::Sender::new(0),
            lost: Default::default(),
            spool: Mutex::new(None),
            touched: Notify::new(),
            filing: AtomicBool::new(false),
            unwritten: AtomicBool::new(false),
            written_to: AtomicU64::new(0),
            metrics,
        };
        if let Some(folder) = &config.spool_dir {
            queue.restore(folder)?;
        }
        Ok(queue)
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// So many changes wait.
    pub fn len(&self) -> usize {
        self.length.load(Relaxed)
    }

    /// Keeps a change for later; `false` where nothing is ever kept. Where there is no room, what is cheapest to lose
    /// is lost, which may be this one: counted, and told by [`tell`](Self::tell).
    pub fn put(&self, what: What, by: By<'_>, now: Millis) -> bool {
        let mut held = self.held();
        if held.keeps_nothing() {
            return false;
        }
        let dropped = held.put(what, by, now);
        self.changed(&held);
        drop(held);
        for kind in dropped {
            self.metrics.queue_dropped(kind);
            self.metrics.unrecorded(Unrecorded::StoreFailed);
            if let Some(lost) = self.lost.get(kind as usize) {
                lost.fetch_add(1, Relaxed);
            }
        }
        true
    }

    /// What waits of the users that these changes are about, in order, at most so many of each.
    pub fn of_users(&self, changes: &[Change], most: usize) -> Vec<Arc<Queued>> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut users: Vec<UserId> = changes.iter().map(Change::user).collect();
        users.sort_unstable();
        users.dedup();
        let held = self.held();
        users.into_iter().flat_map(|user| held.of_user(user, most)).collect()
    }

    /// The next user's changes, at most so many, in order: of the user whose first one is the oldest with an id above
    /// `after`.
    pub fn next(&self, after: u64, most: usize) -> Vec<Arc<Queued>> {
        let held = self.held();
        held.next_user(after).map(|user| held.of_user(user, most)).unwrap_or_default()
    }

    /// The oldest change with an id above `after` that is about a refresh token of which nobody knew whose it is.
    pub fn next_unresolved(&self, after: u64) -> Option<Arc<Queued>> {
        self.held().next_unresolved(after)
    }

    /// The id of what was put in last.
    pub fn last_id(&self) -> u64 {
        self.held().last_id()
    }

    /// The session that this is about, as the last sign-in or refresh that waits and names the refresh token says.
    pub fn holder(&self, by_ref: &ByRef) -> Option<(UserId, SessionId)> {
        self.held().holder(by_ref)
    }

    /// Takes a change out; `false` where somebody else has.
    pub fn take(&self, queued: &Queued) -> bool {
        let mut held = self.held();
        let taken = held.take(queued);
        if taken {
            self.changed(&held);
        }
        taken
    }

    /// Waits until something waits.
    pub async fn filled(&self) {
        self.becomes(|length| length > 0).await;
    }

    /// Waits until nothing waits.
    pub async fn emptied(&self) {
        self.becomes(|length| length == 0).await;
    }

    /// Shows how long the oldest has waited, and logs what was lost since the last time. To be called once a second.
    pub fn tell(&self, now: Millis) {
        let oldest = self.held().oldest();
        self.metrics.queue_aged(oldest.map_or(0, |at| now.saturating_sub(at) / 1000));
        self.tell_lost();
    }

    fn tell_lost(&self) {
        for (kind, lost) in QueuedKind::ALL.into_iter().zip(&self.lost) {
            let count = lost.swap(0, Relaxed);
            if count > 0 {
                let kind = kind.as_str();
                tracing::error!(kind, count, "changes to sessions were lost: too many wait for the store");
            }
        }
    }

    /// At the end: logs what was lost, and what is left: lost with the process, or kept on disk for the next one.
    pub fn tell_left(&self) {
        self.tell_lost();
        let held = self.held();
        let left = held.counts_after(self.written_to.load(Relaxed));
        let kept = held.len().saturating_sub(left.iter().sum());
        drop(held);
        if kept > 0 {
            tracing::warn!(
                count = kept,
                "changes to sessions stay in store.spool_dir: the store did not come back"
            );
        }
        for (kind, count) in QueuedKind::ALL.into_iter().zip(left) {
            if count > 0 {
                let kind = kind.as_str();
                tracing::error!(
                    kind,
                    count,
                    "changes to sessions are lost: the store did not come back before the end"
                );
            }
        }
    }

    async fn becomes(&self, fits: impl Fn(usize) -> bool) {
        // the sender lives as long as we do
        let _ = self.lengths.subscribe().wait_for(|length| fits(*length)).await;
    }

    fn changed(&self, held: &Held) {
        let length = held.len();
        self.length.store(length, Relaxed);
        self.lengths.send_replace(length);
        self.metrics.queue_is(length, held.bytes());
        self.unwritten.store(true, Relaxed);
        self.touched.notify_one();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
