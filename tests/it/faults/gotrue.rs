//! GoTrue is broken: its clients learn so in its own form, nothing is sent twice, nothing is recorded
//! that did not happen.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::support::{
    redis::{RedisServer, free_port},
    upstream::{Seen, Step, answer},
};

/// One that can be broken while it runs, with a sidecar that keeps sessions in Redis.
struct House {
    upstream: Upstream,
    broken: Arc<AtomicBool>,
    redis: RedisServer,
    plain: Process,
    enforcing: Process,
}

impl House {
    /// Whatever is asked of it gets this answer as soon as it is broken.
    async fn with(fault: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let broken = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&broken);
        let upstream =
            Upstream::start(move |seen| if switch.load(SeqCst) { fault(seen) } else { issuer::gotrue(seen) })
                .await;
        let redis = RedisServer::start();
        let plain = sidecar(&upstream.url, &redis.url(), &[PATIENT_STORE]).await;
        let enforcing = sidecar(&upstream.url, &redis.url(), &[PATIENT_STORE, "--enforce=true"]).await;
        Self { upstream, broken, redis, plain, enforcing }
    }

    /// Breaks it; every request gets what `expected` says, of GoTrue once asked.
    async fn shows(&self, reason: &str, expected: impl Fn(&Answer) -> bool) {
        let mut redis = self.redis.client().await;
        let mine = Tokens::of(&Ask::Login.send(&self.plain.url, &issuer::somebody()).await.0);
        let gone = Tokens::of(&Ask::Login.send(&self.plain.url, &issuer::somebody()).await.0);
        assert_eq!(Ask::Logout.send(&self.plain.url, &gone).await.0.status, 204);
        let keys: u64 = ::redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
        self.broken.store(true, SeqCst);

        let asks = [
            (&self.plain, Ask::Login),
            (&self.plain, Ask::Refresh),
            (&self.plain, Ask::User),
            (&self.enforcing, Ask::User),
        ];
        for (process, ask) in asks {
            let answer = self.ask(process, ask, &mine).await;
            assert!(expected(&answer), "{ask:?}: {answer:?}");
        }
        let unchanged: u64 = ::redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
        assert_eq!(unchanged, keys, "nothing is recorded, nothing ended");
        assert!(is_recorded(&mut redis, &mine).await);

        // what was revoked here needs no GoTrue to be refused
        let called = self.upstream.seen().len();
        let (refused, _) = Ask::User.send(&self.enforcing.url, &gone).await;
        assert_eq!((refused.status.as_u16(), refused.error_code()), (403, Some("session_not_found")));
        assert_eq!(self.upstream.seen().len(), called);

        // a logout that GoTrue did not take ends its own session all the same (contract §6.1)
        let answer = self.ask(&self.plain, Ask::Logout, &mine).await;
        assert!(expected(&answer), "logout: {answer:?}");
        assert!(!is_recorded(&mut redis, &mine).await);

        if !reason.is_empty() {
            let series = format!(r#"gotrue_sidecar_upstream_errors_total{{reason="{reason}"}}"#);
            assert_eq!(self.plain.metric(&series).await, 4, "{reason}");
        }
        self.broken.store(false, SeqCst);
        Client::new(&self.plain.url).sign_in("a@b.example").await;
    }

    async fn ask(&self, process: &Process, ask: Ask, tokens: &Tokens) -> Answer {
        let called = self.upstream.seen().len();
        let (answer, _) = ask.send(&process.url, tokens).await;
        assert_eq!(self.upstream.seen().len(), called + 1, "{ask:?}: GoTrue is called once");
        answer
    }
}

/// Made here, in GoTrue's form.
fn made(status: u16, code: &'static str) -> impl Fn(&Answer) -> bool {
    move |answer| {
        let body = answer.json();
        answer.status == status
            && answer.error_code() == Some(code)
            && body["code"] == status
            && body["error_code"] == code
    }
}

#[tokio::test]
async fn a_gotrue_that_hangs_is_504_after_the_timeout() {
    let house = House::with(|_| vec![Step::Wait(TIMEOUT * 20)]).await;
    house.shows("timeout", made(504, "request_timeout")).await;
}

#[tokio::test]
async fn a_gotrue_that_closes_instead_of_answering_is_502_and_is_not_asked_twice() {
    let house = House::with(|_| vec![Step::Close]).await;
    house.shows("reset", made(502, "bad_gateway")).await;
}

#[tokio::test]
async fn a_gotrue_that_closes_within_the_head_is_502() {
    let house =
        House::with(|_| vec![Step::Send(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), Step::Close]).await;
    house.shows("reset", made(502, "bad_gateway")).await;
}

#[tokio::test]
async fn a_gotrue_that_speaks_something_else_is_502() {
    let house =
        House::with(|_| vec![Step::Send(b"-ERR unknown command\r\n\r\n".to_vec()), Step::Close]).await;
    house.shows("protocol", made(502, "bad_gateway")).await;
}

#[tokio::test]
async fn an_error_of_gotrues_own_passes_as_it_came() {
    const SAID: &str = r#"{"code":500,"error_code":"unexpected_failure","msg":"Database error"}"#;
    let house = House::with(|_| {
        vec![Step::Send(answer(
            "500 Internal Server Error",
            &[("X-Sb-Error-Code", "unexpected_failure")],
            SAID,
        ))]
    })
    .await;
    let passed = |answer: &Answer| {
        answer.status == 500 && answer.body == SAID && answer.error_code() == Some("unexpected_failure")
    };
    house.shows("", passed).await;
}

#[tokio::test]
async fn a_gotrue_that_is_slow_but_within_the_timeout_is_waited_for_and_recorded() {
    let upstream =
        Upstream::start(|seen| vec![Step::Wait(TIMEOUT / 3), Step::Send(issuer::said(seen))]).await;
    let redis = RedisServer::start();
    let process = sidecar(&upstream.url, &redis.url(), &[PATIENT_STORE]).await;
    let tokens = Client::new(&process.url).sign_in("a@b.example").await;
    assert!(is_recorded(&mut redis.client().await, &tokens).await);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_here_too_and_is_not_recorded() {
    let upstream = Upstream::start(|seen| {
        let mut whole = issuer::said(seen);
        whole.truncate(whole.len() - 100);
        vec![Step::Send(whole), Step::Close]
    })
    .await;
    let redis = RedisServer::start();
    let process = sidecar(&upstream.url, &redis.url(), &[PATIENT_STORE]).await;
    let request = Ask::Login.request(&process.url, &issuer::somebody());
    assert!(send(request).await.is_err(), "an answer that is cut off must not look whole");
    let dropped = process.metric(r#"gotrue_sidecar_mirror_dropped_total{reason="cut_off"}"#).await;
    assert_eq!((dropped, upstream.seen().len()), (1, 1));
    let keys: u64 = ::redis::cmd("DBSIZE").query_async(&mut redis.client().await).await.unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test]
async fn a_gotrue_that_is_not_there_yet_is_502_unready_and_then_served() {
    let address = format!("127.0.0.1:{}", free_port());
    let redis = RedisServer::start();
    let process = sidecar(&format!("http://{address}"), &redis.url(), &[PATIENT_STORE]).await;
    for ask in Ask::ALL {
        let (answer, _) = ask.send(&process.url, &issuer::somebody()).await;
        assert!(made(502, "bad_gateway")(&answer), "{ask:?}: {answer:?}");
    }
    assert_eq!((readiness(&process).await, liveness(&process).await), (503, 200));
    assert_eq!(process.metric(r#"gotrue_sidecar_upstream_errors_total{reason="connect"}"#).await, 4);

    let arrived = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = arrived.accept().await {
            tokio::spawn(answer_health(stream));
        }
    });
    let began = Instant::now();
    while readiness(&process).await != 200 {
        assert!(began.elapsed() < PATIENCE, "it does not become ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_hanging_gotrue_does_not_keep_the_store_from_being_watched() {
    let place = TcpListener::bind("127.0.0.1:0").await.unwrap(); // accepts, and never answers
    let upstream = format!("http://{}", place.local_addr().unwrap());
    let mut redis = RedisServer::start();
    let process = Process::start(&[
        &format!("--upstream-url={upstream}"),
        &format!("--store-url={}", redis.url()),
        "--upstream-timeout=10m",
    ])
    .await;
    for _ in 0..2 {
        process.metric_becomes("gotrue_sidecar_store_up", 1).await;
        redis.kill();
        process.metric_becomes("gotrue_sidecar_store_up", 0).await;
        redis.restart();
    }
    assert_eq!((readiness(&process).await, liveness(&process).await), (503, 200));
}

/// One request, whatever it is.
async fn answer_health(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let _read = stream.read(&mut buffer).await;
    let _written = stream.write_all(&answer("200 OK", &[], "{}")).await;
}
