//! Three primaries that share the slots, and a replica of the first where it is to be replaced.

use std::net::TcpListener;

use redis::aio::MultiplexedConnection;

use super::{Fault, node::Node};
use crate::support::{process::eventually, redis::RedisServer};

/// A lost shard must not take the others with it. A node that is silent for a second is lost.
const OPTIONS: [&str; 8] = [
    "--cluster-enabled",
    "yes",
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
        let bus = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let all = [options, &OPTIONS, &["--cluster-port", &bus]].concat();
        let node = Node::start(&all, RedisServer::with_options).await;
        nodes.push(node);
    }
    nodes
}

/// Makes them a Cluster, and waits until each of them says so.
pub(super) async fn form(nodes: &[Node], password: &str) {
    let bus = |info: &str| info.split([' ', '@', ',']).nth(2).unwrap().to_owned();
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
        let mut redis = node.client(password).await;
        let info: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut redis).await.unwrap();
        let meet = ["MEET", "127.0.0.1", &node.relay.port.to_string(), &bus(&info)];
        redis::cmd("CLUSTER").arg(&meet).exec_async(&mut first).await.unwrap();
    }
    for node in nodes {
        agrees(node, nodes.len(), password).await;
    }
    if let Some(replica) = nodes.get(SLOTS.len()) {
        let id: String = redis::cmd("CLUSTER").arg("MYID").query_async(&mut first).await.unwrap();
        let mut redis = replica.client(password).await;
        redis::cmd("CLUSTER").arg(&["REPLICATE", &id]).exec_async(&mut redis).await.unwrap();
        replica.follows(password).await;
    }
}

async fn agrees(node: &Node, nodes: usize, password: &str) {
    let redis = node.client(password).await;
    let agrees = async || {
        let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut redis.clone()).await.ok()?;
        let known = format!("cluster_known_nodes:{nodes}\r");
        let all = ["cluster_state:ok", "cluster_slots_ok:16384", &known];
        all.iter().all(|words| info.contains(words)).then_some(())
    };
    eventually(agrees, || "the nodes do not agree".to_owned()).await;
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
