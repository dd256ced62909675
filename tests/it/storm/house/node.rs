//! One server behind a relay. Whoever uses it comes through the relay; the judge comes by its unix socket.

use std::{path::PathBuf, sync::Arc};

use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use crate::support::{process::eventually, redis::RedisServer, relay::Relay};

pub(super) struct Node {
    pub(super) server: Arc<Mutex<RedisServer>>,
    /// The server's own.
    pub(super) port: u16,
    pub(super) ca_file: PathBuf,
    pub(super) relay: Relay,
}

impl Node {
    /// Makes one that tells others to come by the relay.
    pub(super) async fn start(options: &[&str], make: impl FnOnce(&[&str]) -> RedisServer) -> Self {
        let relay = Relay::to(0).await;
        let announced = relay.port.to_string();
        let announce = ["--replica-announce-ip", "127.0.0.1", "--replica-announce-port", &announced];
        let server = make(&[options, &announce].concat());
        let (port, ca_file) = (server.port(), server.ca_file());
        relay.leads_to(port);
        Self { server: Arc::new(Mutex::new(server)), port, ca_file, relay }
    }

    pub(super) async fn client(&self, password: &str) -> MultiplexedConnection {
        self.server.lock().await.client_with(password).await
    }

    /// Returns when it has read its data; people go on meanwhile.
    pub(super) async fn restart(&self, password: &str) {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || server.blocking_lock().restart()).await.unwrap();
        let redis = self.client(password).await;
        let loaded = async || redis::cmd("PING").exec_async(&mut redis.clone()).await.ok();
        eventually(loaded, || "a server does not read its data".to_owned()).await;
    }

    /// Waits until it has what its primary has.
    pub(super) async fn follows(&self, password: &str) {
        let redis = self.client(password).await;
        let follows = async || {
            let info: String =
                redis::cmd("INFO").arg("replication").query_async(&mut redis.clone()).await.ok()?;
            info.contains("master_link_status:up").then_some(())
        };
        eventually(follows, || "a replica does not follow".to_owned()).await;
    }

    pub(super) async fn is_primary(&self, password: &str) -> bool {
        let mut redis = self.client(password).await;
        let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut redis).await.unwrap();
        matches!(&role[0], redis::Value::BulkString(word) if word == b"master")
    }
}
