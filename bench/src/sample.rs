//! One measurement: the difference of two readings of the kernel's clocks.

use std::{
    io,
    time::{Duration, Instant},
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
        }
    }
}
