//! The handles behind [`super::Metrics`]: one per series, found by index.

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Recorder};
use http::Method;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{
    catalogue::{self, CATALOGUE, Family, Kind},
    labels::{
        BreakerState, CODES, CheckCache, CheckResult, DriftKind, MirrorEvent, MirrorResult, QueuedKind,
        Refusal, Replayed, StoreCommand, StoreResult, UpstreamFailure, method_index,
    },
};
use crate::{
    route::{METHODS, Route},
    session::{Reason, Unrecorded},
};

/// The commit a build was made from; the build sets it.
const REVISION: Option<&str> = option_env!("GOTRUE_SIDECAR_REVISION");

/// Every handle. A place in an array is the number of the label's value.
pub(super) struct Handles {
    pub(super) endpoints: Endpoints,
    pub(super) overhead: Histogram,
    pub(super) in_flight: Gauge,
    pub(super) connections: Gauge,
    pub(super) tasks: Gauge,
    pub(super) refused: [Counter; Refusal::ALL.len()],
    pub(super) upstream_errors: [Counter; UpstreamFailure::ALL.len()],
    pub(super) store_up: Gauge,
    pub(super) store_commands: [Store; StoreCommand::ALL.len()],
    pub(super) breaker_open: Gauge,
    pub(super) breaker_turns: [Counter; BreakerState::ALL.len()],
    pub(super) mirror_events: [[Counter; MirrorResult::ALL.len()]; MirrorEvent::ALL.len()],
    pub(super) mirror_dropped: [Counter; Unrecorded::ALL.len()],
    pub(super) queue_length: Gauge,
    pub(super) queue_bytes: Gauge,
    pub(super) queue_age: Gauge,
    pub(super) queue_dropped: [Counter; QueuedKind::ALL.len()],
    pub(super) spool_ok: Gauge,
    pub(super) replayed: [Counter; Replayed::ALL.len()],
    pub(super) sessions_ended: [Counter; Reason::ALL.len()],
    pub(super) checks: [Counter; CheckResult::ALL.len()],
    pub(super) check_undecided: Counter,
    pub(super) check_duration: Histogram,
    pub(super) check_cache_hits: [Counter; CheckCache::ALL.len()],
    pub(super) check_push_up: Gauge,
    pub(super) audit_sessions: [Gauge; DriftKind::ALL.len()],
    pub(super) audit_repaired: Gauge,
    pub(super) audit_timestamp: Gauge,
    pub(super) jwks_fetches: [Counter; 2],
    pub(super) log_lines_dropped: Counter,
    pub(super) reload_successful: Gauge,
    pub(super) reload_timestamp: Gauge,
}

/// The series of one route and method.
pub(super) struct Endpoint {
    pub(super) codes: [Counter; CODES.len()],
    pub(super) duration: Histogram,
}

/// The series of one store command.
pub(super) struct Store {
    pub(super) results: [Counter; StoreResult::ALL.len()],
    pub(super) duration: Histogram,
}

/// The series of every route and method.
pub(super) struct Endpoints {
    /// By route, then by method: where the pair stands in `all`, if it can be.
    places: Vec<[Option<usize>; METHODS.len()]>,
    all: Vec<Endpoint>,
}

/// Counts `by` at `place`.
pub(super) fn add(counters: &[Counter], place: usize, by: u64) {
    if let Some(counter) = counters.get(place) {
        counter.increment(by);
    }
}

impl Handles {
    /// Describes every family and registers every series.
    pub(super) fn register(recorder: &PrometheusRecorder) -> Self {
        let series = Series(recorder);
        series.describe();
        series
            .gauge(&catalogue::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), REVISION.unwrap_or("unknown")])
            .set(1.0);
        Self {
            endpoints: Endpoints::register(&series),
            overhead: series.histogram(&catalogue::PROXY_OVERHEAD, &[]),
            in_flight: series.gauge(&catalogue::HTTP_REQUESTS_IN_FLIGHT, &[]),
            connections: series.gauge(&catalogue::CONNECTIONS, &[]),
            tasks: series.gauge(&catalogue::TASKS, &[]),
            refused: Refusal::ALL.map(|reason| series.counter(&catalogue::REFUSED, &[reason.as_str()])),
            upstream_errors: UpstreamFailure::ALL
                .map(|reason| series.counter(&catalogue::UPSTREAM_ERRORS, &[reason.as_str()])),
            store_up: series.gauge(&catalogue::STORE_UP, &[]),
            store_commands: StoreCommand::ALL.map(|command| Store::register(&series, command)),
            breaker_open: series.gauge(&catalogue::STORE_BREAKER_OPEN, &[]),
            breaker_turns: BreakerState::ALL
                .map(|to| series.counter(&catalogue::STORE_BREAKER_TURNS, &[to.as_str()])),
            mirror_events: MirrorEvent::ALL.map(|event| mirror_results(&series, event)),
            mirror_dropped: Unrecorded::ALL
                .map(|why| series.counter(&catalogue::MIRROR_DROPPED, &[why.as_str()])),
            queue_length: series.gauge(&catalogue::QUEUE_LENGTH, &[]),
            queue_bytes: series.gauge(&catalogue::QUEUE_BYTES, &[]),
            queue_age: series.gauge(&catalogue::QUEUE_AGE, &[]),
            queue_dropped: QueuedKind::ALL
                .map(|kind| series.counter(&catalogue::QUEUE_DROPPED, &[kind.as_str()])),
            spool_ok: series.gauge(&catalogue::SPOOL_OK, &[]),
            replayed: Replayed::ALL.map(|result| series.counter(&catalogue::REPLAYED, &[result.as_str()])),
            sessions_ended: Reason::ALL
                .map(|reason| series.counter(&catalogue::SESSIONS_ENDED, &[reason.as_str()])),
            checks: CheckResult::ALL.map(|result| series.counter(&catalogue::CHECKS, &[result.as_str()])),
            check_undecided: series.counter(&catalogue::CHECK_UNDECIDED, &[]),
            check_duration: series.histogram(&catalogue::CHECK_DURATION, &[]),
            check_cache_hits: CheckCache::ALL
                .map(|cache| series.counter(&catalogue::CHECK_CACHE_HITS, &[cache.as_str()])),
            check_push_up: series.gauge(&catalogue::CHECK_PUSH_UP, &[]),
            audit_sessions: DriftKind::ALL
                .map(|kind| series.gauge(&catalogue::AUDIT_SESSIONS, &[kind.as_str()])),
            audit_repaired: series.gauge(&catalogue::AUDIT_REPAIRED, &[]),
            audit_timestamp: series.gauge(&catalogue::AUDIT_LAST_RUN, &[]),
            jwks_fetches: ["ok", "failed"].map(|result| series.counter(&catalogue::JWKS_FETCHES, &[result])),
            log_lines_dropped: series.counter(&catalogue::LOG_LINES_DROPPED, &[]),
            reload_successful: series.gauge(&catalogue::CONFIG_LAST_RELOAD_SUCCESSFUL, &[]),
            reload_timestamp: series.gauge(&catalogue::CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP, &[]),
        }
    }
}

impl Endpoints {
    fn register(series: &Series<'_>) -> Self {
        let mut all = Vec::new();
        let mut places = Vec::with_capacity(Route::ALL.len());
        for (route, methods) in Route::ALL {
            places.push(METHODS.map(|method| {
                methods.contains(&method).then(|| {
                    all.push(Endpoint::register(series, route.template(), method));
                    all.len() - 1
                })
            }));
        }
        Self { places, all }
    }

    /// The series of `route` and `method`; a pair that cannot be counts as `other` with that method.
    pub(super) fn of(&self, route: Route, method: &Method) -> Option<&Endpoint> {
        let method = method_index(method);
        let place = |route: Route| *self.places.get(route as usize)?.get(method)?;
        self.all.get(place(route).or_else(|| place(Route::Other))?)
    }
}

impl Endpoint {
    fn register(series: &Series<'_>, route: &'static str, method: &'static str) -> Self {
        Self {
            codes: CODES.map(|code| series.counter(&catalogue::HTTP_REQUESTS, &[route, method, code])),
            duration: series.histogram(&catalogue::HTTP_REQUEST_DURATION, &[route, method]),
        }
    }
}

impl Store {
    fn register(series: &Series<'_>, command: StoreCommand) -> Self {
        let command = command.as_str();
        Self {
            results: StoreResult::ALL
                .map(|result| series.counter(&catalogue::STORE_COMMANDS, &[command, result.as_str()])),
            duration: series.histogram(&catalogue::STORE_COMMAND_DURATION, &[command]),
        }
    }
}

/// A result that `event` cannot have counts as `unchanged`.
fn mirror_results(series: &Series<'_>, event: MirrorEvent) -> [Counter; MirrorResult::ALL.len()] {
    MirrorResult::ALL.map(|result| {
        let possible = event.results().contains(&result);
        let result = if possible { result } else { MirrorResult::Unchanged };
        series.counter(&catalogue::MIRROR_EVENTS, &[event.as_str(), result.as_str()])
    })
}

/// Registers series of a family; `values` are those of its labels, in their order.
struct Series<'a>(&'a PrometheusRecorder);

/// Where a series comes from; the exporter does not read it.
const ORIGIN: ::metrics::Metadata<'static> =
    ::metrics::Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

impl Series<'_> {
    fn describe(&self) {
        for Family { name, kind, help, .. } in CATALOGUE {
            let (name, help) = ((*name).into(), (*help).into());
            match kind {
                Kind::Counter => self.0.describe_counter(name, None, help),
                Kind::Gauge => self.0.describe_gauge(name, None, help),
                Kind::Histogram(_) => self.0.describe_histogram(name, None, help),
            }
        }
    }

    fn counter(&self, family: &Family, values: &[&'static str]) -> Counter {
        self.0.register_counter(&key(family, values), &ORIGIN)
    }

    fn gauge(&self, family: &Family, values: &[&'static str]) -> Gauge {
        self.0.register_gauge(&key(family, values), &ORIGIN)
    }

    fn histogram(&self, family: &Family, values: &[&'static str]) -> Histogram {
        self.0.register_histogram(&key(family, values), &ORIGIN)
    }
}

fn key(family: &Family, values: &[&'static str]) -> Key {
    let labels = family.labels.iter().zip(values);
    let labels = labels.map(|(name, value)| Label::new(*name, *value));
    Key::from_parts(family.name, labels.collect::<Vec<_>>())
}
