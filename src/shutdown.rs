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
            times: Times { delay: config.delay, deadline: config.deadline },
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

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { delay: Duration::from_secs(5), deadline: Duration::from_secs(30) };

    fn drain(delay: u64, deadline: u64) -> Drain {
        Drain::new(&config::Drain {
            delay: Duration::from_secs(delay),
            deadline: Duration::from_secs(deadline),
        })
    }

    async fn reached(phases: &mut watch::Receiver<Phase>, phase: Phase) {
        phases.wait_for(|now| *now == phase).await.unwrap();
    }

    #[test]
    fn what_happens_next_follows_from_state_event_and_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let announced = |since| State::Announced { since: at(since) };
        let terminating = |since| State::Terminating { since: at(since) };
        let closing = |since| State::Closing { since: at(since) };
        let table = [
            (State::Serving, Event::Begin, 3, announced(3)),
            (State::Serving, Event::Terminate, 3, terminating(3)),
            (State::Serving, Event::Time, 99, State::Serving),
            (announced(0), Event::Begin, 3, announced(0)),
            (announced(0), Event::Time, 99, announced(0)),
            // what is left of the delay, or nothing
            (announced(0), Event::Terminate, 3, terminating(0)),
            (announced(0), Event::Terminate, 5, closing(5)),
            (announced(0), Event::Terminate, 60, closing(60)),
            (terminating(0), Event::Begin, 3, terminating(0)),
            (terminating(0), Event::Time, 4, terminating(0)),
            (terminating(0), Event::Time, 5, closing(5)),
            (terminating(0), Event::Begin, 7, closing(7)),
            (terminating(0), Event::Terminate, 1, State::Aborted),
            (closing(5), Event::Begin, 6, closing(5)),
            (closing(5), Event::Time, 34, closing(5)),
            (closing(5), Event::Time, 35, State::Aborted),
            (closing(5), Event::Terminate, 6, State::Aborted),
            (State::Aborted, Event::Begin, 99, State::Aborted),
            (State::Aborted, Event::Terminate, 99, State::Aborted),
            (State::Aborted, Event::Time, 99, State::Aborted),
        ];
        for (state, event, now, expected) in table {
            assert_eq!(state.after(event, at(now), TIMES), expected, "{state:?} {event:?} at {now} s");
        }
    }

    #[test]
    fn a_delay_that_no_clock_can_count_does_not_panic() {
        let times = Times { delay: Duration::MAX, deadline: Duration::MAX };
        let now = Instant::now();
        let state = State::Serving.after(Event::Terminate, now, times);
        assert_eq!(state.due(times), None);
        assert_eq!(state.after(Event::Terminate, now, times), State::Aborted);
    }

    #[tokio::test(start_paused = true)]
    async fn one_signal_goes_through_every_phase_in_time() {
        let drain = drain(5, 30);
        let (draining, mut phases) = (drain.draining(), drain.phases());
        let driver = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run().await }
        });
        let began = Instant::now();
        assert!(!draining.begun());
        drain.terminate();
        assert!(draining.begun());
        assert_eq!(*phases.borrow_and_update(), Phase::Announced);
        reached(&mut phases, Phase::Closing).await;
        assert_eq!(began.elapsed().as_secs(), 5);
        assert!(draining.begun());
        reached(&mut phases, Phase::Aborted).await;
        assert_eq!(began.elapsed().as_secs(), 35);
        driver.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_early_announcement_leaves_no_delay_for_the_signal() {
        let drain = drain(5, 30);
        let mut phases = drain.phases();
        let driver = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run().await }
        });
        drain.begin();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(*phases.borrow_and_update(), Phase::Announced);
        let began = Instant::now();
        drain.terminate();
        assert_eq!(*phases.borrow_and_update(), Phase::Closing);
        reached(&mut phases, Phase::Aborted).await;
        assert_eq!(began.elapsed().as_secs(), 30);
        driver.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_during_the_delay_waits_for_what_is_left_of_it() {
        let drain = drain(5, 30);
        let mut phases = drain.phases();
        let running = drain.clone();
        tokio::spawn(async move { running.run().await });
        let began = Instant::now();
        drain.begin();
        tokio::time::sleep(Duration::from_secs(3)).await;
        drain.terminate();
        reached(&mut phases, Phase::Closing).await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_at_once() {
        for wait in [0, 2, 7] {
            let drain = drain(5, 30);
            let phases = drain.phases();
            let running = drain.clone();
            let driver = tokio::spawn(async move { running.run().await });
            drain.terminate();
            tokio::time::sleep(Duration::from_secs(wait)).await;
            drain.terminate();
            assert_eq!(*phases.borrow(), Phase::Aborted, "after {wait} s");
            driver.await.unwrap();
        }
    }

    #[tokio::test]
    async fn signals_of_the_system_drain() {
        use rustix::process::{Signal, getpid, kill_process};
        let drain = drain(3_600, 3_600);
        let mut phases = drain.phases();
        let taking = tokio::spawn(signals(drain.clone()).unwrap());
        kill_process(getpid(), Signal::TERM).unwrap();
        reached(&mut phases, Phase::Announced).await;
        kill_process(getpid(), Signal::INT).unwrap();
        reached(&mut phases, Phase::Aborted).await;
        taking.abort();
    }
}
