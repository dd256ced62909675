//! The session store: one behaviour, whichever it is.

mod acl;
mod cap;
mod cluster;
mod conformance;
mod differential;
mod faults;
mod folding;
mod keys;
mod limits;
mod load;
mod pending;
mod replicas;
mod sentinel;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use gotrue_sidecar::{
    config::{self, RedisTarget, Secret, SecretSource, StoreTarget, StoreTls},
    session::{
        Aal, AboveCap, Cap, Change, Evicted, FactorId, Limits, Origin, Outcome, Reason, Record, RefreshRef,
        Seconds, SessionId, Sought, State, TokenOf, UserId, Wanted, Which,
    },
    store::{Source, Store},
};

use crate::support::{
    redis::{PASSWORD_IN_URL, RedisServer, USER},
    redis_cluster::RedisCluster,
    redis_sentinel::{self, Sentinels},
    refresh_tokens::{holder, session_of},
};

/// When tests begin, seconds.
const NOW: Seconds = 1_800_000_000;

/// `session.ttl` in tests, seconds.
const SESSION_TTL: Seconds = 30 * 24 * 60 * 60;

/// `store.timeout` in tests that wait it out.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What fails within this has not waited for the `store.timeout` of other tests, nor for much else.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A configuration of the store, with more time than a busy machine needs; tests change what they are about.
fn config(target: StoreTarget) -> config::Store {
    config::Store {
        target,
        key_prefix: "gotrue".to_owned(),
        timeout: Duration::from_secs(5),
        ref_key: None,
        wait_replicas: 0,
        memory_max_sessions: 20_000,
    }
}

/// With a timeout that a test can wait for, again and again.
fn hurried(target: StoreTarget) -> config::Store {
    config::Store { timeout: TIMEOUT, ..config(target) }
}

/// A Redis that needs more than its address to get into.
fn to(url: impl Into<String>, more: impl FnOnce(&mut RedisTarget)) -> StoreTarget {
    let mut target = RedisTarget::at(SecretSource::Value(Secret::new(url)));
    more(&mut target);
    StoreTarget::Redis(Box::new(target))
}

fn redis_target(url: String) -> StoreTarget {
    to(url, |_| {})
}

fn open(config: &config::Store) -> Store {
    let source = Source::new(config, Duration::from_secs(SESSION_TTL)).unwrap();
    source.connect()
}

/// One that deals with so few sessions at once that most changes leave something to sweep.
fn open_with_step(config: &config::Store, step: u32) -> Store {
    Source::new(config, Duration::from_secs(SESSION_TTL)).unwrap().with_step(step).connect()
}

/// One that ends sessions by time.
fn open_with_limits(config: &config::Store, step: u32, limits: Limits) -> Store {
    let source = Source::new(config, Duration::from_secs(SESSION_TTL)).unwrap();
    source.with_step(step).with_limits(limits).connect()
}

fn embedded() -> Store {
    open(&config(StoreTarget::Memory))
}

fn on(server: &RedisServer) -> Store {
    open(&config(redis_target(server.url())))
}

/// The master behind these Sentinels.
fn behind(sentinels: &Sentinels) -> StoreTarget {
    behind_with(sentinels, |_| {})
}

/// The same, and what else it takes to get there.
fn behind_with(sentinels: &Sentinels, more: impl FnOnce(&mut RedisTarget)) -> StoreTarget {
    let (user, password) = redis_sentinel::LOGIN;
    to(sentinels.url(), |it| {
        it.sentinel.username = Some(user.to_owned());
        it.sentinel.password = Some(SecretSource::Value(Secret::new(password)));
        more(it);
    })
}

/// The certificate of whom a server with [`Tls::Mutual`](crate::support::redis::Tls::Mutual) lets in.
fn client_of(server: &RedisServer) -> config::Tls {
    config::Tls { cert_file: server.file("client.pem"), key_file: server.file("client-key.pem") }
}

/// What such a server wants, with that name in its certificate.
fn tls_with(server: &RedisServer, name: &str) -> StoreTls {
    let client = Some(client_of(server));
    StoreTls { ca_file: Some(server.ca_file()), client, server_name: Some(name.to_owned()) }
}

fn password_file(password: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, format!("{password}\n")).unwrap();
    (folder, path)
}

fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn uuid(number: u64) -> String {
    format!("0191d1a0-0000-4000-8000-{number:012x}")
}

fn factor_id(number: u64) -> FactorId {
    FactorId::parse_as_gotrue(&uuid(number)).unwrap()
}

fn user_id(number: u64) -> UserId {
    UserId::parse(&uuid(number)).unwrap()
}

fn session_id(number: u64) -> SessionId {
    SessionId::parse(&uuid(number)).unwrap()
}

/// A user that no other case has.
fn somebody() -> UserId {
    user_id(number())
}

/// A session that no other case has.
fn some_session() -> SessionId {
    session_id(number())
}

/// A refresh token's reference that no other case has.
fn some_token() -> RefreshRef {
    token(number())
}

fn token(number: u64) -> RefreshRef {
    RefreshRef::parse(&format!("{number:_>43}")).unwrap()
}

/// What a sign-in at `NOW` records.
fn signed_in(user: UserId, session: SessionId) -> Record {
    Record {
        user,
        session,
        refresh_ref: Some(some_token()),
        previous_ref: None,
        counter: None,
        created_at: NOW,
        began_ms: NOW * 1000 + 100,
        begun_by_ms: 0,
        refreshed_at: NOW,
        seen_at: None,
        expires_at: NOW + 3600,
        aal: Some(Aal::Aal1),
        factor_id: None,
        amr: Some("password".to_owned()),
        role: Some("authenticated".to_owned()),
        client_id: None,
        anonymous: false,
        ip: Some("192.0.2.1".to_owned()),
        user_agent: Some("curl/8 \u{2713}".to_owned()),
    }
}

/// What a refresh of it records, `later` seconds after, with the next token of the chain.
fn refreshed(record: &Record, later: Seconds) -> Record {
    Record {
        refresh_ref: Some(some_token()),
        previous_ref: record.refresh_ref.clone(),
        began_ms: 0,
        begun_by_ms: 0,
        refreshed_at: record.refreshed_at + later,
        expires_at: record.expires_at + later,
        ..record.clone()
    }
}

fn sign_in(record: &Record) -> Change {
    Change::Record { origin: Origin::SignIn, record: Box::new(record.clone()), allowed_ms: None }
}

/// A sign-in whose tokens nobody has yet.
fn held(record: &Record) -> Change {
    Change::Record { origin: Origin::HeldSignIn, record: Box::new(record.clone()), allowed_ms: None }
}

fn refresh(record: &Record) -> Change {
    Change::Record { origin: Origin::Refresh, record: Box::new(record.clone()), allowed_ms: None }
}

/// A refresh that GoTrue would have refused to a banned user, sent so many milliseconds after `NOW`.
fn allowed(record: &Record, ms: u64) -> Change {
    Change::Record {
        origin: Origin::Refresh,
        record: Box::new(record.clone()),
        allowed_ms: Some(NOW * 1000 + ms),
    }
}

/// A ban, or its end, that GoTrue answered so many milliseconds after `NOW`.
fn suspend(user: UserId, until: Option<Seconds>, ms: u64) -> Change {
    Change::Suspend { user, until, decided_ms: NOW * 1000 + ms }
}

/// A refusal of a banned user, whose request was sent so many milliseconds after `NOW`.
fn banned(user: UserId, until: Seconds, ms: u64) -> Change {
    Change::Banned { user, until, seen_ms: NOW * 1000 + ms }
}

/// An ending by GoTrue that was sent a second after `NOW`.
fn end(user: UserId, which: Which) -> Change {
    Change::End {
        user,
        which,
        reason: Reason::Logout,
        sent_ms: NOW * 1000 + 1000,
        expires_at: Some(NOW + 3600),
        ended_in_gotrue: true,
    }
}

async fn apply(store: &Store, change: &Change) -> Outcome {
    let mut outcomes = store.apply(std::slice::from_ref(change), NOW).await.unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

async fn look(store: &Store, user: UserId, session: SessionId) -> State {
    store.lookup(&Sought::of(user, session), NOW).await.unwrap()
}

/// The live record, or a failed test.
async fn live(store: &Store, user: UserId, session: SessionId) -> Record {
    match look(store, user, session).await {
        State::Live(record) => *record,
        other => panic!("expected a live session, found {other:?}"),
    }
}
