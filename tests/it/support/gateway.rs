//! The real gateways, each with the very file of `docs/gateways/`, before an application that keeps what it got.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::time::{Duration, Instant, sleep};

use super::{
    documents::read,
    process::PATIENCE,
    raw::{Raw, Received},
    redis::free_port,
    upstream::{Step, Upstream, answer},
};

/// One of those that `docs/gateways/` speaks of.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    program: &'static str,
    /// Below `docs/gateways/`; the first is the one with addresses.
    pub(crate) files: &'static [&'static str],
    arguments: &'static [&'static str],
    /// Whether it can be told how long to wait for the check; else it waits for half a minute.
    gives_up: bool,
}

pub(crate) const KINDS: [Kind; 5] = [
    Kind {
        name: "nginx",
        program: "nginx",
        files: &["nginx.conf"],
        // One process, so that whoever ends it ends all of it.
        arguments: &[
            "-p",
            ".",
            "-c",
            "nginx.conf",
            "-e",
            "stderr",
            "-g",
            "daemon off; master_process off; pid nginx.pid;",
        ],
        gives_up: true,
    },
    Kind {
        name: "Traefik",
        program: "traefik",
        files: &["traefik.yaml"],
        arguments: &["--configfile=traefik.yaml"],
        gives_up: false,
    },
    Kind {
        name: "Caddy",
        program: "caddy",
        files: &["caddy/Caddyfile"],
        arguments: &["run", "--config", "Caddyfile"],
        gives_up: true,
    },
    Kind {
        name: "Envoy",
        program: "envoy",
        files: &["envoy.yaml"],
        arguments: &[
            "-c",
            "envoy.yaml",
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warn",
        ],
        gives_up: true,
    },
    Kind {
        name: "HAProxy",
        program: "haproxy",
        files: &["haproxy/haproxy.cfg", "haproxy/check.lua"],
        arguments: &["-f", "haproxy.cfg"],
        gives_up: true,
    },
];

/// Ends every line of those files in which an address stands; nothing else is replaced, and only there.
pub(crate) const MARK: &str = "# ADDRESS";

/// Serves until it is dropped.
pub(crate) struct Gateway {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) app: Upstream,
    pub(crate) gives_up: bool,
    child: Child,
    folder: TempDir,
}

impl Gateway {
    /// All of them, before a check at that address.
    pub(crate) async fn all_before(check: SocketAddr) -> Vec<Self> {
        let mut started = Vec::new();
        for kind in &KINDS {
            started.push(Self::start(kind, check).await);
        }
        for gateway in &mut started {
            gateway.is_up().await;
        }
        started
    }

    async fn start(kind: &'static Kind, check: SocketAddr) -> Self {
        let app = Upstream::start(|_| vec![Step::Send(answer("200 OK", &[], "the application"))]).await;
        let [web, hop] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let app_address = app.url.strip_prefix("http://").unwrap().parse().unwrap();
        let addresses = Addresses { web, check, app: app_address, hop };
        let folder = tempfile::tempdir().unwrap();
        for file in kind.files {
            let name = Path::new(file).file_name().unwrap();
            let text = addresses.put_into(&read(&format!("docs/gateways/{file}")));
            fs::write(folder.path().join(name), text).unwrap();
        }
        let log = File::create(folder.path().join("log")).unwrap();
        let program = program(kind.program);
        let child = Command::new(&program)
            .args(kind.arguments)
            .current_dir(folder.path())
            .env_clear()
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { name: kind.name, address: web, app, gives_up: kind.gives_up, child, folder }
    }

    /// Waits until it refuses whom nobody knows: only then it has read everything and asks the check.
    async fn is_up(&mut self) {
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            if std::net::TcpStream::connect(self.address).is_ok()
                && self.get_once("/", "").await.status() == 401
            {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{} does not start:\n{}", self.name, self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The answer to a `GET` with these header lines, each with its line end.
    pub(crate) async fn get(&self, target: &str, lines: &str) -> Received {
        self.send("GET", target, lines, "").await
    }

    /// The answer to a request on a connection of its own.
    pub(crate) async fn send(&self, method: &str, target: &str, lines: &str, body: &str) -> Received {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: app.example\r\n{lines}{length}\r\n");
        self.answer_to(method, &(head + body)).await
    }

    /// The answer to a request, as it is to be sent. Some of the files give the check 250 ms, after which the gateway
    /// lets nobody through and says so: whoever has met a busy machine there asks again, a few times.
    pub(crate) async fn answer_to(&self, method: &str, request: &str) -> Received {
        for _ in 0..10 {
            let answer = self.answer_once(method, request).await;
            if answer.status() < 500 {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.answer_once(method, request).await
    }

    /// The answer to a `GET` with these header lines, in an outage: nobody asks again.
    pub(crate) async fn get_once(&self, target: &str, lines: &str) -> Received {
        let request = format!("GET {target} HTTP/1.1\r\nHost: app.example\r\n{lines}\r\n");
        self.answer_once("GET", &request).await
    }

    async fn answer_once(&self, method: &str, request: &str) -> Received {
        let mut raw = Raw::connect(self.address).await;
        raw.send(request).await;
        let answered = raw.try_answer_to(method).await;
        answered.unwrap_or_else(|| {
            let line = request.lines().next().unwrap_or_default();
            panic!("{} does not answer {line}:\n{}", self.name, self.log())
        })
    }

    /// Everything that its application ever got, as it was sent.
    pub(crate) fn got(&self) -> String {
        let connections = self.app.connections();
        connections.iter().map(|it| String::from_utf8_lossy(&it.bytes).into_owned()).collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Where its parts are: the gateway's own listener, the check, the application, and HAProxy's way to the check.
struct Addresses {
    web: SocketAddr,
    check: SocketAddr,
    app: SocketAddr,
    hop: SocketAddr,
}

impl Addresses {
    /// A file of `docs/gateways/`, with these in the marked lines.
    fn put_into(&self, text: &str) -> String {
        let line = |line: &str| if line.ends_with(MARK) { self.put_into_line(line) } else { line.to_owned() };
        text.lines().map(|text| line(text) + "\n").collect()
    }

    fn put_into_line(&self, line: &str) -> String {
        let (web, check, app, hop) = (self.web.port(), self.check.port(), self.app.port(), self.hop.port());
        let known = [
            ("auth:9464", format!("127.0.0.1:{check}")),
            ("auth, port_value: 9464", format!("127.0.0.1, port_value: {check}")),
            ("app:3000", format!("127.0.0.1:{app}")),
            ("app, port_value: 3000", format!("127.0.0.1, port_value: {app}")),
            ("0.0.0.0:8000", format!("127.0.0.1:{web}")),
            ("0.0.0.0, port_value: 8000", format!("127.0.0.1, port_value: {web}")),
            // Caddy's listener: the port of the site, and the address.
            ("http://:8000", format!("http://:{web}")),
            ("bind 0.0.0.0 ", "bind 127.0.0.1 ".to_owned()),
            ("127.0.0.1:9465", format!("127.0.0.1:{hop}")),
        ];
        let found = known.into_iter().find(|(placeholder, _)| line.contains(placeholder));
        let (placeholder, address) = found.unwrap_or_else(|| panic!("no address that is known: {line}"));
        line.replace(placeholder, &address)
    }
}

/// Debian's, or that of `tests/gateways/requirements.txt`.
fn program(name: &str) -> PathBuf {
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateways/bin");
    let folders = [pinned, "/usr/sbin".into(), "/usr/bin".into(), "/usr/local/sbin".into()];
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: run `make setup`"))
}
