//! How long a connection has kept us waiting: a few numbers that its bytes leave behind, judged by a
//! sweep every so often instead of a timer for every request.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::framing::{Stage, Violation};
use crate::config::Limits;

/// A clock that is read for nothing: the sweep sets it.
#[derive(Debug)]
pub struct CoarseClock {
    start: Instant,
    /// Milliseconds since `start`, never zero: zero means "not waiting" in a [`Pace`].
    now: AtomicU64,
}

impl CoarseClock {
    /// A clock that starts now.
    #[expect(clippy::new_without_default, reason = "reading the time is no default")]
    pub fn new() -> Self {
        Self { start: Instant::now(), now: AtomicU64::new(1) }
    }

    /// Sets the clock; returns the time.
    pub fn set(&self) -> u64 {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        self.now.store(now, Relaxed);
        now
    }

    /// The time at the last [`set`](Self::set), in milliseconds.
    pub fn get(&self) -> u64 {
        self.now.load(Relaxed)
    }
}

/// One connection's numbers. Times are the coarse clock's milliseconds; zero: not waiting.
#[derive(Debug)]
pub struct Pace {
    stage: AtomicU8,
    /// When the current stage began.
    stage_since: AtomicU64,
    /// Since when we wait for the client to send.
    reading_since: AtomicU64,
    /// Since when we wait for the client to take.
    writing_since: AtomicU64,
    /// Since when we wait for GoTrue to go on with an answer that has begun; not for HTTP/2, whose
    /// streams would hide each other.
    answering_since: AtomicU64,
    /// HTTP/2's answers: since when each waits for the client to take it.
    taking_since: Mutex<Vec<Arc<AtomicU64>>>,
    /// Requests that have not been answered to the end.
    open: AtomicU32,
    /// Requests that were ever made.
    begun: AtomicU64,
    /// A [`Violation`] that a request must be answered with.
    violation: AtomicU8,
    /// Which one of those that were ever made.
    refused: AtomicU64,
    http2: AtomicBool,
    closing: AtomicBool,
    close: Notify,
}

/// An answer's account with its connection.
#[derive(Debug)]
pub struct Taking(Option<Arc<AtomicU64>>);

/// Why the sweep ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Kept alive without a request: may be closed politely.
    Idle,
    /// The client is too slow in sending or taking: cut.
    Stuck,
    /// GoTrue does not go on with an answer: cut, so that it does not look whole.
    Stalled,
}

impl Pace {
    /// A connection that was just accepted.
    pub fn new(now: u64) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Between as u8),
            stage_since: AtomicU64::new(now),
            reading_since: AtomicU64::new(0),
            writing_since: AtomicU64::new(0),
            answering_since: AtomicU64::new(0),
            taking_since: Mutex::default(),
            open: AtomicU32::new(0),
            begun: AtomicU64::new(0),
            violation: AtomicU8::new(0),
            refused: AtomicU64::new(0),
            http2: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            close: Notify::new(),
        }
    }

    pub(super) fn at_stage(&self, stage: Stage, now: u64) {
        if self.stage.swap(stage as u8, Relaxed) != stage as u8 {
            self.stage_since.store(now, Relaxed);
        }
    }

    pub(super) fn reading(&self, pending: bool, now: u64) {
        set_since(&self.reading_since, pending, now);
    }

    pub(super) fn writing(&self, pending: bool, now: u64) {
        set_since(&self.writing_since, pending, now);
    }

    /// A request was read to the end of its head. Gives its answer's account, in HTTP/2, where answers
    /// are taken side by side.
    pub fn request_begins(&self) -> Taking {
        self.open.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        Taking(self.is_http2().then(|| {
            let since = Arc::default();
            self.taking().push(Arc::clone(&since));
            since
        }))
    }

    /// Whether we wait for GoTrue to go on with an answer that has begun, or else for the client to take it.
    pub fn answering(&self, taking: &Taking, pending: bool, now: u64) {
        match &taking.0 {
            None => set_since(&self.answering_since, pending, now),
            Some(since) => since.store(if pending { 0 } else { now }, Relaxed),
        }
    }

    /// A request's answer was handed over to the end, or given up.
    pub fn request_ends(&self, taking: &Taking, now: u64) {
        self.open.fetch_sub(1, Relaxed);
        match &taking.0 {
            None => set_since(&self.answering_since, false, now),
            Some(ended) => self.taking().retain(|since| !Arc::ptr_eq(since, ended)),
        }
        self.stage_since.store(now, Relaxed);
    }

    fn taking(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.taking_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection's `nth` request must be answered with `violation`.
    pub(super) fn refuse(&self, violation: Violation, nth: u64) {
        let code = match violation {
            Violation::HeadTooLarge => 1,
            Violation::Ambiguous => 2,
        };
        self.refused.store(nth, Relaxed);
        self.violation.store(code, Relaxed);
    }

    /// What was wrong with the bytes of the request that has just begun.
    pub fn violation(&self) -> Option<Violation> {
        match self.violation.load(Relaxed) {
            1 | 2 if self.refused.load(Relaxed) != self.begun.load(Relaxed) => None,
            1 => Some(Violation::HeadTooLarge),
            2 => Some(Violation::Ambiguous),
            _ => None,
        }
    }

    /// The connection speaks HTTP/2.
    pub fn set_http2(&self) {
        self.http2.store(true, Relaxed);
    }

    /// [`set_http2`](Self::set_http2) was called.
    pub fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// Asks the connection to finish what it has begun and to begin nothing more.
    pub fn close(&self) {
        self.closing.store(true, Relaxed);
        self.close.notify_one();
    }

    /// [`close`](Self::close) was called.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Wakes when [`close`](Self::close) is called.
    pub fn closed(&self) -> tokio::sync::futures::Notified<'_> {
        self.close.notified()
    }

    /// Whether the client has kept us waiting for too long.
    pub fn overdue(&self, now: u64, limits: &Limits) -> Option<Overdue> {
        let longer = |since: u64, limit: Duration| {
            since != 0 && u128::from(now.saturating_sub(since)) > limit.as_millis()
        };
        let stalled = |since: &AtomicU64| longer(since.load(Relaxed), limits.body_timeout);
        if stalled(&self.writing_since)
            || (self.is_http2() && self.taking().iter().any(|since| stalled(since)))
        {
            return Some(Overdue::Stuck);
        }
        if stalled(&self.answering_since) {
            return Some(Overdue::Stalled);
        }
        let since = self.stage_since.load(Relaxed);
        let open = self.open.load(Relaxed) > 0;
        match self.stage.load(Relaxed) {
            HEAD => longer(since, limits.header_read_timeout).then_some(Overdue::Stuck),
            BODY => stalled(&self.reading_since).then_some(Overdue::Stuck),
            _ if open => None,
            _ if self.begun.load(Relaxed) == 0 => {
                longer(since, limits.header_read_timeout).then_some(Overdue::Stuck)
            }
            // politeness has its end, too: an HTTP/2 client can leave the last bytes of an answer untaken
            _ if longer(since, limits.idle_timeout.saturating_add(limits.body_timeout)) => {
                Some(Overdue::Stuck)
            }
            _ => longer(since, limits.idle_timeout).then_some(Overdue::Idle),
        }
    }
}

const HEAD: u8 = Stage::Head as u8;
const BODY: u8 = Stage::Body as u8;

/// Keeps the time when waiting began, not the time of the last look.
fn set_since(since: &AtomicU64, pending: bool, now: u64) {
    match (pending, since.load(Relaxed)) {
        (true, 0) => since.store(now, Relaxed),
        (false, waiting) if waiting != 0 => since.store(0, Relaxed),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            header_bytes: 1024,
            header_read_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            connections: 1,
            streams: 1,
            request_body_bytes: 1,
            response_body_bytes: 1,
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn the_sweep_judges_by_what_the_client_owes() {
        type Set = fn(&Pace);
        let table: &[(&str, Set, u64, Option<Overdue>)] = &[
            ("a silent connection", |_| (), 5_002, Some(Overdue::Stuck)),
            ("a silent connection, in time", |_| (), 5_000, None),
            ("a slow head", |pace| pace.at_stage(Stage::Head, 1), 5_002, Some(Overdue::Stuck)),
            ("waiting for GoTrue", |pace| drop(pace.request_begins()), 60_000, None),
            (
                "kept alive",
                |pace| {
                    let taking = pace.request_begins();
                    pace.request_ends(&taking, 1);
                },
                75_000,
                None,
            ),
            (
                "idle for too long",
                |pace| {
                    let taking = pace.request_begins();
                    pace.request_ends(&taking, 1);
                },
                75_002,
                Some(Overdue::Idle),
            ),
            (
                "a slow body",
                |pace| {
                    pace.at_stage(Stage::Body, 1);
                    pace.reading(true, 1);
                },
                30_002,
                Some(Overdue::Stuck),
            ),
            (
                "a body that GoTrue does not take",
                |pace| {
                    pace.at_stage(Stage::Body, 1);
                    pace.reading(false, 1);
                },
                90_000,
                None,
            ),
            (
                "a slow reader",
                |pace| {
                    pace.request_begins();
                    pace.writing(true, 1);
                },
                30_002,
                Some(Overdue::Stuck),
            ),
            (
                "an answer that does not go on",
                |pace| {
                    let taking = pace.request_begins();
                    pace.answering(&taking, true, 1);
                },
                30_002,
                Some(Overdue::Stalled),
            ),
            (
                "one of many answers that is not taken",
                |pace| {
                    pace.set_http2();
                    let answers = [pace.request_begins(), pace.request_begins()];
                    pace.answering(&answers[0], true, 1);
                    pace.answering(&answers[1], false, 1);
                },
                30_002,
                Some(Overdue::Stuck),
            ),
            (
                "one of many answers that does not go on, which its body watches",
                |pace| {
                    pace.set_http2();
                    let answers = [pace.request_begins(), pace.request_begins()];
                    pace.answering(&answers[0], true, 1);
                    pace.answering(&answers[1], false, 1);
                    pace.request_ends(&answers[1], 2);
                },
                90_000,
                None,
            ),
            (
                "idle, and does not go away",
                |pace| {
                    let taking = pace.request_begins();
                    pace.request_ends(&taking, 1);
                },
                105_002,
                Some(Overdue::Stuck),
            ),
            (
                "a reader that goes on",
                |pace| {
                    pace.request_begins();
                    pace.writing(true, 1);
                    pace.writing(false, 2);
                },
                90_000,
                None,
            ),
        ];
        for &(what, set, now, expected) in table {
            let pace = Pace::new(1);
            set(&pace);
            assert_eq!(pace.overdue(now, &limits()), expected, "{what}");
        }
    }

    #[test]
    fn waiting_counts_from_its_beginning() {
        let pace = Pace::new(1);
        pace.at_stage(Stage::Body, 1);
        pace.reading(true, 10);
        pace.reading(true, 29_000);
        assert_eq!(pace.overdue(30_011, &limits()), Some(Overdue::Stuck));
    }
}
