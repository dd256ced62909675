//! Keys of the process: limits, drain, log, workers, reloads.

use super::{
    super::kind::Kind::{AnyOf, AutoCount, Count, Duration, Networks, OneOf, Size, Switch},
    Key,
};

/// In the order in which they are documented.
pub(super) const KEYS: &[Key] = &[
    Key::new("limits.header_bytes", Size("8KiB", "1MiB"), "64KiB", "Size of a request's head; above it 431."),
    Key::new(
        "limits.header_read_timeout",
        Duration("10ms", "10m"),
        "5s",
        "From a connection's or a request's first byte to the end of the request's head.",
    ),
    Key::new(
        "limits.idle_timeout",
        Duration("10ms", "1h"),
        "75s",
        "How long a client's connection may be unused between requests.",
    ),
    Key::new(
        "limits.body_timeout",
        Duration("10ms", "1h"),
        "30s",
        "How long a body, either way, may make no progress.",
    ),
    Key::new(
        "limits.connections",
        Count(1, 1_000_000),
        "10000",
        "Clients' connections at once, shared out among the workers; further ones wait to be accepted.",
    ),
    Key::new("limits.streams", Count(1, 10_000), "100", "Requests at once on one HTTP/2 connection."),
    Key::new(
        "limits.request_body_bytes",
        Size("1KiB", "64MiB"),
        "1MiB",
        "Size of a request's body where it must be read here: refreshes, /oauth/token and changes of users, with a store. Above it 413. Other bodies have no limit.",
    ),
    Key::new(
        "limits.response_body_bytes",
        Size("1KiB", "64MiB"),
        "1MiB",
        "Size of an answer up to which it is read for its session; a larger one passes unread.",
    ),
    Key::new(
        "forwarded.trusted_proxies",
        Networks,
        "",
        "Peers whose X-Forwarded-For and Sb-Forwarded-For are kept; the first is replaced, the second removed where other peers send them. Empty: every peer is trusted.",
    ),
    Key::new(
        "drain.delay",
        Duration("0s", "10m"),
        "5s",
        "After a signal to end: how long to be unready and still accept connections.",
    ),
    Key::new(
        "drain.deadline",
        Duration("0s", "1h"),
        "30s",
        "After that delay: how long requests and their recording may take to finish.",
    ),
    Key::new(
        "readiness.require",
        AnyOf(&["upstream", "store"]),
        "upstream",
        "What must be well for /readyz to say so. A store here takes every replica away at once when it is down.",
    ),
    Key::new("log.format", OneOf(&["json", "text"]), "json", "The form of the log on stderr."),
    Key::new(
        "log.level",
        OneOf(&["off", "error", "warn", "info", "debug", "trace"]),
        "info",
        "The least severe level that is logged.",
    ),
    Key::new("log.access", Switch, "true", "A line in the log for every request, at level info."),
    Key::new(
        "runtime.workers",
        AutoCount(1, 64),
        "auto",
        "Threads that serve requests; auto is one for each core, but no more than 2.",
    ),
    Key::new(
        "reload.interval",
        Duration("100ms", "1h"),
        "10s",
        "How often certificate and secret files are looked at for changes.",
    ),
];
