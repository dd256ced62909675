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
    session::{Change, UserId},
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
            What::Change(Change::End { .. }) | What::ByRef(ByRef { fate: Fate::Ended(_), .. }) => {
                QueuedKind::Ending
            }
            What::Change(_) | What::ByRef(_) => QueuedKind::Other,
        }
    }

    fn user(&self) -> Option<UserId> {
        match &self.what {
            What::Change(change) => Some(change.user()),
            What::ByRef(_) => None,
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

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) changes: usize,
    pub(super) bytes: usize,
}

/// All that waits.
#[derive(Debug)]
pub(super) struct Held {
    room: Room,
    next_id: u64,
    bytes: usize,
    /// By user, in order; those by refresh token under `None`.
    lists: HashMap<Option<UserId>, Vec<Arc<Queued>>>,
    /// By id.
    all: BTreeMap<u64, Arc<Queued>>,
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
        self.all.first_key_value().map(|(_, queued)| queued.since)
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
        match what {
            What::Change(change) => self.put_change(change, entry),
            What::ByRef(_) => self.push(what, entry),
        }
        self.make_room()
    }

    /// The first changes of a user, at most so many, in order.
    pub(super) fn of_user(&self, user: UserId, most: usize) -> Vec<Arc<Queued>> {
        self.lists.get(&Some(user)).into_iter().flatten().take(most).cloned().collect()
    }

    /// The user whose first change is the oldest with an id above `after`.
    pub(super) fn next_user(&self, after: u64) -> Option<UserId> {
        let mut later = self.all.range(after.saturating_add(1)..);
        later.find_map(|(id, queued)| {
            let user = queued.user()?;
            let first = self.lists.get(&Some(user))?.first()?.id;
            (first == *id).then_some(user)
        })
    }

    /// The oldest by refresh token with an id above `after`.
    pub(super) fn next_unresolved(&self, after: u64) -> Option<Arc<Queued>> {
        self.lists.get(&None)?.iter().find(|queued| queued.id > after).cloned()
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

    /// The change with what it takes over from earlier ones, the ids of those, and what is left of them.
    fn folded(&self, change: Change) -> (Change, Vec<u64>, Option<Change>) {
        let (mut change, mut folded, mut left) = (change, Vec::new(), None);
        let waiting = self.lists.get(&Some(change.user())).into_iter().flatten();
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
        let (id, owner) = (queued.id, queued.user());
        self.bytes += queued.bytes();
        let queued = Arc::new(queued);
        self.all.insert(id, Arc::clone(&queued));
        if let Some(ids) = self.kinds.get_mut(queued.kind() as usize) {
            ids.insert(id);
        }
        self.lists.entry(owner).or_default().push(queued);
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Queued>> {
        let queued = self.all.remove(&id)?;
        for ids in &mut self.kinds {
            ids.remove(&id);
        }
        let owner = queued.user();
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

    /// Creations go first, the oldest of them; of endings, which nothing would tell again, the newest.
    fn make_room(&mut self) -> Vec<QueuedKind> {
        let mut dropped = Vec::new();
        while self.len() > self.room.changes || self.bytes > self.room.bytes {
            let oldest = |kind| self.of_kind(kind).and_then(BTreeSet::first).copied();
            let newest = |kind| self.of_kind(kind).and_then(BTreeSet::last).copied();
            let victim = oldest(QueuedKind::Creation)
                .or_else(|| oldest(QueuedKind::Other))
                .or_else(|| newest(QueuedKind::Ending));
            match victim.and_then(|id| self.remove(id)) {
                Some(gone) => dropped.push(gone.kind()),
                None => break,
            }
        }
        dropped
    }

    fn of_kind(&self, kind: QueuedKind) -> Option<&BTreeSet<u64>> {
        self.kinds.get(kind as usize)
    }
}

/// What is known of a change beside itself.
#[derive(Clone)]
struct Entry {
    since: Millis,
    route: &'static str,
    request_id: Box<[u8]>,
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
mod tests {
    use super::*;
    use crate::session::{Aal, Origin, Reason, Record, RefreshRef, SessionId, Which};

    const BY: By<'_> = By { route: "/token", request_id: b"r1" };
    const NOW: u64 = 1_800_000_000;

    fn user(number: u8) -> UserId {
        UserId::parse(&format!("0191d1a0-0000-7000-8000-0000000000{number:02x}")).unwrap()
    }

    fn session(number: u8) -> SessionId {
        SessionId::parse(&format!("0191d1a0-0000-7000-8000-0000000001{number:02x}")).unwrap()
    }

    fn record(of: u8, number: u8, later: u64, origin: Origin) -> What {
        let token = |later: u64| RefreshRef::parse(&format!("{later:_>43}"));
        let record = Record {
            user: user(of),
            session: session(number),
            refresh_ref: token(later),
            previous_ref: later.checked_sub(1).and_then(token),
            counter: None,
            created_at: NOW,
            began_ms: if origin == Origin::SignIn { NOW * 1000 } else { 0 },
            begun_by_ms: if origin == Origin::SignIn { 0 } else { NOW * 1000 },
            refreshed_at: NOW + later,
            seen_at: None,
            expires_at: NOW + 3600 + later,
            aal: Some(Aal::Aal1),
            factor_id: None,
            amr: None,
            role: None,
            client_id: None,
            anonymous: false,
            ip: None,
            user_agent: None,
        };
        What::Change(Change::Record { origin, record: Box::new(record), allowed_ms: None })
    }

    fn sign_in(of: u8, number: u8) -> What {
        record(of, number, 0, Origin::SignIn)
    }

    fn refresh(of: u8, number: u8, later: u64) -> What {
        record(of, number, later, Origin::Refresh)
    }

    fn end(of: u8, which: Which) -> What {
        What::Change(Change::End {
            user: user(of),
            which,
            reason: Reason::Logout,
            sent_ms: NOW * 1000 + 60_000,
            expires_at: None,
            ended_in_gotrue: false,
        })
    }

    fn held(changes: usize) -> Held {
        Held::new(Room { changes, bytes: usize::MAX })
    }

    fn put(held: &mut Held, all: Vec<What>) -> Vec<QueuedKind> {
        all.into_iter().enumerate().flat_map(|(at, what)| held.put(what, BY, at as u64)).collect()
    }

    fn kinds(held: &Held, of: u8) -> Vec<QueuedKind> {
        held.of_user(user(of), usize::MAX).iter().map(|queued| queued.kind()).collect()
    }

    #[test]
    fn a_login_and_its_logout_are_the_logout() {
        let mut held = held(10);
        let logout = end(1, Which::One(session(1)));
        put(&mut held, vec![sign_in(1, 1), sign_in(1, 2), refresh(1, 1, 5), logout.clone(), logout]);
        assert_eq!(kinds(&held, 1), [QueuedKind::Creation, QueuedKind::Ending]);
        let left = held.of_user(user(1), usize::MAX);
        let What::Change(Change::End { expires_at, .. }) = &left[1].what else { panic!("{left:?}") };
        // the tombstone outlives the newest token of the session that was never written
        assert_eq!((*expires_at, left[1].since), (Some(NOW + 3605), 0));
    }

    #[test]
    fn whose_logout_leaves_that_they_were_not_banned() {
        let mut held = held(10);
        let What::Change(Change::Record { origin, record, .. }) = sign_in(1, 1) else { panic!() };
        let allowed =
            |ms| What::Change(Change::Record { origin, record: record.clone(), allowed_ms: Some(ms) });
        put(&mut held, vec![allowed(7), allowed(9), end(1, Which::One(session(1)))]);
        let left = held.of_user(user(1), usize::MAX);
        assert_eq!(left.len(), 2);
        assert_eq!(left[0].what, What::Change(Change::Allowed { user: user(1), allowed_ms: 9 }));
    }

    #[test]
    fn refreshes_of_a_session_are_the_last_unless_something_stands_between() {
        let mut held = held(10);
        put(&mut held, vec![sign_in(1, 1), refresh(1, 1, 1), refresh(1, 2, 1), refresh(1, 1, 2)]);
        assert_eq!(held.len(), 3, "the sign-in, and a refresh of each");
        put(&mut held, vec![end(1, Which::Others(session(2))), refresh(1, 2, 3)]);
        assert_eq!(held.len(), 5);
        // one that comes late is kept as it is: the store knows which is newer
        put(&mut held, vec![refresh(1, 2, 2)]);
        assert_eq!(held.len(), 6);
    }

    #[test]
    fn users_have_their_turn_by_their_oldest_change() {
        let mut held = held(10);
        put(&mut held, vec![sign_in(2, 1), sign_in(1, 2), sign_in(2, 3)]);
        assert_eq!(held.next_user(0), Some(user(2)));
        assert_eq!(held.next_user(1), Some(user(1)));
        assert_eq!(held.next_user(2), None, "the third is not the first of its user");
        let first = &held.of_user(user(2), 1)[0];
        assert!(held.take(first) && !held.take(first));
        assert_eq!((held.next_user(0), held.next_user(2)), (Some(user(1)), Some(user(2))));
        assert_eq!(held.oldest(), Some(1));
    }

    #[test]
    fn endings_are_lost_last_and_the_newest_of_them() {
        let mut held = held(3);
        let lost = put(&mut held, vec![end(1, Which::All), sign_in(2, 1), end(3, Which::All), sign_in(4, 2)]);
        assert_eq!(lost, [QueuedKind::Creation]);
        assert!(kinds(&held, 2).is_empty() && !kinds(&held, 4).is_empty(), "the oldest");
        let suspend = Change::Suspend { user: user(5), until: None, decided_ms: 1 };
        assert_eq!(put(&mut held, vec![What::Change(suspend)]), [QueuedKind::Creation]);
        assert_eq!(put(&mut held, vec![end(6, Which::All)]), [QueuedKind::Other]);
        assert_eq!(put(&mut held, vec![end(7, Which::All)]), [QueuedKind::Ending]);
        assert!(kinds(&held, 7).is_empty() && !kinds(&held, 1).is_empty());
        assert_eq!(put(&mut held, vec![sign_in(8, 3)]), [QueuedKind::Creation]);
        assert_eq!((held.counts_after(0), held.counts_after(u64::MAX - 1)), ([0, 0, 3], [0, 0, 0]));
    }

    #[test]
    fn a_file_hears_of_what_outlives_its_writing_only() {
        let mut held = held(10);
        put(&mut held, vec![sign_in(1, 1), sign_in(1, 2)]);
        let (gone, fresh) = held.unspooled();
        assert_eq!((gone.len(), fresh.len(), held.is_spooled()), (0, 2, true));
        put(&mut held, vec![sign_in(1, 3)]);
        for queued in held.all() {
            held.take(&queued);
        }
        assert!(!held.is_spooled());
        let (gone, fresh) = held.unspooled();
        assert_eq!((gone, fresh.len(), held.is_spooled()), (vec![1, 2], 0, true));
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let mut held = Held::new(Room { changes: usize::MAX, bytes: 10 * ENTRY_BYTES });
        let lost = put(&mut held, (0..20).map(|number| sign_in(1, number)).collect());
        assert_eq!((held.len(), lost.len()), (9, 11), "a request's id takes room as well");
        for queued in held.of_user(user(1), usize::MAX) {
            held.take(&queued);
        }
        assert_eq!((held.len(), held.bytes(), held.lists.len()), (0, 0, 0));
    }
}
