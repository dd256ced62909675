//! One measurement: the difference of two readings of the kernel's clocks.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    process::CONTESTANT_CORE,
    procfs::{CpuTime, Family, core_time},
};

/// One contestant under one workload for one window.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// CPU time per answered request, µs.
    pub micros: f64,
    /// Of it in user space, µs.
    pub user_micros: f64,
    /// Answered requests per second.
    pub per_second: f64,
    /// Share of its core that the contestant used.
    pub busy: f64,
    /// Share of the contestant's core that others took: more than a few percent spoil the figures.
    pub others: f64,
    /// Share of their core that load, upstream and Redis used.
    pub load_busy: f64,
    /// Share of checks that needed no question to the store, warm-up included; only of who counts them.
    pub remembered: Option<f64>,
}

/// The clocks at one moment.
pub struct Reading {
    at: Instant,
    answered: u64,
    core: Duration,
    contestant: CpuTime,
    load_core: Duration,
}

impl Reading {
    /// Of a contestant, of Redis, and of this process, which is load and upstream.
    pub fn take(contestant: &Family, store: &Family, answered: u64) -> io::Result<Self> {
        let own = Family::single(std::process::id()).cpu_time()?;
        Ok(Self {
            at: Instant::now(),
            answered,
            core: core_time(CONTESTANT_CORE)?,
            contestant: contestant.cpu_time()?,
            load_core: own.total() + store.cpu_time()?.total(),
        })
    }

    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Sample {
        let wall = (self.at - earlier.at).as_secs_f64();
        let answered = (self.answered - earlier.answered).max(1) as f64;
        let used = self.contestant.since(earlier.contestant);
        Sample {
            micros: used.total().as_secs_f64() * 1e6 / answered,
            user_micros: used.user.as_secs_f64() * 1e6 / answered,
            per_second: answered / wall,
            busy: used.total().as_secs_f64() / wall,
            others: self.core.saturating_sub(earlier.core + used.total()).as_secs_f64() / wall,
            load_busy: self.load_core.saturating_sub(earlier.load_core).as_secs_f64() / wall,
            remembered: None,
        }
    }
}

/// What the sidecar counts of its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checks {
    answered: u64,
    remembered: u64,
}

impl Checks {
    /// Asks its admin listener.
    pub async fn read(admin: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        Self::parse(&page).ok_or_else(|| io::Error::other("the sidecar's metrics do not tell of checks"))
    }

    fn parse(page: &str) -> Option<Self> {
        let sum = |series: &str| {
            let values = page.lines().filter_map(|line| line.strip_prefix(series)?.rsplit(' ').next());
            let values: Result<Vec<u64>, _> = values.map(str::parse).collect();
            values.ok().filter(|values| !values.is_empty()).map(|values| values.iter().sum())
        };
        Some(Self {
            answered: sum("gotrue_sidecar_check_total{")?,
            remembered: sum("gotrue_sidecar_check_cache_hits_total{cache=\"session\"}")?,
        })
    }

    /// The share that was remembered of those since `earlier`.
    pub fn remembered_since(self, earlier: Self) -> f64 {
        (self.remembered - earlier.remembered) as f64 / (self.answered - earlier.answered).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_from_the_page_of_metrics() {
        let page = "# TYPE gotrue_sidecar_check_total counter\n\
                    gotrue_sidecar_check_total{result=\"allow\"} 30\n\
                    gotrue_sidecar_check_total{result=\"error\"} 10\n\
                    gotrue_sidecar_check_cache_hits_total{cache=\"token\"} 99\n\
                    gotrue_sidecar_check_cache_hits_total{cache=\"session\"} 20\n";
        let checks = Checks::parse(page).unwrap();
        assert_eq!(checks, Checks { answered: 40, remembered: 20 });
        let later = Checks { answered: 50, remembered: 25 };
        assert!((later.remembered_since(checks) - 0.5).abs() < 1e-9);
        assert_eq!(Checks::parse("404"), None);
    }
}
