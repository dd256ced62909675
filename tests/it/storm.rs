//! The fault suite (contract §9, I1, I3, I5, I8): real Redis servers in every shape fail in every way, while people
//! sign in, refresh and sign out through two replicas. One cell is one fault of one shape; docs/faults.md says
//! how to read what they print.
//!
//! The environment makes it long:
//!
//! - `FAULTS_SECONDS`: how long a fault lasts that does not end by itself, else 1.2
//! - `FAULTS_ONLY`: only cells whose name contains this, such as `sentinel` or `standalone kill`
//! - `FAULTS_SEED`: what everybody does, else the time
//! - `FAULTS_AT_ONCE`: so many cells run side by side, else 2

mod cell;
mod crowd;
mod cut_off;
mod house;
mod report;
mod soak;
mod world;

use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use self::report::Report;
use crate::support::documents;

/// Where the table stands.
const PAGE: &str = "docs/faults.md";

/// How the store is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Standalone,
    Sentinel,
    Cluster,
    Tls,
}

impl Shape {
    pub(crate) const ALL: [Self; 4] = [Self::Standalone, Self::Sentinel, Self::Cluster, Self::Tls];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Sentinel => "Sentinel",
            Self::Cluster => "Cluster",
            Self::Tls => "TLS",
        }
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Stop,
    HalfOpen,
    Reset,
    Slow,
    Failover,
    ReadOnly,
    OutOfMemory,
    Password,
    Flush,
}

impl Fault {
    pub(crate) const ALL: [Self; 10] = [
        Self::Kill,
        Self::Stop,
        Self::HalfOpen,
        Self::Reset,
        Self::Slow,
        Self::Failover,
        Self::ReadOnly,
        Self::OutOfMemory,
        Self::Password,
        Self::Flush,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::HalfOpen => "half-open",
            Self::Reset => "reset",
            Self::Slow => "slow",
            Self::Failover => "failover",
            Self::ReadOnly => "read-only",
            Self::OutOfMemory => "out of memory",
            Self::Password => "password",
            Self::Flush => "FLUSHALL",
        }
    }
}

/// One fault of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) shape: Shape,
    pub(crate) fault: Fault,
}

/// Which changes the store may have lost afterwards, other than none: what no client of Redis can prevent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// None.
    Nothing,
    /// What the lost primary had not passed on yet: changes of the last second before the fault.
    Behind,
    /// What the old primary took while the new one was made: changes until a second after it is there.
    Demoted,
    /// Everything, until it is used again; an ending of that second may have been forgotten.
    Everything,
}

impl Loss {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Behind => "changes of the last second before it",
            Self::Demoted => "changes until a second after the new primary is there",
            Self::Everything => "everything that is not used again; endings of that second",
        }
    }
}

impl Cell {
    /// Every cell, in the order of the table.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Shape::ALL.into_iter().flat_map(|shape| Fault::ALL.map(|fault| Self { shape, fault }))
    }

    /// As `FAULTS_ONLY` has it.
    pub(crate) fn name(self) -> String {
        format!("{} {}", self.shape.as_str(), self.fault.as_str())
    }

    /// What is done, and what undoes it.
    pub(crate) fn what(self) -> &'static str {
        match (self.shape, self.fault) {
            (Shape::Sentinel, Fault::Kill) => {
                "SIGKILL of the primary; the replica is promoted, the old one comes back"
            }
            (Shape::Sentinel, Fault::Stop) => {
                "SIGSTOP of the primary; the replica is promoted, the old one wakes up"
            }
            (Shape::Sentinel, Fault::Failover) => "`SENTINEL FAILOVER`; the replica is promoted",
            (Shape::Cluster, Fault::Kill) => {
                "SIGKILL of one of three; started again with its append-only file"
            }
            (Shape::Cluster, Fault::Stop) => "SIGSTOP of one of three; SIGCONT",
            (Shape::Cluster, Fault::Failover) => "SIGKILL of one of three; its replica is promoted",
            (Shape::Cluster, Fault::ReadOnly) => {
                "`min-replicas-to-write 1` without a replica, as no node of a Cluster can be told `REPLICAOF`; 0 again"
            }
            (_, fault) => Self::anywhere(fault),
        }
    }

    fn anywhere(fault: Fault) -> &'static str {
        match fault {
            Fault::Kill => "SIGKILL; started again with its append-only file",
            Fault::Stop => "SIGSTOP; SIGCONT",
            Fault::HalfOpen => {
                "connections, old and new, swallow everything; new ones are well again, old ones stay dead"
            }
            Fault::Reset => "after the first byte of an answer the connection ends; answers are whole again",
            Fault::Slow => "each answer comes two `store.timeout` late; at once again",
            Fault::Failover => "SIGKILL of the primary; its replica is promoted and has the address",
            Fault::ReadOnly => "`REPLICAOF` a server that is not there; `REPLICAOF NO ONE`",
            Fault::OutOfMemory => "`maxmemory 1mb` with `noeviction`; no bound again",
            Fault::Password => "`requirepass` is another, connections are closed; the password file follows",
            Fault::Flush => "`FLUSHALL` and `SCRIPT FLUSH`",
        }
    }

    pub(crate) fn loss(self) -> Loss {
        match (self.shape, self.fault) {
            (_, Fault::Flush) => Loss::Everything,
            (Shape::Sentinel, Fault::Failover) => Loss::Demoted,
            (_, Fault::Failover) | (Shape::Sentinel, Fault::Kill | Fault::Stop) => Loss::Behind,
            _ => Loss::Nothing,
        }
    }

    /// Another server has the data afterwards.
    pub(crate) fn fails_over(self) -> bool {
        let sentinels = self.shape == Shape::Sentinel && matches!(self.fault, Fault::Kill | Fault::Stop);
        sentinels || self.fault == Fault::Failover
    }
}

#[test]
fn in_every_cell_nobody_notices_and_the_mirror_is_true_again() {
    let only: String = setting("FAULTS_ONLY").unwrap_or_default();
    let cells: VecDeque<_> = Cell::all().filter(|cell| cell.name().contains(&only)).collect();
    assert!(!cells.is_empty(), "FAULTS_ONLY={only} names no cell");
    let seed = setting("FAULTS_SEED").unwrap_or_else(now);
    let lasts = Duration::from_secs_f64(setting("FAULTS_SECONDS").unwrap_or(1.2));
    println!("FAULTS_SEED={seed} FAULTS_SECONDS={}", lasts.as_secs_f64());
    let (cells, reports) = (Arc::new(Mutex::new(cells)), Arc::new(Mutex::new(Vec::new())));
    let threads: Vec<_> = (0..setting("FAULTS_AT_ONCE").unwrap_or(2_usize))
        .map(|_| {
            let (cells, reports) = (Arc::clone(&cells), Arc::clone(&reports));
            std::thread::spawn(move || {
                while let Some(cell) = next(&cells) {
                    let report = cell::run(cell, seed, lasts);
                    println!("{}", report.line());
                    reports.lock().unwrap().push(report);
                }
            })
        })
        .collect();
    // all of them first: whoever leaves earlier leaves the others' servers behind
    let ends: Vec<_> = threads.into_iter().map(std::thread::JoinHandle::join).collect();
    assert!(ends.iter().all(Result::is_ok), "a cell could not be run; what it said stands above");
    let reports = std::mem::take(&mut *reports.lock().unwrap());
    let table = report::table(&reports);
    println!("\n{table}");
    if only.is_empty() && std::env::var_os("UPDATE_DOCS").is_some() {
        documents::put_between(PAGE, "cells", &table);
    }
    let complaints: Vec<_> = reports.iter().flat_map(Report::complaints).collect();
    assert!(complaints.is_empty(), "FAULTS_SEED={seed}\n{}", complaints.join("\n"));
}

/// The measurements are those of the last `UPDATE_DOCS=1 make faults`; what they are of must be the code's.
#[test]
fn the_page_about_faults_has_every_cell_and_what_it_may_lose() {
    let page = documents::between(PAGE, "cells");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    let cells: Vec<_> = Cell::all().map(report::head).collect();
    assert_eq!(rows.len(), cells.len(), "rows: UPDATE_DOCS=1 make faults");
    for (row, cell) in rows.iter().zip(cells) {
        assert!(row.starts_with(&cell), "{row}\nis not about\n{cell}");
        assert_eq!(row.split(" | ").nth(5), Some("0"), "errors: {row}");
    }
}

fn next(cells: &Mutex<VecDeque<Cell>>) -> Option<Cell> {
    cells.lock().unwrap().pop_front()
}

#[expect(clippy::disallowed_methods, reason = "a test's own knobs, as proptest has them")]
fn setting<T: FromStr<Err: std::fmt::Debug>>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error:?}")))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
