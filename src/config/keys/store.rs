//! Keys of the store: where it is, how it is entered, what waits for it.

use super::{
    super::kind::Kind::{
        Count, Duration, File, Folder, KeyPrefix, ServerName, Size, StoreUrl, Text, Username,
    },
    Key,
};

/// In the order in which they are documented.
pub(super) const KEYS: &[Key] = &[
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
        "Changes to sessions that wait while the store is away; above it sign-ins and refreshes are lost before logouts. 0 for none: what the store does not take at once is lost.",
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
        "A file that holds store.ref_key.",
    )
    .reloaded()
    .needs_store(),
    Key::new(
        "store.memory_max_sessions",
        Count(1, 100_000_000),
        "100000",
        "Bound on the sessions in a memory: store.",
    )
    .needs_store(),
];
