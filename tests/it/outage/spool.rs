//! What waits survives the process, where there is a folder for it.

use std::{fs, path::Path};

use rustix::process::Signal;

use super::*;
use crate::support::process::run;

/// A sidecar that keeps what waits in a folder.
async fn started(upstream: &Upstream, redis: &RedisServer, folder: &Path) -> Process {
    started_with(upstream, redis, folder, &[]).await
}

async fn started_with(upstream: &Upstream, redis: &RedisServer, folder: &Path, more: &[&str]) -> Process {
    let flags = [
        format!("--upstream-url={}", upstream.url),
        format!("--store-url={}", redis.url()),
        format!("--jwt-secret={SECRET}"),
        "--jwt-jwks=off".to_owned(),
        format!("--store-spool-dir={}", folder.display()),
    ];
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Process::start(&flags).await
}

/// Waits until what waits is on disk, so that a kill loses nothing.
async fn is_written(folder: &Path, tokens: &Tokens) {
    let there = || async {
        let file = fs::read(folder.join("queue")).unwrap();
        let session = tokens.session.to_string();
        file.windows(session.len()).any(|bytes| bytes == session.as_bytes()).then_some(())
    };
    eventually(there, || format!("{} is not written down", tokens.session)).await;
}

async fn is_recorded(redis: &RedisServer, tokens: &Tokens) -> bool {
    has(redis, "session", tokens.user, tokens.session).await
}

/// From here on Redis hangs. Who signs out meanwhile, and who signs in; both are written down.
async fn left_and_kept(process: &Process, redis: &RedisServer, folder: &Path) -> [Tokens; 2] {
    let client = Client::new(&process.url);
    let left = client.sign_in("a@b.example").await;
    redis.hang();
    let kept = client.sign_in("a@b.example").await;
    assert_eq!(client.logout(&left, "?scope=local").await.status, 204);
    is_written(folder, &left).await;
    is_written(folder, &kept).await;
    [left, kept]
}

#[tokio::test]
async fn what_waits_outlives_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let mut process = started(&upstream, &redis, folder.path()).await;
    let [left, kept] = left_and_kept(&process, &redis, folder.path()).await;
    let file = String::from_utf8_lossy(&fs::read(folder.path().join("queue")).unwrap()).into_owned();
    for secret in [&kept.access, &kept.refresh, &left.access, &left.refresh] {
        assert!(!file.contains(secret.as_str()), "a token is written down");
    }
    assert!(!file.contains(issuer::EMAIL));
    process.signal(Signal::KILL);
    process.ended().await;
    redis.go_on();

    let mut next = started(&upstream, &redis, folder.path()).await;
    next.line("a process before has left").await;
    next.metric_becomes(LENGTH, 0).await;
    assert!(is_recorded(&redis, &kept).await && !is_recorded(&redis, &left).await);
    // and once it is written, nobody writes it again
    next.signal(Signal::TERM);
    assert_eq!(next.ended().await.code(), Some(0));
    assert!(fs::metadata(folder.path().join("queue")).unwrap().len() < 64);
    let last = started(&upstream, &redis, folder.path()).await;
    assert_eq!(last.metric(LENGTH).await, 0);
    assert_eq!(last.count("a process before has left"), 0);
}

#[tokio::test]
async fn of_a_damaged_file_the_rest_is_used_and_said_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let mut process = started(&upstream, &redis, folder.path()).await;
    redis.hang();
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(Client::new(&process.url).sign_in("a@b.example").await);
        is_written(folder.path(), all.last().unwrap()).await;
    }
    process.signal(Signal::KILL);
    process.ended().await;
    redis.go_on();
    let path = folder.path().join("queue");
    let mut bytes = fs::read(&path).unwrap();
    let middle = all[1].session.to_string();
    let at = bytes.windows(middle.len()).position(|it| it == middle.as_bytes()).unwrap();
    bytes[at] ^= 1;
    bytes.truncate(bytes.len() - 5);
    fs::write(&path, &bytes).unwrap();

    let next = started(&upstream, &redis, folder.path()).await;
    next.line("torn or damaged").await;
    next.metric_becomes(LENGTH, 0).await;
    let found = [is_recorded(&redis, &all[0]).await, is_recorded(&redis, &all[1]).await];
    assert_eq!((found, is_recorded(&redis, &all[2]).await), ([true, false], false));
    assert_eq!(next.count("torn or damaged"), 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_no_start() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let _first = started(&upstream, &redis, folder.path()).await;
    let store = format!("--store-url={}", redis.url());
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("queue"), "not ours").unwrap();
    let file = foreign.path().join("queue");
    for (path, words) in [
        (folder.path(), "another process uses"),
        (foreign.path(), "expected no file or a queue"),
        (&file, "expected a folder"),
    ] {
        let spool = format!("--store-spool-dir={}", path.display());
        let refused = run(&["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", &store, &spool]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "{said}");
        assert!(said.contains(words) && said.contains(&path.display().to_string()), "{said}");
    }
    assert_eq!(fs::read(foreign.path().join("queue")).unwrap(), b"not ours");
    let nowhere = run(&["validate", &store, "--store-spool-dir=/nowhere/at/all"]);
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert!(said.contains("store.spool_dir") && said.contains("/nowhere/at/all"), "{said}");
}

/// The disk fails while the sidecar runs: nothing but the survival depends on it.
#[tokio::test]
async fn a_disk_that_fails_costs_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let process = started(&upstream, &redis, folder.path()).await;
    process.metric_becomes("gotrue_sidecar_mirror_spool_ok", 1).await;
    let client = Client::new(&process.url);
    // where the file is to be written anew, there is a folder: also root cannot write there
    fs::create_dir(folder.path().join("queue.new")).unwrap();
    redis.hang();
    let first = client.sign_in("a@b.example").await;
    is_written(folder.path(), &first).await;
    redis.go_on();
    process.metric_becomes(LENGTH, 0).await; // an empty queue is written anew
    process.line("cannot be written to disk").await;
    process.metric_becomes("gotrue_sidecar_mirror_spool_ok", 0).await;
    assert!(is_recorded(&redis, &first).await);
    fs::remove_dir(folder.path().join("queue.new")).unwrap();
    process.line("is on disk again").await;
    process.metric_becomes("gotrue_sidecar_mirror_spool_ok", 1).await;
    assert_eq!(process.count("cannot be written to disk"), 1);
}

/// As one that is full after a restart: no reason for logins to fail.
#[tokio::test]
async fn a_disk_that_fails_at_the_start_is_no_reason_not_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let mut process = started(&upstream, &redis, folder.path()).await;
    redis.hang();
    let kept = Client::new(&process.url).sign_in("a@b.example").await;
    is_written(folder.path(), &kept).await;
    process.signal(Signal::KILL);
    process.ended().await;
    fs::create_dir(folder.path().join("queue.new")).unwrap();

    let mut next = started(&upstream, &redis, folder.path()).await;
    next.line("cannot be written to disk").await;
    next.metric_becomes("gotrue_sidecar_mirror_spool_ok", 0).await;
    assert_eq!(next.metric(LENGTH).await, 1, "what is there was read");
    // and is left as it was until it can be written
    next.signal(Signal::KILL);
    next.ended().await;
    let last = started(&upstream, &redis, folder.path()).await;
    assert_eq!(last.metric(LENGTH).await, 1);
    fs::remove_dir(folder.path().join("queue.new")).unwrap();
    last.line("is on disk again").await;
    last.metric_becomes("gotrue_sidecar_mirror_spool_ok", 1).await;
    redis.go_on();
    last.metric_becomes(LENGTH, 0).await;
    assert!(is_recorded(&redis, &kept).await);
}

#[tokio::test]
async fn what_a_drain_could_not_write_stays_for_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, redis) = (Upstream::start(issuer::gotrue).await, RedisServer::start());
    let mut process = started_with(&upstream, &redis, folder.path(), &["--drain-deadline=500ms"]).await;
    let [left, kept] = left_and_kept(&process, &redis, folder.path()).await;
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await.code(), Some(1), "not everything is where it belongs");
    let line = process.line("stay in store.spool_dir").await;
    assert!(line.contains(r#""level":"warn""#) && line.contains(r#""count":"#), "{line}");
    assert_eq!(process.count("before the end"), 0, "nothing is lost");
    redis.go_on();
    let next = started(&upstream, &redis, folder.path()).await;
    next.line("a process before has left").await;
    next.metric_becomes(LENGTH, 0).await;
    assert!(is_recorded(&redis, &kept).await && !is_recorded(&redis, &left).await);
}
