//! The rounds: every contestant under every workload in turn, so that drift of the machine hits all alike.

use std::{io, path::Path};

use tokio::time::{Duration, sleep};

use crate::{
    contestant::{Contestant, Kind, Site, StartError, ask},
    gotrue::{Answers, Login},
    load::LoadError,
    memory::{self, Memory},
    sample::{Reading, Sample},
    store::Store,
    subject::Subject,
    upstream,
    workload::Workload,
};

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Times that everything is measured.
    pub rounds: usize,
    /// One measurement, after its warm-up.
    pub window: Duration,
    /// Load before a measurement begins.
    pub warm_up: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// Starts of each contestant for memory and readiness.
    pub starts: usize,
    /// Idle connections held for memory.
    pub idle_connections: usize,
    /// No store that checks ask holds more sessions than this, whatever its contestant is called.
    pub sessions_at_most: usize,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// A contestant or Redis did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A request failed.
    #[error("{contestant}, {workload}: {error}")]
    Load {
        /// Who.
        contestant: &'static str,
        /// Under what.
        workload: &'static str,
        /// Why.
        error: LoadError,
    },
    /// Sign-ins were answered and not recorded.
    #[error("{contestant} answered {sessions} sign-ins, but its store holds {keys} keys instead of {wanted}")]
    NotRecorded {
        /// Who.
        contestant: &'static str,
        /// Signed in.
        sessions: usize,
        /// In its database.
        keys: u64,
        /// What they should be.
        wanted: u64,
    },
    /// A row that this contestant has no place in.
    #[error("{contestant} has no place in the row {workload}")]
    NoSuchRow {
        /// Who.
        contestant: &'static str,
        /// The row.
        workload: &'static str,
    },
    /// `/proc` or sockets.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All rounds of one workload: `rounds[round][contestant]`.
pub struct Row {
    /// Which.
    pub workload: Workload,
    /// Who is in it.
    pub contestants: Vec<Contestant>,
    /// Samples, in the order of the contestants.
    pub rounds: Vec<Vec<Sample>>,
}

/// Everything measured.
pub struct Outcome {
    /// The rows of all tables.
    pub rows: Vec<Row>,
    /// Of those that pass requests on.
    pub memory: Vec<(Contestant, Memory)>,
}

/// Load, upstream and Redis, ready for contestants.
pub struct Bench<'a> {
    plan: Plan,
    logins: Vec<Login>,
    upstream: std::net::SocketAddr,
    store: Store,
    /// For files.
    folder: &'a Path,
    /// The binary.
    sidecar: &'a Path,
}

impl<'a> Bench<'a> {
    /// Starts upstream and Redis.
    pub async fn start(plan: Plan, folder: &'a Path, sidecar: &'a Path) -> Result<Self, MeasureError> {
        let logins = Login::all();
        Ok(Self {
            plan,
            upstream: upstream::serve(Answers::new(&logins)).await?,
            store: Store::start(folder).await?,
            logins,
            folder,
            sidecar,
        })
    }

    /// Starts a contestant and readies it for its rows.
    pub async fn subject(
        &self,
        contestant: Contestant,
        workloads: &[Workload],
    ) -> Result<Subject, MeasureError> {
        let running = contestant.start(self.site()).await?;
        // once more, because the answer is compared with what the upstream sent
        let compared = ask(running.listen, &contestant.probe()).await;
        compared.map_err(|error| failed(contestant, "its first request", error))?;
        Subject::prepare(running, workloads, (&self.plan, &self.store, &self.logins)).await
    }

    fn site(&self) -> Site<'_> {
        Site {
            folder: self.folder,
            listen: self.upstream,
            admin: self.upstream,
            upstream: self.upstream,
            store: self.store.address,
            sidecar: self.sidecar,
        }
    }

    /// Measures everything.
    pub async fn run(
        &self,
        contestants: &[Contestant],
        workloads: &[Workload],
    ) -> Result<Outcome, MeasureError> {
        let memory = self.memory(contestants).await?;
        let mut subjects = Vec::new();
        for contestant in contestants {
            if workloads.iter().any(|row| contestant.runs(*row)) {
                subjects.push(self.subject(*contestant, workloads).await?);
            }
        }
        let mut rows: Vec<_> = workloads.iter().map(|workload| Row::new(*workload, &subjects)).collect();
        rows.retain(|row| !row.contestants.is_empty());
        for round in 0..self.plan.rounds {
            for row in &mut rows {
                row.rounds.push(self.round(round, row.workload, &subjects).await?);
            }
            eprintln!("round {} of {}", round + 1, self.plan.rounds);
        }
        Ok(Outcome { rows, memory })
    }

    async fn memory(&self, contestants: &[Contestant]) -> Result<Vec<(Contestant, Memory)>, MeasureError> {
        let proxies = contestants.iter().filter(|contestant| contestant.kind == Kind::Proxy);
        let mut all: Vec<_> = proxies.map(|contestant| (*contestant, Memory::default())).collect();
        for _ in 0..self.plan.starts {
            for (contestant, memory) in &mut all {
                let running = contestant.start(self.site()).await?;
                let request = contestant.probe().request;
                let measured = memory::measure(&running, &request, self.plan.idle_connections).await;
                memory.add(&measured.map_err(|error| failed(*contestant, "idle connections", error))?);
            }
        }
        Ok(all)
    }

    /// One sample of each contestant in the row; every round begins with another one.
    async fn round(
        &self,
        round: usize,
        workload: Workload,
        subjects: &[Subject],
    ) -> Result<Vec<Sample>, MeasureError> {
        let subjects: Vec<_> = subjects.iter().filter(|subject| subject.is_in(workload)).collect();
        let mut samples: Vec<_> = Vec::new();
        for turn in 0..subjects.len() {
            let place = (round + turn) % subjects.len();
            if let Some(subject) = subjects.get(place) {
                samples.push((place, self.sample(subject, workload).await?));
            }
        }
        samples.sort_by_key(|(place, _)| *place);
        Ok(samples.into_iter().map(|(_, sample)| sample).collect())
    }

    async fn sample(&self, subject: &Subject, workload: Workload) -> Result<Sample, MeasureError> {
        let running = &subject.running;
        let checks_before = subject.checks().await?;
        let load = subject.load(workload)?;
        sleep(self.plan.warm_up).await;
        let before = Reading::take(&running.family, &self.store.family, load.answered())?;
        sleep(self.plan.window).await;
        let after = Reading::take(&running.family, &self.store.family, load.answered())?;
        let stopped = load.stop().await;
        stopped.map_err(|error| failed(running.contestant, workload.name(), error))?;
        let checks = checks_before.zip(subject.checks().await?);
        let remembered = checks.map(|(before, after)| after.remembered_since(before));
        Ok(Sample { remembered, ..after.since(&before) })
    }
}

impl Row {
    fn new(workload: Workload, subjects: &[Subject]) -> Self {
        let subjects = subjects.iter().filter(|subject| subject.is_in(workload));
        let contestants = subjects.map(|subject| subject.running.contestant).collect();
        Self { workload, contestants, rounds: Vec::new() }
    }
}

/// Says whose request failed, and in what.
pub fn failed(contestant: Contestant, workload: &'static str, error: LoadError) -> MeasureError {
    MeasureError::Load { contestant: contestant.name, workload, error }
}
