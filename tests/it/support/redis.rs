//! A real `redis-server` for one test: in a folder of its own, nothing on disk, gone when dropped.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    certificates,
    process::{PATIENCE, wait_until_stopped},
};

/// The user of the documentation.
pub(crate) const USER: &str = "gotrue-sidecar";

/// Its password in tests, which has to be escaped in an address.
pub(crate) const PASSWORD: &str = "p@ss:word/1";

/// The same, escaped.
pub(crate) const PASSWORD_IN_URL: &str = "p%40ss%3Aword%2F1";

/// A server that runs, or was killed and can be started again on the same port.
pub(crate) struct RedisServer {
    child: Child,
    folder: TempDir,
    port: u16,
    /// Where nodes of a Cluster talk to each other.
    bus: u16,
    setup: Setup,
}

/// How a server is started.
#[derive(Clone)]
pub(crate) struct Setup {
    /// `redis-server`, or one that behaves as it does.
    pub(crate) program: PathBuf,
    /// Its certificate, if it speaks TLS.
    pub(crate) tls: Tls,
    /// The folder of the certificates, if they are not its own: those of another server.
    pub(crate) certificates: Option<PathBuf>,
    /// It is part of a Cluster, whose bus is on a port of its own.
    pub(crate) cluster: bool,
    /// More options, as on its command line.
    pub(crate) options: Vec<String>,
}

/// Whether a server speaks TLS on its port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// No.
    Off,
    /// With a certificate for `127.0.0.1` from a CA of its own: [`RedisServer::ca_file`].
    Server,
    /// Likewise, with a certificate for that name; and it wants to see one of the same CA.
    Mutual(&'static str),
}

impl Setup {
    /// A plain one.
    pub(crate) fn new() -> Self {
        let (certificates, options) = (None, Vec::new());
        Self { program: "redis-server".into(), tls: Tls::Off, certificates, cluster: false, options }
    }

    /// With more options.
    pub(crate) fn with<S: Into<String>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// With the user of the documentation, as its line is there.
    pub(crate) fn with_user(self) -> Self {
        self.with(["--user"]).with(documented_user())
    }
}

/// Waits until so many replicas have everything that was written before. Writes a key, and takes it away.
pub(crate) async fn replicated(mut master: MultiplexedConnection, key: &str, replicas: usize) {
    for _ in 0..10 {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SET").arg(format!("{key}:written")).arg("").arg("PX").arg(1).ignore();
        let _: redis::Value = pipeline.query_async(&mut master).await.unwrap_or(redis::Value::Nil);
        let mut wait = redis::cmd("WAIT");
        let reached: redis::RedisResult<usize> = wait.arg(replicas).arg(400).query_async(&mut master).await;
        if reached.is_ok_and(|reached| reached >= replicas) {
            return;
        }
    }
    panic!("never: the replicas have everything");
}

/// The documented user has another password from now on, and no connection. `admin` may do everything.
pub(crate) async fn another_password(mut admin: MultiplexedConnection, password: &str) {
    let set = ["SETUSER", USER, "resetpass", &format!(">{password}")];
    redis::cmd("ACL").arg(&set).exec_async(&mut admin).await.unwrap();
    redis::cmd("CLIENT").arg(&["KILL", "USER", USER]).exec_async(&mut admin).await.unwrap();
}

/// A Valkey that bin/setup has brought.
pub(crate) fn valkey() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/valkey/valkey-server");
    assert!(program.exists(), "{} is not there: run bin/setup", program.display());
    program
}

/// The words of the documented line for `users.acl` or `redis.conf`, from the user's name on.
pub(crate) fn documented_user() -> Vec<String> {
    documented("user gotrue-sidecar on >PASSWORD ~gotrue:*")
}

/// The words of a documented line that begins so, without its first, and with the tests' password.
pub(crate) fn documented(beginning: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/redis.md");
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with(beginning));
    let line = line.unwrap_or_else(|| panic!("docs/redis.md has no line that begins with {beginning}"));
    let words = line.split_whitespace().skip(1);
    words.map(|word| if word == ">PASSWORD" { format!(">{PASSWORD}") } else { word.to_owned() }).collect()
}

impl RedisServer {
    /// On a free TCP port and a unix socket.
    pub(crate) fn start() -> Self {
        Self::launch(Setup::new())
    }

    /// With more options, as on its command line.
    pub(crate) fn with_options(options: &[&str]) -> Self {
        Self::launch(Setup::new().with(options.iter().copied()))
    }

    /// TLS on the port, with a certificate for `127.0.0.1` from a CA of its own: [`Self::ca_file`].
    pub(crate) fn with_tls() -> Self {
        Self::launch(Setup { tls: Tls::Server, ..Setup::new() })
    }

    /// As it is to be.
    pub(crate) fn launch(mut setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if setup.certificates.is_none() {
            make_certificates(setup.tls, folder.path());
            setup.certificates = Some(folder.path().to_owned());
        }
        // Between finding a free port and using it, another test may take it.
        for _ in 0..5 {
            let (port, bus) = (free_port(), free_port());
            let mut child = spawn(folder.path(), port, bus, &setup);
            if is_up(&mut child, folder.path()) {
                return Self { child, folder, port, bus, setup };
            }
        }
        panic!("{} does not start", setup.program.display());
    }

    /// What one needs that belongs to this one: as safe as it, with the same certificates. It is not to outlive it.
    pub(crate) fn sibling(&self) -> Setup {
        let Setup { program, tls, certificates, .. } = self.setup.clone();
        Setup { program, tls, certificates, ..Setup::new() }
    }

    /// Another value for one of its options, from the next restart on.
    pub(crate) fn option_is(&mut self, name: &str, value: &str) {
        let at = self.setup.options.iter().position(|option| option == name).unwrap();
        value.clone_into(&mut self.setup.options[at + 1]);
    }

    /// Whether the process is there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// All its certificates are of another CA from now on; it takes them up when it is restarted, or told to.
    pub(crate) fn new_certificates(&self) {
        make_certificates(self.setup.tls, self.setup.certificates.as_ref().unwrap());
    }

    /// It takes new certificates up. `admin` may do everything. Connections that stand go on.
    pub(crate) async fn take_up_certificates(&self, mut admin: MultiplexedConnection) {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET");
        for (key, name) in CERTIFICATES {
            set.arg(key).arg(self.file(name).to_str().unwrap());
        }
        set.exec_async(&mut admin).await.unwrap();
    }

    /// Its address by TCP.
    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port)
    }

    /// The same, with the documented user and its password in it.
    pub(crate) fn url_of_user(&self) -> String {
        format!("{}://{USER}:{PASSWORD_IN_URL}@127.0.0.1:{}", self.scheme(), self.port)
    }

    /// How an address by TCP begins.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.setup.tls == Tls::Off { "redis" } else { "rediss" }
    }

    /// Its address by unix socket.
    pub(crate) fn unix_url(&self) -> String {
        format!("redis+unix://{}", socket(self.folder.path()).display())
    }

    /// Its TCP port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The port of its Cluster's bus.
    pub(crate) fn bus(&self) -> u16 {
        self.bus
    }

    /// The CA that made its certificate.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A file among its certificates: `client.pem` and `client-key.pem`, for one that wants to see them.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.setup.certificates.as_ref().unwrap().join(name)
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
        wait_until_stopped(self.child.id());
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
        self.child = spawn(self.folder.path(), self.port, self.bus, &self.setup);
        assert!(is_up(&mut self.child, self.folder.path()), "redis-server does not start again");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

async fn connected(client: redis::Client) -> MultiplexedConnection {
    client.get_multiplexed_async_connection_with_config(&patient()).await.unwrap()
}

/// Whoever looks on has patience: the machine may be busy.
pub(crate) fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE))
}

/// What a server with TLS is told of its certificates, and which file that is.
pub(crate) const CERTIFICATES: [(&str, &str); 3] =
    [("tls-cert-file", "cert.pem"), ("tls-key-file", "key.pem"), ("tls-ca-cert-file", "ca.pem")];

fn make_certificates(tls: Tls, folder: &Path) {
    match tls {
        Tls::Off => {}
        Tls::Server => certificates::make(folder),
        Tls::Mutual(name) => certificates::make_for(name, folder),
    }
}

fn spawn(folder: &Path, port: u16, bus: u16, setup: &Setup) -> Child {
    let mut command = Command::new(&setup.program);
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args([if setup.tls == Tls::Off { "--port" } else { "--tls-port" }, &port.to_string()])
        .arg("--dir")
        .arg(folder)
        .arg("--unixsocket")
        .arg(socket(folder));
    if setup.tls != Tls::Off {
        let authenticate = if setup.tls == Tls::Server { "no" } else { "yes" };
        command.args(["--port", "0", "--tls-replication", "yes", "--tls-auth-clients", authenticate]);
        for (key, name) in CERTIFICATES {
            command.arg(format!("--{key}")).arg(setup.certificates.as_ref().unwrap().join(name));
        }
        command.args(if setup.cluster { &["--tls-cluster", "yes"][..] } else { &[] });
    }
    if setup.cluster {
        command.args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]);
    }
    let child = command.args(&setup.options).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.unwrap_or_else(|error| {
        panic!("{} is not installed: see bin/setup ({error})", setup.program.display())
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

/// A port of this host that is free, and is given out once. It lies below those that the system takes for outgoing
/// connections, so that none of them takes it before whoever asked.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(997); // other runs on this machine begin elsewhere
    for _ in 0..FREE.len() {
        let place = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) as usize % FREE.len();
        let port = FREE.start + u16::try_from(place).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {} to {} is free", FREE.start, FREE.end)
}

/// Where free ports are looked for.
const FREE: std::ops::Range<u16> = 12_000..22_000;
