//! Where and with what the figures were taken.

use std::{fs, io, path::Path, process::Command};

use crate::{commands::oauth2_proxy_binary, contestant::Contestant};

/// What a reader needs to repeat a run.
pub struct Machine {
    processor: String,
    kernel: String,
    date: String,
    commit: String,
    versions: Vec<String>,
}

impl Machine {
    /// Asks the machine and the programs.
    pub fn look(repository: &Path, sidecar: &Path, contestants: &[Contestant]) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let of_all = first_line(Command::new("nproc").arg("--all")).unwrap_or_else(|| cores.to_string());
        let mut git = Command::new("git");
        git.current_dir(repository);
        let mut versions = Vec::new();
        let runs = |name: &str| contestants.iter().any(|contestant| contestant.name.starts_with(name));
        if runs("nginx") {
            versions.extend(first_line(Command::new("/usr/sbin/nginx").arg("-v")));
        }
        if runs("haproxy") {
            versions.extend(first_line(Command::new("/usr/sbin/haproxy").arg("-v")));
        }
        if let Some(program) = runs("oauth2-proxy").then(oauth2_proxy_binary).and_then(Result::ok) {
            versions.extend(first_line(Command::new(program).arg("--version")));
        }
        if sidecar.is_file() {
            versions.extend(first_line(Command::new(sidecar).arg("--version")));
        }
        versions.extend(first_line(Command::new("redis-server").arg("--version")).map(without_build));
        Ok(Self {
            processor: format!("{of_all} cores of {}", processor()?),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            date: first_line(Command::new("date").args(["--utc", "+%F"])).unwrap_or_default(),
            commit: first_line(git.args(["describe", "--always", "--dirty"]))
                .unwrap_or_else(|| "unknown".to_owned()),
            versions,
        })
    }

    /// A paragraph.
    pub fn describe(&self, command: &str) -> String {
        format!(
            "`{command}`, {}, commit {}, on {}, Linux {}, loopback. {}.\n",
            self.date,
            self.commit,
            self.processor,
            self.kernel,
            self.versions.join("; ")
        )
    }
}

fn processor() -> io::Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    Ok(name.map_or("an unnamed processor", |name| name.trim_start_matches(['\t', ' ', ':'])).to_owned())
}

/// The first line a program prints, on either output.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&all);
    text.lines().next().map(|line| line.trim().to_owned())
}

fn without_build(line: String) -> String {
    line.split(" sha=").next().map(str::to_owned).unwrap_or(line)
}
