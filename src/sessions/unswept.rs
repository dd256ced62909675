//! Sweeps that broke off because the store failed, until they go on.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::session::UserId;

/// One that broke off waits at least so long.
const PAUSE: Duration = Duration::from_secs(1);
/// So many wait, by each worker. With one more, that user's next change to many sessions goes on.
const MOST: usize = 1_024;

/// Whose sessions are still to be swept; one user's at a time.
#[derive(Debug, Default)]
pub struct Unswept(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// With when it is due, soonest first.
    waiting: VecDeque<(UserId, Instant)>,
    going_on: bool,
}

impl Unswept {
    /// A sweep broke off.
    pub(super) fn add(&self, user: UserId) {
        let mut state = self.lock();
        if state.waiting.len() < MOST && state.waiting.iter().all(|(waits, _)| *waits != user) {
            state.waiting.push_back((user, Instant::now() + PAUSE));
        }
    }

    /// Whose sweep is to go on, if one is due and none goes on already; [`Self::done`] is called after it.
    pub(super) fn due(&self) -> Option<UserId> {
        let mut state = self.lock();
        let is_due = state.waiting.front().is_some_and(|(_, due)| *due <= Instant::now());
        let (user, _) = if is_due && !state.going_on { state.waiting.pop_front()? } else { return None };
        state.going_on = true;
        Some(user)
    }

    pub(super) fn done(&self) {
        self.lock().going_on = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> UserId {
        UserId::parse(&format!("0191d1a0-0000-7000-8000-{number:012x}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_after_the_other_goes_on_after_a_pause() {
        let unswept = Unswept::default();
        for number in [1, 2, 1] {
            unswept.add(user(number));
        }
        assert_eq!(unswept.due(), None);
        tokio::time::advance(PAUSE).await;
        assert_eq!((unswept.due(), unswept.due()), (Some(user(1)), None));
        unswept.add(user(1)); // it broke off again
        unswept.done();
        assert_eq!(unswept.due(), Some(user(2)));
        unswept.done();
        assert_eq!(unswept.due(), None);
        tokio::time::advance(PAUSE).await;
        assert_eq!(unswept.due(), Some(user(1)));
        unswept.done();
        assert_eq!(unswept.due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_a_bound_wait() {
        let unswept = Unswept::default();
        (0..=MOST).for_each(|number| unswept.add(user(number)));
        tokio::time::advance(PAUSE).await;
        let mut count = 0;
        while unswept.due().is_some() {
            unswept.done();
            count += 1;
        }
        assert_eq!(count, MOST);
    }
}
