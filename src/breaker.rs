//! Keeps requests from waiting for a store that does no work: after a few failures in a row they no longer ask it
//! at all. One probe in the background looks for the way back; then one call goes through, and if the store takes
//! it, everybody's do.
//!
//! ```text
//! Closed ── 3 failures in a row ──▶ Open ◀── the call failed, or the probe did ──┐
//!    ▲                               └── the probe was answered ──▶ Half open ───┤
//!    └───────────────── the one call that goes through was answered ─────────────┘
//! ```
//!
//! One for each lane of the store: a part of it that can be away while others work. All workers share it; asking
//! is one load of an atomic.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    metrics::{BreakerState, Metrics},
    store,
};

/// So many failures in a row open it.
const FAILURES: u32 = 3;

/// What one call or probe says of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It does its work.
    Works,
    /// It does none.
    Fails,
    /// Neither: it was not waited for, or the answer was about what was asked.
    Nothing,
}

impl Sign {
    /// What the end of a call says.
    pub fn of<T>(result: &Result<T, store::Error>) -> Self {
        match result {
            Ok(_) => Self::Works,
            Err(error) => match error.about() {
                store::About::Store => Self::Fails,
                store::About::Room => Self::Works,
                store::About::Change | store::About::Nothing => Self::Nothing,
            },
        }
    }
}

/// The breakers of a store's lanes.
#[derive(Debug)]
pub struct Breaker {
    lanes: Box<[Lane]>,
    /// How many of them are not closed.
    away: AtomicUsize,
    /// What times are counted from.
    made: Instant,
    opened: Notify,
    turned: Notify,
    metrics: Arc<Metrics>,
}

/// One of them.
#[derive(Debug, Default)]
struct Lane {
    /// A [`State`].
    state: AtomicU32,
    /// How often it opened.
    openings: AtomicU64,
    /// When the first call of the last row of failures had failed; microseconds.
    failing_since: AtomicU64,
}

impl Breaker {
    /// All lanes are closed; there is at least one.
    pub fn new(lanes: usize, metrics: Arc<Metrics>) -> Self {
        let lanes = (0..lanes.max(1)).map(|_| Lane::default()).collect();
        Self {
            lanes,
            away: AtomicUsize::new(0),
            made: Instant::now(),
            opened: Notify::new(),
            turned: Notify::new(),
            metrics,
        }
    }

    /// Leave to call the store, whose outcome is to be told; `None` while it is not worth the wait.
    pub fn ask(&self, lane: usize) -> Option<Permit<'_>> {
        match self.state(lane) {
            State::Closed(_) => Some(self.permit(lane, false)),
            State::Open | State::Trying => None,
            State::HalfOpen => {
                let before = self.apply(lane, Event::Asked);
                (before == State::HalfOpen).then(|| self.permit(lane, true))
            }
        }
    }

    /// As [`ask`](Self::ask), for who has too little time to find out whether the store works: never for the one call
    /// that does.
    pub fn ask_in_haste(&self, lane: usize) -> Option<Permit<'_>> {
        matches!(self.state(lane), State::Closed(_)).then(|| self.permit(lane, false))
    }

    fn permit(&self, lane: usize, trial: bool) -> Permit<'_> {
        Permit { breaker: self, lane, trial, told: false }
    }

    /// The probe has an answer, or none.
    pub fn probed(&self, lane: usize, works: bool) {
        let before = self.apply(lane, if works { Event::ProbeAnswered } else { Event::ProbeFailed });
        if works && before == State::HalfOpen {
            self.turned.notify_one(); // nobody has come by, or whoever did has left
        }
    }

    /// Whether calls of no lane are held back.
    pub fn is_closed(&self) -> bool {
        (0..self.lanes.len()).all(|lane| matches!(self.state(lane), State::Closed(_)))
    }

    /// How often a lane has opened. A connection to it is not to be trusted then, if nothing was heard of it since the
    /// lane [failed](Self::failing_since).
    pub fn openings(&self, lane: usize) -> u64 {
        self.lanes.get(lane).map_or(0, |lane| lane.openings.load(Acquire))
    }

    /// When a lane's last outage, or what may become one, was first noticed.
    pub fn failing_since(&self, lane: usize) -> Instant {
        let since = self.lanes.get(lane).map_or(0, |lane| lane.failing_since.load(Acquire));
        self.made + Duration::from_micros(since)
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Waits until it opens. For one who waits; nothing is missed meanwhile.
    pub async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Waits until calls go through again, or one does; as long as that one is not made, until the probe is answered again.
    /// For one who waits; nothing is missed meanwhile.
    pub async fn turned(&self) {
        self.turned.notified().await;
    }

    fn state(&self, lane: usize) -> State {
        self.lanes.get(lane).map_or(State::Closed(0), |lane| State::from_number(lane.state.load(Relaxed)))
    }

    /// Gives back the state before.
    fn apply(&self, lane: usize, event: Event) -> State {
        let Some(lane) = self.lanes.get(lane) else {
            return State::Closed(0);
        };
        if event.is_failure() && State::from_number(lane.state.load(Acquire)) == State::Closed(0) {
            // before it counts: whoever finds the lane open finds this, too
            let since = u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX);
            lane.failing_since.store(since, Release);
        }
        let next = |before: u32| Some(State::from_number(before).after(event).to_number());
        let before = lane.state.fetch_update(AcqRel, Acquire, next).unwrap_or_else(|before| before);
        let before = State::from_number(before);
        self.tell(lane, before, before.after(event));
        before
    }

    /// Says what changed, to metrics and to whoever waits; to the log only when the first lane opens, and when the last
    /// one closes: a server that is lost takes many with it.
    fn tell(&self, lane: &Lane, before: State, after: State) {
        let (was, is) = (before.word(), after.word());
        if was == is {
            return;
        }
        self.metrics.breaker_turned(was, is);
        match is {
            BreakerState::Open if was == BreakerState::Closed => {
                lane.openings.fetch_add(1, Release);
                self.opened.notify_one();
                if self.away.fetch_add(1, AcqRel) == 0 {
                    tracing::warn!(
                        "breaker open: requests wait for the store no longer, changes are kept for later"
                    );
                }
            }
            BreakerState::Open => {}
            BreakerState::HalfOpen => self.turned.notify_one(),
            BreakerState::Closed => {
                self.turned.notify_one();
                if self.away.fetch_sub(1, AcqRel) == 1 {
                    tracing::info!("breaker closed: requests use the store again");
                }
            }
        }
    }
}

/// Leave for one call. Dropped untold, it says nothing: the caller left.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    lane: usize,
    trial: bool,
    told: bool,
}

impl Permit<'_> {
    /// How the call went.
    pub fn tell(mut self, sign: Sign) {
        self.told = true;
        self.say(sign);
    }

    fn say(&self, sign: Sign) {
        let event = match (self.trial, sign) {
            (false, Sign::Nothing) => return,
            (false, Sign::Works) if self.breaker.state(self.lane) == State::Closed(0) => return,
            (false, Sign::Works) => Event::Worked,
            (false, Sign::Fails) => Event::Failed,
            (true, Sign::Works) => Event::TrialWorked,
            (true, Sign::Fails) => Event::TrialFailed,
            (true, Sign::Nothing) => Event::TrialLeft,
        };
        self.breaker.apply(self.lane, event);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.say(Sign::Nothing);
        }
    }
}

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Somebody wants to call.
    Asked,
    /// A call that is nobody's trial went well.
    Worked,
    /// It did not.
    Failed,
    TrialWorked,
    TrialFailed,
    /// Whoever tried has left without an outcome.
    TrialLeft,
    ProbeAnswered,
    ProbeFailed,
}

impl Event {
    /// Counts towards opening.
    fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::ProbeFailed)
    }
}

/// How a lane stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calls go through; so many failed in a row.
    Closed(u32),
    /// None does.
    Open,
    /// The next one does.
    HalfOpen,
    /// It is under way, no other goes through.
    Trying,
}

impl State {
    /// What calls that began before it opened say later on counts no more.
    fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::Closed(_), Event::Worked) | (Self::Trying, Event::TrialWorked) => Self::Closed(0),
            (Self::Closed(failures), Event::Failed | Event::ProbeFailed) if failures + 1 < FAILURES => {
                Self::Closed(failures + 1)
            }
            (Self::Closed(_), Event::Failed | Event::ProbeFailed)
            | (Self::HalfOpen, Event::ProbeFailed)
            | (Self::Trying, Event::TrialFailed) => Self::Open,
            (Self::Open, Event::ProbeAnswered) | (Self::Trying, Event::TrialLeft) => Self::HalfOpen,
            (Self::HalfOpen, Event::Asked) => Self::Trying,
            (state, _) => state,
        }
    }

    fn word(self) -> BreakerState {
        match self {
            Self::Closed(_) => BreakerState::Closed,
            Self::Open => BreakerState::Open,
            Self::HalfOpen | Self::Trying => BreakerState::HalfOpen,
        }
    }

    fn to_number(self) -> u32 {
        match self {
            Self::Closed(failures) => failures.min(FAILURES),
            Self::Open => FAILURES + 1,
            Self::HalfOpen => FAILURES + 2,
            Self::Trying => FAILURES + 3,
        }
    }

    fn from_number(number: u32) -> Self {
        const OPEN: u32 = FAILURES + 1;
        const HALF_OPEN: u32 = FAILURES + 2;
        match number {
            0..=FAILURES => Self::Closed(number),
            OPEN => Self::Open,
            HALF_OPEN => Self::HalfOpen,
            _ => Self::Trying,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new(2, Arc::new(Metrics::new().unwrap()))
    }

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.ask(0).unwrap().tell(Sign::Fails);
        }
    }

    #[test]
    fn what_follows_is_a_matter_of_state_and_event() {
        use Event::{Asked, Failed, ProbeAnswered, ProbeFailed, TrialFailed, TrialLeft, TrialWorked, Worked};
        use State::{Closed, HalfOpen, Open, Trying};
        let table = [
            (Closed(0), Failed, Closed(1)),
            (Closed(1), Failed, Closed(2)),
            (Closed(2), Failed, Open),
            (Closed(2), Worked, Closed(0)),
            (Closed(2), ProbeFailed, Open),
            // its own connection says little of the others'
            (Closed(2), ProbeAnswered, Closed(2)),
            (Closed(1), Asked, Closed(1)),
            (Open, Asked, Open),
            (Open, ProbeFailed, Open),
            (Open, ProbeAnswered, HalfOpen),
            (HalfOpen, Asked, Trying),
            (HalfOpen, ProbeFailed, Open),
            (HalfOpen, ProbeAnswered, HalfOpen),
            (Trying, Asked, Trying),
            (Trying, TrialWorked, Closed(0)),
            (Trying, TrialFailed, Open),
            (Trying, TrialLeft, HalfOpen),
            (Trying, ProbeFailed, Trying),
            // calls from before it opened, told late
            (Open, Worked, Open),
            (Open, Failed, Open),
            (HalfOpen, Worked, HalfOpen),
            (HalfOpen, Failed, HalfOpen),
            (Trying, Worked, Trying),
            (Trying, Failed, Trying),
        ];
        for (state, event, expected) in table {
            assert_eq!(state.after(event), expected, "{state:?} {event:?}");
        }
    }

    #[test]
    fn a_state_is_a_number_and_back() {
        for state in [
            State::Closed(0),
            State::Closed(1),
            State::Closed(2),
            State::Open,
            State::HalfOpen,
            State::Trying,
        ] {
            assert_eq!(State::from_number(state.to_number()), state);
        }
    }

    #[test]
    fn half_open_it_lets_one_through_and_closes_on_its_success() {
        let breaker = breaker();
        fail(&breaker, FAILURES);
        assert!(breaker.ask(0).is_none() && !breaker.is_closed());
        assert!(breaker.ask(1).is_some(), "the other lane is not concerned");
        breaker.probed(0, true);
        let first = breaker.ask(0).unwrap();
        assert!(breaker.ask(0).is_none());
        first.tell(Sign::Works);
        assert!(breaker.is_closed());
        assert_eq!((breaker.openings(0), breaker.openings(1)), (1, 0));
    }

    #[test]
    fn an_outage_began_with_the_first_failure_in_the_row() {
        let breaker = breaker();
        fail(&breaker, 1);
        breaker.ask(0).unwrap().tell(Sign::Works);
        let worked = Instant::now();
        fail(&breaker, 1);
        let failed = Instant::now();
        fail(&breaker, FAILURES - 1);
        breaker.probed(0, false);
        // counted in whole microseconds
        let since = breaker.failing_since(0) + Duration::from_micros(1);
        assert!(worked <= since && breaker.failing_since(0) <= failed, "{worked:?} {since:?} {failed:?}");
    }

    #[test]
    fn whoever_leaves_amid_a_trial_leaves_it_to_the_next() {
        let breaker = breaker();
        fail(&breaker, FAILURES);
        breaker.probed(0, true);
        drop(breaker.ask(0).unwrap());
        breaker.ask(0).unwrap().tell(Sign::Fails);
        assert!(breaker.ask(0).is_none());
        breaker.probed(0, true);
        assert!(breaker.ask(0).is_some());
    }

    #[tokio::test]
    async fn who_waits_is_told_again_where_a_trial_was_left() {
        use std::{future::Future, pin::pin, task::Context};
        let breaker = breaker();
        let is_told = || {
            let waker = std::task::Waker::noop();
            pin!(breaker.turned()).poll(&mut Context::from_waker(waker)).is_ready()
        };
        fail(&breaker, FAILURES);
        assert!(!is_told());
        breaker.probed(0, true);
        assert!(is_told() && !is_told());
        let trial = breaker.ask(0).unwrap();
        breaker.probed(0, true);
        assert!(!is_told(), "it is under way");
        drop(trial);
        breaker.probed(0, true);
        assert!(is_told());
        breaker.ask(0).unwrap().tell(Sign::Works);
        assert!(is_told());
        breaker.probed(0, true);
        assert!(!is_told(), "it is closed");
    }

    #[test]
    fn a_call_in_haste_is_no_trial() {
        let breaker = breaker();
        breaker.ask_in_haste(0).unwrap().tell(Sign::Fails);
        fail(&breaker, FAILURES - 1);
        assert!(breaker.ask_in_haste(0).is_none());
        breaker.probed(0, true);
        assert!(breaker.ask_in_haste(0).is_none());
        breaker.ask(0).unwrap().tell(Sign::Works);
        assert!(breaker.ask_in_haste(0).is_some());
    }

    #[test]
    fn only_failures_of_the_store_in_a_row_open_it() {
        let breaker = breaker();
        let told = |result: Result<(), store::Error>| breaker.ask(0).unwrap().tell(Sign::of(&result));
        for _ in 0..FAILURES {
            told(Err(store::Error::Timeout));
            told(Err(store::Error::Auth));
            told(Err(store::Error::Protocol));
            told(Err(store::Error::OutOfMemory));
        }
        told(Err(store::Error::Timeout));
        told(Err(store::Error::ReadOnly));
        assert!(breaker.is_closed());
        told(Err(store::Error::Loading));
        assert!(!breaker.is_closed());
    }
}
