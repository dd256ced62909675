//! Real Sentinels over real servers: one master, two replicas, three Sentinels, passwords on all of them.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use redis::{RedisResult, aio::MultiplexedConnection};
use tempfile::TempDir;

use super::{
    redis::{PASSWORD, PASSWORD_IN_URL, RedisServer, Setup, USER, documented, free_port},
    until,
};

/// The password of those who may do everything, on servers and Sentinels.
const ADMIN: &str = "admin";

/// What the Sentinels call the master.
const NAME: &str = "mymaster";

/// How long a server is silent before it counts as gone, milliseconds. A busy machine is silent, too.
const DOWN_AFTER: u32 = 1000;

/// Servers and Sentinels.
pub(crate) struct Sentinels {
    /// The first was the master at the start.
    pub(crate) servers: Vec<RedisServer>,
    sentinels: Vec<Running>,
}

struct Running {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Sentinels {
    /// All up, and every Sentinel knows of all the others.
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::new()).await
    }

    /// With servers like that.
    pub(crate) async fn start_with(setup: Setup) -> Self {
        let options = ["--requirepass", ADMIN, "--masterauth", ADMIN, "--repl-diskless-sync-delay", "0"];
        let setup = setup.with(options).with_user();
        let master = RedisServer::launch(setup.clone());
        let replicaof = ["--replicaof".to_owned(), format!("127.0.0.1 {}", master.port())];
        let replica = || RedisServer::launch(setup.clone().with(replicaof.clone()));
        let servers = vec![master, replica(), replica()];
        for server in &servers[1..] {
            let redis = server.client_with(ADMIN).await;
            until("a replica is in step", async || {
                info(redis.clone()).await.contains("master_link_status:up")
            })
            .await;
        }
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(servers[0].port())).collect();
        let started = Self { servers, sentinels };
        for sentinel in &started.sentinels {
            until("a Sentinel knows everybody", async || {
                let Ok(mut asked) = started.sentinel_client(sentinel.port).await else { return false };
                let known: RedisResult<Vec<String>> =
                    redis::cmd("SENTINEL").arg("MASTER").arg(NAME).query_async(&mut asked).await;
                let known = known.unwrap_or_default();
                let value = |name: &str| known.iter().skip_while(|it| *it != name).nth(1).cloned();
                value("num-slaves").as_deref() == Some("2")
                    && value("num-other-sentinels").as_deref() == Some("2")
            })
            .await;
        }
        started
    }

    /// The address for the sidecar, with user and password for the servers.
    pub(crate) fn url(&self) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
        format!("redis+sentinel://{USER}:{PASSWORD_IN_URL}@{}/{NAME}", sentinels.join(","))
    }

    /// User and password for the Sentinels.
    pub(crate) fn login(&self) -> (&'static str, &'static str) {
        (USER, PASSWORD)
    }

    /// The place in `servers` of the one that the Sentinels name.
    pub(crate) async fn master(&self) -> usize {
        for sentinel in &self.sentinels {
            let Ok(mut asked) = self.sentinel_client(sentinel.port).await else { continue };
            let mut command = redis::cmd("SENTINEL");
            let named: RedisResult<(String, u16)> =
                command.arg("get-master-addr-by-name").arg(NAME).query_async(&mut asked).await;
            if let Ok((_, port)) = named {
                return self.servers.iter().position(|server| server.port() == port).unwrap();
            }
        }
        panic!("no Sentinel answers");
    }

    /// Who may do everything, on one of the servers.
    pub(crate) async fn client(&self, server: usize) -> MultiplexedConnection {
        self.servers[server].client_with(ADMIN).await
    }

    /// Makes another server the master while all are well; back when the first Sentinel names it.
    pub(crate) async fn failover(&self) {
        let before = self.master().await;
        until("a failover begins", async || {
            let Ok(mut asked) = self.sentinel_client(self.sentinels[0].port).await else { return false };
            let begun: RedisResult<()> =
                redis::cmd("SENTINEL").arg("FAILOVER").arg(NAME).query_async(&mut asked).await;
            begun.is_ok()
        })
        .await;
        until("another master is named", async || self.master().await != before).await;
    }

    /// One of the Sentinels is gone.
    pub(crate) fn kill_sentinel(&mut self, sentinel: usize) {
        self.sentinels[sentinel].child.kill().unwrap();
        self.sentinels[sentinel].child.wait().unwrap();
    }

    async fn sentinel_client(&self, port: u16) -> RedisResult<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://:{ADMIN}@127.0.0.1:{port}"))?;
        client.get_multiplexed_async_connection().await
    }
}

async fn info(mut redis: MultiplexedConnection) -> String {
    redis::cmd("INFO").arg("replication").query_async(&mut redis).await.unwrap_or_default()
}

fn sentinel(master: u16) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let user = documented("user gotrue-sidecar on >PASSWORD resetchannels").join(" ");
    let configuration = format!(
        "port {port}\nbind 127.0.0.1\ndir {dir}\nrequirepass {ADMIN}\nsentinel sentinel-pass {ADMIN}\nuser {user}\n\
         sentinel monitor {NAME} 127.0.0.1 {master} 2\nsentinel auth-pass {NAME} {ADMIN}\n\
         sentinel down-after-milliseconds {NAME} {DOWN_AFTER}\nsentinel failover-timeout {NAME} 4000\n",
        dir = folder.path().display()
    );
    let child = spawn(folder.path(), &configuration);
    Running { child, port, _folder: folder }
}

fn spawn(folder: &Path, configuration: &str) -> Child {
    let file = folder.join("sentinel.conf");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("redis-server is not installed: see bin/setup ({error})"))
}
