//! What is counted, and the only place that names it.
//!
//! Every series is registered when [`Metrics`] is made, so each exists from the start and `rate()`
//! sees the first failure; counting is an index into an array. Each `Metrics` has its own recorder:
//! two of them in one process do not mix.

mod catalogue;
mod exposition;
mod handles;
mod labels;

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::Method;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use metrics_exporter_prometheus::BuildError;

use self::handles::{Handles, add};
pub use self::{
    catalogue::{CATALOGUE, Family, Kind, table},
    exposition::Format,
    labels::{
        BreakerState, CheckCache, CheckResult, DriftKind, MirrorEvent, MirrorResult, QueuedKind, Refusal,
        Replayed, StoreCommand, StoreResult, UpstreamFailure,
    },
};
use crate::{
    route::Route,
    session::{Outcome, Reason, Seconds, Unrecorded},
};

/// The counters of one sidecar.
pub struct Metrics {
    recorder: PrometheusRecorder,
    page: PrometheusHandle,
    process: metrics_process::Collector,
    handles: Handles,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Registers every series. An error means that the catalogue is wrong, and cannot come from outside.
    pub fn new() -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for family in CATALOGUE {
            if let Kind::Histogram(bounds) = family.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(family.name.to_owned()), bounds)?;
            }
        }
        let recorder = builder.build_recorder();
        let metrics = Self {
            page: recorder.handle(),
            process: metrics_process::Collector::default(),
            handles: Handles::register(&recorder),
            recorder,
        };
        // whoever counts has a configuration that loaded
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        metrics.reloaded(true, now.map_or(0, |since| since.as_secs()));
        Ok(metrics)
    }

    /// A request's head was read.
    pub fn request_begins(&self) {
        self.handles.in_flight.increment(1.0);
    }

    /// Its answer is complete, or given up.
    pub fn request_ends(&self) {
        self.handles.in_flight.decrement(1.0);
    }

    /// A client connected.
    pub fn connection_opened(&self) {
        self.handles.connections.increment(1.0);
    }

    /// A client connection is closed.
    pub fn connection_closed(&self) {
        self.handles.connections.decrement(1.0);
    }

    /// So many tasks have not ended.
    pub fn tasks(&self, count: usize) {
        self.handles.tasks.set(whole(u64::try_from(count).unwrap_or(u64::MAX)));
    }

    /// A request ended with `status` after `took`; `overhead` of that was the sidecar's own, which is
    /// not known where the client left before its answer began.
    pub fn request(
        &self,
        route: Route,
        method: &Method,
        status: u16,
        took: Duration,
        overhead: Option<Duration>,
    ) {
        let Some(endpoint) = self.handles.endpoints.of(route, method) else {
            return;
        };
        add(&endpoint.codes, labels::code_index(status), 1);
        endpoint.duration.record(took);
        if let Some(overhead) = overhead {
            self.handles.overhead.record(overhead);
        }
    }

    /// The sidecar answered a request itself.
    pub fn refused(&self, refusal: Refusal) {
        add(&self.handles.refused, refusal as usize, 1);
    }

    /// GoTrue gave no complete answer.
    pub fn upstream_failed(&self, failure: UpstreamFailure) {
        add(&self.handles.upstream_errors, failure as usize, 1);
    }

    /// The store took `took` for `command`; `result` is `ok` or the cause of its failure.
    pub fn store_command(&self, command: StoreCommand, result: StoreResult, took: Duration) {
        let Some(store) = self.handles.store_commands.get(command as usize) else {
            return;
        };
        add(&store.results, result as usize, 1);
        store.duration.record(took);
    }

    /// A call was not made, because the store has just failed.
    pub fn store_skipped(&self, command: StoreCommand) {
        if let Some(store) = self.handles.store_commands.get(command as usize) {
            add(&store.results, StoreResult::Skipped as usize, 1);
        }
    }

    /// The breaker before a part of the store has changed its state.
    pub fn breaker_turned(&self, from: BreakerState, to: BreakerState) {
        add(&self.handles.breaker_turns, to as usize, 1);
        match (from, to) {
            (BreakerState::Closed, _) => self.handles.breaker_open.increment(1.0),
            (_, BreakerState::Closed) => self.handles.breaker_open.decrement(1.0),
            _ => {}
        }
    }

    /// The store answered, or did not.
    pub fn store_up(&self, up: bool) {
        self.handles.store_up.set(f64::from(u8::from(up)));
    }

    /// A change was applied, with this outcome; `None` where the store did not take it.
    pub fn mirrored(&self, event: MirrorEvent, outcome: Option<&Outcome>) {
        let result = outcome.map_or(MirrorResult::Failed, MirrorResult::from);
        let Some(results) = self.handles.mirror_events.get(event as usize) else {
            return;
        };
        add(results, result as usize, 1);
    }

    /// A change waits for the store.
    pub fn mirror_queued(&self, event: MirrorEvent) {
        if let Some(results) = self.handles.mirror_events.get(event as usize) {
            add(results, MirrorResult::Queued as usize, 1);
        }
    }

    /// So many changes wait, and take so many bytes.
    pub fn queue_is(&self, length: usize, bytes: usize) {
        self.handles.queue_length.set(whole(length as u64));
        self.handles.queue_bytes.set(whole(bytes as u64));
    }

    /// The oldest of them has waited so long.
    pub fn queue_aged(&self, age: Seconds) {
        self.handles.queue_age.set(whole(age));
    }

    /// A change was lost, because too many wait.
    pub fn queue_dropped(&self, kind: QueuedKind) {
        add(&self.handles.queue_dropped, kind as usize, 1);
    }

    /// What waits could be written to disk, or not.
    pub fn spool_is(&self, ok: bool) {
        self.handles.spool_ok.set(f64::from(u8::from(ok)));
    }

    /// A change waits no more.
    pub fn replayed(&self, result: Replayed) {
        add(&self.handles.replayed, result as usize, 1);
    }

    /// An answer was not mirrored.
    pub fn unrecorded(&self, why: Unrecorded) {
        add(&self.handles.mirror_dropped, why as usize, 1);
    }

    /// So many sessions ended.
    pub fn sessions_ended(&self, reason: Reason, count: u64) {
        add(&self.handles.sessions_ended, reason as usize, count);
    }

    /// A check came to `result` after `took`.
    pub fn checked(&self, result: CheckResult, took: Duration) {
        add(&self.handles.checks, result as usize, 1);
        self.handles.check_duration.record(took);
    }

    /// A check found what it needed in memory.
    pub fn check_cache_hit(&self, cache: CheckCache) {
        add(&self.handles.check_cache_hits, cache as usize, 1);
    }

    /// A check let its token through although the store did not say.
    pub fn check_let_through_undecided(&self) {
        self.handles.check_undecided.increment(1);
    }

    /// The store pushes changes, or does not.
    pub fn check_push_up(&self, up: bool) {
        self.handles.check_push_up.set(f64::from(u8::from(up)));
    }

    /// What the last audit found in the store when it ended at `at`: sessions of each kind of difference, and
    /// how many of them it put right.
    pub fn audited(&self, at: Seconds, found: [u64; DriftKind::ALL.len()], repaired: u64) {
        for (gauge, count) in self.handles.audit_sessions.iter().zip(found) {
            gauge.set(whole(count));
        }
        self.handles.audit_repaired.set(whole(repaired));
        self.handles.audit_timestamp.set(whole(at));
    }

    /// GoTrue's public keys were fetched, or could not be.
    pub fn jwks_fetched(&self, ok: bool) {
        add(&self.handles.jwks_fetches, usize::from(!ok), 1);
    }

    /// So many log lines were lost.
    pub fn log_lines_dropped(&self, count: u64) {
        self.handles.log_lines_dropped.increment(count);
    }

    /// Configuration, keys or certificates were read again at `now`.
    pub fn reloaded(&self, ok: bool, now: Seconds) {
        self.handles.reload_successful.set(f64::from(u8::from(ok)));
        if ok {
            self.handles.reload_timestamp.set(whole(now));
        }
    }

    /// The page that a scraper reads.
    pub fn render(&self, format: Format) -> String {
        ::metrics::with_local_recorder(&self.recorder, || self.process.collect());
        let text = exposition::ordered(&self.page.render());
        match format {
            Format::Text => text,
            Format::OpenMetrics => exposition::openmetrics(&text),
        }
    }

    /// Sorts waiting samples into their histograms. They take memory until then: call it every few seconds.
    pub fn upkeep(&self) {
        self.page.run_upkeep();
    }
}

/// A number of seconds, sessions or tasks.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^52")]
fn whole(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(page: &str, series: &str) -> Option<f64> {
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    #[test]
    fn every_series_is_there_at_zero_before_anything_happens() {
        let page = Metrics::new().unwrap().render(Format::Text);
        for series in [
            "http_requests_total{route=\"/token\",method=\"POST\",code=\"504\"}",
            "http_requests_total{route=\"other\",method=\"other\",code=\"other\"}",
            "http_request_duration_seconds_count{route=\"/logout\",method=\"POST\"}",
            "http_request_duration_seconds_bucket{route=\"/logout\",method=\"POST\",le=\"0.005\"}",
            "proxy_overhead_seconds_bucket{le=\"0.00005\"}",
            "http_requests_in_flight",
            "connections",
            "tasks",
            "refused_total{reason=\"store_unavailable\"}",
            "upstream_errors_total{reason=\"reset\"}",
            "store_up",
            "store_commands_total{command=\"apply\",result=\"out_of_memory\"}",
            "store_command_duration_seconds_count{command=\"ping\"}",
            "store_breaker_open",
            "store_breaker_transitions_total{to=\"half_open\"}",
            "mirror_events_total{event=\"sign_in\",result=\"failed\"}",
            "mirror_dropped_total{reason=\"too_large\"}",
            "mirror_queue_length",
            "mirror_queue_bytes",
            "mirror_queue_age_seconds",
            "mirror_queue_dropped_total{kind=\"ending\"}",
            "mirror_spool_ok",
            "mirror_replayed_total{result=\"written\"}",
            "sessions_ended_total{reason=\"logout\"}",
            "check_total{result=\"forbidden\"}",
            "check_duration_seconds_count",
            "check_undecided_allowed_total",
            "check_cache_hits_total{cache=\"session\"}",
            "check_push_up",
            "audit_sessions{kind=\"differing\"}",
            "audit_repaired_sessions",
            "audit_last_run_timestamp_seconds",
            "jwks_fetches_total{result=\"failed\"}",
            "log_lines_dropped_total",
        ] {
            assert_eq!(value(&page, &format!("gotrue_sidecar_{series}")), Some(0.0), "{series}");
        }
    }

    #[test]
    fn two_sidecars_in_one_process_do_not_mix() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.refused(Refusal::BadFraming);
        let series = "gotrue_sidecar_refused_total{reason=\"bad_framing\"}";
        assert_eq!(value(&one.render(Format::Text), series), Some(1.0));
        assert_eq!(value(&other.render(Format::Text), series), Some(0.0));
    }
}
