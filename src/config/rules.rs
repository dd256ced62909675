//! What keys have to do with each other: contradictions, which are refused, and settings without effect,
//! which are warned of. A rule is silent about a key whose own value was refused.

use std::net::{IpAddr, SocketAddr};

use super::{
    Config, Jwks, UpstreamUrl,
    keys::{self, Default, KEYS, Key},
    kind::Kind,
    parse,
    problem::{Place, Problem, Rule, Warning},
    source::Values,
    store_url::{RedisUrl, Shape, StoreUrl},
};
use crate::session::Seconds;

/// RFC 7518 §3.2: a key of HS256 has at least the size of the hash.
const HS256_BYTES: usize = 32;

/// The shortest `session.idle_timeout`, seconds. A worker looks at most once a minute whether a session was seen, and
/// the store notes it at most once a minute: what it knows may be two minutes old. A session that is used every three
/// minutes is never taken for an idle one.
const SHORTEST_IDLE: Seconds = 300;
/// How the address of a store with TLS begins.
const STORE_TLS: &str = "rediss://, rediss+sentinel:// or rediss+cluster://";

/// Keys that say something of TLS to the store.
const ONLY_TLS: &[&str] =
    &["store.ca_file", "store.client_cert_file", "store.client_key_file", "store.tls_server_name"];

/// Keys that say something of Sentinels.
const ONLY_SENTINEL: &[&str] =
    &["store.sentinel_username", "store.sentinel_password", "store.sentinel_password_file"];

/// Keys without effect on the embedded store.
const ONLY_REDIS: &[&str] = &[
    "store.username",
    "store.password",
    "store.password_file",
    "store.ca_file",
    "store.client_cert_file",
    "store.client_key_file",
    "store.tls_server_name",
    "store.sentinel_username",
    "store.sentinel_password",
    "store.sentinel_password_file",
    "store.wait_replicas",
];

/// Everything that contradicts itself.
pub(super) fn contradictions(values: &Values, config: &Config) -> Vec<Problem> {
    let given = Given(values);
    let upstream = &config.upstream;
    let half = |one, other| given.has(one) && !given.has(other);
    let minted = values.get("revoke.upstream").is_some_and(|given| given.text.reveal() == "mint");
    let idle = config.session.limits.idle;
    let spools = config.queue.spool_dir.is_some() && given.a_store();
    let rules: [(bool, &[&'static str], Rule); 16] = [
        (
            half("tls.cert_file", "tls.key_file"),
            &["tls.cert_file", "tls.key_file"],
            Rule::Without { other: "tls.key_file" },
        ),
        (
            half("tls.key_file", "tls.cert_file"),
            &["tls.key_file", "tls.cert_file"],
            Rule::Without { other: "tls.cert_file" },
        ),
        (
            half("store.client_cert_file", "store.client_key_file"),
            &["store.client_cert_file", "store.client_key_file"],
            Rule::Without { other: "store.client_key_file" },
        ),
        (
            half("store.client_key_file", "store.client_cert_file"),
            &["store.client_key_file", "store.client_cert_file"],
            Rule::Without { other: "store.client_cert_file" },
        ),
        (
            spools && config.queue.changes == 0,
            &["store.spool_dir", "store.queue_changes"],
            Rule::NeedsQueue { other: "store.queue_changes" },
        ),
        (
            spools && config.queue.bytes == 0,
            &["store.spool_dir", "store.queue_bytes"],
            Rule::NeedsQueue { other: "store.queue_bytes" },
        ),
        (config.enforce && !config.lookup && given.a_store(), &["enforce", "lookup"], Rule::NeedsLookup),
        (
            idle.is_some() && !config.lookup && given.a_store(),
            &["session.idle_timeout", "lookup"],
            Rule::NeedsLookup,
        ),
        (idle.is_some_and(|idle| idle < SHORTEST_IDLE), &["session.idle_timeout"], Rule::IdleTooShort),
        (
            idle.is_some_and(|idle| idle > config.session.ttl.as_secs()),
            &["session.idle_timeout", "session.ttl"],
            Rule::IdleTooLong,
        ),
        (
            config.session_api.is_some() && given.a_store() && no_keys(config),
            &["session_api.enabled", "jwt.jwks", "jwt.secret", "jwt.keys"],
            Rule::NeedsKeys,
        ),
        (
            config.check.is_some() && given.has("check.enabled") && given.a_store() && no_keys(config),
            &["check.enabled", "jwt.jwks", "jwt.secret", "jwt.keys"],
            Rule::NeedsKeys,
        ),
        (
            minted && given.a_store() && config.jwt.secret.is_none(),
            &["revoke.upstream", "jwt.secret", "jwt.secret_file"],
            Rule::NeedsSecret,
        ),
        (
            upstream.ca_file.is_some() && !upstream.url.tls,
            &["upstream.ca_file", "upstream.url"],
            Rule::NeedsTls { other: "upstream.url", scheme: "https://" },
        ),
        (same_port(config.listen, config.admin.listen), &["admin.listen", "listen"], Rule::SamePort),
        (comes_back(&upstream.url, config.listen), &["upstream.url", "listen"], Rule::Loop),
    ];
    let features = KEYS.iter().filter(|key| !given.a_store() && given.asks_for_a_store(key));
    features
        .filter_map(|key| given.problem(&[key.name], Rule::NeedsStore))
        .chain(redis_url(values).iter().flat_map(|url| store(values, url)))
        .chain(given.broken(rules))
        .collect()
}

/// What contradicts the address of the store.
pub(super) fn store(values: &Values, url: &RedisUrl) -> Vec<Problem> {
    let given = Given(values);
    let address = ["store.url", "store.url_file"].iter().find_map(|key| values.get(key));
    let place = address.map_or(Place::Default, |given| given.place.clone());
    let twice = |what| Rule::AlsoInUrl { what, place: place.clone() };
    let password = url.has_password();
    let some_password =
        password || ["store.password", "store.password_file"].iter().any(|key| given.has(key));
    let sentinel_password =
        ["store.sentinel_password", "store.sentinel_password_file"].iter().any(|key| given.has(key));
    let rules: [(bool, &[&'static str], Rule); 7] = [
        (password && given.has("store.password"), &["store.password"], twice("a password")),
        (password && given.has("store.password_file"), &["store.password_file"], twice("a password")),
        (url.login.username().is_some() && given.has("store.username"), &["store.username"], twice("a user")),
        (
            // without a password nobody logs in, and Redis takes us for its default user
            url.login.username().is_some() && !some_password,
            &["store.url", "store.url_file", "store.password", "store.password_file"],
            Rule::Without { other: "a password of its user (in it, store.password or store.password_file)" },
        ),
        (
            given.has("store.username") && !some_password,
            &["store.username", "store.password", "store.password_file"],
            Rule::Without { other: "store.password or store.password_file" },
        ),
        (
            url.is_sentinel() && given.has("store.sentinel_username") && !sentinel_password,
            &["store.sentinel_username", "store.sentinel_password", "store.sentinel_password_file"],
            Rule::Without { other: "store.sentinel_password or store.sentinel_password_file" },
        ),
        (
            url.shape == Shape::Cluster && url.login.db() != 0,
            &["store.url", "store.url_file"],
            Rule::ClusterDatabase,
        ),
    ];
    let needs_tls =
        given.all_of(ONLY_TLS, !url.tls, Rule::NeedsTls { other: "store.url", scheme: STORE_TLS });
    let needs_sentinel = given.all_of(ONLY_SENTINEL, !url.is_sentinel(), Rule::NeedsSentinel);
    needs_tls.chain(needs_sentinel).chain(given.broken(rules)).collect()
}

/// The address of the store, if it stands in a value and is that of a Redis.
fn redis_url(values: &Values) -> Option<RedisUrl> {
    match StoreUrl::parse(values.get("store.url")?.text.reveal())? {
        StoreUrl::Redis(url) => Some(*url),
        StoreUrl::Memory => None,
    }
}

fn is_memory(values: &Values) -> bool {
    let url = values.get("store.url").and_then(|given| StoreUrl::parse(given.text.reveal()));
    url.is_some_and(|url| url.is_memory())
}

/// What `audit` cannot do without.
pub(super) fn for_audit(values: &Values) -> Vec<Problem> {
    let given = Given(values);
    let there =
        ["database_url", "database_url_file"].iter().any(|key| given.has(key) || values.is_refused(key));
    let expected = "the postgres:// address of GoTrue's database, or database_url_file";
    let database = (!there).then_some(Problem::Needed { key: "database_url", expected });
    for_sessions(values).into_iter().chain(database).collect()
}

/// What `sessions` cannot do without.
pub(super) fn for_sessions(values: &Values) -> Vec<Problem> {
    let shared = Given(values).a_store() && !is_memory(values);
    let expected = "the address of a Redis; the memory of another process cannot be read";
    (!shared).then_some(Problem::Needed { key: "store.url", expected }).into_iter().collect()
}

/// What works but was probably not meant.
pub(super) fn warnings(values: &Values, config: &Config) -> Vec<Warning> {
    let short = ["jwt.secret", "store.ref_key"].into_iter().filter_map(|key| {
        let given = values.get(key).filter(|given| given.text.reveal().len() < HS256_BYTES)?;
        Some(Warning::ShortSecret { key, place: given.place.clone() })
    });
    let without_effect: &[&'static str] = match values.get("store.url") {
        Some(_) if is_memory(values) => ONLY_REDIS,
        Some(_) => &["store.memory_max_sessions"],
        None => &[],
    };
    // sidecar.yaml as it is documented has every default, and nobody meant anything by that
    let meant =
        without_effect.iter().filter(|key| !keys::key(key).is_some_and(|key| Given(values).is_default(key)));
    let without_effect =
        meant.filter_map(|key| Some(Warning::NoEffect { key, place: values.get(key)?.place.clone() }));
    let policy = values.get("session.max_policy").filter(|_| {
        let default = keys::key("session.max_policy").is_some_and(|key| Given(values).is_default(key));
        !default && config.store.is_some() && config.session.limits.cap.is_none()
    });
    let without_cap = policy.map(|given| Warning::NoEffectWithout {
        key: "session.max_policy",
        place: given.place.clone(),
        other: "session.max_per_user",
    });
    let no_keys = config.store.is_some() && no_keys(config);
    short.chain(without_effect).chain(without_cap).chain(no_keys.then_some(Warning::NoKeys)).collect()
}

/// Nothing there can be that verifies a token.
fn no_keys(config: &Config) -> bool {
    let jwt = &config.jwt;
    jwt.jwks == Jwks::Off && jwt.secret.is_none() && jwt.keys.is_none()
}

/// What was given, asked for the sake of rules.
#[derive(Clone, Copy)]
struct Given<'a>(&'a Values);

impl<'a> Given<'a> {
    fn has(self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    /// Whether a store was given, well or badly.
    fn a_store(self) -> bool {
        ["store.url", "store.url_file"].iter().any(|key| self.has(key) || self.0.is_refused(key))
    }

    /// Whether the value of `key` makes no sense without a store. A default or a switch that is off asks for
    /// nothing, so that `sidecar.yaml` as it is documented describes a plain proxy.
    fn asks_for_a_store(self, key: &Key) -> bool {
        let Some(given) = self.0.get(key.name) else {
            return false;
        };
        let text = given.text.reveal();
        if key.name == "readiness.require" {
            return parse::list(text).any(|word| word == "store");
        }
        let off = key.kind == Kind::Switch && text == "false";
        key.needs_store && !self.is_default(key) && !off
    }

    /// Whether what was given is what holds without it.
    fn is_default(self, key: &Key) -> bool {
        let given = self.0.get(key.name).map(|given| given.text.reveal());
        matches!(key.default, Default::Value(default) if given == Some(default))
    }

    /// The same problem of each of `keys` that was given.
    fn all_of(
        self,
        keys: &'static [&'static str],
        broken: bool,
        rule: Rule,
    ) -> impl Iterator<Item = Problem> {
        let keys = keys.iter().filter(move |key| broken && self.has(key));
        keys.filter_map(move |key| self.problem(std::slice::from_ref(key), rule.clone()))
    }

    /// The problems of those rules that are broken.
    fn broken<const N: usize>(
        self,
        rules: [(bool, &'a [&'static str], Rule); N],
    ) -> impl Iterator<Item = Problem> {
        let broken = rules.into_iter().filter(|(broken, ..)| *broken);
        broken.filter_map(move |(_, keys, rule)| self.problem(keys, rule))
    }

    /// The problem of a broken rule, at the first of `keys` that was given; none if the value of one of them
    /// was refused.
    fn problem(self, keys: &[&'static str], rule: Rule) -> Option<Problem> {
        if keys.iter().any(|key| self.0.is_refused(key)) {
            return None;
        }
        let (key, given) = keys.iter().find_map(|key| Some((*key, self.0.get(key)?)))?;
        Some(Problem::Contradiction { key, place: given.place.clone(), rule })
    }
}

/// Whether both cannot be bound: a wildcard takes the port of every address. Port 0 is always another one.
fn same_port(one: SocketAddr, other: SocketAddr) -> bool {
    let overlap = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && overlap
}

/// Whether requests to `url` arrive at `listen` of this machine.
fn comes_back(url: &UpstreamUrl, listen: SocketAddr) -> bool {
    let ip =
        if url.host == "localhost" { Ok(IpAddr::from([127, 0, 0, 1])) } else { url.host.parse::<IpAddr>() };
    let here = ip.is_ok_and(|ip| {
        let local = ip.is_loopback() || ip.is_unspecified();
        ip == listen.ip() || local && listen.ip().is_unspecified()
    });
    here && url.port == listen.port()
}
