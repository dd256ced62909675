//! Every metric there is: name, kind, labels, help. The README's table is made from this.
//!
//! Names follow the field's rules: one prefix, base units, `_total` on counters. No label has a
//! value that comes from a request.

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts values up to each of these bounds, in seconds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word in a `# TYPE` line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One metric with all its series.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The full name, prefix and `_total` included.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence; the `# HELP` line.
    pub help: &'static str,
}

/// Password hashing sits near 0.1 s.
const REQUEST_BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// What the sidecar adds: tens of microseconds without a store, a round trip more with one.
const OVERHEAD_BOUNDS: &[f64] = &[0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05];
/// A round trip inside a cluster, up to the longest sensible `store.timeout`.
const STORE_BOUNDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// From memory in tens of microseconds, else a round trip; up to Envoy's 200 ms.
const CHECK_BOUNDS: &[f64] =
    &[0.00001, 0.00002, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.2];

macro_rules! families {
    ($($id:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)+) => {
        $(pub(super) const $id: Family = Family {
            name: $name,
            kind: $kind,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// Every family, in the order of the README.
        pub const CATALOGUE: &[Family] = &[$($id),+];
    };
}

families! {
    HTTP_REQUESTS = "gotrue_sidecar_http_requests_total", Kind::Counter, ["route", "method", "code"],
        "Requests answered, by route template, method and status; 499 where the client left first.";
    HTTP_REQUEST_DURATION = "gotrue_sidecar_http_request_duration_seconds", Kind::Histogram(REQUEST_BOUNDS), ["route", "method"],
        "From the request's head to the last byte of its answer, GoTrue included.";
    PROXY_OVERHEAD = "gotrue_sidecar_proxy_overhead_seconds", Kind::Histogram(OVERHEAD_BOUNDS), [],
        "From the request's head to the answer's, if there is one, without the time GoTrue took; the store is included.";
    HTTP_REQUESTS_IN_FLIGHT = "gotrue_sidecar_http_requests_in_flight", Kind::Gauge, [],
        "Requests whose answer is not complete yet.";
    CONNECTIONS = "gotrue_sidecar_connections", Kind::Gauge, [],
        "Open client connections.";
    TASKS = "gotrue_sidecar_tasks", Kind::Gauge, [],
        "Tasks that have not ended: connections of every kind, requests under way, changes that no request waits for.";
    REFUSED = "gotrue_sidecar_refused_total", Kind::Counter, ["reason"],
        "Requests that the sidecar answered itself, with an error.";
    UPSTREAM_ERRORS = "gotrue_sidecar_upstream_errors_total", Kind::Counter, ["reason"],
        "Requests that got no complete answer from GoTrue.";
    STORE_UP = "gotrue_sidecar_store_up", Kind::Gauge, [],
        "Whether the session store takes changes, as asked every second; 0 before the first time and without a store.";
    STORE_COMMANDS = "gotrue_sidecar_store_commands_total", Kind::Counter, ["command", "result"],
        "Commands sent to the session store, by what became of them.";
    STORE_COMMAND_DURATION = "gotrue_sidecar_store_command_duration_seconds", Kind::Histogram(STORE_BOUNDS), ["command"],
        "How long commands to the session store took, failed ones included.";
    STORE_BREAKER_OPEN = "gotrue_sidecar_store_breaker_open", Kind::Gauge, [],
        "Parts of the session store that requests do not wait for, because they failed several times in a row; a store has one part, a Cluster many.";
    STORE_BREAKER_TURNS = "gotrue_sidecar_store_breaker_transitions_total", Kind::Counter, ["to"],
        "Changes of state of those breakers.";
    MIRROR_EVENTS = "gotrue_sidecar_mirror_events_total", Kind::Counter, ["event", "result"],
        "Changes to sessions, by what they did to the store.";
    MIRROR_DROPPED = "gotrue_sidecar_mirror_dropped_total", Kind::Counter, ["reason"],
        "Answers that looked as if they changed a session and were not mirrored.";
    QUEUE_LENGTH = "gotrue_sidecar_mirror_queue_length", Kind::Gauge, [],
        "Changes that wait for the session store to come back.";
    QUEUE_BYTES = "gotrue_sidecar_mirror_queue_bytes", Kind::Gauge, [],
        "Memory that those changes take.";
    QUEUE_AGE = "gotrue_sidecar_mirror_queue_age_seconds", Kind::Gauge, [],
        "How long the oldest of them has waited, as of the last second; 0 where none waits.";
    QUEUE_DROPPED = "gotrue_sidecar_mirror_queue_dropped_total", Kind::Counter, ["kind"],
        "Changes that were lost because too many waited.";
    SPOOL_OK = "gotrue_sidecar_mirror_spool_ok", Kind::Gauge, [],
        "Whether what waits could be written to store.spool_dir the last time; 0 without it.";
    REPLAYED = "gotrue_sidecar_mirror_replayed_total", Kind::Counter, ["result"],
        "Changes that waited and no longer do, by what became of them.";
    SESSIONS_ENDED = "gotrue_sidecar_sessions_ended_total", Kind::Counter, ["reason"],
        "Sessions that the mirror ended.";
    CHECKS = "gotrue_sidecar_check_total", Kind::Counter, ["result"],
        "Checks answered, by what they came to.";
    CHECK_UNDECIDED = "gotrue_sidecar_check_undecided_allowed_total", Kind::Counter, [],
        "Checks that allowed a good token although the store did not say what became of its session: check.on_store_error is open.";
    CHECK_DURATION = "gotrue_sidecar_check_duration_seconds", Kind::Histogram(CHECK_BOUNDS), [],
        "From a check's head to its decision.";
    CHECK_CACHE_HITS = "gotrue_sidecar_check_cache_hits_total", Kind::Counter, ["cache"],
        "Checks that found the token verified already, or the session's state fresh enough.";
    CHECK_PUSH_UP = "gotrue_sidecar_check_push_up", Kind::Gauge, [],
        "Whether the store pushes changes of sessions; without it they are noticed within check.max_staleness.";
    AUDIT_SESSIONS = "gotrue_sidecar_audit_sessions", Kind::Gauge, ["kind"],
        "Sessions in which the store differed from GoTrue's database at the last audit, repaired ones included.";
    AUDIT_REPAIRED = "gotrue_sidecar_audit_repaired_sessions", Kind::Gauge, [],
        "Sessions that the last audit put right.";
    AUDIT_LAST_RUN = "gotrue_sidecar_audit_last_run_timestamp_seconds", Kind::Gauge, [],
        "When the last audit ended, since the epoch; 0 where none did within 8 days.";
    JWKS_FETCHES = "gotrue_sidecar_jwks_fetches_total", Kind::Counter, ["result"],
        "Fetches of GoTrue's public signing keys.";
    LOG_LINES_DROPPED = "gotrue_sidecar_log_lines_dropped_total", Kind::Counter, [],
        "Log lines that nobody took from stderr in time.";
    CONFIG_LAST_RELOAD_SUCCESSFUL = "gotrue_sidecar_config_last_reload_successful", Kind::Gauge, [],
        "Whether the last load of configuration, keys and certificates succeeded.";
    CONFIG_LAST_RELOAD_SUCCESS_TIMESTAMP = "gotrue_sidecar_config_last_reload_success_timestamp_seconds", Kind::Gauge, [],
        "When the last load that succeeded was, since the epoch.";
    BUILD_INFO = "gotrue_sidecar_build_info", Kind::Gauge, ["version", "revision"],
        "Always 1; the labels tell which build runs.";
    PROCESS_CPU = "process_cpu_seconds_total", Kind::Counter, [],
        "Total user and system CPU time spent in seconds.";
    PROCESS_OPEN_FDS = "process_open_fds", Kind::Gauge, [],
        "Number of open file descriptors.";
    PROCESS_MAX_FDS = "process_max_fds", Kind::Gauge, [],
        "Maximum number of open file descriptors.";
    PROCESS_VIRTUAL_MEMORY = "process_virtual_memory_bytes", Kind::Gauge, [],
        "Virtual memory size in bytes.";
    PROCESS_VIRTUAL_MEMORY_MAX = "process_virtual_memory_max_bytes", Kind::Gauge, [],
        "Maximum amount of virtual memory available in bytes; 0 where there is no limit.";
    PROCESS_RESIDENT_MEMORY = "process_resident_memory_bytes", Kind::Gauge, [],
        "Resident memory size in bytes.";
    PROCESS_START_TIME = "process_start_time_seconds", Kind::Gauge, [],
        "Start time of the process since the epoch in seconds.";
    PROCESS_THREADS = "process_threads", Kind::Gauge, [],
        "Number of OS threads in the process.";
}

/// The README's table.
pub fn table() -> String {
    let mut table = "| metric | type | labels | |\n|---|---|---|---|\n".to_owned();
    for family in CATALOGUE {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let Family { name, kind, help, .. } = family;
        table.extend(["| `", name, "` | ", kind.as_str(), " | ", &labels.join(", "), " | ", help, " |\n"]);
    }
    table
}
