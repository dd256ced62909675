//! Whether the store does its work: asked once a second over a connection of its own, told to the breaker, metrics
//! and readiness, and to the log when the answer changes, or why there is none. Requests do not touch this state, so a
//! store that fails in every one of them is one line in the log. While the breaker is open it is the only one that
//! asks, and does so more often.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    breaker::{Breaker, Sign},
    clock::Clock,
    metrics::{Metrics, StoreCommand, StoreResult},
    readiness::Readiness,
    store::{Error, Store, redis::LastAudit},
};

/// Readiness is never older than this (deployment notes: cached for 2 s at most).
const ORDINARY: Duration = Duration::from_secs(1);
/// While it does not answer, and everybody waits for the way back, which is to be found within a second.
const SEARCHING: Duration = Duration::from_millis(250);
/// A store that did not answer for so long counts as away: of a shorter gap nothing is lost but that a session is
/// noted as seen some seconds later.
const AWAY: Duration = Duration::from_secs(2);

/// So often in a row a store must fail in another way than was told before that is told, too: of one that fails now this
/// way and now that, the first is enough.
const LASTS: u32 = 4;

/// Asks, and keeps what was last known.
#[derive(Debug)]
pub(super) struct StoreProbe {
    store: Store,
    /// `store.timeout`
    timeout: Duration,
    told: Told,
    breaker: Arc<Breaker>,
    /// Since when it has not answered.
    failing_since: Option<Instant>,
    clock: Clock,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

impl StoreProbe {
    /// Nothing is asked yet. `timeout` is what a request would grant.
    pub(super) fn new(
        store: Store,
        timeout: Duration,
        breaker: Arc<Breaker>,
        clock: Clock,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self {
            store,
            timeout,
            told: Told::default(),
            breaker,
            failing_since: None,
            clock,
            metrics,
            readiness,
        }
    }

    /// How long to wait before it is asked again. Where it did not answer, it may be for the probe alone to open the
    /// breaker: others may hardly ask.
    pub(super) fn pause(&self) -> Duration {
        if self.breaker.is_closed() && self.failing_since.is_none() { ORDINARY } else { SEARCHING }
    }

    /// Shows what the last audit found. A store that does not answer was heard of already.
    pub(super) async fn ask_for_audit(&self) {
        let asked = tokio::time::timeout(self.timeout, self.store.last_audit()).await;
        if let Ok(Ok(last)) = asked {
            let LastAudit { at, missing, surplus, differing, repaired } = last.unwrap_or_default();
            self.metrics.audited(at, [missing, surplus, differing], repaired);
        }
    }

    /// Asks once.
    pub(super) async fn ask(&mut self) {
        let began = Instant::now();
        let answers = self.store.ping_each().await;
        let failure = answers.iter().find_map(|answer| answer.as_ref().err());
        let result = failure.map_or(StoreResult::Ok, Error::result);
        self.metrics.store_command(StoreCommand::Ping, result, began.elapsed());
        let well = failure.is_none();
        self.failing_since = if well { None } else { self.failing_since.or(Some(began)) };
        if self.failing_since.is_some_and(|since| since.elapsed() >= AWAY) {
            self.store.was_away(self.clock.seconds());
        }
        let is_away = !self.breaker.is_closed();
        for (lane, answer) in answers.iter().enumerate() {
            if is_away && answer.is_err() {
                self.store.renew(lane, began.into_std()); // a half-open connection would keep the way back hidden
            }
            // one that is full is no way to wait for: it takes endings, and says at once what it does not take
            self.breaker.probed(lane, Sign::of(answer) == Sign::Works);
        }
        let news = self.told.news(result);
        if news == Some(News::Turned) {
            self.metrics.store_up(well);
            self.readiness.set_store(well);
        }
        match (news, failure) {
            (None, _) => {}
            (Some(_), None) => tracing::info!("the store answers"),
            (Some(News::Turned), Some(error)) => {
                tracing::warn!(cause = error.cause(), error = %error, "the store does not answer");
            }
            (Some(News::AnotherCause), Some(error)) => {
                tracing::warn!(cause = error.cause(), error = %error, "the store still does not answer");
            }
        }
    }
}

/// What was said last of how the store answers, and how it answered since.
#[derive(Debug, Default)]
struct Told {
    /// Nothing yet: the first answer is worth a line, whichever it is.
    last: Option<StoreResult>,
    since: Option<StoreResult>,
    in_a_row: u32,
}

/// What is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// It answers again, or no longer.
    Turned,
    /// It does not answer as before, and for another reason.
    AnotherCause,
}

impl Told {
    /// What an answer is, compared with what was told.
    fn news(&mut self, answer: StoreResult) -> Option<News> {
        self.in_a_row = if self.since == Some(answer) { self.in_a_row.saturating_add(1) } else { 1 };
        self.since = Some(answer);
        let is_well = |result| result == StoreResult::Ok;
        let news = match self.last {
            Some(last) if last == answer => None,
            Some(last) if is_well(last) == is_well(answer) => {
                (self.in_a_row >= LASTS).then_some(News::AnotherCause)
            }
            _ => Some(News::Turned),
        };
        if news.is_some() {
            self.last = Some(answer);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, store::memory::Memory};

    #[test]
    fn each_change_is_news_once() {
        use StoreResult::{Auth, Ok, Refused, Timeout};
        let (turned, other) = (Some(News::Turned), Some(News::AnotherCause));
        let table: [&[(StoreResult, Option<News>)]; 4] = [
            &[(Ok, turned), (Ok, None)],
            &[(Refused, turned), (Refused, None), (Ok, turned), (Refused, turned)],
            &[(Ok, turned), (Refused, turned), (Timeout, None), (Refused, None), (Timeout, None)],
            &[
                (Refused, turned),
                (Auth, None),
                (Auth, None),
                (Auth, None),
                (Auth, other),
                (Auth, None),
                (Refused, None),
                (Ok, turned),
            ],
        ];
        for answers in table {
            let mut told = Told::default();
            for (at, &(answer, expected)) in answers.iter().enumerate() {
                assert_eq!(told.news(answer), expected, "answer {at} of {answers:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_asked_more_often_before_anybody_stops_waiting() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = Store::Memory(Arc::new(Memory::new(1, Duration::from_secs(1))));
        let breaker = Arc::new(Breaker::new(1, Arc::clone(&metrics)));
        let readiness = Arc::new(Readiness::new(config::Readiness { upstream: false, store: false }, true));
        let mut probe =
            StoreProbe::new(store, AWAY, Arc::clone(&breaker), Clock::default(), metrics, readiness);
        probe.ask().await;
        assert_eq!(probe.pause(), ORDINARY);
        probe.failing_since = Some(Instant::now());
        assert!(breaker.is_closed());
        assert_eq!(probe.pause(), SEARCHING);
        probe.ask().await;
        assert_eq!(probe.pause(), ORDINARY);
    }
}
