//! The sidecar's own binary in a process of its own, for what only a process has: signals, exit codes,
//! a log on stderr, open files.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::sidecar::{sample, with_defaults};

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Serves until it is told to stop; killed when dropped.
pub(crate) struct Process {
    /// Of the public listener, without a slash at the end.
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Started with flags such as `--store-url=memory:`, and what [`with_defaults`] adds.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::launch(command(&with_defaults(flags))).await
    }

    /// The same of another binary.
    pub(crate) async fn start_other(program: &OsStr, flags: &[&str]) -> Self {
        let program =
            fs::canonicalize(program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self::launch(command_of(program.as_os_str(), &with_defaults(flags))).await
    }

    async fn launch(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).unwrap_or(0) > 0 {
                kept.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let (address, admin) = (nowhere, nowhere);
        let mut process = Self { url: String::new(), address, admin, child, stderr, reader: Some(reader) };
        let line = process.line("serving").await;
        process.address = address_after(&line, "listen");
        process.admin = address_after(&line, "admin");
        process.url = format!("http://{}", process.address);
        process
    }

    /// What it logged so far; lines come with a delay of up to 200 ms.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// How many lines it logged that contain these words.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.stderr().lines().filter(|line| line.contains(words)).count()
    }

    /// The first line that contains these words, once it is there.
    pub(crate) async fn line(&self, words: &str) -> String {
        self.nth_line(1, words).await
    }

    /// The so-manieth line, from 1, that contains these words, once it is there.
    pub(crate) async fn nth_line(&self, nth: usize, words: &str) -> String {
        let found =
            || self.stderr().lines().filter(|line| line.contains(words)).nth(nth - 1).map(str::to_owned);
        let complaint = || format!("there are not {nth} lines with {words:?} in\n{}", self.stderr());
        eventually(|| async { found() }, complaint).await
    }

    /// One sample of `/metrics` that counts something.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        sample(self.admin, series).await.parse().unwrap()
    }

    /// Waits until a sample has this value.
    pub(crate) async fn metric_becomes(&self, series: &str, value: u64) {
        let is_so = || async { (self.metric(series).await == value).then_some(()) };
        eventually(is_so, || format!("{series} does not become {value}\n{}", self.stderr())).await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// It hangs: accepts, and answers nothing.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
        wait_until_stopped(self.child.id());
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end, and the rest of its log.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end:\n{}", self.stderr());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Open files and sockets.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// A file below `/proc/<pid>`.
    pub(crate) fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.child.id())).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Runs it to its end: for subcommands, and for what does not start.
pub(crate) fn run<A: AsRef<str>>(args: &[A]) -> Output {
    let args: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
    command(&args).output().unwrap()
}

/// Waits until no thread of a process that was told to stop runs any more: one on another core may go on for a while.
pub(crate) fn wait_until_stopped(pid: u32) {
    let is_stopped = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    let began = std::time::Instant::now();
    while !fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(|thread| is_stopped(thread.unwrap())) {
        assert!(began.elapsed() < PATIENCE, "process {pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What one asks for again and again until it is there.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    ask: impl Fn() -> F,
    complaint: impl Fn() -> String,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{}", complaint());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Files that a shell lets it have open, at first.
pub(crate) const SOFT_LIMIT: &str = "256";

/// Without an environment, where no `sidecar.yaml` lies, and with few open files.
fn command(args: &[String]) -> Command {
    command_of(OsStr::new(env!("CARGO_BIN_EXE_gotrue-sidecar")), args)
}

fn command_of(program: &OsStr, args: &[String]) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("ulimit -Sn {SOFT_LIMIT}; exec \"$0\" \"$@\"")])
        .arg(program)
        .args(args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// The address that follows a name, in a line of JSON or of text.
fn address_after(line: &str, name: &str) -> SocketAddr {
    let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line}"));
    let rest = rest.trim_start_matches(|sign: char| !sign.is_ascii_digit());
    let address = rest.split(|sign: char| !sign.is_ascii_digit() && !".:".contains(sign)).next().unwrap();
    address.parse().unwrap_or_else(|error| panic!("{name} in {line}: {error}"))
}
