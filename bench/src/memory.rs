//! What a contestant takes before it does anything, and what an idle connection adds.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    contestant::Running,
    load::{LoadError, connect},
    wire::WireError,
};

/// Some starts of one contestant.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// From its start to its first answer, ms.
    pub ready_millis: Vec<f64>,
    /// Resident after the first answer, MB.
    pub idle_megabytes: Vec<f64>,
    /// Added by each idle connection that has had one answer, kB.
    pub connection_kilobytes: Vec<f64>,
    /// Resident after all of them closed, MB.
    pub afterwards_megabytes: Vec<f64>,
}

/// One start.
pub struct Start {
    ready: Duration,
    idle: u64,
    open: u64,
    closed: u64,
    connections: usize,
}

impl Memory {
    /// Takes one start in.
    pub fn add(&mut self, start: &Start) {
        let added = start.open.saturating_sub(start.idle) as f64;
        self.ready_millis.push(start.ready.as_secs_f64() * 1e3);
        self.idle_megabytes.push(start.idle as f64 / 1e6);
        self.connection_kilobytes.push(added / 1e3 / start.connections.max(1) as f64);
        self.afterwards_megabytes.push(start.closed as f64 / 1e6);
    }
}

const SETTLE: Duration = Duration::from_millis(300);

/// Holds `connections` idle ones, each after one answer to `request`.
pub async fn measure(running: &Running, request: &[u8], connections: usize) -> Result<Start, LoadError> {
    let resident = || running.family.resident().map_err(WireError::Io);
    sleep(SETTLE).await;
    let idle = resident()?;
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut wire = connect(running.listen).await?;
        wire.send(request).await?;
        wire.receive(|_| ()).await?.ok_or(LoadError::NoAnswer)?;
        held.push(wire);
    }
    sleep(SETTLE).await;
    let open = resident()?;
    drop(held);
    sleep(SETTLE).await;
    Ok(Start { ready: running.ready_after, idle, open, closed: resident()?, connections })
}
