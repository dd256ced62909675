//! From merged values to [`Config`]: which key becomes which field. Ranges and notations were checked by
//! [`Kind::admits`](super::kind::Kind::admits), what keys have to do with each other is checked by `rules`.

use std::{path::PathBuf, thread, time::Duration};

use super::{
    Admin, Check, Config, Drain, Jwt, Limits, Log, Policy, Queue, Readiness, RedisTarget, Secret,
    SecretSource, SentinelLogin, Session, SessionApi, Store, StoreTarget, StoreTls, Tls, Upstream,
    keys::{self, Default},
    parse,
    problem::{Place, Problem},
    source::Values,
    store_url::StoreUrl,
};
use crate::session;

/// Workers when nobody says how many: more than two would take cores from GoTrue, in whose pod we are.
const MOST_WORKERS: usize = 2;

/// Who is admin to GoTrue where `GOTRUE_JWT_ADMIN_ROLES` says nothing (`internal/conf/configuration.go`).
const ADMIN_ROLES: [&str; 2] = ["service_role", "supabase_admin"];

/// Builds the configuration. Fails only for a value that its key admits and its field does not.
pub(super) fn config(values: &Values) -> Result<Config, Problem> {
    let from = Reader(values);
    let store = store(from)?;
    Ok(Config {
        listen: from.read("listen", parse::address)?,
        path_prefix: from.read("path_prefix", parse::path_prefix)?,
        tls: tls(from),
        upstream: upstream(from)?,
        admin: Admin { listen: from.read("admin.listen", parse::address)? },
        lookup: from.optional("lookup", parse::switch)?.unwrap_or(store.is_some()),
        check: check(from, store.is_some())?,
        store,
        queue: Queue {
            changes: from.count("store.queue_changes")?,
            bytes: from.read("store.queue_bytes", parse::size)?,
            spool_dir: from.file("store.spool_dir"),
        },
        jwt: Jwt {
            secret: from.secret("jwt.secret", "jwt.secret_file"),
            keys: from.secret("jwt.keys", "jwt.keys_file"),
            jwks: from.read("jwt.jwks", parse::jwks)?,
        },
        session: session(from)?,
        session_api: session_api(from)?,
        enforce: from.read("enforce", parse::switch)?,
        database_url: from.secret("database_url", "database_url_file"),
        expired_grace: from.duration("logout.expired_grace")?,
        limits: limits(from)?,
        trusted_proxies: from.read("forwarded.trusted_proxies", parse::networks)?,
        drain: Drain { delay: from.duration("drain.delay")?, deadline: from.duration("drain.deadline")? },
        readiness: from.read("readiness.require", |text| Some(readiness(text)))?,
        log: Log {
            format: from.read("log.format", parse::log_format)?,
            level: from.read("log.level", parse::log_level)?,
            access: from.read("log.access", parse::switch)?,
        },
        workers: from.read("runtime.workers", workers)?,
        reload_interval: from.duration("reload.interval")?,
    })
}

fn tls(from: Reader<'_>) -> Option<Tls> {
    Some(Tls { cert_file: from.file("tls.cert_file")?, key_file: from.file("tls.key_file")? })
}

fn upstream(from: Reader<'_>) -> Result<Upstream, Problem> {
    Ok(Upstream {
        url: from.read("upstream.url", parse::upstream_url)?,
        ca_file: from.file("upstream.ca_file"),
        timeout: from.duration("upstream.timeout")?,
        connect_timeout: from.duration("upstream.connect_timeout")?,
        idle_timeout: from.duration("upstream.idle_timeout")?,
        max_connections: from.count("upstream.max_connections")?,
    })
}

fn store(from: Reader<'_>) -> Result<Option<Store>, Problem> {
    let Some(url) = from.secret("store.url", "store.url_file") else {
        return Ok(None);
    };
    let target = match from.optional("store.url", StoreUrl::parse)? {
        Some(StoreUrl::Memory) => StoreTarget::Memory,
        Some(StoreUrl::Redis(_)) | None => StoreTarget::Redis(Box::new(redis(from, url))),
    };
    Ok(Some(Store {
        target,
        key_prefix: from.read("store.key_prefix", parse::key_prefix)?,
        timeout: from.duration("store.timeout")?,
        wait_replicas: from.count("store.wait_replicas")?,
        ref_key: from.secret("store.ref_key", "store.ref_key_file"),
        memory_max_sessions: from.count("store.memory_max_sessions")?,
    }))
}

fn session(from: Reader<'_>) -> Result<Session, Problem> {
    let seconds = |name| from.optional(name, |text| parse::duration(text).map(|limit| limit.as_secs()));
    let limits = session::Limits {
        idle: seconds("session.idle_timeout")?,
        absolute: seconds("session.absolute_timeout")?,
        cap: cap(from)?,
    };
    Ok(Session { ttl: from.duration("session.ttl")?, limits, mint: mint(from)? })
}

fn cap(from: Reader<'_>) -> Result<Option<session::Cap>, Problem> {
    let most = from.optional("session.max_per_user", |text| u32::try_from(parse::count(text)?).ok())?;
    let above = from.read("session.max_policy", |text| {
        Some(if text == "deny" { session::AboveCap::Deny } else { session::AboveCap::EvictOldest })
    })?;
    Ok(most.map(|most| session::Cap { most, above }))
}

fn redis(from: Reader<'_>, url: SecretSource) -> RedisTarget {
    let client = |cert_file| Some(Tls { cert_file, key_file: from.file("store.client_key_file")? });
    RedisTarget {
        url,
        username: from.text("store.username"),
        password: from.secret("store.password", "store.password_file"),
        sentinel: SentinelLogin {
            username: from.text("store.sentinel_username"),
            password: from.secret("store.sentinel_password", "store.sentinel_password_file"),
        },
        tls: StoreTls {
            ca_file: from.file("store.ca_file"),
            client: from.file("store.client_cert_file").and_then(client),
            server_name: from.text("store.tls_server_name"),
        },
    }
}

fn session_api(from: Reader<'_>) -> Result<Option<SessionApi>, Problem> {
    let enabled = from.read("session_api.enabled", parse::switch)?;
    let words = |text: &str| Some(parse::list(text).map(str::to_owned).collect());
    let api = SessionApi {
        admin_roles: from
            .optional("jwt.admin_roles", words)?
            .unwrap_or_else(|| ADMIN_ROLES.map(str::to_owned).to_vec()),
        mint: mint(from)?,
    };
    Ok(enabled.then_some(api))
}

fn mint(from: Reader<'_>) -> Result<bool, Problem> {
    from.read("revoke.upstream", |text| Some(text == "mint"))
}

fn check(from: Reader<'_>, has_store: bool) -> Result<Option<Check>, Problem> {
    let policy = |name, allow| {
        from.read(name, move |text| Some(if text == allow { Policy::Allow } else { Policy::Deny }))
    };
    let check = Check {
        unknown: policy("check.unknown", "allow")?,
        keys: policy("check.keys", "allow")?,
        on_store_error: policy("check.on_store_error", "open")?,
        max_staleness: from.duration("check.max_staleness")?,
        timeout: from.duration("check.timeout")?,
    };
    let enabled = from.optional("check.enabled", parse::switch)?.unwrap_or(has_store);
    Ok(enabled.then_some(check))
}

fn limits(from: Reader<'_>) -> Result<Limits, Problem> {
    Ok(Limits {
        header_bytes: from.read("limits.header_bytes", parse::size)?,
        header_read_timeout: from.duration("limits.header_read_timeout")?,
        idle_timeout: from.duration("limits.idle_timeout")?,
        body_timeout: from.duration("limits.body_timeout")?,
        connections: from.count("limits.connections")?,
        streams: from.count("limits.streams")?,
        request_body_bytes: from.read("limits.request_body_bytes", parse::size)?,
        response_body_bytes: from.read("limits.response_body_bytes", parse::size)?,
    })
}

fn readiness(text: &str) -> Readiness {
    let requires = |word| parse::list(text).any(|item| item == word);
    Readiness { upstream: requires("upstream"), store: requires("store") }
}

fn workers(text: &str) -> Option<usize> {
    if text == parse::AUTO {
        return Some(thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_WORKERS)));
    }
    usize::try_from(parse::count(text)?).ok()
}

/// Reads fields by their keys.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    /// What was given, else the default.
    fn read<T>(self, name: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Problem> {
        let key = keys::key(name);
        let text = key.and_then(|key| self.0.text(key));
        text.and_then(parse).ok_or_else(|| self.unfit(name))
    }

    /// What was given, if anything was.
    fn optional<T>(
        self,
        name: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(given) = self.0.get(name) else {
            return Ok(None);
        };
        parse(given.text.reveal()).map(Some).ok_or_else(|| self.unfit(name))
    }

    fn duration(self, name: &'static str) -> Result<Duration, Problem> {
        self.read(name, parse::duration)
    }

    fn count<T: TryFrom<u64>>(self, name: &'static str) -> Result<T, Problem> {
        self.read(name, |text| T::try_from(parse::count(text)?).ok())
    }

    fn text(self, name: &'static str) -> Option<String> {
        self.0.get(name).map(|given| given.text.reveal().to_owned())
    }

    fn file(self, name: &'static str) -> Option<PathBuf> {
        self.0.get(name).map(|given| PathBuf::from(given.text.reveal()))
    }

    fn secret(self, name: &'static str, file: &'static str) -> Option<SecretSource> {
        let value = self.0.get(name).map(|given| SecretSource::Value(Secret::new(given.text.reveal())));
        value.or_else(|| self.file(file).map(SecretSource::File))
    }

    /// The key admits what the field does not take, or there is no such key; tests say that neither happens.
    fn unfit(self, name: &'static str) -> Problem {
        let place = self.0.get(name).map(|given| given.place.clone());
        let expected = keys::key(name).map_or_else(String::new, |key| match key.default {
            Default::Value(text) => format!("{}, such as {text}", key.kind.expected()),
            Default::Unset { .. } => key.kind.expected(),
        });
        Problem::Value { key: name.to_owned(), place: place.unwrap_or(Place::Default), expected }
    }
}
