//! The audit: what it finds between `auth.sessions` and the store, by cause, and what it repairs (contract I3, I4,
//! I9). A real PostgreSQL with GoTrue's table, a real Redis.

mod access;
mod causes;
mod command;
mod races;

use std::time::Duration;

use gotrue_sidecar::{
    clock,
    config::{self, RedisTarget, Secret, SecretSource, StoreTarget},
    drift::{self, Cause, Excuse, Report},
    session::{Aal, Change, Origin, Record, RefreshRef, Seconds, SessionId, Sought, State, UserId},
    store::{Source, Store},
};

use crate::support::{postgres::Postgres, redis::RedisServer};

/// GoTrue v2.158's columns; later releases add to them.
const OLD_TABLE: &str = "
    CREATE SCHEMA auth;
    CREATE TYPE auth.aal_level AS ENUM ('aal1', 'aal2', 'aal3');
    CREATE TABLE auth.sessions (
        id uuid PRIMARY KEY, user_id uuid NOT NULL, created_at timestamptz, updated_at timestamptz,
        factor_id uuid, aal auth.aal_level, not_after timestamptz, refreshed_at timestamp,
        user_agent text, ip inet, tag text);
    ALTER TABLE auth.sessions ENABLE ROW LEVEL SECURITY;";

/// What v2.180 and v2.181 added.
const NEW_COLUMNS: &str = "
    ALTER TABLE auth.sessions ADD oauth_client_id uuid, ADD refresh_token_hmac_key text,
        ADD refresh_token_counter bigint, ADD scopes text;";

/// `session.ttl`
const TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A database and a store, and times around now.
struct World {
    postgres: Postgres,
    redis: RedisServer,
    now: Seconds,
}

impl World {
    /// Of a GoTrue of today.
    async fn new() -> Self {
        let world = Self::before_oauth().await;
        world.postgres.run(NEW_COLUMNS).await;
        world
    }

    /// Of GoTrue v2.158.
    async fn before_oauth() -> Self {
        let postgres = Postgres::new().await;
        postgres.run(OLD_TABLE).await;
        Self { postgres, redis: RedisServer::start(), now: clock::seconds() }
    }

    fn store(&self) -> Store {
        Source::new(&store_config(&self.redis), TTL).unwrap().connect()
    }

    /// One that leaves what is more than a session of a user to sweeps.
    fn store_in_small_steps(&self) -> Store {
        Source::new(&store_config(&self.redis), TTL).unwrap().with_step(1).connect()
    }

    /// One run, which does not wait long for what is under way: nothing is.
    async fn audit(&self, repair: bool) -> Report {
        self.audit_as("postgres", repair, Duration::from_millis(50)).await.unwrap()
    }

    async fn audit_as(&self, role: &str, repair: bool, settle: Duration) -> Result<Report, drift::Error> {
        let database = SecretSource::Value(Secret::new(self.postgres.url_of(role)));
        let store = store_config(&self.redis);
        let job = drift::Job { store: &store, ttl: TTL, database: &database, repair, settle };
        drift::run(job, &mut |_| {}).await
    }

    /// A row that began an hour ago and was refreshed half an hour ago.
    async fn insert(&self, row: &Record) {
        let text = |text: &Option<String>| text.as_ref().map_or("NULL".to_owned(), |it| format!("'{it}'"));
        let aal = row.aal.map_or("NULL".to_owned(), |aal| format!("'{}'", aal.as_str()));
        self.postgres
            .run(&format!(
                "INSERT INTO auth.sessions (id, user_id, created_at, refreshed_at, aal, ip, user_agent)
                 VALUES ('{}', '{}', to_timestamp({}), to_timestamp({}) AT TIME ZONE 'UTC', {aal}, {}, {})",
                row.session,
                row.user,
                row.created_at,
                row.refreshed_at,
                text(&row.ip),
                text(&row.user_agent)
            ))
            .await;
    }

    /// A session that both know.
    async fn session(&self) -> Record {
        let record = self.record();
        self.insert(&record).await;
        self.keep(&record).await;
        record
    }

    /// Puts it into the store, as a refresh does.
    async fn keep(&self, record: &Record) {
        let change =
            Change::Record { origin: Origin::Refresh, allowed_ms: None, record: Box::new(record.clone()) };
        self.store().apply(&[change], self.now).await.unwrap();
    }

    async fn state(&self, record: &Record) -> State {
        self.store().lookup(&Sought::of(record.user, record.session), clock::seconds()).await.unwrap()
    }

    /// The live record, or a failed test.
    async fn live(&self, record: &Record) -> Record {
        match self.state(record).await {
            State::Live(record) => *record,
            other => panic!("expected a live session, found {other:?}"),
        }
    }

    async fn delete_row(&self, record: &Record) {
        self.postgres.run(&format!("DELETE FROM auth.sessions WHERE id = '{}'", record.session)).await;
    }

    async fn set(&self, record: &Record, assignment: &str) {
        self.postgres
            .run(&format!("UPDATE auth.sessions SET {assignment} WHERE id = '{}'", record.session))
            .await;
    }

    /// What the mirror would have of a new user's new session.
    fn record(&self) -> Record {
        Record {
            user: UserId::parse(&new_id()).unwrap(),
            session: SessionId::parse(&new_id()).unwrap(),
            refresh_ref: RefreshRef::parse(&"t".repeat(43)),
            previous_ref: None,
            counter: None,
            created_at: self.now - 3600,
            began_ms: 0,
            begun_by_ms: 0,
            refreshed_at: self.now - 1800,
            seen_at: None,
            expires_at: self.now + 1800,
            aal: Some(Aal::Aal1),
            factor_id: None,
            amr: Some("password".to_owned()),
            role: Some("authenticated".to_owned()),
            client_id: None,
            anonymous: false,
            ip: Some("192.0.2.1".to_owned()),
            user_agent: Some("a phone".to_owned()),
        }
    }
}

fn store_config(redis: &RedisServer) -> config::Store {
    let url = SecretSource::Value(Secret::new(redis.url()));
    config::Store {
        target: StoreTarget::Redis(Box::new(RedisTarget::at(url))),
        key_prefix: "gotrue".to_owned(),
        timeout: Duration::from_secs(5),
        ref_key: None,
        wait_replicas: 0,
        memory_max_sessions: 1,
    }
}

/// How many sessions differ for each cause that any does.
fn found(report: &Report) -> Vec<(Cause, u64)> {
    let counts = Cause::ALL.into_iter().map(|cause| (cause, report.found_of(cause)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn excused(report: &Report) -> Vec<(Excuse, u64)> {
    let counts = Excuse::ALL.into_iter().map(|excuse| (excuse, report.excused_of(excuse)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
