//! Child processes that are pinned to a core and end with the run.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The contestant's core; nothing else runs there.
pub const CONTESTANT_CORE: usize = 0;
/// The core of load, upstream and Redis.
pub const LOAD_CORE: usize = 1;

/// What the machine lacks.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A program is not installed.
    #[error("`{program}` is not installed: apt-get install {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// Debian does not have it.
    #[error("oauth2-proxy is not installed: put its release into /usr/local/bin")]
    NoOauth2Proxy,
    /// One core only.
    #[error(
        "two cores are needed ({CONTESTANT_CORE} and {LOAD_CORE}): one for who is measured, one for the rest"
    )]
    Cores,
    /// A system call was refused.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        error: rustix::io::Errno,
    },
}

/// A program of Debian's, wherever it lies: not every user has `/usr/sbin` in the path.
pub fn find_program(program: &'static str, package: &'static str) -> Result<PathBuf, MachineError> {
    find_installed(program).ok_or(MachineError::Missing { program, package })
}

/// A program that may have come from anywhere.
pub fn find_installed(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders.into_iter().map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// Checks that both cores are there.
pub fn check_cores() -> Result<(), MachineError> {
    let cores = sched_getaffinity(None)
        .map_err(|error| MachineError::System { what: "the cores of this process", error })?;
    if cores.is_set(CONTESTANT_CORE) && cores.is_set(LOAD_CORE) {
        return Ok(());
    }
    Err(MachineError::Cores)
}

/// Moves this process, which is load and upstream, to its core, and lets it open enough connections.
pub fn settle_down() -> Result<(), MachineError> {
    let mut core = CpuSet::new();
    core.set(LOAD_CORE);
    sched_setaffinity(None, &core)
        .map_err(|error| MachineError::System { what: "moving to the load's core", error })?;
    let files = getrlimit(Resource::Nofile);
    let most = Rlimit { current: files.maximum, maximum: files.maximum };
    setrlimit(Resource::Nofile, most)
        .map_err(|error| MachineError::System { what: "raising the limit of open files", error })
}

/// A process pinned to a core. Dropping it asks it to end, and ends it where it does not.
pub struct Pinned {
    child: Child,
    line: String,
}

impl Pinned {
    /// Starts `command` on `core`, in `folder` and without anything of this process's environment.
    pub fn start(command: &Command, core: usize, folder: &Path) -> io::Result<Self> {
        let mut pinned = Command::new("/usr/bin/taskset");
        pinned.args(["--cpu-list", &core.to_string()]).arg(command.get_program());
        pinned.args(command.get_args()).current_dir(folder).env_clear();
        for (name, value) in command.get_envs() {
            pinned.env(name, value.unwrap_or_default());
        }
        let null = || Stdio::null();
        let child = pinned.stdin(null()).stdout(null()).stderr(null()).spawn()?;
        Ok(Self { child, line: format!("{command:?}") })
    }

    /// Its process id; `taskset` becomes the program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The command, to be tried by hand.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Whether it ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && !self.has_ended()
            && kill_process(pid, Signal::TERM).is_ok()
        {
            let asked = Instant::now();
            while !self.has_ended() && asked.elapsed() < Duration::from_secs(2) {
                sleep(Duration::from_millis(5));
            }
        }
        // an error means that it has ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
