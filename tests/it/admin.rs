//! The admin listener and its clients, over real sockets.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gotrue_sidecar::{
    admin::{self, State},
    config::{self, Limits},
    listener::{Connections, Terms},
    metrics::Metrics,
    probe::{self, ProbeError},
    readiness::Readiness,
    shutdown::{Drain, Phase},
    wire::pace::CoarseClock,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// A running admin listener.
struct Admin {
    address: SocketAddr,
    readiness: Arc<Readiness>,
    drain: Drain,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

/// As by default.
const LIMITS: Limits = Limits {
    header_bytes: 64 * 1024,
    header_read_timeout: Duration::from_secs(5),
    idle_timeout: Duration::from_secs(75),
    body_timeout: Duration::from_secs(30),
    connections: 10_000,
    streams: 100,
    request_body_bytes: 1024 * 1024,
    response_body_bytes: 1024 * 1024,
};

/// Connections at once.
const PLACES: usize = 64;

impl Admin {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let required = config::Readiness { upstream: true, store: false };
        let readiness = Arc::new(Readiness::new(required, true));
        let drain = Drain::new(&config::Drain { delay: Duration::ZERO, deadline: Duration::ZERO });
        let (metrics, clock) = (Arc::new(Metrics::new().unwrap()), Arc::new(CoarseClock::new()));
        let terms = Terms { places: PLACES, ..admin::terms(LIMITS, &metrics, 1) };
        let state = State::new(&metrics, &readiness, &drain, &clock);
        let stop = CancellationToken::new();
        let connections = Arc::new(Connections::new(Arc::new(state), terms, clock));
        let served = tokio::spawn(connections.serve(listener, stop.clone()));
        Self { address, readiness, drain, stop, served }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends one request and reads until the connection is closed.
    async fn ask(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }
}

#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Answer {
    async fn read(stream: &mut TcpStream) -> Self {
        let mut text = String::new();
        let read = timeout(Duration::from_secs(10), stream.read_to_string(&mut text)).await;
        read.expect("the connection is closed").unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        Self { head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[tokio::test]
async fn a_process_that_answers_is_alive() {
    let admin = Admin::start().await;
    let get = admin.ask("GET /livez HTTP/1.1").await;
    assert_eq!((get.status(), get.body.as_str()), (200, "ok\n"));
    let head = admin.ask("HEAD /livez HTTP/1.1").await;
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), Some("3"));
}

#[tokio::test]
async fn readiness_follows_its_conditions() {
    let admin = Admin::start().await;
    let before = admin.ask("GET /readyz HTTP/1.1").await;
    assert_eq!((before.status(), before.body.as_str()), (503, "not ready\n"));
    admin.readiness.set_listening(true);
    admin.readiness.set_upstream(true);
    let after = admin.ask("GET /readyz HTTP/1.1").await;
    assert_eq!((after.status(), after.body.as_str()), (200, "ready\n"));
    let verbose = admin.ask("GET /readyz?verbose HTTP/1.1").await;
    assert_eq!(verbose.body, admin.readiness.report().to_string());
    admin.readiness.set_draining();
    assert_eq!(admin.ask("HEAD /readyz HTTP/1.1").await.status(), 503);
}

#[tokio::test]
async fn metrics_come_in_the_form_that_accept_asks_for() {
    let admin = Admin::start().await;
    let text = admin.ask("GET /metrics HTTP/1.1").await;
    assert_eq!(text.status(), 200);
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.body.contains("\n# TYPE gotrue_sidecar_refused_total counter\n"));
    let accept = "Accept: text/plain;q=0.3\r\nAccept: application/openmetrics-text;version=1.0.0;q=0.6";
    let open = admin.ask(&format!("GET /metrics HTTP/1.1\r\n{accept}")).await;
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.body.contains("\n# TYPE gotrue_sidecar_refused counter\n"));
    assert!(open.body.ends_with("\n# EOF\n"));
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_name() {
    let admin = Admin::start().await;
    for (request, status, allow) in [
        ("GET / HTTP/1.1", 404, None),
        ("GET /livez/ HTTP/1.1", 404, None),
        ("GET /metrics/x HTTP/1.1", 404, None),
        ("DELETE /livez HTTP/1.1", 405, Some("get, head")),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0", 405, Some("get, head")),
        ("GET /drain HTTP/1.1", 405, Some("post")),
    ] {
        let answer = admin.ask(request).await;
        assert_eq!(answer.status(), status, "{request}");
        assert_eq!(answer.header("allow"), allow, "{request}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{request}");
        assert!(answer.body.ends_with('\n'), "{request}");
    }
    assert!(!admin.drain.draining().begun());
}

#[tokio::test]
async fn a_body_is_not_waited_for() {
    let admin = Admin::start().await;
    let mut stream = admin.connect().await;
    let request = "POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nonly this";
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.status(), 202);
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let admin = Admin::start().await;
    let mut stream = admin.connect().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(9), stream.read_to_end(&mut rest)).await;
    end.expect("closed after the header timeout").unwrap();
}

#[tokio::test]
async fn only_so_many_connections_are_held() {
    let admin = Admin::start().await;
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(admin.connect().await);
    }
    let waiting = admin.ask("GET /livez HTTP/1.1");
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_millis(300), waiting.as_mut()).await.is_err());
    held.pop();
    assert_eq!(waiting.await.status(), 200);
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_frees_the_port() {
    let admin = Admin::start().await;
    let idle = admin.connect().await;
    assert_eq!(admin.ask("GET /livez HTTP/1.1").await.status(), 200);
    admin.stop.cancel();
    timeout(Duration::from_secs(2), admin.served).await.expect("ends").unwrap();
    drop(idle);
    TcpListener::bind(admin.address).await.unwrap();
}

#[tokio::test]
async fn the_health_check_asks_for_life_and_not_for_readiness() {
    let admin = Admin::start().await;
    let address = admin.address;
    assert!(!admin.readiness.report().ready);
    spawn_blocking(move || probe::healthcheck(address)).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_drain_command_announces_the_drain() {
    let admin = Admin::start().await;
    let address = admin.address;
    spawn_blocking(move || probe::drain(address)).await.unwrap().unwrap();
    assert_eq!(*admin.drain.phases().borrow(), Phase::Announced);
    // again is no error
    spawn_blocking(move || probe::drain(address)).await.unwrap().unwrap();
    assert_eq!(*admin.drain.phases().borrow(), Phase::Announced);
}

/// What a probe says to a listener that behaves like this.
async fn probe_of<F>(behave: impl FnOnce(TcpStream) -> F + Send + 'static) -> ProbeError
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { behave(listener.accept().await.unwrap().0).await });
    spawn_blocking(move || probe::healthcheck(address)).await.unwrap().unwrap_err()
}

#[tokio::test]
async fn a_probe_says_what_is_wrong() {
    let says = async |answer: &'static [u8]| {
        probe_of(async move |mut stream| {
            let _ = stream.read(&mut [0; 512]).await;
            let _ = stream.write_all(answer).await;
        })
        .await
    };
    let status = says(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
    assert!(matches!(status, ProbeError::Status { status: 503, expected: 200, .. }), "{status}");
    let other = says(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    assert!(matches!(other, ProbeError::NotHttp { .. }), "{other}");
    let silent = says(b"").await;
    assert!(matches!(silent, ProbeError::NoAnswer { .. }), "{silent}");
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = probe::healthcheck(unused).unwrap_err();
    assert!(matches!(nobody, ProbeError::Connect { .. }), "{nobody}");
    assert!(nobody.to_string().contains(&unused.to_string()), "{nobody}");
}

#[tokio::test]
async fn a_probe_waits_a_second_and_no_longer() {
    let started = Instant::now();
    // one byte at a time keeps every single read short
    let slow = probe_of(async |mut stream| {
        for byte in b"HTTP/1.1 200 OK" {
            let _ = stream.write_all(&[*byte]).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert!(matches!(slow, ProbeError::NoAnswer { .. }), "{slow}");
    assert!(started.elapsed() < Duration::from_millis(1500));
}
