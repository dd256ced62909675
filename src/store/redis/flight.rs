//! One attempt at something that several need: who needs it while it is under way, or shortly after it began, gets
//! its outcome. It runs on its own, so whoever waits for it may give up.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// The last attempt.
pub(super) struct Flight<T>(Mutex<Option<Attempt<T>>>);

struct Attempt<T> {
    began: Instant,
    outcome: watch::Receiver<Option<T>>,
}

impl<T: Clone + Send + Sync + 'static> Flight<T> {
    /// No attempt yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The outcome of an attempt that is under way or began less than `fresh` ago, else of a new one. `None`: the
    /// attempt was broken off.
    pub(super) async fn outcome<F>(&self, fresh: Duration, begin: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut outcome = self.attempt(fresh, begin);
        outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| (*outcome).clone())
    }

    /// Begins an attempt unless one is under way or began less than `fresh` ago. Nobody waits for it.
    pub(super) fn beside<F>(&self, fresh: Duration, begin: impl FnOnce() -> F)
    where
        F: Future<Output = T> + Send + 'static,
    {
        drop(self.attempt(fresh, begin));
    }

    fn attempt<F>(&self, fresh: Duration, begin: impl FnOnce() -> F) -> watch::Receiver<Option<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = &*last {
            let under_way = attempt.outcome.borrow().is_none() && attempt.outcome.has_changed().is_ok();
            if under_way || attempt.began.elapsed() < fresh {
                return attempt.outcome.clone();
            }
        }
        let (sender, outcome) = watch::channel(None);
        let attempt = begin();
        tokio::spawn(async move {
            sender.send_replace(Some(attempt.await));
        });
        *last = Some(Attempt { began: Instant::now(), outcome: outcome.clone() });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn who_needs_it_at_once_shares_one_attempt() {
        let (flight, begun) = (Arc::new(Flight::new()), Arc::new(AtomicU32::new(0)));
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (flight, begun) = (Arc::clone(&flight), Arc::clone(&begun));
            waiting.spawn(async move {
                let attempt = || async move {
                    tokio::task::yield_now().await;
                    begun.fetch_add(1, Ordering::Relaxed) + 1
                };
                flight.outcome(Duration::ZERO, attempt).await
            });
        }
        assert!(waiting.join_all().await.into_iter().all(|outcome| outcome == Some(1)));
    }

    #[tokio::test]
    async fn a_fresh_outcome_is_good_enough_and_an_old_one_is_not() {
        let flight = Flight::new();
        assert_eq!(flight.outcome(LONG, || async { 1 }).await, Some(1));
        assert_eq!(flight.outcome(LONG, || async { 2 }).await, Some(1));
        assert_eq!(flight.outcome(Duration::ZERO, || async { 3 }).await, Some(3));
    }

    #[tokio::test]
    async fn it_goes_on_when_nobody_waits() {
        let flight = Flight::new();
        flight.beside(LONG, || async { 1 });
        assert_eq!(flight.outcome(LONG, || async { 2 }).await, Some(1));
    }

    #[tokio::test]
    async fn a_panic_in_it_ends_the_waiting() {
        let flight: Flight<u32> = Flight::new();
        assert_eq!(flight.outcome(LONG, || async { None.unwrap() }).await, None);
        assert_eq!(flight.outcome(Duration::ZERO, || async { 2 }).await, Some(2));
    }
}
