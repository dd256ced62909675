//! Keys of what stands before and behind it: listeners, TLS, GoTrue, the database of the audit.

use super::{
    super::kind::Kind::{Address, Count, DatabaseUrl, Duration, File, PathPrefix, Switch, UpstreamUrl},
    Key,
};

/// In the order in which they are documented.
pub(super) const KEYS: &[Key] = &[
    Key::new(
        "listen",
        Address,
        "0.0.0.0:9999",
        "The public listener, in GoTrue's place. HTTP/1.1 and HTTP/2.",
    ),
    Key::new(
        "path_prefix",
        PathPrefix,
        "",
        "Taken off the path of every request, such as /auth/v1; any other path gets 404.",
    ),
    Key::unset(
        "lookup",
        Switch,
        "true with a store, false without",
        "true",
        "Look up the sessions of Bearer tokens, at most once a minute each: names them in the access log and notes when they were seen.",
    )
    .needs_store(),
    Key::new(
        "enforce",
        Switch,
        "false",
        "Refuse requests of revoked sessions and banned users as GoTrue would, without asking it, and refreshes of sessions that have ended. Every request with a Bearer token then waits for the store.",
    )
    .needs_store(),
    Key::unset(
        "database_url",
        DatabaseUrl,
        "GOTRUE_DB_DATABASE_URL or DATABASE_URL, if set",
        "postgres://gotrue_audit@127.0.0.1:5432/postgres",
        "Where auth.sessions is, for the command audit; nothing else connects to it. See docs/audit.md for what its role needs.",
    )
    .secret()
    .gotrue(&["GOTRUE_DB_DATABASE_URL", "DATABASE_URL"])
    .for_audit(),
    Key::unset(
        "database_url_file",
        File,
        "no file",
        "/run/secrets/database-url",
        "A file that holds database_url.",
    )
    .for_audit(),
    Key::unset(
        "tls.cert_file",
        File,
        "plaintext",
        "/etc/gotrue-sidecar/tls/tls.crt",
        "Certificate chain of the public listener, PEM. With tls.key_file.",
    )
    .reloaded(),
    Key::unset(
        "tls.key_file",
        File,
        "plaintext",
        "/etc/gotrue-sidecar/tls/tls.key",
        "Private key of that certificate, PEM. With tls.cert_file.",
    )
    .reloaded(),
    Key::new(
        "upstream.url",
        UpstreamUrl,
        "http://127.0.0.1:9997",
        "Where GoTrue is. A path is put in front of every request's, after path_prefix was taken off.",
    ),
    Key::unset(
        "upstream.ca_file",
        File,
        "the system's certificates",
        "/etc/gotrue-sidecar/upstream-ca.crt",
        "Certificates to trust for an https:// upstream instead of the system's, PEM.",
    ),
    Key::new(
        "upstream.timeout",
        Duration("10ms", "10m"),
        "15s",
        "From sending a request to the head of GoTrue's answer; then 504. GoTrue's own limit is 10s.",
    ),
    Key::new("upstream.connect_timeout", Duration("10ms", "1m"), "2s", "For connecting to GoTrue; then 502."),
    Key::new(
        "upstream.idle_timeout",
        Duration("10ms", "1h"),
        "60s",
        "How long an unused connection to GoTrue is kept.",
    ),
    Key::new(
        "upstream.max_connections",
        Count(1, 65_536),
        "256",
        "Connections to GoTrue at once, shared out among the workers; further requests wait for one, within upstream.timeout.",
    ),
    Key::new("admin.listen", Address, "0.0.0.0:9464", "The listener for /livez, /readyz, /metrics and /check, and for the drain from this host. Plain HTTP without a password: not for the public."),
];
