//! What the audit asks of Redis: which sessions it holds, and what it knows of many of them at once; and
//! what the audit leaves there, its result included.
//!
//! Whether a session is ended is worked out by what answers every request (`known_of` in `common.lua`); but no session
//! is ended by time here, for GoTrue's database has it until somebody ends it.

use ::redis::{Pipeline, Value, cmd};

use super::{
    Redis,
    node::Batch,
    record,
    reply::{self, Surveyed},
    route::Master,
};
use crate::{
    session::{Aal, Seconds, SessionId, UserId},
    store::Error,
};

/// Keys that one step of a scan looks at, about.
const SCAN_STEP: usize = 1_000;

/// How long the result of an audit is remembered: a weekly one leaves no gap, seconds.
const REMEMBERED: Seconds = 8 * 24 * 60 * 60;

/// What the store holds of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// No record and no tombstone. What began before `not_before` counts as ended all the same; 0: no such mark.
    Nothing {
        /// The user's mark.
        not_before: Seconds,
    },
    /// It was ended here.
    Ended,
    /// Something stands under its key that does not read as a record.
    Unreadable,
    /// A record, also where its user is banned.
    Live(Known),
}

/// What the audit compares of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// How far the session has come.
    pub stamp: Stamp,
    /// Its assurance level.
    pub aal: Option<Aal>,
    /// The OAuth client that holds it.
    pub client: Option<String>,
    /// It is among its user's sessions: an ending of all finds it.
    pub indexed: bool,
}

/// How far a session has come: its last refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When that was.
    pub refreshed_at: Seconds,
    /// Which one it was, where refresh tokens count (v2).
    pub counter: Option<u64>,
}

/// What the mirror missed of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub session: SessionId,
    /// How far its record had come when it was compared: another one stays as it is.
    pub compared: Stamp,
    /// The assurance level that it has.
    pub aal: Option<Aal>,
    /// The OAuth client that holds it.
    pub client: Option<String>,
    /// A refresh that was missed. Until when its access token is good nobody knows.
    pub refreshed: Option<Stamp>,
}

/// How far a scan has come.
#[derive(Debug, Default)]
pub struct Scan {
    cursor: u64,
    /// What is to be looked through, the one at hand last. `None` before it was begun.
    left: Option<Vec<Master>>,
}

/// What the last audit found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastAudit {
    /// When it ended.
    pub at: Seconds,
    /// Sessions that the store lacked.
    pub missing: u64,
    /// Sessions that only the store had.
    pub surplus: u64,
    /// Sessions of which the store knew something else.
    pub differing: u64,
    /// How many of those it put right.
    pub repaired: u64,
}

impl Redis {
    /// What is held of each of these sessions, in their order; one round trip. Changes nothing.
    ///
    /// # Errors
    /// When the store did not answer, or not with what this program writes.
    pub async fn survey(&self, sessions: &[(UserId, SessionId)]) -> Result<Vec<Held>, Error> {
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::with_capacity(sessions.len());
        for &(user, session) in sessions {
            let keys = self.keys_of(user, session);
            let mut call = self.scripts.survey.call(&keys);
            call.arg(session.to_string());
            let [record, ..] = &keys;
            batch.add(record, call);
        }
        let replies = self.route.send(&batch).await?;
        if replies.len() != sessions.len() {
            return Err(Error::Protocol);
        }
        sessions.iter().zip(&replies).map(|(&(user, session), reply)| held(user, session, reply)).collect()
    }

    /// The next sessions that have a record; `None` at the end. All that are there from the first call to
    /// the last come at least once, some may come twice.
    ///
    /// # Errors
    /// As [`Redis::survey`].
    pub async fn scan(&self, scan: &mut Scan) -> Result<Option<Vec<(UserId, SessionId)>>, Error> {
        if scan.left.is_none() {
            scan.left = Some(self.route.masters().await?);
        }
        let Some(master) = scan.left.as_ref().and_then(|left| left.last()) else {
            return Ok(None);
        };
        let mut pipeline = Pipeline::with_capacity(1);
        // a key prefix holds no sign that means something in a pattern (config/parse.rs)
        pipeline.cmd("SCAN").arg(scan.cursor).arg("MATCH").arg(self.keys.every_record());
        pipeline.arg("COUNT").arg(SCAN_STEP);
        let replies = self.route.send_to(master, &pipeline).await?;
        let (cursor, keys) = reply::scanned(reply::first(&replies)?)?;
        scan.cursor = cursor;
        if cursor == 0 {
            scan.left.as_mut().and_then(Vec::pop);
        }
        Ok(Some(keys.into_iter().filter_map(|key| self.keys.session_of_record(key)).collect()))
    }

    /// Makes the amendments whose session still is as it was compared; says of each whether it was.
    ///
    /// # Errors
    /// As [`Store::apply`](crate::store::Store::apply).
    pub async fn amend(&self, amendments: &[Amendment], now: Seconds) -> Result<Vec<bool>, Error> {
        if amendments.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::with_capacity(amendments.len());
        for it in amendments {
            let counter = |stamp: Stamp| stamp.counter.map_or(String::new(), |counter| counter.to_string());
            let keys = self.keys_of(it.user, it.session);
            let mut call = self.scripts.amend.call(&keys);
            call.arg(now).arg(it.session.to_string());
            call.arg(it.compared.refreshed_at).arg(counter(it.compared));
            call.arg(it.refreshed.map_or(0, |_| self.session_ttl));
            call.arg("aal").arg(it.aal.map_or("", Aal::as_str));
            call.arg("client_id").arg(it.client.as_deref().unwrap_or_default());
            if let Some(refreshed) = it.refreshed {
                call.arg("refreshed_at").arg(refreshed.refreshed_at);
                call.arg("counter").arg(counter(refreshed)).arg("expires_at").arg(0);
            }
            batch.add(&self.keys.marks(it.user), call);
        }
        let replies = self.route.send(&batch).await?;
        replies.iter().map(reply::yes).collect()
    }

    /// Leaves what an audit found, for the metrics of every replica.
    ///
    /// # Errors
    /// When the store did not take it.
    pub async fn leave_audit(&self, audit: &LastAudit) -> Result<(), Error> {
        let key = self.keys.audit();
        let mut set = cmd("HSET");
        set.arg(&key);
        for (name, value) in audit.fields() {
            set.arg(name).arg(value);
        }
        let mut batch = Batch::of(&key, set);
        batch.add(&key, cmd("EXPIRE").arg(&key).arg(REMEMBERED).to_owned());
        self.route.send(&batch).await?.iter().try_for_each(reply::sound)
    }

    /// See [`Store::last_audit`](crate::store::Store::last_audit).
    ///
    /// # Errors
    /// As there.
    pub async fn last_audit(&self) -> Result<Option<LastAudit>, Error> {
        let key = self.keys.audit();
        let mut get = cmd("HMGET");
        get.arg(&key).arg(&LastAudit::NAMES);
        let replies = self.run(&key, get).await?;
        let texts = reply::texts(reply::first(&replies)?)?;
        let numbers: Option<Vec<u64>> = texts.into_iter().map(|text| text?.parse().ok()).collect();
        Ok(match numbers.as_deref() {
            Some(&[at, missing, surplus, differing, repaired]) => {
                Some(LastAudit { at, missing, surplus, differing, repaired })
            }
            _ => None, // none yet, or one of another version
        })
    }
}

impl LastAudit {
    const NAMES: [&str; 5] = ["at", "missing", "surplus", "differing", "repaired"];

    fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip([self.at, self.missing, self.surplus, self.differing, self.repaired])
    }
}

/// What the script's reply says of a session.
fn held(user: UserId, session: SessionId, reply: &Value) -> Result<Held, Error> {
    if reply::is_of_another_type(reply) {
        return Ok(Held::Unreadable);
    }
    let Surveyed { state, not_before, indexed, fields } = reply::surveyed(reply)?;
    match (state, record::read(user, session, &fields)) {
        ("unknown", _) => Ok(Held::Nothing { not_before }),
        ("revoked" | "expired", _) => Ok(Held::Ended),
        ("live", None) => Ok(Held::Unreadable),
        ("live", Some(record)) => Ok(Held::Live(Known {
            stamp: Stamp { refreshed_at: record.refreshed_at, counter: record.counter },
            aal: record.aal,
            client: record.client_id,
            indexed,
        })),
        _ => Err(Error::Protocol),
    }
}
