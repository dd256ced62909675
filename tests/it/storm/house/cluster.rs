//! Three primaries that share the slots, and a replica of the first where it is to be replaced.

use redis::aio::MultiplexedConnection;

use super::{Fault, node::Node};
use crate::support::{
    process::eventually,
    redis::{RedisServer, Setup},
};

/// A lost shard must not take the others with it. A node that is silent for a second is lost.
const OPTIONS: [&str; 6] = [
    "--cluster-require-full-coverage",
    "no",
    "--cluster-node-timeout",
    "1000",
    "--cluster-replica-validity-factor",
    "0",
];

const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10_922), (10_923, 16_383)];

/// The servers, which do not know of each other yet.
pub(super) async fn start(fault: Fault, options: &[&str]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..SLOTS.len() + usize::from(fault == Fault::Failover) {
        let node = |options: &[&str]| {
            RedisServer::launch(Setup { cluster: true, ..Setup::new() }.with(options.iter().copied()))
        };
        nodes.push(Node::start(&[options, &OPTIONS].concat(), node).await);
    }
    nodes
}

/// Makes them a Cluster, and waits until each of them says so.
pub(super) async fn form(nodes: &[Node], password: &str) {
    for (index, node) in nodes.iter().enumerate() {
        let mut redis = node.client(password).await;
        let announced = node.relay.port.to_string();
        let set = ["SET", "cluster-announce-ip", "127.0.0.1", "cluster-announce-port", &announced];
        redis::cmd("CONFIG").arg(&set).exec_async(&mut redis).await.unwrap();
        if let Some((first, last)) = SLOTS.get(index) {
            let range = [first.to_string(), last.to_string()];
            redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(&range).exec_async(&mut redis).await.unwrap();
        }
    }
    let mut first = nodes[0].client(password).await;
    for node in &nodes[1..] {
        let bus = node.server.lock().await.bus().to_string();
        let meet = ["MEET", "127.0.0.1", &node.relay.port.to_string(), &bus];
        redis::cmd("CLUSTER").arg(&meet).exec_async(&mut first).await.unwrap();
    }
    for node in nodes {
        says(node, &[&format!("cluster_known_nodes:{}\r", nodes.len())], password).await;
    }
    is_whole(nodes, password).await;
    if let Some(replica) = nodes.get(SLOTS.len()) {
        let id: String = redis::cmd("CLUSTER").arg("MYID").query_async(&mut first).await.unwrap();
        let mut redis = replica.client(password).await;
        redis::cmd("CLUSTER").arg(&["REPLICATE", &id]).exec_async(&mut redis).await.unwrap();
        replica.follows(password).await;
    }
}

/// Waits until every node that runs serves, and none misses a slot.
pub(super) async fn is_whole(nodes: &[Node], password: &str) {
    for node in nodes {
        if node.server.lock().await.is_running() {
            says(node, &["cluster_state:ok", "cluster_slots_ok:16384"], password).await;
        }
    }
}

async fn says(node: &Node, all: &[&str], password: &str) {
    let redis = node.client(password).await;
    let says = async || {
        let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut redis.clone()).await.ok()?;
        all.iter().all(|words| info.contains(words)).then_some(())
    };
    eventually(says, || format!("a node does not say {all:?}")).await;
}

/// Connections to those that are there and have slots.
pub(super) async fn primaries(nodes: &[Node], password: &str) -> Vec<MultiplexedConnection> {
    let mut all = Vec::new();
    for node in nodes {
        if node.server.lock().await.is_running() && node.is_primary(password).await {
            all.push(node.client(password).await);
        }
    }
    all
}
