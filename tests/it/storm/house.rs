//! The servers of one shape, with relays before them, and what is done to them.

mod cluster;
mod node;
mod sentinels;

use std::{fs, path::PathBuf};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use self::{node::Node, sentinels::Sentinels};
use super::{Cell, Fault, Shape, world::TIMEOUT};
use crate::support::{
    pod::{self, Stored},
    process::eventually,
    redis::{RedisServer, Setup, Tls},
    relay::{Does, Relay},
};

/// The password at first, and the one that replaces it.
const PASSWORDS: [&str; 2] = ["the-first-password", "the-second-password"];

/// What makes a restarted server remember: every change is handed to the kernel before it is acknowledged, which
/// outlives the process, if not the machine; a disk that others keep busy does not matter then. And a replica need
/// not wait five seconds for others that might want the same data.
const DURABLE: [&str; 8] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "no",
    "--maxmemory-policy",
    "noeviction",
    "--repl-diskless-sync-delay",
    "0",
];

/// The store of one cell.
pub(super) struct House {
    cell: Cell,
    nodes: Vec<Node>,
    sentinels: Option<Sentinels>,
    /// Which of the nodes has the data, unless it is a Cluster.
    primary: usize,
    password: &'static str,
    folder: TempDir,
}

impl House {
    /// Starts what the cell needs.
    pub(super) async fn build(cell: Cell) -> Self {
        let password = PASSWORDS[0];
        let options = [&DURABLE[..], &["--requirepass", password, "--masterauth", password]].concat();
        let nodes = match cell.shape {
            Shape::Cluster => cluster::start(cell.fault, &options).await,
            _ => Self::servers(cell, &options).await,
        };
        let sentinels = match cell.shape {
            Shape::Sentinel => {
                let by_themselves = matches!(cell.fault, Fault::Kill | Fault::Stop);
                Some(Sentinels::start(&nodes, password, by_themselves))
            }
            _ => None,
        };
        let folder = tempfile::tempdir().unwrap();
        let mut house = Self { cell, nodes, sentinels, primary: 0, password, folder };
        house.write_password();
        house.settle().await;
        house
    }

    /// A primary, and one that follows it where it is needed.
    async fn servers(cell: Cell, options: &[&str]) -> Vec<Node> {
        let first = Node::start(options, |options| match cell.shape {
            Shape::Tls => {
                RedisServer::launch(Setup { tls: Tls::Server, ..Setup::new() }.with(options.iter().copied()))
            }
            _ => RedisServer::with_options(options),
        });
        let mut nodes = vec![first.await];
        if cell.fault == Fault::Failover || cell.shape == Shape::Sentinel {
            let sibling = nodes[0].server.lock().await.sibling();
            let follow = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), nodes[0].relay.port.to_string()];
            let replica =
                |options: &[&str]| RedisServer::launch(sibling.with(options.iter().copied()).with(follow));
            nodes.push(Node::start(options, replica).await);
        }
        nodes
    }

    /// Waits until everybody knows of everybody.
    async fn settle(&mut self) {
        for node in self.nodes.iter().skip(1).filter(|_| self.cell.shape != Shape::Cluster) {
            node.follows(self.password).await;
        }
        if let Some(sentinels) = &self.sentinels {
            sentinels.agree().await;
        }
        if self.cell.shape == Shape::Cluster {
            cluster::form(&self.nodes, self.password).await;
        }
    }

    /// What a sidecar needs to use it.
    pub(super) fn flags(&self) -> Vec<String> {
        let ports: Vec<_> = self.nodes.iter().map(|node| node.relay.port).collect();
        self.flags_by(&ports)
    }

    fn flags_by(&self, ports: &[u16]) -> Vec<String> {
        let at = |port: &u16| format!("127.0.0.1:{port}");
        let mut flags = vec![format!("--store-password-file={}", self.password_file().display())];
        match self.cell.shape {
            Shape::Standalone => flags.push(format!("--store-url=redis://{}", at(&ports[0]))),
            Shape::Tls => {
                flags.push(format!("--store-url=rediss://{}", at(&ports[0])));
                flags.push(format!("--store-ca-file={}", self.nodes[0].ca_file.display()));
            }
            Shape::Sentinel => flags.extend(self.sentinels.as_ref().unwrap().flags()),
            Shape::Cluster => {
                let ports: Vec<_> = ports.iter().map(at).collect();
                flags.push(format!("--store-url=redis+cluster://{}", ports.join(",")));
            }
        }
        flags
    }

    /// A relay of one's own to the primary, and the flags to come by it.
    pub(super) async fn side_door(&self) -> (Relay, Vec<String>) {
        let relay = Relay::to(self.nodes[0].port).await;
        let flags = self.flags_by(&[relay.port]);
        (relay, flags)
    }

    fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    fn write_password(&self) {
        fs::write(self.password_file(), self.password).unwrap();
    }

    /// The fault begins.
    pub(super) async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Failover if self.cell.shape == Shape::Sentinel => {
                self.sentinels.as_ref().unwrap().fail_over().await;
            }
            Fault::Kill | Fault::Failover => self.nodes[0].server.lock().await.kill(),
            Fault::Stop => self.nodes[0].server.lock().await.hang(),
            Fault::HalfOpen => self.relays_do(Does::Lose),
            Fault::Reset => self.relays_do(Does::Cut),
            Fault::Slow => self.relays_do(Does::Delay(TIMEOUT * 2)),
            Fault::ReadOnly => self.refuse_writes().await,
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
        if self.cell.fails_over() {
            self.follow().await;
        }
        match fault {
            Fault::Kill => self.nodes[0].restart(self.password).await,
            Fault::Stop => self.nodes[0].server.lock().await.go_on(),
            Fault::HalfOpen => {
                self.nodes.iter().for_each(|node| node.relay.swallow());
                self.relays_do(Does::Pass);
            }
            Fault::Reset | Fault::Slow => self.relays_do(Does::Pass),
            Fault::ReadOnly => self.take_writes().await,
            Fault::OutOfMemory => self.tell_primaries(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Fault::Password => self.write_password(),
            Fault::Failover | Fault::Flush => {}
        }
        if self.cell.shape == Shape::Cluster {
            cluster::is_whole(&self.nodes, self.password).await;
        }
    }

    /// Waits until another server has the data; where nobody else sees to that, makes it so.
    async fn follow(&mut self) {
        match (self.cell.shape, &self.sentinels) {
            (_, Some(sentinels)) => {
                let new = sentinels.another_than(self.nodes[self.primary].relay.port).await;
                self.primary = self.nodes.iter().position(|node| node.relay.port == new).unwrap();
            }
            (Shape::Cluster, _) => {
                let replica = self.nodes.last().unwrap();
                let promoted = async || replica.is_primary(self.password).await.then_some(());
                eventually(promoted, || "no replica is promoted".to_owned()).await;
            }
            _ => {
                self.primary = 1;
                self.tell_primaries(&["REPLICAOF", "NO", "ONE"]).await;
                self.nodes[0].relay.leads_to(self.nodes[1].port);
            }
        }
    }

    async fn refuse_writes(&self) {
        match self.cell.shape {
            Shape::Cluster => self.tell_primaries(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await,
            _ => self.tell_primaries(&["REPLICAOF", "127.0.0.1", "1"]).await,
        }
    }

    async fn take_writes(&self) {
        match self.cell.shape {
            Shape::Cluster => self.tell_primaries(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await,
            _ => self.tell_primaries(&["REPLICAOF", "NO", "ONE"]).await,
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
        if self.cell.shape == Shape::Cluster {
            return cluster::primaries(&self.nodes, self.password).await;
        }
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
                node.server.lock().await.option_is(&format!("--{key}"), new);
                redis::cmd("CONFIG").arg(&["SET", key, new]).exec_async(&mut redis).await.unwrap();
            }
            let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
            redis::cmd("CLIENT").arg(&kill).exec_async(&mut redis).await.unwrap();
        }
        if let Some(sentinels) = &self.sentinels {
            sentinels.password_is(new).await;
        }
        self.password = new;
    }

    fn relays_do(&self, does: Does) {
        self.nodes.iter().for_each(|node| node.relay.does(does));
    }
}
