//! What has to be done every few seconds, whether or not requests come: histograms drained, GoTrue and
//! the store asked whether they are well, published keys fetched, changed files taken up.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Request, Uri, header::HOST};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior},
};

use super::keys::Configured;
use crate::{
    clock, config,
    jwks::Verifier,
    metrics::{Metrics, StoreCommand},
    readiness::Readiness,
    reload::{Purpose, Watched},
    store::{self, Store},
    telemetry::LogBuffer,
    tls::Certificate,
    upstream::{Outgoing, Upstream},
    worker::Mirroring,
};

/// Readiness is never older than this (deployment notes: cached for 2 s at most).
const PROBE: Duration = Duration::from_secs(1);
/// How long GoTrue may take to say that it is well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
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
    pub(super) verifier: Arc<Verifier>,
    pub(super) certificate: Option<Certificate>,
    pub(super) jwt: config::Jwt,
    pub(super) watched: Watched,
    pub(super) reload_interval: Duration,
    pub(super) log: Option<LogBuffer>,
}

impl Errands {
    /// Runs them until the future is dropped.
    pub(super) async fn run(mut self) {
        let store = self.store.as_ref().map(|mirroring| mirroring.source.connect());
        let (mut probe, mut upkeep) = (every(PROBE), every(UPKEEP));
        let mut reload = every(self.reload_interval);
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut dropped = 0;
        loop {
            tokio::select! {
                _ = probe.tick() => {
                    tokio::join!(self.probe_upstream(), self.probe_store(store.as_ref()), self.verifier.keep_current());
                }
                _ = upkeep.tick() => {
                    self.metrics.upkeep();
                    self.count_dropped_lines(&mut dropped);
                }
                _ = reload.tick() => self.reload(),
                () = received(&mut hangup) => self.reload(),
            }
        }
    }

    async fn probe_upstream(&self) {
        let well = tokio::time::timeout(PROBE_TIMEOUT, self.upstream_health()).await;
        self.readiness.set_upstream(well == Ok(true));
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

    async fn probe_store(&self, store: Option<&Store>) {
        let (Some(mirroring), Some(store)) = (&self.store, store) else {
            return;
        };
        let began = tokio::time::Instant::now();
        let answer =
            tokio::time::timeout(mirroring.budget, store.ping()).await.unwrap_or(Err(store::Error::Timeout));
        let error = answer.as_ref().err();
        self.metrics.store_command(
            StoreCommand::Ping,
            error.map_or("ok", store::Error::cause),
            began.elapsed(),
        );
        mirroring.health.noted(error);
    }

    fn count_dropped_lines(&self, before: &mut u64) {
        let now = self.log.as_ref().map_or(0, LogBuffer::dropped);
        self.metrics.log_lines_dropped(now - *before);
        *before = now;
    }

    /// Takes up what changed in the files in use. What cannot be used is logged, and what was there stays.
    fn reload(&mut self) {
        for purpose in self.watched.changed() {
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
            Purpose::Keys => self.verifier.configured(&Configured::read_again(&self.jwt)?.ring),
            Purpose::Store => self.store.as_ref().map_or(Ok(()), |mirroring| mirroring.source.reload())?,
        }
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
