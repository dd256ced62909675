//! The end of the process: nobody's request is lost, nothing that GoTrue has committed goes unrecorded.
//! Contract §13 and I6, deployment notes §2.2 and §2.3; dependency pitfall 13.

use std::time::Duration;

use bytes::Bytes;
use gotrue_sidecar::{
    app::{App, Ended},
    cli,
};
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use crate::support::{
    http::{Answer, send},
    issuer::{self, SECRET},
    process::{PATIENCE, Process, eventually, run},
    redis::RedisServer,
    sidecar::{Sidecar, with_defaults},
    upstream::{Gate, Seen, Step, Upstream},
};

/// Never comes to its end in a test.
const LONG: &str = "--drain-delay=10m";

/// GoTrue, which answers `GET /user` and sign-ins when the gate is open.
async fn gated() -> (Upstream, Gate) {
    let gate = Gate::new();
    let held = gate.clone();
    let script = move |seen: &Seen| vec![Step::Until(held.clone()), Step::Send(issuer::said(seen))];
    (Upstream::start(script).await, gate)
}

async fn started(upstream: &Upstream, more: &[&str]) -> Process {
    let upstream = format!("--upstream-url={}", upstream.url);
    let mut flags = vec![upstream.as_str()];
    flags.extend(more);
    Process::start(&flags).await
}

async fn get(url: String) -> Answer {
    send(Request::get(url).body(String::new()).unwrap()).await.unwrap()
}

async fn status(process: &Process, path: &str) -> u16 {
    get(format!("http://{}{path}", process.admin)).await.status.as_u16()
}

/// A request that GoTrue has got and does not answer yet.
async fn in_flight(process: &Process, upstream: &Upstream) -> JoinHandle<Answer> {
    let before = upstream.seen().len();
    let request = tokio::spawn(get(format!("{}/user", process.url)));
    seen(upstream, before + 1).await;
    request
}

async fn seen(upstream: &Upstream, count: usize) {
    let arrived = || async { (upstream.seen().len() >= count).then_some(()) };
    eventually(arrived, || "the request does not arrive".to_owned()).await;
}

fn closes(answer: &Answer) -> bool {
    answer.headers.get(header::CONNECTION).is_some_and(|value| value == "close")
}

async fn refuses(process: &Process) {
    let refused = || async { TcpStream::connect(process.address).await.is_err().then_some(()) };
    eventually(refused, || "the listener is still open".to_owned()).await;
}

#[tokio::test]
async fn a_signal_is_unready_then_closed_then_the_end() {
    let (upstream, gate) = gated().await;
    let mut process = started(&upstream, &["--drain-delay=500ms"]).await;
    assert_eq!(status(&process, "/livez").await, 200);
    let begun = in_flight(&process, &upstream).await;
    process.signal(Signal::TERM);

    process.line("Announced").await;
    assert_eq!((status(&process, "/readyz").await, status(&process, "/livez").await), (503, 200));

    process.line("Closing").await;
    refuses(&process).await;
    assert_eq!((status(&process, "/readyz").await, status(&process, "/livez").await), (503, 200));
    let verbose = get(format!("http://{}/readyz?verbose", process.admin)).await;
    let conditions = String::from_utf8(verbose.body.to_vec()).unwrap();
    assert!(conditions.contains("[-] listening") && conditions.contains("[-] draining"), "{conditions}");
    assert_eq!(process.metric("gotrue_sidecar_http_requests_in_flight").await, 1);
    assert!(!process.has_ended());

    gate.open();
    let answer = begun.await.unwrap();
    assert!(answer.status == 200 && closes(&answer), "{answer:?}");
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.stderr());
    assert_eq!(process.count(r#""message":"drained""#), 1);
}

#[tokio::test]
async fn during_the_delay_it_goes_on_accepting_and_every_answer_closes() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut process = started(&upstream, &[LONG]).await;
    assert!(!closes(&get(format!("{}/user", process.url)).await));
    let mut kept = TcpStream::connect(process.address).await.unwrap();
    kept.write_all(b"GET /user HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    seen(&upstream, 2).await;

    process.signal(Signal::INT);
    process.line("Announced").await;
    for _ in 0..3 {
        let answer = get(format!("{}/user", process.url)).await;
        assert!(answer.status == 200 && closes(&answer), "{answer:?}");
    }
    // so does the next answer on a connection from before, which is then really closed
    kept.write_all(b"GET /user HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    kept.read_to_string(&mut text).await.unwrap();
    assert_eq!((text.matches("HTTP/1.1 200 OK").count(), text.matches("connection: close").count()), (2, 1));
    process.signal(Signal::TERM);
    process.ended().await;
}

#[tokio::test]
async fn a_recording_whose_client_has_left_is_finished_before_the_end() {
    let (upstream, gate) = gated().await;
    let redis = RedisServer::start();
    let store = format!("--store-url={}", redis.url());
    let secret = format!("--jwt-secret={SECRET}");
    let mut process = started(&upstream, &[&store, &secret, "--jwt-jwks=off", "--store-timeout=10s"]).await;
    let mut client = TcpStream::connect(process.address).await.unwrap();
    let request = "POST /token?grant_type=password HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    client.write_all(request.as_bytes()).await.unwrap();
    seen(&upstream, 1).await;
    drop(client);
    process.metric_becomes("gotrue_sidecar_connections", 0).await;

    process.signal(Signal::TERM);
    process.line("Closing").await;
    assert!(!process.has_ended());
    gate.open();
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.stderr());
    let records: Vec<String> =
        ::redis::cmd("KEYS").arg("*:session:*").query_async(&mut redis.client().await).await.unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(process.count(r#""status":499"#), 1, "{}", process.stderr());
}

#[tokio::test]
async fn a_deadline_that_passes_is_the_end_and_a_failure() {
    let (upstream, _never_opened) = gated().await;
    let mut process = started(&upstream, &["--drain-deadline=200ms"]).await;
    let begun = in_flight(&process, &upstream).await;
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await.code(), Some(1));
    assert_eq!(process.count(r#""level":"error""#), 1, "{}", process.stderr());
    begun.abort();
}

#[tokio::test]
async fn a_second_signal_is_the_end_at_once() {
    let (upstream, _never_opened) = gated().await;
    for (delay, phase) in [(LONG, "Announced"), ("--drain-delay=0s", "Closing")] {
        let mut process = started(&upstream, &[delay, "--drain-deadline=10m"]).await;
        let begun = in_flight(&process, &upstream).await;
        process.signal(Signal::TERM);
        process.line(phase).await;
        process.signal(Signal::INT);
        assert_eq!(process.ended().await.code(), Some(1));
        begun.abort();
    }
}

#[tokio::test]
async fn the_drain_command_announces_and_the_signal_then_needs_no_delay() {
    const DELAY: Duration = Duration::from_secs(3);
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut process = started(&upstream, &["--drain-delay=3s"]).await;
    let drained = run(&["drain", &format!("--admin-listen={}", process.admin)]);
    assert_eq!((drained.status.code(), drained.stderr.as_slice()), (Some(0), &b""[..]));
    assert_eq!((status(&process, "/readyz").await, status(&process, "/livez").await), (503, 200));
    sleep(DELAY).await;
    let answer = get(format!("{}/user", process.url)).await;
    assert!(answer.status == 200 && closes(&answer), "it serves until it is told to end");
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(began.elapsed() < DELAY, "{:?}", began.elapsed());
}

#[tokio::test]
async fn healthcheck_says_by_its_exit_code_whether_it_lives() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut process = started(&upstream, &[LONG]).await;
    let admin = format!("--admin-listen={}", process.admin);
    let check = || run(&["healthcheck", admin.as_str()]);
    assert_eq!(check().status.code(), Some(0));
    drop(upstream);
    assert_eq!(check().status.code(), Some(0), "GoTrue's absence is no reason to be restarted");
    process.signal(Signal::TERM);
    process.line("Announced").await;
    assert_eq!(check().status.code(), Some(0), "nor is a drain");
    process.signal(Signal::TERM);
    process.ended().await;
    for command in ["healthcheck", "drain"] {
        let refused = run(&[command, &admin]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(said.starts_with("error: ") && said.contains(&process.admin.to_string()), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_hold_it() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut process = started(&upstream, &["--limits-header-read-timeout=2s"]).await;
    let silent = TcpStream::connect(process.address).await.unwrap();
    let mut idle = TcpStream::connect(process.address).await.unwrap();
    idle.write_all(b"GET /user HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    seen(&upstream, 1).await;
    let mut half = TcpStream::connect(process.address).await.unwrap();
    half.write_all(b"GET /user HT").await.unwrap();
    process.metric_becomes("gotrue_sidecar_connections", 3).await;
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await.code(), Some(0), "{}", process.stderr());
    drop((silent, idle, half));
}

#[tokio::test]
async fn an_http2_client_is_sent_elsewhere_with_the_announcement() {
    let (upstream, gate) = gated().await;
    let mut process = started(&upstream, &[LONG]).await;
    let stream = TcpStream::connect(process.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = || Request::get(format!("{}/user", process.url)).body(Empty::new()).unwrap();
    let begun = tokio::spawn(sender.send_request(request()));
    seen(&upstream, 1).await;
    process.signal(Signal::TERM);
    process.line("Announced").await;
    gate.open();
    assert_eq!(begun.await.unwrap().unwrap().status(), 200);
    connection.await.unwrap().unwrap();
    assert!(sender.send_request(request()).await.is_err(), "GOAWAY");
    assert_eq!(get(format!("{}/user", process.url)).await.status, 200);
    process.signal(Signal::TERM);
    process.ended().await;
}

#[tokio::test]
async fn no_request_fails_under_load_while_clients_follow_readiness() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let mut process = started(&upstream, &["--drain-delay=5s", "--runtime-workers=2"]).await;
    let ready = std::sync::Arc::new(tokio::sync::watch::Sender::new(true));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (url, ready) = (process.url.clone(), ready.subscribe());
        clients.spawn(keep_asking(url, move || *ready.borrow()));
    }
    seen(&upstream, 200).await;
    process.signal(Signal::TERM);
    let unready = || async { (status(&process, "/readyz").await == 503).then_some(()) };
    eventually(unready, || "it stays ready".to_owned()).await;
    seen(&upstream, upstream.seen().len() + 200).await; // news takes time to travel
    ready.send_replace(false);
    let done: Vec<_> = clients.join_all().await;
    assert_eq!(done.iter().map(|client| client.failed).sum::<usize>(), 0, "{done:?}");
    assert_eq!(done.iter().map(|client| client.refused).sum::<usize>(), 0, "{done:?}");
    assert!(done.iter().all(|client| client.closed > 0), "every client was told to go: {done:?}");
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn who_has_connected_before_the_listener_closes_is_served() {
    let upstream = Upstream::start(issuer::gotrue).await;
    let flags = with_defaults(&["--upstream-url", &upstream.url]).into_iter().map(Into::into);
    let app = App::build(cli::invocation(flags, std::iter::empty()).unwrap().config, None).unwrap();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = TcpStream::connect(app.address().unwrap()).await.unwrap();
        client.write_all(b"GET /user HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        clients.push(client); // in the backlog: nobody accepts yet
    }
    app.drain().terminate();
    assert_eq!(Box::pin(app.run()).await.unwrap(), Ended::Drained);
    for mut client in clients {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text:?}");
    }
}

#[tokio::test]
async fn liveness_is_green_and_metrics_are_there_throughout() {
    let (upstream, gate) = gated().await;
    let mut process = started(&upstream, &["--drain-delay=300ms"]).await;
    let begun = in_flight(&process, &upstream).await;
    let admin = process.admin;
    let (watched, mut watching_since) = tokio::sync::watch::channel(0);
    let watching = tokio::spawn(async move {
        let mut seen = Vec::new();
        // the admin listener goes last, so the first refusal is the end
        while let Ok(stream) = TcpStream::connect(admin).await {
            drop(stream);
            let request = Request::get(format!("http://{admin}/livez")).body(String::new()).unwrap();
            match send(request).await {
                Ok(answer) => seen.push(answer.status.as_u16()),
                Err(_) => break,
            }
            watched.send_replace(seen.len());
            sleep(Duration::from_millis(2)).await;
        }
        seen
    });
    process.signal(Signal::TERM);
    process.line("Closing").await;
    assert_eq!(status(&process, "/metrics").await, 200);
    watching_since.wait_for(|seen| *seen > 20).await.unwrap();
    gate.open();
    begun.await.unwrap();
    assert_eq!(process.ended().await.code(), Some(0));
    let seen = watching.await.unwrap();
    assert!(seen.len() > 20 && seen.iter().all(|status| *status == 200), "{seen:?}");
}

#[tokio::test]
async fn a_sidecar_in_this_process_ends_the_same_way() {
    let (upstream, gate) = gated().await;
    let drained = Sidecar::start(&["--upstream-url", &upstream.url]);
    let cut = Sidecar::start(&["--upstream-url", &upstream.url, "--drain-deadline=100ms"]);
    let request = tokio::spawn(get(format!("{}/user", cut.url)));
    seen(&upstream, 1).await;
    assert!(matches!(tokio::task::spawn_blocking(|| cut.stop()).await.unwrap(), Ended::Cut(1..)));
    request.abort();
    gate.open();
    assert_eq!(get(format!("{}/user", drained.url)).await.status, 200);
    assert_eq!(tokio::task::spawn_blocking(|| drained.stop()).await.unwrap(), Ended::Drained);
}

/// What one client saw.
#[derive(Debug, Default)]
struct Saw {
    answered: usize,
    /// Answers that said `Connection: close`.
    closed: usize,
    failed: usize,
    refused: usize,
}

/// Asks over one connection for as long as that is kept, over and over.
async fn keep_asking(url: String, go_on: impl Fn() -> bool) -> Saw {
    let mut saw = Saw::default();
    let uri: http::Uri = url.parse().unwrap();
    let authority = uri.authority().unwrap().as_str().to_owned();
    let began = Instant::now();
    'connection: while go_on() && began.elapsed() < PATIENCE {
        let Ok(stream) = TcpStream::connect(&authority).await else {
            saw.refused += 1; // and goes elsewhere, with nothing lost
            break;
        };
        let (mut sender, connection) =
            http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        while go_on() {
            let request = Request::get("/user").header(header::HOST, &authority).body(Empty::new()).unwrap();
            let Ok(answer) = sender.send_request(request).await else {
                saw.failed += 1;
                continue 'connection;
            };
            let close = answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
            match answer.into_body().collect().await {
                Ok(_) => saw.answered += 1,
                Err(_) => saw.failed += 1,
            }
            if close {
                saw.closed += 1;
                continue 'connection;
            }
        }
    }
    saw
}
