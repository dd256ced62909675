//! Files that change while it runs are taken up; what cannot be used is not, and what was there stays.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use super::*;
use crate::support::{
    client::Client,
    issuer,
    redis::{PASSWORD, RedisServer, Setup, Tls, USER},
    redis_cluster::RedisCluster,
    redis_sentinel::Sentinels,
    until,
};

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
    let flags = [url.as_str(), &password, "--reload-interval=100ms", "--store-timeout=10s"];
    let process = started(&upstream, &flags).await;
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
    process.metric_becomes("gotrue_sidecar_store_breaker_open", 0).await;
    assert!(believes(&process).await);
}

/// How servers are called in their certificates, which hand out addresses.
const NAME: &str = "redis.internal";

/// A sidecar before servers that want user, password and certificate, with all of these in files that are only looked
/// at when Redis refuses what they said.
struct Locked {
    process: Process,
    passwords: Vec<PathBuf>,
    _folder: tempfile::TempDir,
    _upstream: Upstream,
}

impl Locked {
    /// `url` has a user and a password, which are given apart. `passwords` are the keys of files with that password.
    async fn start(url: &str, server: &RedisServer, passwords: &[&str], more: &[&str]) -> Self {
        let (folder, upstream) = (tempfile::tempdir().unwrap(), Upstream::start(issuer::gotrue).await);
        let (before, hosts) = url.rsplit_once('@').unwrap();
        let (scheme, _) = before.split_once("://").unwrap();
        let mut flags = vec![
            format!("--store-url={scheme}://{hosts}"),
            format!("--store-username={USER}"),
            flag("store-ca-file", &server.ca_file()),
            flag("store-client-cert-file", &server.file("client.pem")),
            flag("store-client-key-file", &server.file("client-key.pem")),
            format!("--store-tls-server-name={NAME}"),
            "--reload-interval=1h".to_owned(),
        ];
        let passwords: Vec<_> = passwords.iter().map(|key| (*key, folder.path().join(key))).collect();
        for (key, file) in &passwords {
            fs::write(file, PASSWORD).unwrap();
            flags.push(flag(key, file));
        }
        flags.extend(more.iter().map(|&flag| flag.to_owned()));
        let process = started(&upstream, &flags.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let passwords = passwords.into_iter().map(|(_, file)| file).collect();
        let locked = Self { process, passwords, _folder: folder, _upstream: upstream };
        locked.works().await;
        locked
    }

    /// Everything was rotated: logins go on without the store, and with it once the files have the new password.
    async fn learns(&self, password: &str) {
        self.process.metric_becomes("gotrue_sidecar_store_up", 0).await;
        Client::new(&self.process.url).sign_in("a@b.example").await;
        for file in &self.passwords {
            fs::write(file, password).unwrap();
        }
        self.works().await;
        let refused = r#"gotrue_sidecar_store_commands_total{command="ping",result="auth"}"#;
        assert!(self.process.metric(refused).await >= 1, "{}", self.process.stderr());
    }

    /// Sessions are recorded and ended, and changes are told of.
    async fn works(&self) {
        self.process.metric_becomes("gotrue_sidecar_store_up", 1).await;
        self.process.metric_becomes("gotrue_sidecar_check_push_up", 1).await;
        until("sessions are recorded", async || believes(&self.process).await).await;
        self.process.metric_becomes("gotrue_sidecar_mirror_queue_length", 0).await;
    }
}

#[tokio::test]
async fn everything_that_sentinels_and_their_servers_want_to_see_rotates() {
    let mut sentinels = Sentinels::start_with(Setup { tls: Tls::Mutual(NAME), ..Setup::new() }).await;
    let passwords = ["store-password-file", "store-sentinel-password-file"];
    let asker = format!("--store-sentinel-username={USER}");
    let locked = Locked::start(&sentinels.url(), &sentinels.servers[0], &passwords, &[&asker]).await;
    sentinels.rotate("the-next-password").await;
    locked.learns("the-next-password").await;
    // and what the new master wants to see is no other thing
    sentinels.failover().await;
    locked.works().await;
}

#[tokio::test]
async fn everything_that_a_cluster_wants_to_see_rotates() {
    let cluster = RedisCluster::start_with(Setup { tls: Tls::Mutual(NAME), ..Setup::new() }, 3, 0).await;
    let locked = Locked::start(&cluster.url(), &cluster.nodes[0], &["store-password-file"], &[]).await;
    cluster.rotate("the-next-password").await;
    locked.learns("the-next-password").await;
}
