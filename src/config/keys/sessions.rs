//! Keys of tokens and sessions: what verifies, what ends, who may ask.

use super::{
    super::kind::Kind::{Count, Duration, File, JsonKeys, Jwks, OneOf, Switch, Text, Words},
    Key,
};

/// In the order in which they are documented.
pub(super) const KEYS: &[Key] = &[
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
];
