//! What keys have to do with each other: contradictions, which are refused, and settings without effect,
//! which are warned of. A rule is silent about a key whose own value was refused.

use std::net::{IpAddr, SocketAddr};

use super::{
    Config, Jwks, UpstreamUrl,
    keys::{self, Default, KEYS, Key},
    kind::Kind,
    parse::{self, StoreUrl},
    problem::{Place, Problem, Rule, Warning},
    source::Values,
};

/// RFC 7518 §3.2: a key of HS256 has at least the size of the hash.
const HS256_BYTES: usize = 32;

/// Everything that contradicts itself.
pub(super) fn contradictions(values: &Values, config: &Config) -> Vec<Problem> {
    let given = Given(values);
    let upstream = &config.upstream;
    let half = |one, other| given.has(one) && !given.has(other);
    let minted = values.get("revoke.upstream").is_some_and(|given| given.text.reveal() == "mint");
    let rules: [(bool, &[&'static str], Rule); 9] = [
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
        (config.enforce && !config.lookup && given.a_store(), &["enforce", "lookup"], Rule::NeedsLookup),
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
    let url = values.get("store.url").and_then(|given| parse::store_url(given.text.reveal()));
    let features = KEYS.iter().filter(|key| !given.a_store() && given.asks_for_a_store(key));
    features
        .filter_map(|key| given.problem(&[key.name], Rule::NeedsStore))
        .chain(url.into_iter().flat_map(|url| store(values, url)))
        .chain(given.broken(rules))
        .collect()
}

/// What contradicts the address of the store.
pub(super) fn store(values: &Values, url: StoreUrl) -> Vec<Problem> {
    let StoreUrl::Redis { tls, password } = url else {
        return Vec::new();
    };
    let given = Given(values);
    let address = ["store.url", "store.url_file"].iter().find_map(|key| values.get(key));
    let place = address.map_or(Place::Default, |given| given.place.clone());
    let two_passwords = Rule::TwoPasswords { place };
    let rules: [(bool, &[&'static str], Rule); 3] = [
        (
            !tls && given.has("store.ca_file"),
            &["store.ca_file"],
            Rule::NeedsTls { other: "store.url", scheme: "rediss://" },
        ),
        (password && given.has("store.password"), &["store.password"], two_passwords.clone()),
        (password && given.has("store.password_file"), &["store.password_file"], two_passwords),
    ];
    given.broken(rules).collect()
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
    let url = values.get("store.url").and_then(|given| parse::store_url(given.text.reveal()));
    let shared = Given(values).a_store() && url != Some(StoreUrl::Memory);
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
        Some(given) if parse::store_url(given.text.reveal()) == Some(StoreUrl::Memory) => {
            &["store.password", "store.password_file", "store.ca_file"]
        }
        Some(_) => &["store.memory_max_sessions"],
        None => &[],
    };
    // sidecar.yaml as it is documented has every default, and nobody meant anything by that
    let meant =
        without_effect.iter().filter(|key| !keys::key(key).is_some_and(|key| Given(values).is_default(key)));
    let without_effect =
        meant.filter_map(|key| Some(Warning::NoEffect { key, place: values.get(key)?.place.clone() }));
    let no_keys = config.store.is_some() && no_keys(config);
    short.chain(without_effect).chain(no_keys.then_some(Warning::NoKeys)).collect()
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
