//! The rounds: every contestant under every workload in turn, so that drift of the machine hits all alike.

use std::{io, path::Path, rc::Rc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    contestant::{Contestant, Running, Site, StartError},
    gotrue::{Answers, LOGINS, Login, settings_body},
    load::{Connections, Load, LoadError, compare_one, connect},
    memory::{self, Memory},
    sample::{Reading, Sample},
    store::Store,
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
    #[error("{contestant} answered {LOGINS} sign-ins, but its store holds only {keys} keys")]
    NotRecorded {
        /// Who.
        contestant: &'static str,
        /// In its database.
        keys: u64,
    },
    /// `/proc` or sockets.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// All rounds of one workload: `rounds[round][contestant]`.
pub struct Row {
    /// Which.
    pub workload: Workload,
    /// Samples.
    pub rounds: Vec<Vec<Sample>>,
}

/// Everything measured.
pub struct Outcome {
    /// The columns.
    pub contestants: Vec<Contestant>,
    /// The rows.
    pub rows: Vec<Row>,
    /// For each contestant.
    pub memory: Vec<Memory>,
}

/// Load, upstream and Redis, ready for contestants.
pub struct Bench {
    plan: Plan,
    logins: Vec<Login>,
    upstream: std::net::SocketAddr,
    store: Store,
}

impl Bench {
    /// Starts upstream and Redis.
    pub async fn start(plan: Plan, folder: &Path) -> Result<Self, MeasureError> {
        let logins = Login::all();
        Ok(Self {
            plan,
            upstream: upstream::serve(Answers::new(&logins)).await?,
            store: Store::start(folder).await?,
            logins,
        })
    }

    /// Starts a contestant.
    pub async fn contestant(
        &self,
        contestant: Contestant,
        folder: &Path,
        sidecar: &Path,
    ) -> Result<Running, MeasureError> {
        let site = Site {
            folder,
            listen: self.upstream,
            admin: self.upstream,
            upstream: self.upstream,
            store: self.store.address,
            sidecar,
        };
        let (request, body) = probe();
        Ok(contestant.start(site, &request, &body).await?)
    }

    /// Measures everything. `folder` is for the contestants' files.
    pub async fn run(
        &self,
        contestants: &[Contestant],
        workloads: &[Workload],
        folder: &Path,
        sidecar: &Path,
    ) -> Result<Outcome, MeasureError> {
        let memory = self.memory(contestants, folder, sidecar).await?;
        let mut running = Vec::new();
        for contestant in contestants {
            running.push(self.contestant(*contestant, folder, sidecar).await?);
        }
        for contestant in &running {
            self.warm_up(contestant, workloads).await?;
        }
        let mut rows: Vec<_> = workloads.iter().map(|workload| Row::new(*workload)).collect();
        for round in 0..self.plan.rounds {
            for row in &mut rows {
                row.rounds.push(self.round(round, row.workload, &running).await?);
            }
            eprintln!("round {} of {}", round + 1, self.plan.rounds);
        }
        Ok(Outcome { contestants: contestants.to_vec(), rows, memory })
    }

    async fn memory(
        &self,
        contestants: &[Contestant],
        folder: &Path,
        sidecar: &Path,
    ) -> Result<Vec<Memory>, MeasureError> {
        let (request, _) = probe();
        let mut all: Vec<_> = contestants.iter().map(|_| Memory::default()).collect();
        for _ in 0..self.plan.starts {
            for (contestant, memory) in contestants.iter().zip(&mut all) {
                let running = self.contestant(*contestant, folder, sidecar).await?;
                let measured = memory::measure(&running, &request, self.plan.idle_connections).await;
                memory.add(&measured.map_err(|error| failed(*contestant, "idle connections", error))?);
            }
        }
        Ok(all)
    }

    /// Every workload once, compared with what the upstream sent; sign-ins until all sessions are recorded.
    pub async fn warm_up(&self, running: &Running, workloads: &[Workload]) -> Result<(), MeasureError> {
        let contestant = running.contestant;
        let (request, body) = probe();
        let compared = async { compare_one(&mut connect(running.address).await?, &request, &body).await };
        compared.await.map_err(|error| failed(contestant, "GET /settings", error))?;

        let needs_sessions = workloads.iter().any(|w| matches!(w, Workload::Login | Workload::Lookup));
        if let Some(database) = contestant.database
            && needs_sessions
        {
            let load = self.load(running, Workload::Login);
            let started = Instant::now();
            while load.answered() < LOGINS as u64 && started.elapsed() < Duration::from_secs(10) {
                sleep(Duration::from_millis(5)).await;
            }
            load.stop().await.map_err(|error| failed(contestant, "login", error))?;
            let keys = self.store.keys(database).await?;
            if keys < LOGINS as u64 {
                let contestant = contestant.name;
                return Err(MeasureError::NotRecorded { contestant, keys });
            }
        }
        Ok(())
    }

    /// One sample of each contestant; every round begins with another one.
    async fn round(
        &self,
        round: usize,
        workload: Workload,
        running: &[Running],
    ) -> Result<Vec<Sample>, MeasureError> {
        let mut samples: Vec<_> = Vec::new();
        for turn in 0..running.len() {
            let place = (round + turn) % running.len();
            if let Some(contestant) = running.get(place) {
                samples.push((place, self.sample(contestant, workload).await?));
            }
        }
        samples.sort_by_key(|(place, _)| *place);
        Ok(samples.into_iter().map(|(_, sample)| sample).collect())
    }

    async fn sample(&self, running: &Running, workload: Workload) -> Result<Sample, MeasureError> {
        let load = self.load(running, workload);
        sleep(self.plan.warm_up).await;
        let before = Reading::take(&running.family, &self.store.family, load.answered())?;
        sleep(self.plan.window).await;
        let after = Reading::take(&running.family, &self.store.family, load.answered())?;
        let stopped = load.stop().await;
        stopped.map_err(|error| failed(running.contestant, workload.name(), error))?;
        Ok(after.since(&before))
    }

    /// Puts a contestant under load.
    pub fn load(&self, running: &Running, workload: Workload) -> Load {
        let connections = match workload {
            Workload::Connect => Connections::New(self.plan.connections),
            _ => Connections::Kept(self.plan.connections),
        };
        let requests: Rc<[Vec<u8>]> = workload.requests(&self.logins).into();
        Load::start(running.address, requests, connections)
    }
}

impl Row {
    fn new(workload: Workload) -> Self {
        Self { workload, rounds: Vec::new() }
    }
}

/// A request and the body that must come back.
fn probe() -> (Vec<u8>, Vec<u8>) {
    let requests = Workload::Settings.requests(&[]);
    let request = requests.into_iter().next().unwrap_or_default();
    (request, settings_body().into_bytes())
}

fn failed(contestant: Contestant, workload: &'static str, error: LoadError) -> MeasureError {
    MeasureError::Load { contestant: contestant.name, workload, error }
}
