//! Three Sentinels that watch a primary and its replica, and know each other from the start.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use super::node::Node;
use crate::support::{
    process::eventually,
    redis::{free_port, patient},
};

/// What they call the primary.
const NAME: &str = "main";

/// What they want to be told themselves.
const PASSWORD: &str = "the-password-of-sentinels";

/// A primary that is silent for so long is down, in milliseconds, which a busy machine is not; where nobody but an
/// operator is to fail over, never.
const DOWN_AFTER: (u32, u32) = (2_000, 600_000);

pub(super) struct Sentinels {
    ports: Vec<u16>,
    children: Vec<Child>,
    _folder: TempDir,
}

impl Sentinels {
    /// With or without a failover when the primary falls silent.
    pub(super) fn start(nodes: &[Node], password: &str, by_themselves: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let down_after = if by_themselves { DOWN_AFTER.0 } else { DOWN_AFTER.1 };
        let id = |index: usize| format!("{:040x}", 0xa0 + index);
        let mut children = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let own = folder.path().join(index.to_string());
            fs::create_dir(&own).unwrap();
            let mut lines = vec![
                format!("port {port}\nbind 127.0.0.1\ndir {}\nrequirepass {PASSWORD}", own.display()),
                format!("sentinel sentinel-pass {PASSWORD}\nsentinel myid {}", id(index)),
                format!("sentinel monitor {NAME} 127.0.0.1 {} 2", nodes[0].relay.port),
                format!("sentinel auth-pass {NAME} {password}"),
                format!("sentinel down-after-milliseconds {NAME} {down_after}"),
                format!("sentinel failover-timeout {NAME} 3000"),
            ];
            let replicas = nodes.iter().skip(1).map(|node| node.relay.port);
            lines.extend(replicas.map(|port| format!("sentinel known-replica {NAME} 127.0.0.1 {port}")));
            let others = ports.iter().enumerate().filter(|(other, _)| *other != index);
            lines.extend(others.map(|(other, port)| {
                format!("sentinel known-sentinel {NAME} 127.0.0.1 {port} {}", id(other))
            }));
            let file = own.join("sentinel.conf");
            fs::write(&file, lines.join("\n") + "\n").unwrap();
            let mut command = Command::new("redis-server");
            command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
            children.push(command.spawn().unwrap());
        }
        Self { ports, children, _folder: folder }
    }

    /// What a sidecar needs to ask them.
    pub(super) fn flags(&self) -> [String; 2] {
        let hosts: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        [
            format!("--store-url=redis+sentinel://{}/{NAME}", hosts.join(",")),
            format!("--store-sentinel-password={PASSWORD}"),
        ]
    }

    /// Waits until each of them could fail over.
    pub(super) async fn agree(&self) {
        for port in &self.ports {
            let agrees = async || {
                let mut sentinel = client(*port).await?;
                let _quorum: String =
                    redis::cmd("SENTINEL").arg(&["CKQUORUM", NAME]).query_async(&mut sentinel).await.ok()?;
                let replicas: Vec<Vec<String>> =
                    redis::cmd("SENTINEL").arg(&["REPLICAS", NAME]).query_async(&mut sentinel).await.ok()?;
                let pairs = replicas.first()?.chunks(2);
                let mut pairs = pairs.map(|pair| (pair[0].as_str(), pair[1].as_str()));
                pairs.any(|pair| pair == ("master-link-status", "ok")).then_some(())
            };
            eventually(agrees, || "the sentinels do not agree".to_owned()).await;
        }
    }

    /// An operator wants another primary. A Sentinel refuses while it takes no replica for good enough.
    pub(super) async fn fail_over(&self) {
        let begun = async || {
            let mut sentinel = client(self.ports[0]).await?;
            redis::cmd("SENTINEL").arg(&["FAILOVER", NAME]).exec_async(&mut sentinel).await.ok()
        };
        eventually(begun, || "the sentinel does not fail over".to_owned()).await;
    }

    /// Waits until all say that the primary is not at `old`; where it is.
    pub(super) async fn another_than(&self, old: u16) -> u16 {
        let mut new = old;
        for port in &self.ports {
            let moved = async || {
                let mut sentinel = client(*port).await?;
                let address: Vec<String> = redis::cmd("SENTINEL")
                    .arg(&["GET-MASTER-ADDR-BY-NAME", NAME])
                    .query_async(&mut sentinel)
                    .await
                    .ok()?;
                address[1].parse().ok().filter(|port| *port != old)
            };
            new = eventually(moved, || "the sentinels make no other primary".to_owned()).await;
        }
        new
    }

    /// What the servers want to be told from now on.
    pub(super) async fn password_is(&self, password: &str) {
        for port in &self.ports {
            let mut sentinel = client(*port).await.unwrap();
            let set = ["SET", NAME, "auth-pass", password];
            redis::cmd("SENTINEL").arg(&set).exec_async(&mut sentinel).await.unwrap();
        }
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

async fn client(port: u16) -> Option<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://:{PASSWORD}@127.0.0.1:{port}")).unwrap();
    client.get_multiplexed_async_connection_with_config(&patient()).await.ok()
}
