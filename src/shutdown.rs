//! The drain: from the first word of it (`drain`, SIGTERM) to the end of the process. It decides
//! when what happens; the listeners do it.
//!
//! ```text
//! Serving ── drain ──▶ Announced ── terminate, drain.delay over ──▶ Closing ── drain.deadline ──▶ Aborted
//!    └──── terminate ─────▲   (a second terminate goes to Aborted from wherever it is)
//! ```

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use crate::config;

/// Whether a drain has begun: answers then end their connection (`Connection: close`, GOAWAY).
/// Asked for every answer; one relaxed load.
#[derive(Clone, Debug, Default)]
pub struct Draining(Arc<AtomicBool>);

impl Draining {
    /// True from [`Phase::Announced`] on.
    pub fn begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far a drain has come. It only grows, and may skip: compare with `>=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No drain.
    Serving,
    /// Not ready, answers end their connections; still accepting.
    Announced,
    /// The listener is closed; requests in flight and tracked tasks finish.
    Closing,
    /// The deadline passed, or somebody insists: the end, whatever is left.
    Aborted,
}

/// Starts a drain, drives it, and lets others watch it. Clones are the same drain.
#[derive(Clone, Debug)]
pub struct Drain(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    times: Times,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    draining: Draining,
    changed: Notify,
}

impl Drain {
    /// Nothing drains yet.
    pub fn new(config: &config::Drain) -> Self {
        Self(Arc::new(Shared {
            times: Times {
                delay: config.delay,
                deadline: config.deadline,
            },
            state: Mutex::new(State::Serving),
            phase: watch::Sender::new(Phase::Serving),
            draining: Draining::default(),
            changed: Notify::new(),
        }))
    }

    /// The `drain` subcommand: announces the end and goes on serving until [`Self::terminate`].
    pub fn begin(&self) {
        self.apply(Event::Begin);
    }

    /// A signal: the first one ends the process in order, the second one at once. `drain.delay`
    /// counts from the announcement, so that it costs nothing when that was long ago.
    pub fn terminate(&self) {
        self.apply(Event::Terminate);
    }

    /// For whoever answers requests.
    pub fn draining(&self) -> Draining {
        self.0.draining.clone()
    }

    /// For whoever acts on it.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Drives the timers; ends when the drain is [`Phase::Aborted`].
    pub async fn run(&self) {
        loop {
            let state = self.state();
            if state.phase() == Phase::Aborted {
                return;
            }
            let changed = self.0.changed.notified();
            match state.due(self.0.times) {
                None => changed.await,
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(due) => self.apply(Event::Time),
                },
            }
        }
    }

    fn state(&self) -> State {
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, event: Event) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.after(event, Instant::now(), self.0.times);
        let phase = state.phase();
        let draining = phase >= Phase::Announced;
        self.0.draining.0.store(draining, Ordering::Relaxed);
        let grew = self.0.phase.send_if_modified(|current| {
            let grew = *current < phase;
            *current = phase;
            grew
        });
        drop(state);
        if grew {
            tracing::info!(?phase, "drain");
        }
        // one permit is kept when nobody waits, so `run` never misses a change
        self.0.changed.notify_one();
    }
}

/// `drain.*`
#[derive(Clone, Copy, Debug)]
struct Times {
    delay: Duration,
    deadline: Duration,
}

/// What can happen to a drain.
#[derive(Clone, Copy, Debug)]
enum Event {
    Begin,
    Terminate,
    Time,
}

/// A phase, and what decides when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// Announced, and nobody has said when it ends.
    Announced {
        since: Instant,
    },
    /// The process shall end once `drain.delay` is over.
    Terminating {
        since: Instant,
    },
    Closing {
        since: Instant,
    },
    Aborted,
}

impl State {
    fn phase(self) -> Phase {
        match self {
            Self::Serving => Phase::Serving,
            Self::Announced { .. } | Self::Terminating { .. } => Phase::Announced,
            Self::Closing { .. } => Phase::Closing,
            Self::Aborted => Phase::Aborted,
        }
    }

    /// What comes of it, by an event.
    fn after(self, event: Event, now: Instant, times: Times) -> Self {
        let next = match (self, event) {
            (Self::Serving, Event::Begin) => Self::Announced { since: now },
            (Self::Serving, Event::Terminate) => Self::Terminating { since: now },
            (Self::Announced { since }, Event::Terminate) => Self::Terminating { since },
            (_, Event::Terminate) => Self::Aborted,
            (state, Event::Begin | Event::Time) => state,
        };
        next.by_time(now, times)
    }

    /// What comes of it, by time alone.
    fn by_time(self, now: Instant, times: Times) -> Self {
        match (self, self.due(times)) {
            (Self::Terminating { .. }, Some(due)) if due <= now => Self::Closing { since: now },
            (Self::Closing { .. }, Some(due)) if due <= now => Self::Aborted,
            (state, _) => state,
        }
    }

    /// When time alone changes it. `None`: never, also where the clock cannot count so far.
    fn due(self, times: Times) -> Option<Instant> {
        match self {
            Self::Terminating { since } => since.checked_add(times.delay),
            Self::Closing { since } => since.checked_add(times.deadline),
            Self::Serving | Self::Announced { .. } | Self::Aborted => None,
        }
    }
}

/// Takes SIGTERM and SIGINT from here on, and hands them to the drain for as long as the future is
/// polled. Fails where the operating system refuses a handler. Must be called on a runtime.
pub fn signals(drain: Drain) -> io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "signal");
            drain.terminate();
        }
    })
}
