//! The shared store. Every change is one script (`*.lua`), all changes of one answer are one round trip.
//!
//! Of what Redis answers nothing is trusted: a record that does not read as one is unknown, any other
//! surprise is [`Error::Protocol`].

mod access;
mod asking;
mod cluster;
mod failure;
mod flight;
mod link;
mod node;
mod push;
mod record;
mod redirect;
mod reply;
mod route;
mod scripts;
mod sentinel;
mod slots;
mod survey;
mod target;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ::redis::{Cmd, Value, cmd};
use tokio::time::timeout;

pub use self::survey::{Amendment, Held, Known, LastAudit, Scan, Stamp};
use self::{
    access::Access,
    node::{Batch, Terms},
    route::Route,
    scripts::Scripts,
};
use super::{
    Error, OpenError, Swept,
    changes::{Changes, Heard},
    keys::Keys,
    rules,
};
use crate::{
    config::{self, StoreTarget},
    session::{
        Change, Holder, Limits, Listed, Origin, Outcome, Record, RefreshRef, Seconds, SessionId, Sought,
        State, TokenOf, UserId, Wanted, Which,
    },
};

/// So many of a user's sessions are dealt with by one script; a few milliseconds of Redis' time. More are swept.
const STEP: u32 = 256;

/// Whose a refresh token is, is noted in a Cluster within so long after its session was, or nobody waits for it.
const HINTED: Duration = Duration::from_millis(10);

/// Commands that ask one part whether it works.
const PROBES: usize = 2;

/// Makes one [`Redis`] for each worker.
#[derive(Clone, Debug)]
pub struct Source {
    config: config::Store,
    session_ttl: Duration,
    step: u32,
    limits: Limits,
    access: Arc<Access>,
    scripts: Arc<Scripts>,
    changes: Arc<Changes>,
    noted_since: Arc<AtomicU64>,
}

impl Source {
    /// Reads the address and the files; nothing is connected to.
    ///
    /// # Errors
    /// When one of them cannot be read or used.
    pub fn new(config: &config::Store, session_ttl: Duration) -> Result<Self, OpenError> {
        let StoreTarget::Redis(target) = &config.target else {
            return Err(OpenError::Url);
        };
        Ok(Self {
            config: config.clone(),
            session_ttl,
            step: STEP,
            limits: Limits::default(),
            access: Arc::new(Access::new(target)?),
            scripts: Arc::new(Scripts::new()),
            changes: Arc::default(),
            noted_since: Arc::default(),
        })
    }

    /// Deals with at most `step` sessions in one script, at least one, instead of 256.
    #[must_use]
    pub fn with_step(self, step: u32) -> Self {
        Self { step: step.max(1), ..self }
    }

    /// Ends sessions that are past these limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// A store with a connection of its own, made when it is first needed.
    pub fn connect(&self) -> Redis {
        Redis {
            route: self.route(),
            scripts: Arc::clone(&self.scripts),
            keys: Keys::new(&self.config.key_prefix),
            session_ttl: self.session_ttl.as_secs(),
            step: self.step,
            limits: self.limits,
            noted_since: Arc::clone(&self.noted_since),
            changes: Arc::clone(&self.changes),
            wait_replicas: self.config.wait_replicas,
        }
    }

    /// See [`Source::lanes`](super::Source::lanes).
    pub fn lanes(&self) -> usize {
        self.route().lanes()
    }

    fn route(&self) -> Route {
        Route::new(Terms {
            access: Arc::clone(&self.access),
            scripts: Arc::clone(&self.scripts),
            timeout: self.config.timeout,
        })
    }

    /// See [`Source::changes`](super::Source::changes).
    pub fn changes(&self) -> Arc<Changes> {
        Arc::clone(&self.changes)
    }

    /// See [`Source::follow_changes`](super::Source::follow_changes).
    pub async fn follow_changes(&self, told: impl Fn(Heard)) {
        // one subscription for each master
        let keys = Keys::new(&self.config.key_prefix);
        push::follow(&self.access, &self.route(), &keys, &self.changes, told).await;
    }

    /// Reads address and files again, for connections that are made from now on.
    ///
    /// # Errors
    /// As [`Source::new`]; nothing changes then.
    pub fn reload(&self) -> Result<(), OpenError> {
        self.access.reload()
    }
}

/// One worker's connections to Redis and what is said over them.
#[derive(Debug)]
pub struct Redis {
    route: Route,
    scripts: Arc<Scripts>,
    keys: Keys,
    session_ttl: Seconds,
    step: u32,
    limits: Limits,
    noted_since: Arc<AtomicU64>,
    changes: Arc<Changes>,
    wait_replicas: u32,
}

impl Redis {
    /// See [`Store::renew`](super::Store::renew).
    pub(super) fn renew(&self, lane: usize, since: Instant) {
        self.route.renew(lane, since);
    }

    /// See [`Store::apply`](super::Store::apply).
    ///
    /// # Errors
    /// As there.
    pub async fn apply(&self, changes: &[Change], now: Seconds) -> Result<Vec<Outcome>, Error> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::with_capacity(changes.len());
        for change in changes {
            batch.add(&self.keys.marks(change.user()), self.script(change, now));
        }
        if changes.iter().any(is_ending) {
            batch.replicas = self.wait_replicas;
        }
        let replies = self.make(batch, changes, now).await;
        // made, or perhaps made: this process need not wait for Redis to tell it of its own changes
        for change in changes {
            self.changes.of(change.user());
        }
        let replies = replies?;
        for hint in replies.get(changes.len()..).unwrap_or_default() {
            reply::sound(hint)?;
        }
        replies.iter().take(changes.len()).map(reply::outcome).collect()
    }

    /// The replies to the changes, and after them to the hints as far as they matter.
    async fn make(&self, mut batch: Batch, changes: &[Change], now: Seconds) -> Result<Vec<Value>, Error> {
        if let Route::Cluster(cluster) = &self.route {
            let mut hints = Batch::with_capacity(changes.len());
            self.add_hints(&mut hints, changes, now);
            let hinted = (hints.len() > 0).then(|| cluster.send_beside(hints));
            let replies = self.route.send(&batch).await;
            // A hint may lie on a server that is lost or hangs, which is no reason to lose the change, or to wait.
            if let (Ok(_), Some(hinted)) = (&replies, hinted) {
                let _ = timeout(HINTED, hinted).await;
            }
            return replies;
        }
        self.add_hints(&mut batch, changes, now);
        self.route.send(&batch).await
    }

    /// See [`Store::lookup`](super::Store::lookup).
    ///
    /// # Errors
    /// As there.
    pub async fn lookup(&self, sought: &Sought, now: Seconds) -> Result<State, Error> {
        let marks = self.keys.marks(sought.user);
        let replies = self.run(&marks, self.lookup_script(sought, now)).await?;
        reply::state(sought.user, sought.session, reply::first(&replies)?)
    }

    fn lookup_script(&self, sought: &Sought, now: Seconds) -> Cmd {
        let &Sought { user, session, began, touch } = sought;
        let keys =
            [self.keys.record(user, session), self.keys.tombstone(user, session), self.keys.marks(user)];
        let mut call = self.scripts.lookup.call(&keys);
        call.arg(now).arg(u8::from(touch)).arg(rules::TOUCH_AFTER);
        call.arg(began.map_or(String::new(), |began| began.to_string()));
        self.add_limits(&mut call);
        call
    }

    /// As scripts read them with `limits_from`.
    fn add_limits(&self, call: &mut Cmd) {
        let Limits { idle, absolute, .. } = self.limits;
        call.arg(idle.unwrap_or(0)).arg(absolute.unwrap_or(0)).arg(self.noted_since.load(Relaxed));
    }

    /// See [`Store::was_away`](super::Store::was_away).
    pub fn was_away(&self, now: Seconds) {
        self.noted_since.fetch_max(now, Relaxed);
    }

    /// See [`Store::list`](super::Store::list).
    ///
    /// # Errors
    /// As there.
    pub async fn list(&self, user: UserId, wanted: Wanted, now: Seconds) -> Result<Listed, Error> {
        let keys = [self.keys.index(user), self.keys.marks(user), self.keys.never(user)];
        let mut call = self.scripts.list.call(&keys);
        call.arg(now);
        match wanted {
            Wanted::Page { skip, take } => call.arg(skip).arg(take).arg(rules::IN_ORDER).arg(""),
            Wanted::One(session) => call.arg(0).arg(1).arg(rules::IN_ORDER).arg(session.to_string()),
        };
        self.add_limits(&mut call);
        let [index, ..] = &keys;
        let replies = self.run(index, call).await?;
        reply::listed(user, reply::first(&replies)?)
    }

    /// See [`Store::noted`](super::Store::noted).
    ///
    /// # Errors
    /// As there.
    pub async fn noted(&self, token: &RefreshRef) -> Result<Option<(UserId, SessionId)>, Error> {
        let hint = self.keys.refresh(token);
        let mut get = cmd("GET");
        get.arg(&hint);
        reply::hint(reply::first(&self.run(&hint, get).await?)?)
    }

    /// See [`Store::names`](super::Store::names).
    ///
    /// # Errors
    /// As there.
    pub async fn names(
        &self,
        (user, session): (UserId, SessionId),
        token: &RefreshRef,
    ) -> Result<Option<TokenOf>, Error> {
        let marks = self.keys.marks(user);
        let resolve = self.scripts.resolve.call(&[
            self.keys.record(user, session),
            marks.clone(),
            self.keys.never(user),
        ]);
        let replies = self.run(&marks, resolve).await?;
        reply::token_of(reply::first(&replies)?, token)
    }

    /// See [`Store::holder`](super::Store::holder).
    ///
    /// # Errors
    /// As there.
    pub async fn holder(&self, (user, session): (UserId, SessionId), now: Seconds) -> Result<Holder, Error> {
        let (marks, tombstone) = (self.keys.marks(user), self.keys.tombstone(user, session));
        let mut batch = Batch::with_capacity(2);
        batch.add(&marks, self.lookup_script(&Sought::of(user, session), now));
        let mut get = cmd("GET");
        get.arg(&tombstone);
        batch.add(&marks, get);
        let replies = self.route.send(&batch).await?;
        let state = reply::state(user, session, reply::first(&replies)?)?;
        let ended_in_gotrue = replies.get(1).is_some_and(reply::knows_gotrue);
        Ok(Holder { user, session, state, ended_in_gotrue })
    }

    /// See [`Store::sweep`](super::Store::sweep).
    ///
    /// # Errors
    /// As there.
    pub async fn sweep(&self, user: UserId, now: Seconds) -> Result<Swept, Error> {
        let marks = self.keys.marks(user);
        let mut call = self.scripts.sweep.call(&[marks.clone(), self.keys.never(user)]);
        call.arg(now).arg(self.step);
        let replies = self.run(&marks, call).await?;
        reply::swept(reply::first(&replies)?)
    }

    /// See [`Store::lanes`](super::Store::lanes).
    pub fn lanes(&self) -> usize {
        self.route.lanes()
    }

    /// See [`Store::lane_of`](super::Store::lane_of).
    pub fn lane_of(&self, user: UserId) -> usize {
        self.route.lane_of(|| self.keys.marks(user))
    }

    /// See [`Store::lane_of_token`](super::Store::lane_of_token).
    pub fn lane_of_token(&self, token: &RefreshRef) -> usize {
        self.route.lane_of(|| self.keys.refresh(token))
    }

    /// See [`Store::ping_each`](super::Store::ping_each).
    pub async fn ping_each(&self) -> Vec<Result<(), Error>> {
        self.ping_lanes(0..self.lanes()).await
    }

    /// See [`Store::ping_lane`](super::Store::ping_lane).
    ///
    /// # Errors
    /// As there.
    pub async fn ping_lane(&self, lane: usize) -> Result<(), Error> {
        self.ping_lanes(lane..lane + 1).await.into_iter().collect()
    }

    async fn ping_lanes(&self, lanes: std::ops::Range<usize>) -> Vec<Result<(), Error>> {
        let mut batch = Batch::with_capacity(lanes.len() * PROBES);
        for lane in lanes {
            let probe = self.keys.probe(&self.route.tag_of(lane));
            // A write that writes nothing, because the key is not there: a replica, a full Redis and one that
            // cannot save refuse it, and would answer PING.
            let mut write = cmd("SET");
            write.arg(&probe).arg("").arg("XX").arg("EX").arg(1);
            batch.add(&probe, write);
            // and whether scripts are allowed
            let mut call = self.scripts.lookup.call(&[probe.clone(), probe.clone(), probe.clone()]);
            call.arg(0).arg(0).arg(rules::TOUCH_AFTER).arg("");
            batch.add(&probe, call);
        }
        let replies = self.route.try_each(&batch).await;
        let (of_lanes, _) = replies.as_chunks::<PROBES>();
        let well = |reply: &Result<Value, Error>| reply.as_ref().map_err(Clone::clone).and_then(reply::sound);
        of_lanes.iter().map(|replies| replies.iter().try_for_each(well)).collect()
    }

    async fn run(&self, key: &str, command: Cmd) -> Result<Vec<Value>, Error> {
        self.route.send(&Batch::of(key, command)).await
    }

    fn script(&self, change: &Change, now: Seconds) -> Cmd {
        match change {
            Change::Record { origin, record, allowed_ms } => {
                self.record_script(*origin, record, *allowed_ms, now)
            }
            Change::End { user, which, reason, sent_ms, expires_at, ended_in_gotrue } => {
                let keys = [self.keys.index(*user), self.keys.marks(*user), self.keys.never(*user)];
                let mut call = self.scripts.end.call(&keys);
                let (which, subject) = meant(which);
                call.arg(now).arg(self.step).arg(which).arg(subject);
                call.arg(rules::tombstone_text(*reason, now)).arg(sent_ms).arg(expires_at.unwrap_or(0));
                call.arg(u8::from(*ended_in_gotrue)).arg(rules::SHORTEST_TOMBSTONE);
                call.arg(rules::SKEW).arg(self.session_ttl).arg(rules::LONGEST);
                call
            }
            Change::Suspend { user, until, decided_ms } => {
                let until = until.unwrap_or(0);
                let ttl = rules::decided_ttl(self.session_ttl, until, now);
                self.suspend_script(*user, "decided", *decided_ms, until, ttl)
            }
            Change::Banned { user, until, seen_ms } => {
                let ttl = rules::seen_ttl(*until, now);
                self.suspend_script(*user, "seen", *seen_ms, *until, ttl)
            }
            Change::Allowed { user, allowed_ms } => self.suspend_script(*user, "allowed", *allowed_ms, 0, 0),
            Change::LowerAal { user, factor } => {
                let keys = [self.keys.index(*user), self.keys.marks(*user), self.keys.never(*user)];
                let mut call = self.scripts.lower_aal.call(&keys);
                call.arg(now).arg(self.step).arg(factor.to_string());
                call.arg(self.session_ttl).arg(rules::LONGEST);
                call
            }
        }
    }

    fn suspend_script(&self, user: UserId, how: &str, ms: u64, until: Seconds, ttl: Seconds) -> Cmd {
        let mut call = self.scripts.suspend.call(&[self.keys.marks(user)]);
        call.arg(how).arg(ms).arg(until).arg(ttl);
        call
    }

    /// Record, tombstone, marks, index: what is known of one session.
    fn keys_of(&self, user: UserId, session: SessionId) -> [String; 4] {
        [
            self.keys.record(user, session),
            self.keys.tombstone(user, session),
            self.keys.marks(user),
            self.keys.index(user),
        ]
    }

    fn record_script(&self, origin: Origin, record: &Record, allowed_ms: Option<u64>, now: Seconds) -> Cmd {
        let room = rules::room_for(self.limits, origin);
        let script = if room.is_some() { &self.scripts.record_capped } else { &self.scripts.record };
        let mut call = script.call(&self.keys_of(record.user, record.session));
        call.arg(now)
            .arg(rules::record_ttl(self.session_ttl, record.expires_at, now))
            .arg(if origin.is_sign_in() { "sign_in" } else { "refresh" })
            .arg(record.session.to_string())
            .arg(allowed_ms.unwrap_or(0));
        self.add_limits(&mut call);
        call.arg(rules::SHORTEST_TOMBSTONE).arg(rules::SKEW).arg(self.session_ttl).arg(rules::LONGEST);
        call.arg(room.map_or(0, |room| room.most)).arg(room.map_or(0, |room| room.evicts));
        for (name, value) in record::fields(record) {
            call.arg(name).arg(value.as_ref());
        }
        call
    }

    /// Which session each record's tokens belong to. Hints in other slots: they may be wrong, so they are set
    /// whatever the scripts decide.
    fn add_hints(&self, batch: &mut Batch, changes: &[Change], now: Seconds) {
        for change in changes {
            let Change::Record { record, .. } = change else { continue };
            let ttl = rules::record_ttl(self.session_ttl, record.expires_at, now);
            let mut session = String::with_capacity(2 * 36 + 1);
            record.user.push_to(&mut session);
            session.push('/');
            record.session.push_to(&mut session);
            for token in [&record.refresh_ref, &record.previous_ref].into_iter().flatten() {
                let key = self.keys.refresh(token);
                let mut set = cmd("SETEX");
                set.arg(&key).arg(ttl).arg(&session);
                batch.add(&key, set);
            }
        }
    }
}

/// What must not be lost with a server: that somebody is to be kept out.
fn is_ending(change: &Change) -> bool {
    match change {
        Change::End { .. } | Change::Suspend { until: Some(_), .. } => true,
        Change::Suspend { until: None, .. }
        | Change::Record { .. }
        | Change::Banned { .. }
        | Change::Allowed { .. }
        | Change::LowerAal { .. } => false,
    }
}

/// The script's word for what an ending means, and the session or client it is about.
fn meant(which: &Which) -> (&'static str, String) {
    match which {
        Which::One(session) => ("one", session.to_string()),
        Which::Live(session) => ("live", session.to_string()),
        Which::Others(keep) => ("others", keep.to_string()),
        Which::All => ("all", String::new()),
        Which::Aal1Except(keep) => ("aal1_except", keep.to_string()),
        Which::Client(client) => ("client", client.clone()),
    }
}
