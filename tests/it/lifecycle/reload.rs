//! Files that change while it runs are taken up; what cannot be used is not, and what was there stays.

use std::{fs, path::Path};

use rustix::process::Signal;

use super::*;
use crate::support::{client::Client, issuer, redis::RedisServer};

const GOOD: &str = "changed files are in use now";
const BAD: &str = "changed files cannot be used";
const SUCCESSFUL: &str = "gotrue_sidecar_config_last_reload_successful";
const ENDED: &str = r#"gotrue_sidecar_mirror_events_total{event="end",result="ended"}"#;
const OTHER: &str = "another-secret-with-at-least-32-characters-in-it";

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// Whether a token that is signed with the issuer's secret is believed.
async fn believes(process: &Process) -> bool {
    let client = Client::new(&process.url);
    let tokens = client.sign_in("a@b.example").await;
    let before = process.metric(ENDED).await;
    assert_eq!(client.logout(&tokens, "?scope=local").await.status, 204);
    process.metric(ENDED).await > before
}

#[tokio::test]
async fn a_new_jwt_secret_is_taken_up_within_the_interval() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, OTHER).unwrap();
    let upstream = Upstream::start(issuer::gotrue).await;
    let secret = flag("jwt-secret-file", &file);
    let process = started(&upstream, &[&secret, "--store-url=memory:", "--reload-interval=100ms"]).await;
    assert!(!believes(&process).await);

    fs::write(&file, SECRET).unwrap();
    process.line(GOOD).await;
    assert!(believes(&process).await);
}

#[tokio::test]
async fn a_new_jwt_secret_is_taken_up_on_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, OTHER).unwrap();
    let upstream = Upstream::start(issuer::gotrue).await;
    let secret = flag("jwt-secret-file", &file);
    let process = started(&upstream, &[&secret, "--store-url=memory:", "--reload-interval=1h"]).await;
    assert!(!believes(&process).await);
    fs::write(&file, SECRET).unwrap();
    process.signal(Signal::HUP);
    process.line(GOOD).await;
    assert!(believes(&process).await);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    fs::write(&file, SECRET).unwrap();
    let upstream = Upstream::start(issuer::gotrue).await;
    let secret = flag("jwt-secret-file", &file);
    let process = started(&upstream, &[&secret, "--store-url=memory:", "--reload-interval=100ms"]).await;
    assert_eq!(process.metric(SUCCESSFUL).await, 1);
    fs::write(&file, "").unwrap();
    let line = process.line(BAD).await;
    assert!(line.contains("jwt.secret") || line.contains(&*file.to_string_lossy()), "{line}");
    process.metric_becomes(SUCCESSFUL, 0).await;
    assert!(believes(&process).await);

    fs::remove_file(&file).unwrap(); // as while a mount changes: no news
    fs::write(&file, SECRET).unwrap();
    process.metric_becomes(SUCCESSFUL, 1).await;
    assert!(believes(&process).await);
    assert_eq!(process.count(BAD), 1, "{}", process.stderr());
}

#[tokio::test]
async fn a_rotated_password_of_the_store_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "first-password\n").unwrap();
    let redis = RedisServer::with_options(&["--requirepass", "first-password"]);
    let upstream = Upstream::start(issuer::gotrue).await;
    let (url, password) = (format!("--store-url={}", redis.url()), flag("store-password-file", &file));
    let process = started(&upstream, &[&url, &password, "--reload-interval=100ms"]).await;
    process.metric_becomes("gotrue_sidecar_store_up", 1).await;

    let mut admin = redis.client_with("first-password").await;
    let set = ["SET", "requirepass", "second-password"];
    ::redis::cmd("CONFIG").arg(&set).exec_async(&mut admin).await.unwrap();
    let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
    ::redis::cmd("CLIENT").arg(&kill).exec_async(&mut admin).await.unwrap();
    process.metric_becomes("gotrue_sidecar_store_up", 0).await;
    Client::new(&process.url).sign_in("a@b.example").await;

    fs::write(&file, "second-password\n").unwrap();
    process.metric_becomes("gotrue_sidecar_store_up", 1).await;
    assert!(believes(&process).await);
}
