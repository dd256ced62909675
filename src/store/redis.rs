//! The shared store. Every change is one script (`*.lua`), all changes of one answer are one round trip.
//!
//! Of what Redis answers nothing is trusted: a record that does not read as one is unknown, any other
//! surprise is [`Error::Protocol`].

mod link;
mod record;
mod reply;
mod scripts;
mod survey;
mod target;

use std::{sync::Arc, time::Duration};

use ::redis::{Client, Cmd, Pipeline, Value};
use arc_swap::ArcSwap;

pub use self::survey::{Amendment, Held, Known, LastAudit, Scan, Stamp};
use self::{link::Link, scripts::Scripts};
use super::{Error, OpenError, Swept, keys::Keys, rules};
use crate::{
    config,
    session::{
        Change, Listed, Origin, Outcome, Record, RefreshRef, Seconds, SessionId, State, UserId, Wanted, Which,
    },
};

/// So many of a user's sessions are dealt with by one script; a few milliseconds of Redis' time. More are swept.
const STEP: u32 = 256;

/// Makes one [`Redis`] for each worker.
#[derive(Debug)]
pub struct Source {
    config: config::Store,
    session_ttl: Duration,
    step: u32,
    client: Arc<ArcSwap<Client>>,
    scripts: Arc<Scripts>,
}

impl Source {
    /// Reads the address and the files; nothing is connected to.
    ///
    /// # Errors
    /// When one of them cannot be read or used.
    pub fn new(config: &config::Store, session_ttl: Duration) -> Result<Self, OpenError> {
        let client = target::client(&config.target)?;
        Ok(Self {
            config: config.clone(),
            session_ttl,
            step: STEP,
            client: Arc::new(ArcSwap::from_pointee(client)),
            scripts: Arc::new(Scripts::new()),
        })
    }

    /// Deals with at most `step` sessions in one script, at least one, instead of 256.
    #[must_use]
    pub fn with_step(self, step: u32) -> Self {
        Self { step: step.max(1), ..self }
    }

    /// A store with a connection of its own, made when it is first needed.
    pub fn connect(&self) -> Redis {
        Redis {
            link: Link::new(Arc::clone(&self.client), self.config.timeout),
            scripts: Arc::clone(&self.scripts),
            keys: Keys::new(&self.config.key_prefix),
            session_ttl: self.session_ttl.as_secs(),
            step: self.step,
        }
    }

    /// Reads address and files again, for connections that are made from now on.
    ///
    /// # Errors
    /// As [`Source::new`]; nothing changes then.
    pub fn reload(&self) -> Result<(), OpenError> {
        let client = target::client(&self.config.target)?;
        self.client.store(Arc::new(client));
        Ok(())
    }
}

/// One worker's connection to Redis and what is said over it.
#[derive(Debug)]
pub struct Redis {
    link: Link,
    scripts: Arc<Scripts>,
    keys: Keys,
    session_ttl: Seconds,
    step: u32,
}

impl Redis {
    /// See [`Store::renew`](super::Store::renew).
    pub(super) fn renew(&self) {
        self.link.renew();
    }

    /// See [`Store::apply`](super::Store::apply).
    ///
    /// # Errors
    /// As there.
    pub async fn apply(&self, changes: &[Change], now: Seconds) -> Result<Vec<Outcome>, Error> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::with_capacity(changes.len());
        for change in changes {
            pipeline.add_command(self.script(change, now));
        }
        for change in changes {
            if let Change::Record { record, .. } = change {
                self.add_hints(&mut pipeline, record, now);
            }
        }
        let replies = self.run(&pipeline).await?;
        for hint in replies.get(changes.len()..).unwrap_or_default() {
            reply::sound(hint)?;
        }
        replies.iter().take(changes.len()).map(reply::outcome).collect()
    }

    /// See [`Store::lookup`](super::Store::lookup).
    ///
    /// # Errors
    /// As there.
    pub async fn lookup(
        &self,
        user: UserId,
        session: SessionId,
        now: Seconds,
        touch: bool,
    ) -> Result<State, Error> {
        let keys =
            [self.keys.record(user, session), self.keys.tombstone(user, session), self.keys.marks(user)];
        let mut call = self.scripts.lookup.call(&keys);
        call.arg(now).arg(u8::from(touch)).arg(rules::TOUCH_AFTER);
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(call);
        let replies = self.run(&pipeline).await?;
        reply::state(user, session, reply::first(&replies)?)
    }

    /// See [`Store::list`](super::Store::list).
    ///
    /// # Errors
    /// As there.
    pub async fn list(&self, user: UserId, wanted: Wanted, now: Seconds) -> Result<Listed, Error> {
        let mut call = self.scripts.list.call(&[self.keys.index(user), self.keys.marks(user)]);
        call.arg(now);
        match wanted {
            Wanted::Page { skip, take } => call.arg(skip).arg(take).arg(rules::IN_ORDER).arg(""),
            Wanted::One(session) => call.arg(0).arg(1).arg(rules::IN_ORDER).arg(session.to_string()),
        };
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(call);
        let replies = self.run(&pipeline).await?;
        reply::listed(user, reply::first(&replies)?)
    }

    /// See [`Store::session_of`](super::Store::session_of).
    ///
    /// # Errors
    /// As there.
    pub async fn session_of(&self, token: &RefreshRef) -> Result<Option<(UserId, SessionId)>, Error> {
        let mut get = Pipeline::with_capacity(1);
        get.get(self.keys.refresh(token));
        let Some((user, session)) = reply::hint(reply::first(&self.run(&get).await?)?)? else {
            return Ok(None);
        };
        let resolve = self.scripts.resolve.call(&[self.keys.record(user, session), self.keys.marks(user)]);
        let replies = self.run(Pipeline::with_capacity(1).add_command(resolve)).await?;
        let agrees = reply::texts(reply::first(&replies)?)?.contains(&Some(token.as_str()));
        Ok(agrees.then_some((user, session)))
    }

    /// See [`Store::sweep`](super::Store::sweep).
    ///
    /// # Errors
    /// As there.
    pub async fn sweep(&self, user: UserId, now: Seconds) -> Result<Swept, Error> {
        let mut call = self.scripts.sweep.call(&[self.keys.marks(user)]);
        call.arg(now).arg(self.step);
        let replies = self.run(Pipeline::with_capacity(1).add_command(call)).await?;
        reply::swept(reply::first(&replies)?)
    }

    /// See [`Store::ping`](super::Store::ping).
    ///
    /// # Errors
    /// As there.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut pipeline = Pipeline::with_capacity(1);
        // A write that writes nothing, because the key is not there: a replica, a full Redis and one that
        // cannot save refuse it, and would answer PING.
        pipeline.cmd("SET").arg(self.keys.probe()).arg("").arg("XX").arg("EX").arg(1);
        reply::sound(reply::first(&self.run(&pipeline).await?)?)
    }

    /// Sends a pipeline; teaches Redis the scripts when it does not know them (a restart, `SCRIPT FLUSH`)
    /// and sends it once more: they are all known or none is, so nothing was done out of order.
    async fn run(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        let replies = self.link.send(pipeline).await?;
        if !replies.iter().any(reply::is_unknown_script) {
            return Ok(replies);
        }
        let loaded = self.link.send(&self.scripts.loading()).await?;
        loaded.iter().try_for_each(reply::sound)?;
        self.link.send(pipeline).await
    }

    fn script(&self, change: &Change, now: Seconds) -> Cmd {
        match change {
            Change::Record { origin, record, allowed_ms } => {
                self.record_script(*origin, record, *allowed_ms, now)
            }
            Change::End { user, which, reason, sent_ms, expires_at, ended_in_gotrue } => {
                let keys = [self.keys.index(*user), self.keys.marks(*user)];
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
                let keys = [self.keys.index(*user), self.keys.marks(*user)];
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

    fn record_script(&self, origin: Origin, record: &Record, allowed_ms: Option<u64>, now: Seconds) -> Cmd {
        let keys = [
            self.keys.record(record.user, record.session),
            self.keys.tombstone(record.user, record.session),
            self.keys.marks(record.user),
            self.keys.index(record.user),
        ];
        let mut call = self.scripts.record.call(&keys);
        call.arg(now)
            .arg(rules::record_ttl(self.session_ttl, record.expires_at, now))
            .arg(match origin {
                Origin::SignIn => "sign_in",
                Origin::Refresh => "refresh",
            })
            .arg(record.session.to_string())
            .arg(allowed_ms.unwrap_or(0));
        for (name, value) in record::fields(record) {
            call.arg(name).arg(value.as_ref());
        }
        call
    }

    /// Which session the record's tokens belong to. Hints in other slots: they may be wrong, so they
    /// are set whatever the script decides.
    fn add_hints(&self, pipeline: &mut Pipeline, record: &Record, now: Seconds) {
        let ttl = rules::record_ttl(self.session_ttl, record.expires_at, now);
        for token in [&record.refresh_ref, &record.previous_ref].into_iter().flatten() {
            let owner = format!("{}/{}", record.user, record.session);
            pipeline.set_ex(self.keys.refresh(token), owner, ttl);
        }
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
