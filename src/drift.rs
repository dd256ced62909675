//! The audit: compares the store with `auth.sessions`, and brings it to the truth if it is told to.
//!
//! Two passes over everything, in batches: from the rows to the store, then from the store's records to the
//! rows. The two are not read at one moment and traffic goes on, so a difference only makes a suspect, which is
//! looked at again, in both places, once what was under way has arrived. What then still differs in the
//! same way is drift.

mod compare;
mod database;
mod repair;
mod report;
mod suspects;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

pub use self::{
    compare::{Cause, Excuse, Kind},
    database::{Error as DatabaseError, Missing, TlsError},
    report::Report,
};
use self::{
    compare::{Finding, judge},
    database::{Database, Row},
    repair::{Drifted, Repaired},
    suspects::{Suspect, Suspects},
};
use crate::{
    clock,
    config::{self, FileError, SecretSource, database::Address},
    session::{SessionId, UserId},
    store::{
        self,
        redis::{Held, Redis, Scan},
    },
};

/// Rows of one question to the database.
const PAGE: i64 = 1_000;

/// Sessions of one question to the store: a few milliseconds of its time.
const BATCH: usize = 500;

/// What GoTrue may take from its commit to the end of its answer; `store.timeout` comes on top.
const ANSWER: Duration = Duration::from_secs(2);

/// For every question to the store: nobody waits for the audit.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often is told how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file with the database's address.
    #[error("database_url_file")]
    File(#[from] FileError),
    /// Not an address. It is not shown, for it may hold a password.
    #[error("database_url: expected a postgres:// address with a host")]
    Address,
    /// The store's address or files.
    #[error("store: cannot be set up")]
    Open(#[from] store::OpenError),
    /// The store did not do what it was asked.
    #[error("the store did not do what it was asked")]
    Store(#[from] store::Error),
    /// The database did not.
    #[error(transparent)]
    Database(#[from] database::Error),
}

/// What is to be compared, and how.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// A shared store: the embedded one cannot be looked into.
    pub store: &'a config::Store,
    /// `session.ttl`
    pub ttl: Duration,
    /// `database_url`
    pub database: &'a SecretSource,
    /// Whether the store is brought to what the database says.
    pub repair: bool,
    /// Between the two looks at a difference; [`settling`] is what the field needs.
    pub settle: Duration,
}

/// How long a change may be in one place and not yet in the other.
pub fn settling(store: &config::Store) -> Duration {
    store.timeout + ANSWER
}

/// How far an audit has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What is being read: rows, or the store's records.
    pub what: &'static str,
    /// So many were.
    pub done: u64,
    /// Of about so many, where somebody knows.
    pub about: Option<u64>,
    /// In each second.
    pub rate: f64,
}

/// Compares, and repairs if it is told to; leaves the counts in the store for the metrics. `tell` hears every few
/// seconds how far it has come.
///
/// # Errors
/// When there is no result; what had been repaired until then stays so.
pub async fn run(job: Job<'_>, tell: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    let Job { store, ttl, database, repair, settle } = job;
    let address = Address::parse(database.read()?.reveal()).ok_or(Error::Address)?;
    let patient = config::Store { timeout: store.timeout.max(PATIENCE), ..store.clone() };
    let mut audit = Audit {
        store: store::redis::Source::new(&patient, ttl)?.connect(),
        database: Database::open(&address, repair).await?,
        ttl: ttl.as_secs(),
        suspects: Suspects::new(settle),
        report: Report::new(repair),
        told: Told { tell, began: Instant::now(), last: Instant::now() },
    };
    let began = Instant::now();
    audit.rows_against_store().await?;
    audit.store_against_rows().await?;
    let Audit { store, mut report, .. } = audit;
    report.took = began.elapsed();
    store.leave_audit(&report.last_audit(clock::seconds())).await?;
    Ok(report)
}

/// One run.
struct Audit<'a> {
    store: Redis,
    database: Database,
    /// `session.ttl`, seconds.
    ttl: u64,
    suspects: Suspects,
    report: Report,
    told: Told<'a>,
}

/// When was last told how far it has come.
struct Told<'a> {
    tell: &'a mut dyn FnMut(Progress),
    began: Instant,
    last: Instant,
}

impl Audit<'_> {
    async fn rows_against_store(&mut self) -> Result<(), Error> {
        self.told.began = Instant::now();
        let mut after = None;
        loop {
            let rows = self.database.page(after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.session);
            for batch in rows.chunks(BATCH) {
                let held = self.held(batch.iter().map(|row| (row.user, row.session))).await?;
                for (row, held) in batch.iter().zip(held) {
                    self.look(Some(row), (row.user, row.session), &held);
                }
            }
            self.report.rows += rows.len() as u64;
            self.told.now_and_then("rows", self.report.rows, self.database.about);
            self.look_again(false).await?;
        }
        self.look_again(true).await
    }

    async fn store_against_rows(&mut self) -> Result<(), Error> {
        self.told.began = Instant::now();
        let mut scan = Scan::default();
        while let Some(sessions) = self.store.scan(&mut scan).await? {
            for batch in sessions.chunks(BATCH) {
                let ids: Vec<SessionId> = batch.iter().map(|(_, session)| *session).collect();
                let users = by_session(self.database.rows_of(&ids).await?);
                let odd = batch.iter().filter(|(user, id)| users.get(id).is_none_or(|row| row.user != *user));
                let odd: Vec<(UserId, SessionId)> = odd.copied().collect();
                for (&(user, session), held) in odd.iter().zip(self.held(odd.iter().copied()).await?) {
                    self.look(users.get(&session), (user, session), &held);
                }
            }
            self.report.sessions += sessions.len() as u64;
            self.told.now_and_then("sessions", self.report.sessions, None);
            self.look_again(false).await?;
        }
        self.look_again(true).await
    }

    /// The first look at a session.
    fn look(&mut self, row: Option<&Row>, (user, session): (UserId, SessionId), held: &Held) {
        match judge(row, user, held, clock::seconds(), self.ttl) {
            Finding::Agree => {}
            Finding::Excused(excuse) => self.report.excused(excuse, session),
            Finding::Differ(difference) => self.suspects.add(user, session, difference),
        }
    }

    /// The second look at suspects that have waited long enough; with `all`, at all of them.
    async fn look_again(&mut self, all: bool) -> Result<(), Error> {
        loop {
            let due = self.suspects.due(BATCH);
            if !due.is_empty() {
                self.judge_again(&due).await?;
                continue;
            }
            let Some(until) = self.suspects.wait_until(all) else {
                return Ok(());
            };
            tokio::time::sleep_until(until).await;
        }
    }

    async fn judge_again(&mut self, suspects: &[Suspect]) -> Result<(), Error> {
        let seen_ms = clock::millis();
        let ids: Vec<SessionId> = suspects.iter().map(|suspect| suspect.session).collect();
        let rows = by_session(self.database.rows_of(&ids).await?);
        let held = self.held(suspects.iter().map(|suspect| (suspect.user, suspect.session))).await?;
        let mut drifted = Vec::new();
        for (suspect, held) in suspects.iter().zip(held) {
            let row = rows.get(&suspect.session);
            match judge(row, suspect.user, &held, clock::seconds(), self.ttl) {
                Finding::Differ(again) if again == suspect.seen => {
                    let Suspect { user, session, .. } = *suspect;
                    drifted.push(Drifted { user, session, cause: again.cause, row, held });
                }
                Finding::Excused(excuse) => self.report.excused(excuse, suspect.session),
                Finding::Agree | Finding::Differ(_) => {}
            }
        }
        let repaired = if self.report.repair {
            repair::repair(&self.store, &self.database, &drifted, seen_ms).await?
        } else {
            vec![Repaired::Left; drifted.len()]
        };
        for (drifted, repaired) in drifted.iter().zip(repaired) {
            if repaired != Repaired::Moot {
                self.report.drifted(drifted.cause, drifted.session, repaired == Repaired::Done);
            }
        }
        Ok(())
    }

    async fn held(&self, sessions: impl Iterator<Item = (UserId, SessionId)>) -> Result<Vec<Held>, Error> {
        Ok(self.store.survey(&sessions.collect::<Vec<_>>()).await?)
    }
}

impl Told<'_> {
    fn now_and_then(&mut self, what: &'static str, done: u64, about: Option<u64>) {
        if self.last.elapsed() >= TELL_EVERY {
            self.last = Instant::now();
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let rate = done as f64 / self.began.elapsed().as_secs_f64();
            (self.tell)(Progress { what, done, about, rate });
        }
    }
}

fn by_session(rows: Vec<Row>) -> HashMap<SessionId, Row> {
    rows.into_iter().map(|row| (row.session, row)).collect()
}
