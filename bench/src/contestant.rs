//! Who is measured, and how each is started. A new one is a line in [`ALL`] and a function.

use std::{fmt::Write as _, fs, io, net::SocketAddr, path::Path, process::Command, time::Duration};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use crate::{
    gotrue::JWT_SECRET,
    load::{LoadError, compare_one, connect},
    process::{CONTESTANT_CORE, MachineError, Pinned, find_program},
    procfs::Family,
};

/// A proxy that can be started.
#[derive(Clone, Copy)]
pub struct Contestant {
    /// On the command line and in tables.
    pub name: &'static str,
    /// nginx and HAProxy: whom the sidecar is compared with.
    pub is_peer: bool,
    /// The Redis database that it records sessions in.
    pub database: Option<u8>,
    command: fn(&Site<'_>) -> Result<Command, StartError>,
}

/// In the order of the table.
pub const ALL: [Contestant; 5] = [
    Contestant { name: "nginx", is_peer: true, database: None, command: nginx },
    Contestant { name: "haproxy", is_peer: true, database: None, command: haproxy },
    Contestant {
        name: "sidecar",
        is_peer: false,
        database: Some(0),
        command: |site| Ok(sidecar(site, &[&store_flag(site, 0)])),
    },
    Contestant {
        name: "sidecar-no-access-log",
        is_peer: false,
        database: Some(1),
        command: |site| Ok(sidecar(site, &[&store_flag(site, 1), "--log-access=false"])),
    },
    Contestant {
        name: "sidecar-no-store",
        is_peer: false,
        database: None,
        command: |site| Ok(sidecar(site, &[])),
    },
];

/// Everything around a contestant.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// For its files.
    pub folder: &'a Path,
    /// Where the load goes.
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
    /// Where the load goes.
    pub address: SocketAddr,
    /// Its processes.
    pub family: Family,
    /// From its start to its first answer.
    pub ready_after: Duration,
    _process: Pinned,
}

impl Contestant {
    /// Those named on the command line.
    pub fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|contestant| contestant.name == name)
    }

    /// Starts it on free ports and waits for its first good answer to `request`.
    pub async fn start(self, site: Site<'_>, request: &[u8], body: &[u8]) -> Result<Running, StartError> {
        let folder = site.folder.join(self.name);
        fs::create_dir_all(&folder)?;
        let site =
            Site { folder: &folder, listen: free_address().await?, admin: free_address().await?, ..site };
        let command = (self.command)(&site)?;
        let started = Instant::now();
        let mut process = Pinned::start(&command, CONTESTANT_CORE, &folder)?;
        self.wait_for_answer(&mut process, site.listen, request, body).await?;
        let ready_after = started.elapsed();
        Ok(Running {
            contestant: self,
            address: site.listen,
            family: Family::of(process.id())?,
            ready_after,
            _process: process,
        })
    }

    async fn wait_for_answer(
        self,
        process: &mut Pinned,
        address: SocketAddr,
        request: &[u8],
        body: &[u8],
    ) -> Result<(), StartError> {
        let mut last = "no answer yet".to_owned();
        let answered = timeout(READY, async {
            while let Err(error) = ask(address, request, body).await {
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

async fn ask(address: SocketAddr, request: &[u8], body: &[u8]) -> Result<(), LoadError> {
    compare_one(&mut connect(address).await?, request, body).await
}

/// An address of the loopback that was free a moment ago.
pub async fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").await?.local_addr()
}

fn nginx(site: &Site<'_>) -> Result<Command, StartError> {
    let mut text = String::from(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 16384;\npid nginx.pid;\nerror_log stderr crit;\n",
    );
    if rustix::process::geteuid().is_root() {
        text.push_str("user root;\n");
    }
    let _ = write!(
        text,
        "events {{ worker_connections 8192; }}\n\
         http {{\n\
           access_log off;\n\
           keepalive_requests 1000000000;\n\
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
           uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
           upstream gotrue {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}\n\
           server {{\n\
             listen {listen};\n\
             location / {{\n\
               proxy_pass http://gotrue;\n\
               proxy_http_version 1.1;\n\
               proxy_set_header Connection \"\";\n\
               proxy_set_header Host $http_host;\n\
               proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             }}\n\
           }}\n\
         }}\n",
        upstream = site.upstream,
        listen = site.listen,
    );
    let file = site.folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(find_program("nginx", "nginx")?);
    command.arg("-p").arg(site.folder).arg("-c").arg(file);
    Ok(command)
}

fn haproxy(site: &Site<'_>) -> Result<Command, StartError> {
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         \x20 http-reuse always\n  option forwardfor\n\
         frontend public\n  bind {}\n  default_backend gotrue\n\
         backend gotrue\n  server gotrue {}\n",
        site.listen, site.upstream
    );
    let file = site.folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new(find_program("haproxy", "haproxy")?);
    command.arg("-f").arg(file);
    Ok(command)
}

/// Its default configuration: metrics and access log (to `/dev/null`, like all its output) are on. It sees
/// one core, so it has one worker.
pub fn sidecar(site: &Site<'_>, flags: &[&str]) -> Command {
    let mut command = Command::new(site.sidecar);
    command.env("GOTRUE_JWT_SECRET", JWT_SECRET);
    command.args(["serve", "--listen", &site.listen.to_string()]);
    command.args(["--admin-listen", &site.admin.to_string()]);
    command.args(["--upstream-url", &format!("http://{}", site.upstream)]);
    command.args(flags);
    command
}

fn store_flag(site: &Site<'_>, database: u8) -> String {
    format!("--store-url=redis://{}/{database}", site.store)
}
