//! What a request through gotrue-sidecar costs, beside nginx and HAProxy: `bench/run`. Where its time goes:
//! `bench/profile`.
//!
//! The contestant is alone on the first core; load, upstream (both this process, one thread) and Redis are
//! on the second. The figure is CPU time of the contestant's processes per answered request, in a closed
//! loop of kept connections. Rounds are interleaved, because a machine's speed drifts; compare within one
//! run only.

mod commands;
mod contestant;
mod gotrue;
mod load;
mod machine;
mod measure;
mod memory;
mod oauth2_proxy;
mod process;
mod procfs;
mod profile;
mod report;
mod sample;
mod store;
mod subject;
mod upstream;
mod wire;
mod workload;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

use crate::{
    commands::oauth2_proxy_binary,
    contestant::{ALL, Contestant, Kind, Role},
    machine::Machine,
    measure::{Bench, MeasureError, Plan},
    process::{MachineError, check_cores, find_program, settle_down},
    profile::{Profile, ProfileError},
    workload::Workload,
};

#[derive(Parser)]
#[command(about, version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure all contestants and print the table
    Run(Run),
    /// Show where the sidecar's time goes, with perf
    Profile(Profile),
}

#[derive(Args)]
struct Run {
    /// The sidecar's binary; without it, the repository's is built with --release
    #[arg(long, value_name = "PATH")]
    sidecar: Option<PathBuf>,
    /// Interleaved rounds
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of one measurement
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    seconds: f64,
    /// Connections of the load
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Only these rows; a part of the table is printed and not written down
    #[arg(long, value_delimiter = ',', value_parser = workload)]
    rows: Vec<Workload>,
    /// Only these columns; likewise
    #[arg(long, value_delimiter = ',', value_parser = named_contestant)]
    contestants: Vec<Contestant>,
    /// One short round, to see that everything works; its figures mean nothing and are not written down
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "update_readme"])]
    smoke: bool,
    /// Put the table into README.md, between `<!-- bench -->` and `<!-- /bench -->`
    #[arg(long, conflicts_with_all = ["rows", "contestants"])]
    update_readme: bool,
}

#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Measure(#[from] MeasureError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error("the sidecar does not build: cargo {0} failed")]
    Build(String),
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0} has no `<!-- bench -->` and `<!-- /bench -->`")]
    Markers(PathBuf),
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Run(run) => run.start(),
        Task::Profile(profile) => profile.start(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Run {
    fn start(&self) -> Result<(), BenchError> {
        check_cores()?;
        let contestants = if self.contestants.is_empty() { everybody() } else { self.contestants.clone() };
        let workloads = if self.rows.is_empty() { Workload::ALL.to_vec() } else { self.rows.clone() };
        check_tools(&contestants)?;
        // before the measuring, which takes minutes
        let readme = if self.update_readme { Some(readme()?) } else { None };
        let sidecar = if contestants.iter().all(|contestant| contestant.role != Role::Ours) {
            PathBuf::new()
        } else {
            sidecar_binary(self.sidecar.as_deref(), "release", &[])?
        };
        settle_down()?;
        let folder = tempfile::tempdir()?;
        let outcome = block_on(async {
            let bench = Bench::start(self.plan(), folder.path(), &sidecar).await?;
            Ok(bench.run(&contestants, &workloads).await?)
        })?;

        let machine = Machine::look(&repository(), &sidecar, &contestants)?;
        let machine = machine.describe(&self.command_line());
        let summary = format!("{}\n{machine}", report::summary(&outcome));
        let details = report::details(&outcome);
        println!("{summary}\n{details}");
        if self.smoke || !(self.rows.is_empty() && self.contestants.is_empty()) {
            return Ok(());
        }
        write_down(&summary, &details, readme)
    }

    fn plan(&self) -> Plan {
        let (rounds, seconds, starts) =
            if self.smoke { (1, 0.2, 1) } else { (usize::from(self.rounds), self.seconds, 5) };
        Plan {
            rounds,
            window: Duration::from_secs_f64(seconds),
            warm_up: Duration::from_secs_f64(seconds / 10.0),
            connections: usize::from(self.connections),
            starts,
            idle_connections: 1_000,
            sessions_at_most: if self.smoke { 2_000 } else { usize::MAX },
        }
    }

    fn command_line(&self) -> String {
        if self.smoke {
            return "bench/run --smoke".to_owned();
        }
        format!(
            "bench/run --rounds {} --seconds {} --connections {}",
            self.rounds, self.seconds, self.connections
        )
    }
}

fn check_tools(contestants: &[Contestant]) -> Result<(), MachineError> {
    find_program("taskset", "util-linux")?;
    find_program("redis-server", "redis-server")?;
    for (program, package) in [("nginx", "nginx"), ("haproxy", "haproxy")] {
        if contestants.iter().any(|contestant| contestant.name.starts_with(program)) {
            find_program(program, package)?;
        }
    }
    if contestants.iter().any(|contestant| contestant.kind == Kind::Oauth2Proxy) {
        oauth2_proxy_binary()?;
    }
    Ok(())
}

/// All contestants, but for one that Debian does not have, where it is not installed.
fn everybody() -> Vec<Contestant> {
    let missing = oauth2_proxy_binary().err();
    if let Some(error) = &missing {
        eprintln!("bench: without oauth2-proxy: {error}");
    }
    ALL.into_iter().filter(|it| missing.is_none() || it.kind != Kind::Oauth2Proxy).collect()
}

/// The given binary, or the repository's, built with this profile.
fn sidecar_binary(given: Option<&Path>, profile: &str, rust_flags: &[&str]) -> Result<PathBuf, BenchError> {
    if let Some(path) = given {
        return path.canonicalize().map_err(|error| BenchError::File(path.to_owned(), error));
    }
    let root = repository();
    let mut cargo = std::process::Command::new("cargo");
    cargo.current_dir(&root).args(["build", "--locked", "--profile", profile]);
    if !rust_flags.is_empty() {
        cargo.env("RUSTFLAGS", rust_flags.join(" "));
    }
    if !cargo.status()?.success() {
        return Err(BenchError::Build(format!("build --locked --profile {profile}")));
    }
    Ok(root.join("target").join(profile).join("gotrue-sidecar"))
}

fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Runs on this thread until done or interrupted; either way, what was started ends.
fn block_on<T>(work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = work => result,
            _ = interrupt.recv() => Err(BenchError::Interrupted),
            _ = terminate.recv() => Err(BenchError::Interrupted),
        }
    })
}

fn write_down(summary: &str, details: &str, readme: Option<(PathBuf, String)>) -> Result<(), BenchError> {
    let results =
        format!("# What a request costs\n\nWritten by `bench/run`.\n\n{summary}\n## Details\n\n{details}");
    let mut files = vec![(repository().join("bench/results.md"), results)];
    if let Some((path, document)) = readme {
        files.extend(report::splice(&document, summary).map(|document| (path, document)));
    }
    for (path, text) in files {
        fs::write(&path, text).map_err(|error| BenchError::File(path, error))?;
    }
    Ok(())
}

/// README.md, with a place for the table.
fn readme() -> Result<(PathBuf, String), BenchError> {
    let path = repository().join("README.md");
    let document = fs::read_to_string(&path).map_err(|error| BenchError::File(path.clone(), error))?;
    match report::splice(&document, "") {
        Some(_) => Ok((path, document)),
        None => Err(BenchError::Markers(path)),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds
        .filter(|seconds| (0.05..=600.0).contains(seconds))
        .ok_or_else(|| "seconds, from 0.05 to 600, are expected".to_owned())
}

fn workload(name: &str) -> Result<Workload, String> {
    let names = Workload::ALL.map(Workload::name).join(", ");
    Workload::named(name).ok_or_else(|| format!("one of {names} is expected"))
}

fn named_contestant(name: &str) -> Result<Contestant, String> {
    let names = ALL.map(|contestant| contestant.name).join(", ");
    Contestant::named(name).ok_or_else(|| format!("one of {names} is expected"))
}
