//! Real Sentinels over real servers: one master, two replicas, three Sentinels, passwords on all of them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use redis::{RedisResult, aio::MultiplexedConnection};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    process::wait_until_stopped,
    redis::{
        CERTIFICATES, PASSWORD, PASSWORD_IN_URL, RedisServer, Setup, Tls, USER, another_password, documented,
        free_port, patient, replicated,
    },
    until,
};

/// The password of those who may do everything, on servers and Sentinels.
const ADMIN: &str = "admin";

/// What the Sentinels call the master.
const NAME: &str = "mymaster";

/// How long a server is silent before it counts as gone, milliseconds. A busy machine is silent, too.
const DOWN_AFTER: u32 = 1000;

/// A Sentinel's files.
const CONFIGURATION: &str = "sentinel.conf";
const SOCKET: &str = "sentinel.sock";

/// User and password for the Sentinels.
pub(crate) const LOGIN: (&str, &str) = (USER, PASSWORD);

/// Servers and Sentinels.
pub(crate) struct Sentinels {
    /// The first was the master at the start.
    pub(crate) servers: Vec<RedisServer>,
    sentinels: Vec<Running>,
}

struct Running {
    child: Child,
    port: u16,
    program: PathBuf,
    folder: TempDir,
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
        let setup = Setup { certificates: master.sibling().certificates, ..setup };
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
        let sentinels: Vec<_> = (0..3).map(|_| Running::watching(&servers[0], &setup)).collect();
        let started = Self { servers, sentinels };
        for sentinel in &started.sentinels {
            until("a Sentinel knows everybody", async || {
                let Ok(mut asked) = sentinel.client().await else { return false };
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
        let scheme = self.servers[0].scheme();
        format!("{scheme}+sentinel://{USER}:{PASSWORD_IN_URL}@{}/{NAME}", sentinels.join(","))
    }

    /// The place in `servers` of the one that the Sentinels name.
    pub(crate) async fn master(&self) -> usize {
        for sentinel in &self.sentinels {
            let Ok(mut asked) = sentinel.client().await else { continue };
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

    /// Waits until both replicas have everything that the master has.
    pub(crate) async fn replicated(&self, master: usize) {
        replicated(self.client(master).await, "written by a test", 2).await;
    }

    /// Makes another server the master while all are well; back when the first Sentinel names it.
    pub(crate) async fn failover(&self) {
        let before = self.master().await;
        until("another master is named", async || {
            // a Sentinel refuses while it knows no replica that will do, and may give up what it has begun
            if !self.is_failing_over().await && self.master().await == before {
                let Ok(mut asked) = self.sentinels[0].client().await else { return false };
                let _: RedisResult<()> =
                    redis::cmd("SENTINEL").arg("FAILOVER").arg(NAME).query_async(&mut asked).await;
            }
            self.master().await != before
        })
        .await;
    }

    async fn is_failing_over(&self) -> bool {
        let Ok(mut asked) = self.sentinels[0].client().await else { return false };
        let told: RedisResult<HashMap<String, String>> =
            redis::cmd("SENTINEL").arg("MASTER").arg(NAME).query_async(&mut asked).await;
        told.is_ok_and(|told| told.get("flags").is_some_and(|flags| flags.contains("failover_in_progress")))
    }

    /// One of the Sentinels is gone.
    pub(crate) fn kill_sentinel(&mut self, sentinel: usize) {
        self.sentinels[sentinel].child.kill().unwrap();
        self.sentinels[sentinel].child.wait().unwrap();
    }

    /// One of the Sentinels accepts, and says nothing.
    pub(crate) fn hang_sentinel(&self, sentinel: usize) {
        let child = &self.sentinels[sentinel].child;
        kill_process(Pid::from_child(child), Signal::STOP).unwrap();
        wait_until_stopped(child.id());
    }

    /// The documented user has another password from now on, on servers and Sentinels, and all certificates are of
    /// another CA; nobody's connection stands.
    pub(crate) async fn rotate(&mut self, password: &str) {
        self.servers[0].new_certificates();
        for server in 0..self.servers.len() {
            self.servers[server].take_up_certificates(self.client(server).await).await;
            another_password(self.client(server).await, password).await;
        }
        for sentinel in &mut self.sentinels {
            let mut admin = sentinel.client().await.unwrap();
            another_password(admin.clone(), password).await;
            redis::cmd("SENTINEL").arg("FLUSHCONFIG").exec_async(&mut admin).await.unwrap();
            sentinel.restart(); // it takes up no certificates while it runs
            until("a Sentinel is back", async || sentinel.client().await.is_ok()).await;
        }
    }
}

impl Running {
    /// One that watches a master and belongs to it.
    fn watching(master: &RedisServer, setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let user = documented("user gotrue-sidecar on >PASSWORD resetchannels").join(" ");
        let mut lines = vec![
            format!("bind 127.0.0.1\ndir {dir}\nunixsocket {dir}/{SOCKET}", dir = folder.path().display()),
            format!("requirepass {ADMIN}\nsentinel sentinel-pass {ADMIN}\nuser {user}"),
            format!(
                "sentinel monitor {NAME} 127.0.0.1 {} 2\nsentinel auth-pass {NAME} {ADMIN}",
                master.port()
            ),
            format!(
                "sentinel down-after-milliseconds {NAME} {DOWN_AFTER}\nsentinel failover-timeout {NAME} 4000"
            ),
        ];
        if setup.tls == Tls::Off {
            lines.push(format!("port {port}"));
        } else {
            lines.push(format!("port 0\ntls-port {port}\ntls-replication yes"));
            lines.extend(CERTIFICATES.map(|(key, name)| format!("{key} {}", master.file(name).display())));
        }
        fs::write(folder.path().join(CONFIGURATION), lines.join("\n") + "\n").unwrap();
        let child = spawn(&setup.program, folder.path());
        Self { child, port, program: setup.program.clone(), folder }
    }

    /// It reads its configuration and certificates again, and what it knew of the others.
    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.program, self.folder.path());
    }

    /// Who may do everything.
    async fn client(&self) -> RedisResult<MultiplexedConnection> {
        let socket = self.folder.path().join(SOCKET);
        let client = redis::Client::open(format!("redis+unix://{}?pass={ADMIN}", socket.display()))?;
        client.get_multiplexed_async_connection_with_config(&patient()).await
    }
}

async fn info(mut redis: MultiplexedConnection) -> String {
    redis::cmd("INFO").arg("replication").query_async(&mut redis).await.unwrap_or_default()
}

fn spawn(program: &Path, folder: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg(folder.join(CONFIGURATION)).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{} is not installed: see bin/setup ({error})", program.display()))
}
