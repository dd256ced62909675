//! Where the sidecar's time goes: perf, while it is under load.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use clap::Args;
use tokio::time::sleep;

use crate::{
    BenchError, block_on,
    contestant::{ALL, Contestant, Role},
    measure::{Bench, Plan},
    process::{LOAD_CORE, check_cores, find_program, settle_down},
    sidecar_binary,
    subject::Subject,
    workload::Workload,
};

/// `bench/profile`
#[derive(Args)]
pub struct Profile {
    /// The sidecar's binary, with symbols; without it, the repository's is built with --profile profiling
    #[arg(long, value_name = "PATH")]
    sidecar: Option<PathBuf>,
    /// The load: a row of bench/run
    #[arg(long, default_value = "settings", value_parser = crate::workload)]
    row: Workload,
    /// Who is looked at; without it, the first sidecar that is in that row
    #[arg(long, value_parser = crate::named_contestant)]
    contestant: Option<Contestant>,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    seconds: u16,
    /// Lines of each list
    #[arg(long, default_value_t = 40)]
    lines: usize,
    /// Keep perf's recording here, for `perf report` and flame graphs
    #[arg(long, value_name = "PATH")]
    keep: Option<PathBuf>,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// perf cannot record or report.
    #[error(
        "{0} failed: where perf may not be used, `valgrind --tool=callgrind` on the sidecar \
         under the same load shows its instructions"
    )]
    Perf(&'static str),
    /// No sidecar is in the row.
    #[error("no sidecar is in this row: name a contestant")]
    Nobody,
}

impl Profile {
    /// Records and prints.
    pub fn start(&self) -> Result<(), BenchError> {
        check_cores()?;
        find_program("taskset", "util-linux")?;
        find_program("redis-server", "redis-server")?;
        let perf = find_program("perf", "linux-perf")?;
        let contestant = self.contestant()?;
        let sidecar = if contestant.role == Role::Ours {
            // frame pointers: without them nobody can tell who called
            let flags = ["-Cforce-frame-pointers=yes"];
            sidecar_binary(self.sidecar.as_deref(), "profiling", &flags)?
        } else {
            PathBuf::new()
        };
        settle_down()?;
        let folder = tempfile::tempdir()?;
        let recording = self.keep.clone().unwrap_or_else(|| folder.path().join("perf.data"));
        block_on(async {
            let bench = Bench::start(self.plan(), folder.path(), &sidecar).await?;
            let subject = bench.subject(contestant, &[self.row]).await?;
            self.record(&perf, &recording, &subject).await
        })?;
        self.print(&perf, &recording)
    }

    fn contestant(&self) -> Result<Contestant, ProfileError> {
        let fits = |contestant: &Contestant| contestant.role == Role::Ours && contestant.runs(self.row);
        self.contestant.or_else(|| ALL.into_iter().find(fits)).ok_or(ProfileError::Nobody)
    }

    async fn record(&self, perf: &Path, recording: &Path, subject: &Subject) -> Result<(), BenchError> {
        let load = subject.load(self.row)?;
        sleep(Duration::from_millis(500)).await;
        let mut recorder = Command::new("/usr/bin/taskset")
            .args(["--cpu-list", &LOAD_CORE.to_string()])
            .arg(perf)
            .args(["record", "--quiet", "--event", "cpu-clock", "--freq", "4999", "--call-graph", "fp"])
            .args(["--pid", &subject.running.family.list()])
            .arg("--output")
            .arg(recording)
            .args(["--", "sleep", &self.seconds.to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        let ended = loop {
            if let Some(status) = recorder.try_wait()? {
                break status;
            }
            sleep(Duration::from_millis(20)).await;
        };
        load.stop().await.map_err(io::Error::other)?;
        if ended.success() { Ok(()) } else { Err(ProfileError::Perf("perf record").into()) }
    }

    fn print(&self, perf: &Path, recording: &Path) -> Result<(), BenchError> {
        let report = |arguments: &[&str]| -> Result<String, BenchError> {
            let output = Command::new(perf)
                .args(["report", "--stdio", "--quiet", "--call-graph", "none", "--input"])
                .arg(recording)
                .args(arguments)
                .stderr(Stdio::null())
                .output()?;
            if !output.status.success() {
                return Err(ProfileError::Perf("perf report").into());
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let by_object = report(&["--no-children", "--sort", "dso"])?;
        let own = report(&["--no-children", "--sort", "sym"])?;
        let with_callees = report(&["--children", "--sort", "sym"])?;
        let telling = |line: &&str| !is_everywhere(line);
        print_list("By object", by_object.lines());
        println!("## User space, by crate, %\n");
        for (krate, share) in by_crate(&own) {
            println!("{share:>10.2}%  {krate}");
        }
        println!();
        print_list("User space, by function itself", own.lines().filter(is_user).take(self.lines));
        let user = with_callees.lines().filter(is_user).filter(telling);
        print_list("User space, with all it calls", user.take(self.lines));
        let kernel = with_callees.lines().filter(is_kernel).filter(telling);
        print_list("Kernel, with all it calls", kernel.take(self.lines));
        Ok(())
    }

    fn plan(&self) -> Plan {
        Plan {
            rounds: 1,
            window: Duration::from_secs(u64::from(self.seconds)),
            warm_up: Duration::ZERO,
            connections: 32,
            starts: 1,
            idle_connections: 0,
            sessions_at_most: usize::MAX,
        }
    }
}

fn is_user(line: &&str) -> bool {
    line.contains("[.]")
}

fn is_kernel(line: &&str) -> bool {
    line.contains("[k]")
}

/// User space's own shares, summed by the crate that a symbol names, largest first.
fn by_crate(own: &str) -> Vec<(&str, f64)> {
    let mut shares: Vec<(&str, f64)> = Vec::new();
    for line in own.lines() {
        let Some((share, symbol)) = line.split_once("[.] ") else {
            continue;
        };
        let share = share.trim().trim_end_matches('%').parse().unwrap_or(0.0);
        let path = symbol.trim_start_matches(['<', '&', ' ']);
        let of_c = "C (libc, allocator, cryptography)";
        let krate = path.split_once("::").map_or(of_c, |(krate, _)| krate);
        match shares.iter_mut().find(|(known, _)| *known == krate) {
            Some((_, sum)) => *sum += share,
            None => shares.push((krate, share)),
        }
    }
    shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    shares
}

/// The runtime's outermost frames, which say nothing.
fn is_everywhere(line: &str) -> bool {
    let share = line.split_once('%').and_then(|(share, _)| share.trim().parse::<f64>().ok());
    share.is_some_and(|share| share > 95.0)
}

fn print_list<'a>(title: &str, lines: impl Iterator<Item = &'a str>) {
    println!("## {title}, %\n");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        println!("{}", line.trim_end());
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_perf_are_told_apart() {
        assert!(is_user(&"  1.34%  [.] hyper::poll"));
        assert!(is_kernel(&"  61.0%  0.1%  [k] do_writev"));
        assert!(is_everywhere(" 99.97%  0.02%  [.] main"));
        assert!(!is_everywhere(" 12.00%  0.02%  [.] main"));
    }

    #[test]
    fn shares_are_summed_by_crate() {
        let own =
            " 1.50%  [.] hyper::a\n 2.00%  [.] mi_free\n 1.00%  [.] <hyper::B as C>::d\n 9.00%  [k] tcp\n";
        let shares = by_crate(own);
        assert_eq!(shares.first(), Some(&("hyper", 2.5)));
        assert_eq!(shares.len(), 2);
    }
}
