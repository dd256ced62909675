//! What the store said of sessions: asked once however many want to know, and believed for `check.max_staleness` at
//! most, from before it was asked, or until a change is heard of. Whose time is over is ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::decision::Known;
use crate::{
    audit::By,
    cache::{Cache, Weight},
    metrics::CheckCache,
    session::{Reason, SessionId, Sought, UserId},
    sessions::{Ended, Sessions},
    store::changes::{Changes, Noted},
};

/// So many are remembered, by each worker.
const MOST: usize = 65_536;
/// They take so much, by each worker.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// So many sessions are remembered as ended for good.
const ENDED: usize = 4_096;
/// A session that is asked about again and again is ended for good once in so long: the first time may have failed.
const END_AGAIN: Duration = Duration::from_secs(60);

type Id = (UserId, SessionId);

/// The states of one worker.
#[derive(Debug)]
pub(super) struct States {
    sessions: Arc<Sessions>,
    /// `None`: the store is this process's memory. Nothing is to be won by remembering what it says.
    changes: Option<Arc<Changes>>,
    /// `check.max_staleness`
    max_staleness: Duration,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    cache: Cache<Id, Entry>,
    ended: Cache<Id, EndedAt>,
    flights: HashMap<Id, Flight>,
    next: u64,
}

/// What was said.
#[derive(Clone, Copy, Debug)]
struct Entry {
    known: Known,
    asked: Asked,
}

/// When, and what was known of changes by then.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    noted: Noted,
}

/// A question under way.
#[derive(Debug)]
struct Flight {
    number: u64,
    asked: Asked,
    answer: watch::Receiver<Option<Known>>,
}

/// When a session was last ended for good.
#[derive(Clone, Copy, Debug)]
struct EndedAt(Instant);

impl Weight for Entry {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Weight for EndedAt {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl States {
    /// Nothing is known yet.
    pub(super) fn new(
        sessions: Arc<Sessions>,
        changes: Option<Arc<Changes>>,
        max_staleness: Duration,
    ) -> Self {
        let held = Held {
            cache: Cache::new(MOST, MOST_BYTES),
            ended: Cache::new(ENDED, usize::MAX),
            flights: HashMap::new(),
            next: 0,
        };
        Self { sessions, changes, max_staleness, held: Mutex::new(held) }
    }

    /// What is remembered and may still be believed at `now`.
    pub(super) fn remembered(&self, sought: &Sought, now: Instant) -> Option<Known> {
        let asked = Asked { at: now, noted: self.changes.as_ref()?.noted(sought.user) };
        let entry = self.lock().cache.get(&(sought.user, sought.session))?;
        if !self.holds(entry.asked, asked) {
            return None;
        }
        self.sessions.metrics.check_cache_hit(CheckCache::Session);
        Some(entry.known)
    }

    /// What the store says, within `limit`.
    pub(super) async fn ask(self: &Arc<Self>, sought: Sought, limit: Duration) -> Known {
        let Some(changes) = &self.changes else {
            return self.sessions.known(&sought).await;
        };
        let asked = Asked { at: Instant::now(), noted: changes.noted(sought.user) };
        let mut answer = self.flight(sought, asked);
        match timeout(limit, answer.wait_for(Option::is_some)).await {
            Ok(Ok(known)) => known.unwrap_or(Known::Undecided),
            Ok(Err(_)) | Err(_) => Known::Undecided,
        }
    }

    /// The answer to a question that is under way and as good as one asked now, else to a new one. It goes on when
    /// nobody waits for it any more, for `store.timeout`: what comes later than a check waits is remembered, and what
    /// does not come at all is the breaker's and the connection's to know.
    fn flight(self: &Arc<Self>, sought: Sought, asked: Asked) -> watch::Receiver<Option<Known>> {
        let id = (sought.user, sought.session);
        let mut held = self.lock();
        if let Some(flight) = held.flights.get(&id)
            && self.holds(flight.asked, asked)
            && flight.answer.has_changed().is_ok()
        {
            return flight.answer.clone();
        }
        let number = held.next;
        held.next += 1;
        let (landing, answer) = watch::channel(None);
        held.flights.insert(id, Flight { number, asked, answer: answer.clone() });
        drop(held);
        let states = Arc::clone(self);
        tokio::spawn(async move {
            let known = states.sessions.known(&sought).await;
            states.landed(id, number, Entry { known, asked });
            landing.send_replace(Some(known));
        });
        answer
    }

    fn landed(&self, id: Id, number: u64, entry: Entry) {
        let mut held = self.lock();
        if held.flights.get(&id).is_some_and(|flight| flight.number == number) {
            held.flights.remove(&id);
            if entry.known != Known::Undecided {
                held.cache.insert(id, entry);
            }
        }
    }

    /// Puts up a tombstone for a session whose time was found to be over, beside the answer. GoTrue is not told: its
    /// next refresh is refused, and that tells it.
    pub(super) fn end_for_good(&self, sought: &Sought, request_id: Option<&HeaderValue>) {
        let &Sought { user, session, .. } = sought;
        if !self.is_to_be_ended((user, session), Instant::now()) {
            return;
        }
        let ended = Ended { user, session, reason: Reason::Expired, in_gotrue: false };
        let sessions = Arc::clone(&self.sessions);
        let request_id = request_id.map_or(&[][..], HeaderValue::as_bytes).to_vec();
        self.sessions.tasks.spawn(async move {
            sessions.end_for_good(ended, By { route: "/check", request_id: &request_id }).await;
        });
    }

    fn is_to_be_ended(&self, id: Id, now: Instant) -> bool {
        let mut held = self.lock();
        if held.ended.get(&id).is_some_and(|EndedAt(at)| now.saturating_duration_since(at) < END_AGAIN) {
            return false;
        }
        held.ended.insert(id, EndedAt(now));
        true
    }

    /// Whether what was asked then answers what is asked now.
    fn holds(&self, then: Asked, now: Asked) -> bool {
        then.noted == now.noted && now.at.saturating_duration_since(then.at) < self.max_staleness
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// What the store says of a session; it counts as seen.
    async fn known(self: &Arc<Self>, sought: &Sought) -> Known {
        let state = self.state_of(sought, &mut self.budget()).await;
        state.as_ref().map_or(Known::Undecided, Known::from)
    }
}
