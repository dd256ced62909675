//! What is kept of changes that wait: in order for each user, folded where one stands for two, and when there is no
//! room, what is cheapest to lose goes first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    audit::By,
    clock::Millis,
    metrics::QueuedKind,
    mirror::{ByRef, Fate},
    request_id,
    session::{Change, Reason, RefreshRef, SessionId, UserId},
    store::{Fold, fold},
};

/// What an entry takes beside the texts in it, about: itself, its record, and its places in the maps.
const ENTRY_BYTES: usize = 768;

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A change.
    Change(Change),
    /// A change to whoever a refresh token belongs to, which only the store knows.
    ByRef(ByRef),
}

impl What {
    fn owner(&self) -> Owner {
        match self {
            Self::Change(change) => Owner::User(change.user()),
            Self::ByRef(by_ref) => Owner::Token(by_ref.reference.clone()),
        }
    }
}

/// One change that waits, and whose doing it was.
#[derive(Debug)]
pub struct Queued {
    /// Rises with every change that is put in.
    pub id: u64,
    /// Since when it waits; of several that became one, the first.
    pub since: Millis,
    /// The change.
    pub what: What,
    route: &'static str,
    request_id: Box<[u8]>,
}

impl Queued {
    /// The request that it came of.
    pub fn by(&self) -> By<'_> {
        By { route: self.route, request_id: &self.request_id }
    }

    /// What its loss would cost.
    pub fn kind(&self) -> QueuedKind {
        match &self.what {
            What::Change(Change::Record { .. }) => QueuedKind::Creation,
            What::ByRef(ByRef { fate: Fate::Ended(Reason::UnknownToGotrue), .. }) => QueuedKind::Unproven,
            What::Change(Change::End { .. }) | What::ByRef(ByRef { fate: Fate::Ended(_), .. }) => {
                QueuedKind::Ending
            }
            What::Change(_) | What::ByRef(_) => QueuedKind::Other,
        }
    }

    fn bytes(&self) -> usize {
        let texts = match &self.what {
            What::Change(Change::Record { record, .. }) => {
                let texts = [&record.amr, &record.role, &record.client_id, &record.ip, &record.user_agent];
                texts.into_iter().flatten().map(String::len).sum()
            }
            _ => 0,
        };
        ENTRY_BYTES + texts + self.request_id.len()
    }
}

/// Whose changes keep their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Owner {
    User(UserId),
    /// Whoever that is.
    Token(RefreshRef),
}

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) changes: usize,
    pub(super) bytes: usize,
}

impl Room {
    /// So many changes of one user: nobody fills it alone.
    fn for_one(self) -> usize {
        (self.changes / 10).max(64)
    }
}

/// All that waits.
#[derive(Debug)]
pub(super) struct Held {
    room: Room,
    next_id: u64,
    bytes: usize,
    /// By owner, in order.
    lists: HashMap<Owner, Vec<Arc<Queued>>>,
    /// By id.
    all: BTreeMap<u64, Arc<Queued>>,
    /// Since when they wait, and their ids.
    ages: BTreeSet<(Millis, u64)>,
    /// Ids by kind.
    kinds: [BTreeSet<u64>; QueuedKind::ALL.len()],
    spooled: Spooled,
}

/// How far the queue on disk has come, where there is one.
#[derive(Debug, Default)]
struct Spooled {
    /// Ids up to this one were handed over to be written down.
    up_to: u64,
    /// Of those, what has been taken out since.
    gone: Vec<u64>,
}

impl Held {
    pub(super) fn new(room: Room) -> Self {
        let kinds = Default::default();
        Self {
            room,
            next_id: 1,
            bytes: 0,
            lists: HashMap::new(),
            all: BTreeMap::new(),
            ages: BTreeSet::new(),
            kinds,
            spooled: Spooled::default(),
        }
    }

    pub(super) fn keeps_nothing(&self) -> bool {
        self.room.changes == 0 || self.room.bytes == 0
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Since when the oldest waits.
    pub(super) fn oldest(&self) -> Option<Millis> {
        self.ages.first().map(|(since, _)| *since)
    }

    /// All that waits, in order.
    pub(super) fn all(&self) -> Vec<Arc<Queued>> {
        self.all.values().cloned().collect()
    }

    /// What a file does not know yet: ids that it may forget, and what is new. It is taken to know them from now on.
    pub(super) fn unspooled(&mut self) -> (Vec<u64>, Vec<Arc<Queued>>) {
        let fresh = self.all.range(self.spooled.up_to + 1..).map(|(_, queued)| Arc::clone(queued)).collect();
        self.spooled.up_to = self.next_id - 1;
        (std::mem::take(&mut self.spooled.gone), fresh)
    }

    /// Whether a file could know anything more.
    pub(super) fn is_spooled(&self) -> bool {
        self.spooled.gone.is_empty() && self.all.range(self.spooled.up_to + 1..).next().is_none()
    }

    /// The last id that was given.
    pub(super) fn last_id(&self) -> u64 {
        self.next_id - 1
    }

    /// How many of each kind have an id above `after`.
    pub(super) fn counts_after(&self, after: u64) -> [usize; QueuedKind::ALL.len()] {
        QueuedKind::ALL.map(|kind| self.of_kind(kind).map_or(0, |ids| ids.range(after + 1..).count()))
    }

    /// Puts a change in after all others of its user; gives back the kinds of what was lost for it.
    pub(super) fn put(&mut self, what: What, by: By<'_>, now: Millis) -> Vec<QueuedKind> {
        let entry =
            Entry { since: now, route: by.route, request_id: request_id::shown(by.request_id).into() };
        let owner = what.owner();
        match what {
            What::Change(change) => self.put_change(change, entry),
            What::ByRef(by_ref) => self.put_by_ref(by_ref, entry),
        }
        self.make_room(&owner)
    }

    /// The first changes of a user, at most so many, in order.
    pub(super) fn of_user(&self, user: UserId, most: usize) -> Vec<Arc<Queued>> {
        self.lists.get(&Owner::User(user)).into_iter().flatten().take(most).cloned().collect()
    }

    /// The user whose first change is the oldest with an id above `after`.
    pub(super) fn next_user(&self, after: u64) -> Option<UserId> {
        let mut later = self.all.range(after.saturating_add(1)..);
        later.find_map(|(id, queued)| {
            let What::Change(change) = &queued.what else { return None };
            let user = change.user();
            let first = self.lists.get(&Owner::User(user))?.first()?.id;
            (first == *id).then_some(user)
        })
    }

    /// The oldest by refresh token with an id above `after`.
    pub(super) fn next_unresolved(&self, after: u64) -> Option<Arc<Queued>> {
        let mut later = self.all.range(after.saturating_add(1)..).map(|(_, queued)| queued);
        later.find(|queued| matches!(queued.what, What::ByRef(_))).cloned()
    }

    /// The session that this is about, if the last record that waits and names the refresh token says so.
    pub(super) fn holder(&self, by_ref: &ByRef) -> Option<(UserId, SessionId)> {
        let (record, token) = self.all.values().rev().find_map(|queued| match &queued.what {
            What::Change(Change::Record { record, .. }) => Some((record, record.names(&by_ref.reference)?)),
            _ => None,
        })?;
        by_ref.is_about(token).then_some((record.user, record.session))
    }

    /// Takes a change out; `false` where it is not there any more.
    pub(super) fn take(&mut self, queued: &Queued) -> bool {
        self.remove(queued.id).is_some()
    }

    /// What an earlier change has become part of goes; what is left of it comes right before the new one.
    fn put_change(&mut self, change: Change, mut entry: Entry) {
        let (change, folded, left) = self.folded(change);
        for id in folded {
            if let Some(gone) = self.remove(id) {
                entry.since = entry.since.min(gone.since);
            }
        }
        if let Some(left) = left {
            self.put_change(left, entry.clone());
        }
        self.push(What::Change(change), entry);
    }

    /// What was told of the same token in the same way before becomes part of it.
    fn put_by_ref(&mut self, by_ref: ByRef, mut entry: Entry) {
        let mut told = by_ref;
        for queued in self.lists.get(&Owner::Token(told.reference.clone())).cloned().unwrap_or_default() {
            let What::ByRef(earlier) = &queued.what else { continue };
            if let Some(both) = both_told(earlier, &told) {
                told = both;
                entry.since = entry.since.min(queued.since);
                self.remove(queued.id);
            }
        }
        self.push(What::ByRef(told), entry);
    }

    /// The change with what it takes over from earlier ones, the ids of those, and what is left of them.
    fn folded(&self, change: Change) -> (Change, Vec<u64>, Option<Change>) {
        let (mut change, mut folded, mut left) = (change, Vec::new(), None);
        let waiting = self.lists.get(&Owner::User(change.user())).into_iter().flatten();
        for queued in waiting.rev() {
            let What::Change(earlier) = &queued.what else { continue };
            match fold(earlier, &change) {
                Fold::Apart => {}
                Fold::InOrder => break,
                Fold::Into(both, rest) => {
                    change = *both;
                    folded.push(queued.id);
                    left = later_of(left, rest);
                }
            }
        }
        (change, folded, left)
    }

    fn push(&mut self, what: What, entry: Entry) {
        let Entry { since, route, request_id } = entry;
        let queued = Queued { id: self.next_id, since, what, route, request_id };
        self.next_id += 1;
        let (id, owner) = (queued.id, queued.what.owner());
        self.bytes += queued.bytes();
        let queued = Arc::new(queued);
        self.all.insert(id, Arc::clone(&queued));
        self.ages.insert((queued.since, id));
        if let Some(ids) = self.kinds.get_mut(queued.kind() as usize) {
            ids.insert(id);
        }
        self.lists.entry(owner).or_default().push(queued);
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Queued>> {
        let queued = self.all.remove(&id)?;
        self.ages.remove(&(queued.since, id));
        for ids in &mut self.kinds {
            ids.remove(&id);
        }
        let owner = queued.what.owner();
        if let Some(list) = self.lists.get_mut(&owner) {
            list.retain(|queued| queued.id != id);
            if list.is_empty() {
                self.lists.remove(&owner);
            }
        }
        if id <= self.spooled.up_to {
            self.spooled.gone.push(id);
        }
        self.bytes -= queued.bytes();
        Some(queued)
    }

    /// Of a user who has too many, one of those goes; else what is cheapest to lose.
    fn make_room(&mut self, owner: &Owner) -> Vec<QueuedKind> {
        let mut dropped = Vec::new();
        while let Some(id) = self.too_many_of(owner).or_else(|| self.too_many()) {
            let Some(gone) = self.remove(id) else { break };
            dropped.push(gone.kind());
        }
        dropped
    }

    fn too_many_of(&self, owner: &Owner) -> Option<u64> {
        let list = self.lists.get(owner).filter(|list| list.len() > self.room.for_one())?;
        let ids = |kind| list.iter().filter(move |queued| queued.kind() == kind).map(|queued| queued.id);
        cheapest(|kind| ids(kind).next(), |kind| ids(kind).next_back())
    }

    fn too_many(&self) -> Option<u64> {
        if self.len() <= self.room.changes && self.bytes <= self.room.bytes {
            return None;
        }
        let ids = |kind| self.of_kind(kind).into_iter().flatten().copied();
        cheapest(|kind| ids(kind).next(), |kind| ids(kind).next_back())
    }

    fn of_kind(&self, kind: QueuedKind) -> Option<&BTreeSet<u64>> {
        self.kinds.get(kind as usize)
    }
}

/// What nobody has proven goes first: anybody may fill the queue with it. Then creations, the oldest of them; of
/// endings, which nothing would tell again, the newest.
fn cheapest(
    oldest: impl Fn(QueuedKind) -> Option<u64>,
    newest: impl Fn(QueuedKind) -> Option<u64>,
) -> Option<u64> {
    oldest(QueuedKind::Unproven)
        .or_else(|| oldest(QueuedKind::Creation))
        .or_else(|| oldest(QueuedKind::Other))
        .or_else(|| newest(QueuedKind::Ending))
}

/// What is known of a change beside itself.
#[derive(Clone)]
struct Entry {
    since: Millis,
    route: &'static str,
    request_id: Box<[u8]>,
}

/// Two of one token as one, where they tell the same; as a store would take one after the other.
fn both_told(earlier: &ByRef, later: &ByRef) -> Option<ByRef> {
    let fate = match (earlier.fate, later.fate) {
        (Fate::Ended(first), Fate::Ended(_)) => Fate::Ended(first),
        (Fate::Banned(until), Fate::Banned(then)) => Fate::Banned(until.max(then)),
        _ => return None,
    };
    Some(ByRef { reference: later.reference.clone(), fate, sent_ms: later.sent_ms.max(earlier.sent_ms) })
}

/// Both are [`Change::Allowed`], of one user.
fn later_of(one: Option<Change>, other: Option<Change>) -> Option<Change> {
    match (one, other) {
        (Some(one), Some(other)) => match fold(&one, &other) {
            Fold::Into(both, _) => Some(*both),
            Fold::Apart | Fold::InOrder => Some(one),
        },
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests;
