//! Whether the store does its work: asked once a second over a connection of its own, told to metrics
//! and readiness, and to the log when the answer changes. Requests do not touch this state, so a store
//! that fails in every one of them is one line in the log.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    clock::Clock,
    metrics::{Metrics, StoreCommand},
    readiness::Readiness,
    store::{Error, Store, redis::LastAudit},
};

/// After so many failures in a row, a second apart, the store counts as away: of a shorter gap nothing is lost but
/// that a session is noted as seen some seconds later.
const AWAY: u32 = 3;

/// Asks, and keeps what was last known.
#[derive(Debug)]
pub(super) struct StoreProbe {
    store: Store,
    /// `store.timeout`
    timeout: Duration,
    /// Nothing was known yet: the first answer is worth a line, whichever it is.
    well: Option<bool>,
    /// So many times in a row it did not answer.
    failures: u32,
    clock: Clock,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

impl StoreProbe {
    /// Nothing is asked yet. `timeout` is what a request would grant.
    pub(super) fn new(
        store: Store,
        timeout: Duration,
        clock: Clock,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self { store, timeout, well: None, failures: 0, clock, metrics, readiness }
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
        let asked = tokio::time::timeout(self.timeout, self.store.ping()).await;
        let failure = asked.unwrap_or(Err(Error::Timeout)).err();
        let result = failure.as_ref().map_or("ok", Error::cause);
        self.metrics.store_command(StoreCommand::Ping, result, began.elapsed());
        let well = failure.is_none();
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
        if self.failures >= AWAY {
            self.store.was_away(self.clock.seconds());
        }
        if self.well.replace(well) == Some(well) {
            return;
        }
        self.metrics.store_up(well);
        self.readiness.set_store(well);
        match failure {
            None => tracing::info!("the store answers"),
            Some(error) => tracing::warn!(cause = error.cause(), error = %error, "the store does not answer"),
        }
    }
}
