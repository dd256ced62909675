//! Who is measured, and how each is started. A new one is a line in [`ALL`] and a function in [`commands`].

use std::{fs, io, net::SocketAddr, path::Path, process::Command, time::Duration};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use crate::{
    commands,
    gotrue::{LOGINS, settings_body},
    load::{LoadError, compare_one, connect},
    process::{CONTESTANT_CORE, MachineError, Pinned},
    procfs::Family,
    workload::{self, Table, Workload},
};

/// Who can be started.
#[derive(Clone, Copy)]
pub struct Contestant {
    /// On the command line and in tables.
    pub name: &'static str,
    /// What it is in its table.
    pub role: Role,
    /// What it does.
    pub kind: Kind,
    /// Where it records sessions.
    pub recorded: Option<Recorded>,
    command: fn(&Contestant, &Site<'_>) -> Result<Command, StartError>,
}

/// What a contestant is in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The sidecar.
    Ours,
    /// Whom the sidecar is compared with.
    Peer,
    /// Shown beside them.
    Other,
}

/// What a contestant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Passes requests on.
    Proxy,
    /// A sidecar that is asked at its admin listener.
    Check,
    /// Answers 200 whatever it is asked: the least that a server of HTTP costs.
    Fixed,
    /// Knows its own sessions, by a cookie.
    Oauth2Proxy,
}

/// A database of the Redis, and the sessions that it holds before anything is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its number.
    pub database: u8,
    /// So many live ones.
    pub sessions: usize,
}

/// In the order of the tables.
pub const ALL: [Contestant; 10] = [
    Contestant::new("nginx", Role::Peer, Kind::Proxy, commands::nginx),
    Contestant::new("haproxy", Role::Peer, Kind::Proxy, commands::haproxy),
    Contestant::new("sidecar", Role::Ours, Kind::Proxy, commands::sidecar).recording(0, LOGINS),
    Contestant::new("sidecar-no-access-log", Role::Ours, Kind::Proxy, commands::sidecar_without_access_log)
        .recording(1, LOGINS),
    Contestant::new("sidecar-no-store", Role::Ours, Kind::Proxy, commands::sidecar),
    Contestant::new("nginx-200", Role::Peer, Kind::Fixed, commands::nginx_200),
    Contestant::new("sidecar-1k", Role::Ours, Kind::Check, commands::sidecar).recording(2, 1_000),
    Contestant::new("sidecar-100k", Role::Ours, Kind::Check, commands::sidecar).recording(3, 100_000),
    Contestant::new("sidecar-1m", Role::Ours, Kind::Check, commands::sidecar).recording(4, 1_000_000),
    Contestant::new("oauth2-proxy", Role::Other, Kind::Oauth2Proxy, commands::oauth2_proxy),
];

/// Everything around a contestant.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// For its files.
    pub folder: &'a Path,
    /// Where requests go.
    pub listen: SocketAddr,
    /// The sidecar's admin listener.
    pub admin: SocketAddr,
    /// Instead of GoTrue.
    pub upstream: SocketAddr,
    /// Redis.
    pub store: SocketAddr,
    /// The sidecar's binary.
    pub sidecar: &'a Path,
}

/// Why a contestant does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not installed.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Files or processes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ended.
    #[error("{name} ended at its start; try it by hand: {line}")]
    Ended {
        /// Its name.
        name: &'static str,
        /// Its command.
        line: String,
    },
    /// It answers wrongly, or not at all.
    #[error("{name} gave no good answer within {READY:?} ({last}); its command: {line}")]
    NotReady {
        /// Its name.
        name: &'static str,
        /// The last failure.
        last: String,
        /// Its command.
        line: String,
    },
}

const READY: Duration = Duration::from_secs(10);

/// A contestant that answers.
pub struct Running {
    /// Which.
    pub contestant: Contestant,
    /// Where requests go.
    pub listen: SocketAddr,
    /// The sidecar's admin listener; nobody else has one.
    pub admin: SocketAddr,
    /// Its processes.
    pub family: Family,
    /// From its start to its first answer.
    pub ready_after: Duration,
    _process: Pinned,
}

/// A request, and the body that must come back.
pub struct Probe {
    /// The request.
    pub request: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

impl Contestant {
    const fn new(
        name: &'static str,
        role: Role,
        kind: Kind,
        command: fn(&Contestant, &Site<'_>) -> Result<Command, StartError>,
    ) -> Self {
        Self { name, role, kind, recorded: None, command }
    }

    const fn recording(mut self, database: u8, sessions: usize) -> Self {
        self.recorded = Some(Recorded { database, sessions });
        self
    }

    /// Those named on the command line.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|contestant| contestant.name == name)
    }

    /// Whether it has a place in a row.
    pub fn runs(&self, workload: Workload) -> bool {
        let its_table = match self.kind {
            Kind::Proxy => Table::Requests,
            Kind::Check | Kind::Fixed | Kind::Oauth2Proxy => Table::Checks,
        };
        its_table == workload.table()
            && match workload {
                Workload::Asked => match self.kind {
                    Kind::Check => self.recorded.is_some_and(|it| it.sessions >= workload::ASKED),
                    // it remembers nothing: there is one way only
                    Kind::Oauth2Proxy => false,
                    Kind::Proxy | Kind::Fixed => true,
                },
                Workload::Revoked => self.kind != Kind::Oauth2Proxy,
                _ => true,
            }
    }

    /// What it is asked to see whether it works.
    pub fn probe(&self) -> Probe {
        let settings = || Workload::Settings.requests(&[], 0).into_iter().next().unwrap_or_default();
        match self.kind {
            Kind::Proxy | Kind::Check => Probe { request: settings(), body: settings_body().into_bytes() },
            Kind::Fixed => Probe { request: settings(), body: Vec::new() },
            Kind::Oauth2Proxy => {
                Probe { request: b"GET /ping HTTP/1.1\r\nhost: bench\r\n\r\n".to_vec(), body: b"OK".to_vec() }
            }
        }
    }

    /// Starts it on free ports and waits for its first good answer.
    pub async fn start(self, site: Site<'_>) -> Result<Running, StartError> {
        let folder = site.folder.join(self.name);
        fs::create_dir_all(&folder)?;
        let site =
            Site { folder: &folder, listen: free_address().await?, admin: free_address().await?, ..site };
        let command = (self.command)(&self, &site)?;
        let started = Instant::now();
        let mut process = Pinned::start(&command, CONTESTANT_CORE, &folder)?;
        self.wait_for_answer(&mut process, site.listen).await?;
        let ready_after = started.elapsed();
        Ok(Running {
            contestant: self,
            listen: site.listen,
            admin: site.admin,
            family: Family::of(process.id())?,
            ready_after,
            _process: process,
        })
    }

    async fn wait_for_answer(self, process: &mut Pinned, address: SocketAddr) -> Result<(), StartError> {
        let probe = self.probe();
        let mut last = "no answer yet".to_owned();
        let answered = timeout(READY, async {
            while let Err(error) = ask(address, &probe).await {
                last = error.to_string();
                if process.has_ended() {
                    return false;
                }
                sleep(Duration::from_millis(1)).await;
            }
            true
        });
        let answered = answered.await;
        let (name, line) = (self.name, process.line().to_owned());
        match answered {
            Ok(true) => Ok(()),
            Ok(false) => Err(StartError::Ended { name, line }),
            Err(_) => Err(StartError::NotReady { name, last, line }),
        }
    }
}

/// Asks once, over a connection of its own.
pub async fn ask(address: SocketAddr, probe: &Probe) -> Result<(), LoadError> {
    compare_one(&mut connect(address).await?, &probe.request, &probe.body).await
}

/// An address of the loopback that was free a moment ago.
pub async fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").await?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_somebody_to_compare_with() {
        for workload in Workload::ALL {
            for role in [Role::Ours, Role::Peer] {
                let found = ALL.iter().any(|contestant| contestant.role == role && contestant.runs(workload));
                assert!(found, "{workload:?}");
            }
        }
    }

    #[test]
    fn no_two_record_into_one_database() {
        let databases = ALL.iter().filter_map(|contestant| contestant.recorded).map(|it| it.database);
        let different: std::collections::HashSet<_> = databases.clone().collect();
        assert_eq!(different.len(), databases.count());
    }
}
