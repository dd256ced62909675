//! `gotrue-sidecar audit` as it is called: exit codes, streams, and the metrics that it leaves.

use std::process::Output;

use gotrue_sidecar::session::Record;
use serde_json::Value;

use super::World;
use crate::support::{
    process::run,
    sidecar::{Sidecar, sample},
    until,
};

impl World {
    async fn called(&self, flags: &[&str]) -> (i32, String, String) {
        let store = format!("--store-url={}", self.redis.url());
        let database = format!("--database-url={}", self.postgres.url());
        let args: Vec<String> =
            [&["audit", &store, &database], flags].concat().into_iter().map(str::to_owned).collect();
        called(args).await
    }
}

async fn called(args: Vec<String>) -> (i32, String, String) {
    let Output { status, stdout, stderr } = tokio::task::spawn_blocking(move || run(&args)).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test]
async fn drift_is_exit_code_3_until_it_is_repaired() {
    let world = World::new().await;
    assert_eq!(world.called(&[]).await.0, 0);
    let record = world.record();
    world.insert(&record).await;
    let (code, out, err) = world.called(&[]).await;
    assert_eq!((code, err.as_str()), (3, ""));
    assert!(out.contains("missing    unknown                           1\n"), "{out}");
    assert!(out.contains(&record.session.to_string()), "{out}");

    let (code, out, err) = world.called(&["--repair", "--json"]).await;
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 1));
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["repaired"], &json["left"]), (&1.into(), &0.into()));
    assert_eq!(world.called(&[]).await.0, 0);
}

#[tokio::test]
async fn every_sidecar_shows_what_the_last_audit_found() {
    let world = World::new().await;
    let store = format!("--store-url={}", world.redis.url());
    let sidecar = Sidecar::start(&[&store]);
    assert_eq!(sample(sidecar.admin, "gotrue_sidecar_audit_sessions{kind=\"missing\"}").await, "0");
    let gone = world.session().await;
    world.delete_row(&gone).await;
    let missing: Record = world.record();
    world.insert(&missing).await;
    let report = world.audit(true).await;
    assert_eq!(report.repaired(), 2);

    let later = Sidecar::start(&[&store]);
    until("the metrics of the audit", async || {
        later.metric("gotrue_sidecar_audit_sessions{kind=\"missing\"}").await > 0.0
    })
    .await;
    let shown = async |series: &'static str| sample(later.admin, series).await.parse::<u64>().unwrap();
    assert_eq!(shown("gotrue_sidecar_audit_sessions{kind=\"surplus\"}").await, 1);
    assert_eq!(shown("gotrue_sidecar_audit_sessions{kind=\"differing\"}").await, 0);
    assert_eq!(shown("gotrue_sidecar_audit_repaired_sessions").await, 2);
    assert!(shown("gotrue_sidecar_audit_last_run_timestamp_seconds").await >= world.now);
}

#[tokio::test]
async fn what_it_cannot_do_without_is_exit_code_2_all_at_once() {
    let (code, out, err) = called(vec!["audit".to_owned()]).await;
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("2 problems") && err.contains("store.url: ") && err.contains("database_url: "),
        "{err}"
    );
    let args = ["audit", "--store-url=memory:", "--database-url=canary", "--repair", "--fix"];
    let (code, _, err) = called(args.map(str::to_owned).to_vec()).await;
    assert_eq!(code, 2);
    assert!(err.contains("3 problems") && !err.contains("canary"), "{err}");
    for key in ["store.url: audit needs it", "database_url (--database-url): expected", "--fix: expected"] {
        assert!(err.contains(key), "{key}: {err}");
    }
}

#[tokio::test]
async fn a_failure_is_exit_code_1_and_shows_no_password() {
    let world = World::new().await;
    let address = world.postgres.url();
    let wrong = [
        address.replace("postgres@", "nobody:canary@"),
        "postgres://postgres:canary@127.0.0.1:1/postgres".to_owned(),
    ];
    for url in wrong {
        let args =
            ["audit".into(), format!("--store-url={}", world.redis.url()), format!("--database-url={url}")];
        let (code, out, err) = called(args.to_vec()).await;
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.starts_with("error: database_url: ") && !err.contains("canary"), "{err}");
    }
}

#[tokio::test]
async fn gotrues_own_variable_is_taken_and_stops_no_other_command() {
    for value in ["postgres://db.local/postgres", "mysql://db", "host=db user=gotrue"] {
        let sidecar = Sidecar::start_with(&[], &[("DATABASE_URL", value), ("GOTRUE_DB_DATABASE_URL", value)]);
        assert_eq!(sample(sidecar.admin, "gotrue_sidecar_store_up").await, "0");
    }
    let (code, _, err) = called(vec!["serve".to_owned(), "--repair".to_owned()]).await;
    assert_eq!(code, 2);
    assert!(err.contains("--repair"), "{err}");
}
