//! A contestant that is ready to be measured: the sessions that its rows are about are there, and their requests are
//! made.

use std::{io, rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    contestant::{Kind, Recorded, Running},
    gotrue::{Login, session_token},
    load::{Connections, Load, LoadError, Requests},
    measure::{MeasureError, Plan, failed},
    oauth2_proxy,
    sample::Checks,
    store::Store,
    workload::{self, REMEMBERED, REVOKED, Workload},
};

/// A contestant and what it is sent.
pub struct Subject {
    /// It runs.
    pub running: Running,
    rows: Vec<Prepared>,
    connections: usize,
}

/// One row's requests.
struct Prepared {
    workload: Workload,
    requests: Rc<[Vec<u8>]>,
    /// The status of every answer.
    expected: &'static str,
}

/// Keys that a recorded session has in the store: its record, its user's index, the hint of its refresh token.
const KEYS: usize = 3;

impl Subject {
    /// Brings about what the rows among `workloads` need that this contestant is in.
    pub async fn prepare(
        running: Running,
        workloads: &[Workload],
        (plan, store, logins): (&Plan, &Store, &[Login]),
    ) -> Result<Self, MeasureError> {
        let contestant = running.contestant;
        let mut subject = Self { running, rows: Vec::new(), connections: plan.connections };
        let rows: Vec<_> = workloads.iter().copied().filter(|row| contestant.runs(*row)).collect();
        let recorded = contestant.recorded.map_or(workload::ASKED, |it| it.sessions);
        let held =
            if contestant.kind == Kind::Proxy { recorded } else { recorded.min(plan.sessions_at_most) };
        let mut cookies = Vec::new();
        match (contestant.kind, contestant.recorded) {
            (Kind::Check, Some(recorded)) => {
                subject.sign_in(held + REVOKED, recorded, store).await?;
                if rows.contains(&Workload::Revoked) {
                    subject.log_out(held..held + REVOKED).await?;
                }
            }
            (Kind::Proxy, Some(recorded)) if rows.iter().any(|row| row.needs_sessions()) => {
                subject.sign_in(held, recorded, store).await?;
            }
            (Kind::Oauth2Proxy, _) => {
                let signed_in = oauth2_proxy::sign_in(subject.running.listen, REMEMBERED).await;
                cookies = signed_in.map_err(|error| failed(contestant, "signing in", error))?;
            }
            _ => {}
        }
        for row in rows {
            let requests: Rc<[Vec<u8>]> = match contestant.kind {
                Kind::Oauth2Proxy => cookies.iter().map(|cookie| oauth2_proxy::check(cookie)).collect(),
                _ => row.requests(logins, held).into(),
            };
            subject.rows.push(Prepared { workload: row, requests, expected: expected(contestant.kind, row) });
        }
        Ok(subject)
    }

    /// Whether it has a place in this row.
    pub fn is_in(&self, workload: Workload) -> bool {
        self.rows.iter().any(|row| row.workload == workload)
    }

    /// Puts it under load.
    pub fn load(&self, workload: Workload) -> Result<Load, MeasureError> {
        let contestant = self.running.contestant;
        let (contestant, row) = (contestant.name, self.rows.iter().find(|row| row.workload == workload));
        let row = row.ok_or(MeasureError::NoSuchRow { contestant, workload: workload.name() })?;
        let connections = match workload {
            Workload::Connect => Connections::New(self.connections),
            _ => Connections::Kept(self.connections),
        };
        let target = match self.running.contestant.kind {
            Kind::Check => self.running.admin,
            _ => self.running.listen,
        };
        let requests = Requests::Made(Rc::clone(&row.requests));
        Ok(Load::start(target, requests, row.expected, connections))
    }

    /// The checks it counted so far, if it is one that counts them.
    pub async fn checks(&self) -> io::Result<Option<Checks>> {
        match self.running.contestant.kind {
            Kind::Check => Checks::read(self.running.admin).await.map(Some),
            _ => Ok(None),
        }
    }

    /// Signs in until this many sessions have been recorded: as real ones are, so that keys and their content are.
    async fn sign_in(&self, sessions: usize, recorded: Recorded, store: &Store) -> Result<(), MeasureError> {
        let contestant = self.running.contestant;
        let (began, wanted) = (Instant::now(), (sessions * KEYS) as u64);
        let requests = Requests::Making(sessions, workload::sign_in);
        self.send_all(requests, sessions, "200").await.map_err(|error| failed(contestant, "login", error))?;
        let mut keys = store.keys(recorded.database).await?;
        while keys < wanted && began.elapsed() < patience(sessions) {
            sleep(Duration::from_millis(20)).await;
            keys = store.keys(recorded.database).await?;
        }
        if keys < wanted {
            return Err(MeasureError::NotRecorded { contestant: contestant.name, sessions, keys, wanted });
        }
        let took = began.elapsed().as_secs_f64();
        eprintln!("{}: {sessions} sessions recorded in {took:.1} s", contestant.name);
        Ok(())
    }

    /// Logs these out, as they would.
    async fn log_out(&self, numbers: std::ops::Range<usize>) -> Result<(), MeasureError> {
        let count = numbers.len();
        let requests: Vec<_> = numbers.map(|number| workload::log_out(&session_token(number))).collect();
        let sent = self.send_all(Requests::Made(requests.into()), count, "204").await;
        sent.map_err(|error| failed(self.running.contestant, "logout", error))
    }

    /// Sends each of `count` requests at least once to the public listener.
    async fn send_all(
        &self,
        requests: Requests,
        count: usize,
        expected: &'static str,
    ) -> Result<(), LoadError> {
        let connections = Connections::Kept(self.connections);
        let load = Load::start(self.running.listen, requests, expected, connections);
        let began = Instant::now();
        while load.answered() < count as u64 && !load.has_failed() && began.elapsed() < patience(count) {
            sleep(Duration::from_millis(5)).await;
        }
        let answered = load.answered();
        load.stop().await?;
        if answered < count as u64 { Err(LoadError::Slow { answered, count }) } else { Ok(()) }
    }
}

/// How long so many requests may take, on a machine that is busy with something else.
fn patience(requests: usize) -> Duration {
    Duration::from_secs(10) + Duration::from_millis(1) * u32::try_from(requests).unwrap_or(u32::MAX)
}

/// The status of every answer of a row.
fn expected(kind: Kind, workload: Workload) -> &'static str {
    match (kind, workload) {
        (Kind::Check, Workload::Revoked) => "403",
        (Kind::Oauth2Proxy, _) => "202",
        _ => "200",
    }
}
