//! A real Cluster: some masters with equal parts of the slots, each with so many replicas.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult, Value};

use super::{
    redis::{PASSWORD_IN_URL, RedisServer, Setup, USER, another_password, replicated},
    until,
};

/// So many slots there are.
pub(crate) const SLOTS: usize = 16_384;

/// Parts of a Cluster that the sidecar tells apart. What lies in one that two masters share is not known to be away
/// when one of them is: tests about that would fail for one user in fifty.
const PARTS: usize = 64;

/// The first slot of a master: no part is shared. The storm's Cluster has the slots that Redis would give it.
fn first_of(master: usize, masters: usize) -> usize {
    PARTS * master / masters * (SLOTS / PARTS)
}

/// How long a node is silent before it counts as gone, milliseconds. A busy machine is silent, too.
const NODE_TIMEOUT: &str = "1000";

/// Its nodes.
pub(crate) struct RedisCluster {
    /// The masters first, then their replicas in the same order.
    pub(crate) nodes: Vec<RedisServer>,
    masters: usize,
}

impl RedisCluster {
    /// Three masters.
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::new(), 3, 0).await
    }

    /// All up, every slot served, every replica in step. A lost part leaves the others alone.
    pub(crate) async fn start_with(setup: Setup, masters: usize, replicas: usize) -> Self {
        let options = [
            "--cluster-node-timeout",
            NODE_TIMEOUT,
            "--cluster-require-full-coverage",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let setup = Setup { cluster: true, ..setup }.with(options).with_user();
        let count = masters * (1 + replicas);
        let first = RedisServer::launch(setup.clone());
        let setup = Setup { certificates: first.sibling().certificates, ..setup };
        let others = (1..count).map(|_| RedisServer::launch(setup.clone()));
        let nodes: Vec<_> = [first].into_iter().chain(others).collect();
        let cluster = Self { nodes, masters };
        for (number, node) in cluster.nodes.iter().enumerate() {
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(node.port()).arg(node.bus());
            cluster.ask::<()>(0, &meet).await.unwrap();
            if number < masters {
                let (first, last) = (first_of(number, masters), first_of(number + 1, masters) - 1);
                let mut add = redis::cmd("CLUSTER");
                cluster.ask::<()>(number, add.arg("ADDSLOTSRANGE").arg(first).arg(last)).await.unwrap();
            }
        }
        cluster.agreed(count).await;
        for number in masters..count {
            let master = cluster.id(number % masters).await;
            until("a replica follows", async || {
                let mut replicate = redis::cmd("CLUSTER");
                cluster.ask::<()>(number, replicate.arg("REPLICATE").arg(&master)).await.is_ok()
            })
            .await;
            until("a replica is in step", async || {
                let mut info = redis::cmd("INFO");
                let info: RedisResult<String> = cluster.ask(number, info.arg("replication")).await;
                info.is_ok_and(|info| info.contains("master_link_status:up"))
            })
            .await;
        }
        cluster
    }

    /// Waits until every node knows all others and all slots.
    async fn agreed(&self, count: usize) {
        for number in 0..count {
            until("a node knows the Cluster", async || {
                let mut info = redis::cmd("CLUSTER");
                let info: RedisResult<String> = self.ask(number, info.arg("INFO")).await;
                info.is_ok_and(|info| {
                    info.contains("cluster_state:ok")
                        && info.contains(&format!("cluster_known_nodes:{count}"))
                        && info.contains("cluster_slots_assigned:16384")
                })
            })
            .await;
        }
    }

    /// The address for the sidecar, with user and password: the first two nodes, it finds the others.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().take(2).map(|it| format!("127.0.0.1:{}", it.port())).collect();
        format!("{}+cluster://{USER}:{PASSWORD_IN_URL}@{}", self.nodes[0].scheme(), nodes.join(","))
    }

    /// The documented user has another password from now on, and all certificates are of another CA; nobody's
    /// connection stands.
    pub(crate) async fn rotate(&self, password: &str) {
        self.nodes[0].new_certificates();
        for node in &self.nodes {
            node.take_up_certificates(node.client().await).await;
            another_password(node.client().await, password).await;
        }
    }

    /// Asks one node, as somebody who may do everything.
    pub(crate) async fn ask<T: FromRedisValue>(&self, node: usize, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.nodes[node].client().await).await
    }

    /// How many connections clients have made to a node, the one for this question included.
    pub(crate) async fn connections(&self, node: usize) -> u64 {
        let stats: String = self.ask(node, redis::cmd("INFO").arg("stats")).await.unwrap();
        let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap().parse().unwrap()
    }

    /// The slot of a key.
    pub(crate) async fn slot(&self, key: &str) -> usize {
        let mut slot = redis::cmd("CLUSTER");
        self.ask(0, slot.arg("KEYSLOT").arg(key)).await.unwrap()
    }

    /// The place in `nodes` of the master that had the slot at the start.
    pub(crate) fn first_owner(&self, slot: usize) -> usize {
        (0..self.masters).find(|number| slot < first_of(number + 1, self.masters)).unwrap()
    }

    /// The slot is about to go from one master to another: both are told, no key has moved.
    pub(crate) async fn begin_to_move(&self, slot: usize, from: usize, to: usize) {
        let (source, target) = (self.id(from).await, self.id(to).await);
        self.set_slot(to, slot, &["IMPORTING", &source]).await;
        self.set_slot(from, slot, &["MIGRATING", &target]).await;
    }

    /// Up to so many of its keys go; how many went.
    pub(crate) async fn move_keys(&self, slot: usize, from: usize, to: usize, count: usize) -> usize {
        let mut keys = redis::cmd("CLUSTER");
        keys.arg("GETKEYSINSLOT").arg(slot).arg(count);
        let keys: Vec<String> = self.ask(from, &keys).await.unwrap();
        if !keys.is_empty() {
            let mut migrate = redis::cmd("MIGRATE");
            migrate
                .arg("127.0.0.1")
                .arg(self.nodes[to].port())
                .arg("")
                .arg(0)
                .arg(5000)
                .arg("KEYS")
                .arg(&keys);
            self.ask::<()>(from, &migrate).await.unwrap();
        }
        keys.len()
    }

    /// All its keys have gone: it is the other's now.
    pub(crate) async fn end_to_move(&self, slot: usize, from: usize, to: usize) {
        let target = self.id(to).await;
        for node in [to, from] {
            self.set_slot(node, slot, &["NODE", &target]).await;
        }
    }

    /// Moves a slot with everything in it.
    pub(crate) async fn move_slot(&self, slot: usize, from: usize, to: usize) {
        self.begin_to_move(slot, from, to).await;
        while self.move_keys(slot, from, to, 10).await > 0 {}
        self.end_to_move(slot, from, to).await;
    }

    /// Has Valkey move a slot with everything in it by itself.
    pub(crate) async fn hand_over(&self, slot: usize, from: usize, to: usize) {
        let target = self.id(to).await;
        let mut migrate = redis::cmd("CLUSTER");
        migrate.arg("MIGRATESLOTS").arg("SLOTSRANGE").arg(slot).arg(slot).arg("NODE").arg(target);
        self.ask::<()>(from, &migrate).await.unwrap();
        until("a slot is handed over", async || {
            let jobs: Value = self.ask(from, redis::cmd("CLUSTER").arg("GETSLOTMIGRATIONS")).await.unwrap();
            let ended = format!("{jobs:?}");
            assert!(!ended.contains("failed") && !ended.contains("cancelled"), "{ended}");
            // one at a time, and the last one stands first
            let Value::Array(jobs) = jobs else { return false };
            format!("{:?}", jobs.first()).contains("success")
        })
        .await;
    }

    /// A replica takes its master's place while both are well.
    pub(crate) async fn failover(&self, replica: usize) {
        take_over(&self.nodes[replica]).await;
    }

    /// Waits until the replica of the master that has this key has everything.
    pub(crate) async fn replicated(&self, master: usize, key: &str) {
        replicated(self.nodes[master].client().await, key, 1).await;
    }

    /// Waits until a replica is a master.
    pub(crate) async fn promoted(&self, replica: usize) {
        promoted(&self.nodes[replica]).await;
    }

    async fn set_slot(&self, node: usize, slot: usize, what: &[&str]) {
        let mut set = redis::cmd("CLUSTER");
        self.ask::<()>(node, set.arg("SETSLOT").arg(slot).arg(what)).await.unwrap();
    }

    async fn id(&self, node: usize) -> String {
        self.ask(node, redis::cmd("CLUSTER").arg("MYID")).await.unwrap()
    }
}

/// A replica takes its master's place while both are well.
pub(crate) async fn take_over(replica: &RedisServer) {
    for _ in 0..5 {
        // in vain while its master has not heard of it, or the others vote too late
        let mut failover = redis::cmd("CLUSTER");
        let _begun: RedisResult<()> = failover.arg("FAILOVER").query_async(&mut replica.client().await).await;
        if tokio::time::timeout(Duration::from_secs(2), promoted(replica)).await.is_ok() {
            return;
        }
    }
    panic!("never: a replica takes over");
}

async fn promoted(replica: &RedisServer) {
    until("a replica is promoted", async || {
        let role: RedisResult<Vec<Value>> = redis::cmd("ROLE").query_async(&mut replica.client().await).await;
        let role = role.unwrap_or_default();
        role.first() == Some(&Value::BulkString(b"master".to_vec()))
    })
    .await;
}
