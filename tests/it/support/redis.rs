//! A real `redis-server` for one test: in a folder of its own, nothing on disk, gone when dropped.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{certificates, process::PATIENCE};

/// A server that runs, or was killed and can be started again on the same port.
pub(crate) struct RedisServer {
    child: Child,
    folder: TempDir,
    port: u16,
    tls: bool,
    options: Vec<String>,
}

impl RedisServer {
    /// On a free TCP port and a unix socket.
    pub(crate) fn start() -> Self {
        Self::launch(false, &[])
    }

    /// With more options, as on its command line.
    pub(crate) fn with_options(options: &[&str]) -> Self {
        Self::launch(false, options)
    }

    /// TLS on the port, with a certificate for `127.0.0.1` from a CA of its own: [`Self::ca_file`].
    pub(crate) fn with_tls() -> Self {
        Self::launch(true, &[])
    }

    /// Both.
    pub(crate) fn with_tls_and_options(options: &[&str]) -> Self {
        Self::launch(true, options)
    }

    /// One that will follow this one, as safe as it, under the same CA.
    pub(crate) fn replica_like(&self) -> Replica {
        Replica { folder: self.folder_like_this(), tls: self.tls }
    }

    /// Whether the process is there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn launch(tls: bool, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if tls {
            certificates::make(folder.path());
        }
        Self::launch_in(folder, tls, options)
    }

    /// With its certificates, and without its data.
    fn folder_like_this(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"].iter().filter(|_| self.tls) {
            fs::copy(self.folder.path().join(name), folder.path().join(name)).unwrap();
        }
        folder
    }

    fn launch_in(folder: TempDir, tls: bool, options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        // Between finding a free port and using it, another test may take it.
        for _ in 0..5 {
            let port = free_port();
            let mut child = spawn(folder.path(), port, tls, &options);
            if is_up(&mut child, folder.path()) {
                return Self { child, folder, port, tls, options };
            }
        }
        panic!("redis-server does not start");
    }

    /// Its address by TCP.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Its address by unix socket.
    pub(crate) fn unix_url(&self) -> String {
        format!("redis+unix://{}", socket(self.folder.path()).display())
    }

    /// Its TCP port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The CA that made its certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A plain connection, by unix socket: what the tests see, whatever the product does.
    pub(crate) async fn client(&self) -> MultiplexedConnection {
        connected(redis::Client::open(self.unix_url()).unwrap()).await
    }

    /// A plain connection to one that wants a password.
    pub(crate) async fn client_with(&self, password: &str) -> MultiplexedConnection {
        let mut client = redis::Client::open(self.unix_url()).unwrap().get_connection_info().clone();
        let settings = client.redis_settings().clone().set_password(password);
        client = client.set_redis_settings(settings);
        connected(redis::Client::open(client).unwrap()).await
    }

    /// It hangs: accepts, and answers nothing.
    pub(crate) fn hang(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on after [`Self::hang`].
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// It is gone; its port refuses.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// It is back on the same port, and has forgotten everything unless its options make it remember.
    pub(crate) fn restart(&mut self) {
        let _killed = self.child.kill();
        self.child.wait().unwrap();
        self.child = spawn(self.folder.path(), self.port, self.tls, &self.options);
        assert!(is_up(&mut self.child, self.folder.path()), "redis-server does not start again");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

/// What a replica needs of its primary.
pub(crate) struct Replica {
    folder: TempDir,
    tls: bool,
}

impl Replica {
    /// Follows the primary at this port of the host.
    pub(crate) fn start(self, options: &[&str], primary: u16) -> RedisServer {
        let port = primary.to_string();
        let mut all = [options, &["--replicaof", "127.0.0.1", &port]].concat();
        if self.tls {
            all.extend(["--tls-replication", "yes"]);
        }
        RedisServer::launch_in(self.folder, self.tls, &all)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Whoever looks on has patience: the machine may be busy.
async fn connected(client: redis::Client) -> MultiplexedConnection {
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

fn spawn(folder: &Path, port: u16, tls: bool, options: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args([if tls { "--tls-port" } else { "--port" }, &port.to_string()])
        .arg("--dir")
        .arg(folder)
        .arg("--unixsocket")
        .arg(socket(folder));
    if tls {
        command
            .args(["--port", "0", "--tls-auth-clients", "no", "--tls-cert-file"])
            .arg(folder.join("cert.pem"))
            .arg("--tls-key-file")
            .arg(folder.join("key.pem"))
            .arg("--tls-ca-cert-file")
            .arg(folder.join("ca.pem"));
    }
    let child = command.args(options).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.unwrap_or_else(|error| {
        panic!("redis-server is not installed: apt-get install redis-server ({error})")
    })
}

/// Waits until it accepts; no, when it ends instead.
fn is_up(child: &mut Child, folder: &Path) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if std::os::unix::net::UnixStream::connect(socket(folder)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
