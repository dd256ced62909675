//! The log: one bounded buffer that every line goes into, and the one thread that writes it to
//! stderr. A request never waits for stderr; when stderr is slower than the log, lines are dropped
//! and counted.

use std::{
    cell::Cell,
    fmt,
    io::{self, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, Thread},
    time::Duration,
};

use tracing::Subscriber;
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{self, LogLevel};

mod events;
pub(crate) mod line;

/// Lines that wait for the writer, at most; as much again may be in its hands.
const CAPACITY: usize = 1 << 20;
/// So many waiting bytes wake the writer before its time.
const WAKE_ABOVE: usize = 32 << 10;
/// How long a line waits for the writer, at most, while stderr takes what it is given.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long the end of the process waits for a stderr that takes nothing.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a thread.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
    /// The process has a log already.
    #[error("the log is already set up")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the process's events (`tracing`) to stderr, as `log.*` asks for. The log ends, flushed,
/// when the guard is dropped.
pub fn init(log: &config::Log) -> Result<(LogBuffer, Guard), Error> {
    let (buffer, guard) = LogBuffer::new(Box::new(io::stderr())).map_err(Error::Thread)?;
    subscriber(*log, &buffer).try_init()?;
    Ok((buffer, guard))
}

fn subscriber(log: config::Log, buffer: &LogBuffer) -> impl Subscriber + Send + Sync + use<> {
    tracing_subscriber::registry()
        .with(level(log.level))
        .with(events::Events::new(log.format, buffer.clone()))
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Where lines go in. Cheap to clone; adding a line is a copy under a lock that is never held
/// while something is written.
#[derive(Clone)]
pub struct LogBuffer {
    shared: Arc<Shared>,
    writer: Thread,
}

struct Shared {
    waiting: Mutex<Waiting>,
    dropped: AtomicU64,
}

struct Waiting {
    lines: Vec<u8>,
    closed: bool,
}

impl LogBuffer {
    /// A buffer whose lines are written to `sink`, until the guard is dropped.
    pub fn new(sink: Box<dyn Write + Send>) -> io::Result<(Self, Guard)> {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(Waiting { lines: Vec::with_capacity(2 * WAKE_ABOVE), closed: false }),
            dropped: AtomicU64::new(0),
        });
        let (alive, ended) = mpsc::channel();
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_to(sink, alive))?
        };
        let buffer = Self { shared, writer: thread.thread().clone() };
        let guard = Guard { buffer: buffer.clone(), ended };
        Ok((buffer, guard))
    }

    /// Lines that were lost since the start: there was no room, the sink failed, or the log had
    /// ended.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Adds the line that `fill` makes; `fill` ends it with a line feed.
    pub(crate) fn line(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        thread_local! {
            static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
        }
        // taken, not borrowed: what is printed may itself log
        let mut line = SCRATCH.try_with(Cell::take).unwrap_or_default();
        fill(&mut line);
        self.append(&line);
        line.clear();
        // fails only while the thread ends, when there is nothing to keep it for
        let _ = SCRATCH.try_with(|scratch| scratch.set(line));
    }

    fn append(&self, line: &[u8]) {
        let (before, after) = {
            let mut waiting = self.shared.lock();
            let before = waiting.lines.len();
            if waiting.closed || line.len() > CAPACITY - before {
                drop(waiting);
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.lines.extend_from_slice(line);
            (before, waiting.lines.len())
        };
        if before <= WAKE_ABOVE && after > WAKE_ABOVE {
            self.writer.unpark();
        }
    }
}

impl fmt::Debug for LogBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogBuffer").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's thread. Its end drops `alive`, which is what the guard waits for.
    fn write_to(&self, mut sink: Box<dyn Write + Send>, alive: Sender<()>) {
        let mut taken = Vec::with_capacity(2 * WAKE_ABOVE); // more only where a burst needs it
        loop {
            let closed = {
                let mut waiting = self.lock();
                std::mem::swap(&mut waiting.lines, &mut taken);
                waiting.closed
            };
            if taken.is_empty() {
                if closed {
                    break;
                }
                thread::park_timeout(INTERVAL);
                continue;
            }
            if sink.write_all(&taken).and_then(|()| sink.flush()).is_err() {
                let lines = memchr::memchr_iter(b'\n', &taken).count();
                self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            }
            taken.clear();
            if !closed {
                self.rest();
            }
        }
        drop(alive);
    }

    /// Waits until there is something to write again; at full speed there already is.
    fn rest(&self) {
        let plenty = self.lock().lines.len() > WAKE_ABOVE;
        if !plenty {
            thread::park_timeout(INTERVAL);
        }
    }
}

/// Ends the log when it is dropped: what is waiting is written, for at most a second; what comes
/// later is dropped and counted.
pub struct Guard {
    buffer: LogBuffer,
    ended: Receiver<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.buffer.shared.lock().closed = true;
        self.buffer.writer.unpark();
        if self.ended.recv_timeout(LAST_FLUSH) == Err(RecvTimeoutError::Timeout) {
            let lost = memchr::memchr_iter(b'\n', &self.buffer.shared.lock().lines).count();
            self.buffer.shared.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// What `run` logs on this thread, everything from `info` up.
#[cfg(test)]
pub(crate) fn captured(format: config::LogFormat, run: impl FnOnce()) -> String {
    let log = config::Log { format, level: LogLevel::Info, access: false };
    let sink = tests::Sink::default();
    let (buffer, guard) = LogBuffer::new(Box::new(sink.clone())).unwrap();
    tracing::subscriber::with_default(subscriber(log, &buffer), run);
    drop(guard);
    sink.text()
}

#[cfg(test)]
mod tests;
