//! The documented user may do what the sidecar does, and nothing else: the lines in `docs/redis.md` are held
//! against the commands in `src/store`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    faults::{failure, works},
    *,
};
use crate::support::redis::{Setup, documented, valkey};

/// Sent by the client library where the address names a database.
const BY_THE_CLIENT: [&str; 1] = ["select"];

/// Commands of which a subcommand is allowed.
const CONTAINERS: [&str; 4] = ["client", "cluster", "script", "sentinel"];

#[test]
fn the_documented_user_may_do_what_the_sidecar_does_and_no_more() {
    let mut used: BTreeSet<String> = BY_THE_CLIENT.map(str::to_owned).into();
    for (path, text) in sources() {
        let after: &[&str] = if path.extension().is_some_and(|extension| extension == "lua") {
            &["redis.call('", "redis.pcall('"]
        } else {
            &["cmd(\"", ".arg(\"EVALSHA"]
        };
        for start in after {
            used.extend(text.split(start).skip(1).map(|rest| match *start {
                ".arg(\"EVALSHA" => "evalsha".to_owned(),
                _ => command(rest),
            }));
        }
    }
    let (of_sentinels, of_servers): (BTreeSet<_>, BTreeSet<_>) =
        used.into_iter().partition(|command| command.starts_with("sentinel|"));
    assert_eq!(allowed("user gotrue-sidecar on >PASSWORD ~gotrue:*"), of_servers);
    let asked: BTreeSet<_> = of_sentinels.into_iter().chain(["ping".to_owned()]).collect();
    assert_eq!(allowed("user gotrue-sidecar on >PASSWORD resetchannels"), asked);
}

/// Wherever Redis finds it missing: on connecting, while scripts are loaded, when one is called, and in it.
#[tokio::test]
async fn a_right_that_is_missing_is_named_as_such() {
    for program in [PathBuf::from("redis-server"), valkey()] {
        let server = RedisServer::launch(Setup { program, ..Setup::new() }.with_user());
        let mut redis = server.client().await;
        for right in ["ping", "select", "multi", "script|load", "exec", "evalsha", "hset", "zadd"] {
            let without = ["SETUSER", USER, &format!("-{right}")];
            redis::cmd("ACL").arg(&without).exec_async(&mut redis).await.unwrap();
            redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis).await.unwrap();
            let store = open(&config(redis_target(format!("{}/1", server.url_of_user()))));
            assert_eq!(failure(&store).await.0, "auth", "{right}");
            let with = ["SETUSER", USER, &format!("+{right}")];
            redis::cmd("ACL").arg(&with).exec_async(&mut redis).await.unwrap();
            assert!(works(&store).await, "{right}");
        }
    }
}

/// The commands that a documented line allows.
fn allowed(beginning: &str) -> BTreeSet<String> {
    documented(beginning).iter().filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect()
}

/// The command whose name a text begins with, and its subcommand.
fn command(text: &str) -> String {
    let word = |text: &str| {
        let end = text.find(|sign: char| !sign.is_ascii_alphanumeric() && sign != '-').unwrap();
        text.split_at(end).0.to_ascii_lowercase()
    };
    let name = word(text);
    match text.split_once(".arg(\"") {
        Some((_, rest)) if CONTAINERS.contains(&&*name) => format!("{name}|{}", word(rest)),
        _ => name,
    }
}

/// The store's files, without their tests.
fn sources() -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                found.push((path, code));
            }
        }
    }
    found
}
