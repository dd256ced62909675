//! The servers of one shape, with relays before them, and what is done to them.

use std::{fs, path::PathBuf, sync::Arc};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{Cell, Fault, Shape, world::TIMEOUT};
use crate::support::{
    pod::{self, Stored},
    process::eventually,
    redis::RedisServer,
    relay::{Does, Relay},
};

/// The password at first, and the one that replaces it.
const PASSWORDS: [&str; 2] = ["the-first-password", "the-second-password"];

/// What makes a restarted server remember: every change is on disk before it is acknowledged.
const DURABLE: [&str; 6] =
    ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"];

/// One server. Whoever uses it comes through the relay; the judge comes by its unix socket.
struct Node {
    server: Arc<Mutex<RedisServer>>,
    port: u16,
    relay: Relay,
}

impl Node {
    async fn client(&self, password: &str) -> MultiplexedConnection {
        self.server.lock().await.client_with(password).await
    }

    async fn kill(&self) {
        self.server.lock().await.kill();
    }

    /// People go on meanwhile.
    async fn restart(&self) {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || server.blocking_lock().restart()).await.unwrap();
    }
}

/// The store of one cell.
pub(super) struct House {
    cell: Cell,
    nodes: Vec<Node>,
    /// Which of the nodes has the data.
    primary: usize,
    password: &'static str,
    folder: TempDir,
    ca_file: PathBuf,
}

impl House {
    /// Starts what the cell needs.
    pub(super) async fn build(cell: Cell) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let password = PASSWORDS[0];
        let mut options = DURABLE.to_vec();
        options.extend(["--requirepass", password, "--masterauth", password]);
        let first = match cell.shape {
            Shape::Standalone => RedisServer::with_options(&options),
            Shape::Tls => RedisServer::with_tls_and_options(&options),
        };
        let ca_file = first.ca_file();
        let mut servers = vec![first];
        if cell.fault == Fault::Failover {
            servers.push(servers[0].replica(&options));
        }
        let mut nodes = Vec::new();
        for server in servers {
            let (port, relay) = (server.port(), Relay::to(server.port()).await);
            nodes.push(Node { server: Arc::new(Mutex::new(server)), port, relay });
        }
        let house = Self { cell, nodes, primary: 0, password, folder, ca_file };
        fs::write(house.password_file(), password).unwrap();
        house.replicas_follow().await;
        house
    }

    /// What a sidecar needs to use it.
    pub(super) fn flags(&self) -> Vec<String> {
        self.flags_by(self.nodes[0].relay.port)
    }

    fn flags_by(&self, port: u16) -> Vec<String> {
        let mut flags = vec![format!("--store-password-file={}", self.password_file().display())];
        match self.cell.shape {
            Shape::Standalone => flags.push(format!("--store-url=redis://127.0.0.1:{port}")),
            Shape::Tls => {
                flags.push(format!("--store-url=rediss://127.0.0.1:{port}"));
                flags.push(format!("--store-ca-file={}", self.ca_file.display()));
            }
        }
        flags
    }

    /// A relay of one's own to the primary, and the flags to come by it.
    pub(super) async fn side_door(&self) -> (Relay, Vec<String>) {
        assert_eq!(self.cell.shape, Shape::Standalone);
        let relay = Relay::to(self.nodes[0].port).await;
        let flags = self.flags_by(relay.port);
        (relay, flags)
    }

    fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    /// The fault begins.
    pub(super) async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Kill | Fault::Failover => self.nodes[0].kill().await,
            Fault::Stop => self.nodes[0].server.lock().await.hang(),
            Fault::HalfOpen => self.relays_do(Does::Lose),
            Fault::Reset => self.relays_do(Does::Cut),
            Fault::Slow => self.relays_do(Does::Delay(TIMEOUT * 2)),
            Fault::ReadOnly => self.tell_primaries(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Fault::OutOfMemory => self.tell_primaries(&["CONFIG", "SET", "maxmemory", "1mb"]).await,
            Fault::Password => self.rotate_password().await,
            Fault::Flush => {
                self.tell_primaries(&["FLUSHALL"]).await;
                self.tell_primaries(&["SCRIPT", "FLUSH"]).await;
            }
        }
    }

    /// The fault ends; returns when it has.
    pub(super) async fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::Kill => self.nodes[0].restart().await,
            Fault::Stop => self.nodes[0].server.lock().await.go_on(),
            Fault::HalfOpen => {
                self.nodes.iter().for_each(|node| node.relay.swallow());
                self.relays_do(Does::Pass);
            }
            Fault::Reset | Fault::Slow => self.relays_do(Does::Pass),
            Fault::Failover => {
                self.primary = 1;
                self.tell_primaries(&["REPLICAOF", "NO", "ONE"]).await;
                self.nodes[0].relay.leads_to(self.nodes[1].port);
            }
            Fault::ReadOnly => self.tell_primaries(&["REPLICAOF", "NO", "ONE"]).await,
            Fault::OutOfMemory => self.tell_primaries(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Fault::Password => fs::write(self.password_file(), self.password).unwrap(),
            Fault::Flush => {}
        }
    }

    /// Every record, read without the product's help.
    pub(super) async fn stored(&self) -> Vec<Stored> {
        let mut all = Vec::new();
        for mut redis in self.primaries().await {
            all.extend(pod::stored(&mut redis).await);
        }
        all
    }

    /// How many keys there are.
    pub(super) async fn keys(&self) -> usize {
        let mut keys = 0;
        for mut redis in self.primaries().await {
            keys += redis::cmd("DBSIZE").query_async::<usize>(&mut redis).await.unwrap();
        }
        keys
    }

    /// Keys that never expire: there must be none (contract I10).
    pub(super) async fn eternal(&self) -> Vec<String> {
        let mut eternal = Vec::new();
        for mut redis in self.primaries().await {
            eternal.extend(pod::keys_without_ttl(&mut redis).await);
        }
        eternal
    }

    async fn primaries(&self) -> Vec<MultiplexedConnection> {
        vec![self.nodes[self.primary].client(self.password).await]
    }

    async fn tell_primaries(&self, words: &[&str]) {
        for mut redis in self.primaries().await {
            redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut redis).await.unwrap();
        }
    }

    async fn rotate_password(&mut self) {
        let new = PASSWORDS[usize::from(self.password == PASSWORDS[0])];
        for node in &self.nodes {
            let mut redis = node.client(self.password).await;
            for key in ["masterauth", "requirepass"] {
                redis::cmd("CONFIG").arg(&["SET", key, new]).exec_async(&mut redis).await.unwrap();
            }
            let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
            redis::cmd("CLIENT").arg(&kill).exec_async(&mut redis).await.unwrap();
        }
        self.password = new;
    }

    fn relays_do(&self, does: Does) {
        self.nodes.iter().for_each(|node| node.relay.does(does));
    }

    /// Waits until every replica has what its primary has.
    async fn replicas_follow(&self) {
        for node in self.nodes.iter().skip(1) {
            let mut redis = node.client(self.password).await;
            let follows = async || {
                let info: String =
                    redis::cmd("INFO").arg("replication").query_async(&mut redis.clone()).await.unwrap();
                info.contains("master_link_status:up").then_some(())
            };
            eventually(follows, || "a replica does not follow".to_owned()).await;
            let _: String = redis::cmd("PING").query_async(&mut redis).await.unwrap();
        }
    }
}
