//! What the database's role needs, and what is said when it lacks it: a role that is shown fewer rows than there
//! are must never make sessions look ended.

use std::time::Duration;

use gotrue_sidecar::{
    config::{Secret, SecretSource},
    drift,
};

use super::{TTL, World, found, store_config};
use crate::support::postgres::Postgres;

/// Roles are the cluster's, so each test has its own.
async fn world_with(role: &str, grants: &str) -> World {
    let world = World::new().await;
    world.session().await;
    world.postgres.run(&format!("CREATE ROLE {role} LOGIN; {grants}")).await;
    world
}

async fn refused(world: &World, role: &str) -> String {
    let error = world.audit_as(role, true, Duration::ZERO).await.unwrap_err();
    assert_eq!(world.audit(false).await.sessions, 1, "nothing was ended");
    error.to_string()
}

#[tokio::test]
async fn a_role_that_may_not_look_into_the_schema_is_told_the_grant() {
    let world = world_with("blind", "").await;
    let error = refused(&world, "blind").await;
    assert!(error.ends_with("missing: GRANT USAGE ON SCHEMA auth TO blind"), "{error}");
}

#[tokio::test]
async fn a_role_that_may_not_read_a_column_is_told_the_grant() {
    let grants = "GRANT USAGE ON SCHEMA auth TO \"Half\"; \
                  GRANT SELECT (id, user_id, created_at, refreshed_at, ip, user_agent, oauth_client_id) \
                  ON auth.sessions TO \"Half\"";
    let world = world_with("\"Half\"", grants).await;
    let error = refused(&world, "Half").await;
    let expected = "missing: GRANT SELECT (refresh_token_counter, aal) ON auth.sessions TO \"Half\"";
    assert!(error.ends_with(expected), "{error}");
}

#[tokio::test]
async fn a_role_that_row_security_hides_rows_from_is_refused() {
    let grants = "GRANT USAGE ON SCHEMA auth TO hidden; GRANT SELECT ON auth.sessions TO hidden;";
    let world = world_with("hidden", grants).await;
    let error = refused(&world, "hidden").await;
    assert!(error.contains("row-level security hides rows"), "{error}");
    assert!(error.contains("ALTER ROLE hidden BYPASSRLS"), "{error}");
    // a policy that shows some of them is no help
    world
        .postgres
        .run("CREATE POLICY certain ON auth.sessions FOR SELECT TO hidden USING (aal = 'aal1')")
        .await;
    refused(&world, "hidden").await;
    // one that shows all of them is, but for one that takes some away again
    world.postgres.run("CREATE POLICY every ON auth.sessions FOR SELECT TO hidden USING (true)").await;
    assert_eq!(world.audit_as("hidden", true, Duration::ZERO).await.unwrap().rows, 1);
    world
        .postgres
        .run("CREATE POLICY less ON auth.sessions AS RESTRICTIVE TO PUBLIC USING (aal = 'aal2')")
        .await;
    refused(&world, "hidden").await;
}

#[tokio::test]
async fn a_role_needs_no_more_than_the_columns_that_are_compared() {
    let grants = "GRANT USAGE ON SCHEMA auth TO reader; ALTER ROLE reader BYPASSRLS; \
                  GRANT SELECT (id, user_id, created_at, refreshed_at, refresh_token_counter, aal, oauth_client_id, \
                                ip, user_agent) ON auth.sessions TO reader;";
    let world = world_with("reader", grants).await;
    let report = world.audit_as("reader", true, Duration::ZERO).await.unwrap();
    assert_eq!((report.rows, report.sessions, found(&report)), (1, 1, vec![]));
}

#[tokio::test]
async fn another_database_is_noticed() {
    let world = World::new().await;
    for (sql, missing) in [("DROP TABLE auth.sessions", "table"), ("DROP SCHEMA auth CASCADE", "schema")] {
        world.postgres.run(sql).await;
        let error = world.audit_as("postgres", true, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.ends_with(&format!("there is no such {missing}")), "{error}");
    }
}

#[tokio::test]
async fn the_database_is_trusted_as_sslmode_says() {
    let world = World::new().await;
    let own = Postgres::ca_file();
    let folder = tempfile::tempdir().unwrap();
    crate::support::certificates::make(folder.path());
    let other = folder.path().join("ca.pem");
    let base = world.postgres.url().replace("?sslmode=disable", "");
    let by_name = base.replace("127.0.0.1", "localhost");
    let with = |base: &str, mode: &str, ca: &std::path::Path| {
        format!("{base}?sslmode={mode}&sslrootcert={}", ca.display())
    };
    let table = [
        (base.clone(), true),
        (format!("{base}?sslmode=require"), true),
        (with(&base, "verify-full", &own), true),
        (with(&by_name, "verify-full", &own), false),
        (with(&by_name, "verify-ca", &own), true),
        (with(&base, "verify-ca", &other), false),
        (with(&base, "require", &other), false),
    ];
    for (url, trusted) in table {
        let database = SecretSource::Value(Secret::new(url.clone()));
        let store = store_config(&world.redis);
        let job = drift::Job {
            store: &store,
            ttl: TTL,
            database: &database,
            repair: false,
            settle: Duration::ZERO,
        };
        let result = drift::run(job, &mut |_| {}).await;
        assert_eq!(result.is_ok(), trusted, "{url}: {result:?}");
    }
}
