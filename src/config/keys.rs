//! The one table of configuration keys. Flags, environment variables, the keys that YAML may have,
//! `sidecar.yaml`, the README's table and `--print-config` are all derived from it.

pub use super::key::{Default, Key, UsedBy};
use super::kind::Kind::{
    Address, AnyOf, AutoCount, Count, DatabaseUrl, Duration, File, Folder, JsonKeys, Jwks, KeyPrefix,
    Networks, OneOf, PathPrefix, ServerName, Size, StoreUrl, Switch, Text, UpstreamUrl, Username, Words,
};

/// In front of every variable of ours.
pub const VARIABLE_PREFIX: &str = "SIDECAR_";

/// The flag that names the file. No key: the file cannot name itself.
pub const CONFIG_FLAG: &str = "--config";

/// The variable that names the file.
pub const CONFIG_VARIABLE: &str = "SIDECAR_CONFIG";

/// The key of that name.
pub fn key(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether some keys lie in the section of that name.
pub fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.section().0 == Some(name))
}

/// Every key, section by section, in the order in which they are documented.
pub static KEYS: &[Key] = &[
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
    Key::unset(
        "store.url",
        StoreUrl,
        "no store: a plain proxy",
        "redis://127.0.0.1:6379/0",
        "Where sessions are mirrored; see docs/redis.md. In YAML \"memory:\" needs the quotes.",
    )
    .secret(),
    Key::unset("store.url_file", File, "no file", "/run/secrets/store-url", "A file that holds store.url.")
        .reloaded(),
    Key::unset(
        "store.username",
        Username,
        "the one in store.url, if any",
        "gotrue-sidecar",
        "The user to log in to Redis as, instead of one in store.url.",
    )
    .needs_store(),
    Key::unset(
        "store.password",
        Text,
        "the one in store.url, if any",
        "(secret)",
        "The store's password, instead of one in store.url.",
    )
    .secret()
    .needs_store(),
    Key::unset(
        "store.password_file",
        File,
        "no file",
        "/run/secrets/store-password",
        "A file that holds store.password.",
    )
    .reloaded()
    .needs_store(),
    Key::unset(
        "store.ca_file",
        File,
        "the system's certificates",
        "/etc/gotrue-sidecar/store-ca.crt",
        "Certificates to trust for a rediss:// store instead of the system's, PEM.",
    )
    .reloaded()
    .needs_store(),
    Key::unset(
        "store.client_cert_file",
        File,
        "no client certificate",
        "/etc/gotrue-sidecar/store-client.crt",
        "Certificate chain that is shown to a rediss:// store, PEM. With store.client_key_file.",
    )
    .reloaded()
    .needs_store(),
    Key::unset(
        "store.client_key_file",
        File,
        "no client certificate",
        "/etc/gotrue-sidecar/store-client.key",
        "Private key of that certificate, PEM. With store.client_cert_file.",
    )
    .reloaded()
    .needs_store(),
    Key::unset(
        "store.tls_server_name",
        ServerName,
        "each server's own address",
        "redis.internal",
        "The name in the store's certificate (and in SNI), where it is not the address.",
    )
    .needs_store(),
    Key::unset(
        "store.sentinel_username",
        Username,
        "no user",
        "gotrue-sidecar",
        "The user to ask Sentinels as.",
    )
    .needs_store(),
    Key::unset(
        "store.sentinel_password",
        Text,
        "no password",
        "(secret)",
        "The Sentinels' password; store.password is not tried on them.",
    )
    .secret()
    .needs_store(),
    Key::unset(
        "store.sentinel_password_file",
        File,
        "no file",
        "/run/secrets/sentinel-password",
        "A file that holds store.sentinel_password.",
    )
    .reloaded()
    .needs_store(),
    Key::new(
        "store.wait_replicas",
        Count(0, 16),
        "0",
        "An ending counts as stored when so many replicas have it, too. See docs/redis.md for what that costs.",
    )
    .needs_store(),
    Key::new("store.key_prefix", KeyPrefix, "gotrue", "The first part of every key in the store.")
        .needs_store(),
    Key::new(
        "store.timeout",
        Duration("1ms", "30s"),
        "250ms",
        "Bound on all store calls of one request together; after it GoTrue's answer goes out all the same.",
    )
    .needs_store(),
    Key::new(
        "store.queue_changes",
        Count(0, 10_000_000),
        "10000",
        "Changes to sessions that wait while the store is away; above it sign-ins and refreshes are lost first. 0 for none: what the store does not take at once is lost.",
    )
    .needs_store(),
    Key::new(
        "store.queue_bytes",
        Size("0", "16GiB"),
        "16MiB",
        "Memory that those changes may take.",
    )
    .needs_store(),
    Key::unset(
        "store.spool_dir",
        Folder,
        "in memory only",
        "/var/lib/gotrue-sidecar",
        "A folder in which those changes survive a restart; no other process may use it.",
    )
    .needs_store(),
    Key::unset(
        "store.ref_key",
        Text,
        "derived from jwt.secret",
        "(secret)",
        "The secret with which refresh tokens are hashed before they go into the store. The same on every replica; a new one forgets which token belongs to which session.",
    )
    .secret()
    .needs_store(),
    Key::unset(
        "store.ref_key_file",
        File,
        "no file",
        "/run/secrets/store-ref-key",
        "A file that holds store.ref_key. Read at the start only.",
    )
    .needs_store(),
    Key::new(
        "store.memory_max_sessions",
        Count(1, 100_000_000),
        "100000",
        "Bound on the sessions in a memory: store.",
    )
    .needs_store(),
    Key::unset(
        "jwt.secret",
        Text,
        "GOTRUE_JWT_SECRET, if set",
        "(secret)",
        "GoTrue's symmetric secret (HS256), which verifies access tokens.",
    )
    .secret()
    .gotrue(&["GOTRUE_JWT_SECRET"]),
    Key::unset(
        "jwt.secret_file",
        File,
        "no file",
        "/run/secrets/jwt-secret",
        "A file that holds jwt.secret.",
    )
    .reloaded(),
    Key::unset(
        "jwt.keys",
        JsonKeys,
        "GOTRUE_JWT_KEYS, if set",
        "[]",
        "GoTrue's signing keys, as GOTRUE_JWT_KEYS has them, which verify access tokens.",
    )
    .secret()
    .gotrue(&["GOTRUE_JWT_KEYS"]),
    Key::unset("jwt.keys_file", File, "no file", "/run/secrets/jwt-keys.json", "A file that holds jwt.keys.")
        .reloaded(),
    Key::new(
        "jwt.jwks",
        Jwks,
        "upstream",
        "Where public keys that verify access tokens are fetched from; upstream is GoTrue's own address for them.",
    ),
    Key::unset(
        "jwt.admin_roles",
        Words,
        "GOTRUE_JWT_ADMIN_ROLES, if set, else GoTrue's own default",
        "service_role,supabase_admin",
        "The roles of tokens that may ask for anybody's sessions.",
    )
    .gotrue(&["GOTRUE_JWT_ADMIN_ROLES"]),
    Key::new(
        "session.ttl",
        Duration("1s", "3650d"),
        "30d",
        "How long a session that is not refreshed stays in the store; never shorter than its access token lives.",
    )
    .needs_store(),
    Key::unset(
        "session.idle_timeout",
        Duration("1s", "3650d"),
        "off",
        "30m",
        "End a session that was not used for so long: at least 5m, and up to two minutes early. Only requests that pass here count, and refreshes, so it should be longer than access tokens live. See docs/limits.md.",
    )
    .needs_store(),
    Key::unset(
        "session.absolute_timeout",
        Duration("1m", "3650d"),
        "off",
        "30d",
        "End a session so long after it began, however much it is used.",
    )
    .needs_store(),
    Key::unset(
        "session.max_per_user",
        Count(1, 256),
        "off",
        "10",
        "How many live sessions a user may have. What happens when one more begins says session.max_policy. See docs/limits.md.",
    )
    .needs_store(),
    Key::new(
        "session.max_policy",
        OneOf(&["evict_oldest", "deny"]),
        "evict_oldest",
        "When a user with session.max_per_user sessions signs in: evict_oldest, the session that began first ends; deny, the sign-in is refused with 403, and whoever lost a device waits for its session to end.",
    )
    .needs_store(),
    Key::new(
        "session_api.enabled",
        Switch,
        "false",
        "Answer /sessions, /admin/sessions and /admin/users/{id}/sessions here: list and revoke sessions. Off, these paths go to GoTrue, which has nothing there.",
    )
    .needs_store(),
    Key::unset(
        "check.enabled",
        Switch,
        "true with a store, false without",
        "true",
        "Answer /check on the admin listener: whether a Bearer token is good and its session not revoked, for gateways.",
    )
    .needs_store(),
    Key::new(
        "check.unknown",
        OneOf(&["allow", "deny"]),
        "allow",
        "What /check says of a good token whose session the store does not know.",
    )
    .needs_store(),
    Key::new(
        "check.keys",
        OneOf(&["deny", "allow"]),
        "deny",
        "What /check says of a good token that belongs to no session, as anonymous and service keys do.",
    )
    .needs_store(),
    Key::new(
        "check.max_staleness",
        Duration("0s", "60s"),
        "1s",
        "How long /check believes what the store said of a session, even if nobody says that it has changed; 0s to ask each time.",
    )
    .needs_store(),
    Key::new(
        "check.timeout",
        Duration("1ms", "30s"),
        "100ms",
        "How long /check takes to decide, at most. Gateways have timeouts of their own; some give up after 200ms.",
    )
    .needs_store(),
    Key::new(
        "check.on_store_error",
        OneOf(&["closed", "open"]),
        "closed",
        "What /check says of a good token when the store does not answer: closed, 503; open, that it is good.",
    )
    .needs_store(),
    Key::new(
        "revoke.upstream",
        OneOf(&["off", "mint"]),
        "off",
        "How GoTrue learns of a session that was revoked here without its own token: off, at that session's next refresh; mint, at once, with a token for it that is signed here with jwt.secret and lives 30 seconds.",
    )
    .needs_store(),
    Key::new(
        "logout.expired_grace",
        Duration("0s", "30d"),
        "1h",
        "How long after its expiry a well-signed token still ends its own session; 0s for never.",
    )
    .needs_store(),
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_lower_case_and_at_most_one_section_deep() {
        let mut seen = HashSet::new();
        for key in KEYS {
            assert!(seen.insert(key.name), "{} twice", key.name);
            assert!(
                key.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.'),
                "{}",
                key.name
            );
            assert!(key.name.matches('.').count() <= 1, "{}", key.name);
            assert!(!is_section(key.name), "{} is a section too", key.name);
        }
    }

    #[test]
    fn flags_and_variables_are_unique() {
        let mut seen = HashSet::from([CONFIG_FLAG.to_owned(), CONFIG_VARIABLE.to_owned()]);
        for reserved in ["--help", "--version", "--print-config"] {
            seen.insert(reserved.to_owned());
        }
        for key in KEYS {
            assert!(seen.insert(key.flag()), "{}", key.flag());
            assert!(seen.insert(key.variable()), "{}", key.variable());
        }
    }

    #[test]
    fn a_section_stands_together() {
        let mut sections: Vec<_> = KEYS.iter().map(|key| key.section().0).collect();
        sections.dedup();
        let distinct: HashSet<_> = sections.iter().collect();
        assert_eq!(sections.len(), distinct.len(), "{sections:?}");
    }

    #[test]
    fn defaults_and_examples_are_admitted() {
        for key in KEYS {
            match key.default {
                Default::Value(text) => assert!(key.kind.admits(text), "{}", key.name),
                Default::Unset { means, example } => {
                    assert!(key.kind.admits(example), "{}", key.name);
                    assert!(!means.is_empty(), "{}", key.name);
                }
            }
        }
    }

    #[test]
    fn every_secret_can_come_from_a_file() {
        for key in KEYS.iter().filter(|key| key.secret) {
            let twin = key.twin().unwrap_or_else(|| panic!("{} has no file", key.name));
            assert_eq!(twin.kind, File);
            assert_eq!(twin.twin_of().map(|key| key.name), Some(key.name));
        }
    }
}
