//! What has to be done every few seconds, whether or not requests come: histograms drained, GoTrue and
//! the store asked whether they are well, published keys fetched, changed files taken up.

use std::{cell::Cell, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Uri, header::HOST};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior},
};

use tokio_util::task::TaskTracker;

use super::{
    keys::{self, Configured, reference_key},
    store_probe::StoreProbe,
};
use crate::{
    clock,
    config::{self, SecretSource},
    jwks::Verifier,
    metrics::Metrics,
    readiness::Readiness,
    reload::{Purpose, Watched},
    store::changes::Heard,
    telemetry::LogBuffer,
    tls::Certificate,
    upstream::{Outgoing, Upstream},
    worker::Mirroring,
};

/// Readiness is never older than this (deployment notes: cached for 2 s at most).
const PROBE: Duration = Duration::from_secs(1);
/// How long GoTrue may take to say that it is well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The result of the last audit is asked for at every so-manieth probe: audits are hours apart.
const AUDITED: u32 = 15;
/// Histogram samples queue up until they are drained.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the main thread looks after.
#[derive(Debug)]
pub(super) struct Errands {
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) upstream: Upstream,
    pub(super) upstream_path: String,
    pub(super) host: HeaderValue,
    pub(super) store: Option<Mirroring>,
    pub(super) tasks: TaskTracker,
    pub(super) verifier: Arc<Verifier>,
    pub(super) certificate: Option<Certificate>,
    pub(super) jwt: config::Jwt,
    pub(super) ref_key: Option<SecretSource>,
    pub(super) watched: Watched,
    pub(super) reload_interval: Duration,
    pub(super) log: Option<LogBuffer>,
}

impl Errands {
    /// Runs them until the future is dropped. None waits for another: a GoTrue that hangs does not keep
    /// the store from being asked, or a file from being read.
    pub(super) async fn run(mut self) {
        let watched = std::mem::take(&mut self.watched);
        tokio::join!(
            self.ask_upstream(),
            self.ask_store(),
            self.follow_changes(),
            self.write_what_waits(),
            self.keep_keys(),
            self.keep_accounts(),
            self.keep_files(watched)
        );
    }

    async fn ask_upstream(&self) {
        let mut tick = every(PROBE);
        loop {
            tick.tick().await;
            let well = tokio::time::timeout(PROBE_TIMEOUT, self.upstream_health()).await;
            self.readiness.set_upstream(well == Ok(true));
        }
    }

    async fn ask_store(&self) {
        let Some(mirroring) = &self.store else { return };
        let (metrics, readiness) = (Arc::clone(&self.metrics), Arc::clone(&self.readiness));
        let (store, breaker) = (mirroring.source.connect(), Arc::clone(&mirroring.breaker));
        let clock = mirroring.clock.clone();
        let mut probe = StoreProbe::new(store, mirroring.budget, breaker, clock, metrics, readiness);
        for turn in (0..AUDITED).cycle() {
            probe.ask().await;
            if turn == 0 {
                probe.ask_for_audit().await;
            }
            tokio::select! {
                () = tokio::time::sleep(probe.pause()) => {}
                () = mirroring.breaker.opened() => {}
            }
        }
    }

    /// Has the store tell of changes, for checks, and the log of whether it does.
    async fn follow_changes(&self) {
        let Some(mirroring) = self.store.as_ref().filter(|mirroring| mirroring.check.is_some()) else {
            return;
        };
        let known = Cell::new(None);
        let told = |heard: Heard| {
            let up = heard == Heard::Yes;
            self.metrics.check_push_up(up);
            if heard == Heard::NotNow || known.replace(Some(up)) == Some(up) {
                return;
            }
            if let Heard::No(error) = heard {
                tracing::warn!(
                    cause = error.cause(),
                    error = %error,
                    "the store does not tell of changes: checks notice them within check.max_staleness"
                );
            } else {
                tracing::info!("the store tells of changes as they happen");
            }
        };
        mirroring.source.follow_changes(told).await;
    }

    /// Writes what waits for the store, over a connection of its own, and tells how much that is.
    async fn write_what_waits(&self) {
        let Some(mirroring) = &self.store else { return };
        let sessions = Arc::new(mirroring.clone().sessions(Arc::clone(&self.metrics), self.tasks.clone()));
        let tell = async {
            let mut tick = every(PROBE);
            loop {
                tick.tick().await;
                sessions.queue.tell(sessions.clock.millis());
            }
        };
        tokio::join!(sessions.replay(), sessions.queue.keep_file(), tell);
    }

    async fn keep_keys(&self) {
        let mut tick = every(PROBE);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.verifier.wanted() => {}
            }
            self.verifier.keep_current().await;
        }
    }

    async fn keep_accounts(&self) {
        let (mut tick, mut dropped) = (every(UPKEEP), 0);
        loop {
            tick.tick().await;
            self.metrics.upkeep();
            self.count_dropped_lines(&mut dropped);
        }
    }

    async fn keep_files(&self, mut watched: Watched) {
        let mut tick = every(self.reload_interval);
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = received(&mut hangup) => {}
            }
            self.reload(&mut watched);
        }
    }

    async fn upstream_health(&self) -> bool {
        let Ok(target) = Uri::try_from(format!("{}/health", self.upstream_path)) else {
            return false;
        };
        let mut request = Request::new(Outgoing::Full(None));
        *request.uri_mut() = target;
        request.headers_mut().insert(HOST, self.host.clone());
        self.upstream.send(request).await.is_ok_and(|(response, _)| response.status().is_success())
    }

    fn count_dropped_lines(&self, before: &mut u64) {
        let now = self.log.as_ref().map_or(0, LogBuffer::dropped);
        self.metrics.log_lines_dropped(now - *before);
        *before = now;
    }

    /// Takes up what changed in the files in use. What cannot be used is logged, and what was there stays.
    fn reload(&self, watched: &mut Watched) {
        for purpose in watched.changed() {
            let taken = self.take_up(purpose);
            self.metrics.reloaded(taken.is_ok(), clock::seconds());
            match taken {
                Ok(()) => tracing::info!(?purpose, "changed files are in use now"),
                Err(error) => tracing::error!(
                    ?purpose,
                    error = &*error,
                    "changed files cannot be used, the old ones stay"
                ),
            }
        }
    }

    fn take_up(&self, purpose: Purpose) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match purpose {
            Purpose::Certificate => self.certificate.as_ref().map_or(Ok(()), Certificate::reload)?,
            Purpose::Keys => self.take_up_keys()?,
            Purpose::Store => self.store.as_ref().map_or(Ok(()), |mirroring| mirroring.source.reload())?,
        }
        Ok(())
    }

    fn take_up_keys(&self) -> Result<(), keys::Error> {
        let keys = Configured::read_again(&self.jwt)?;
        if let Some(mirroring) = &self.store {
            mirroring.mirror.exchange_ref_key(reference_key(self.ref_key.as_ref(), &keys)?);
        }
        self.verifier.configured(&keys.ring);
        Ok(())
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Waits for a signal; for ever where the system does not deliver it.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
