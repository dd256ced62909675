//! A scripted upstream: answers each request with what the script says, byte for byte, and keeps what
//! it got. Only for what no server can be made to do (break off, hang, answer wrongly), and to see
//! exactly what was sent on.

use std::{
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::raw::end_of_chunks;

/// One step of an answer.
#[derive(Clone)]
pub(crate) enum Step {
    /// These bytes, as they are.
    Send(Vec<u8>),
    /// A pause.
    Wait(Duration),
    /// A pause until the test says [`Upstream::go_on`].
    Hold,
    /// A pause until the gate is open.
    Until(Gate),
    /// What is decided only now.
    Then(Arc<dyn Fn() -> Vec<Step> + Send + Sync>),
    /// The connection is closed, with a reset if something is left unread.
    Close,
}

/// Closed until somebody opens it; then it stays open. Clones are the same gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub(crate) async fn opened(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// A request as it arrived: the head with its line ends, and the body by its framing.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
    /// With its chunk lines and trailers, if it is chunked.
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// Values of a header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    /// Method, target and version.
    pub(crate) fn request_line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// Header lines in order, without those that the sidecar adds to every request.
    pub(crate) fn lines(&self) -> Vec<&str> {
        let added = |line: &str| line.starts_with("x-forwarded-for: ") || line.starts_with("x-request-id: ");
        self.head.lines().skip(1).filter(|line| !line.is_empty() && !added(line)).collect()
    }
}

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

/// Listens until it is dropped.
pub(crate) struct Upstream {
    pub(crate) url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<Vec<Connection>>,
    go_on: Notify,
    /// The key set, a JSON document.
    published: Mutex<String>,
}

/// One connection, without those that the sidecar opens to ask whether GoTrue is well.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    /// The sidecar's port.
    pub(crate) from: u16,
    /// Everything that arrived on it.
    pub(crate) bytes: Vec<u8>,
    /// The sidecar has closed it.
    pub(crate) ended: bool,
}

impl Upstream {
    /// Answers with what `script` says to each request. What the sidecar asks by itself, `GET /health`
    /// and the key set, is answered without the script and not kept.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), script, None)
    }

    /// The same on a socket that is there.
    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(listener, script, None)
    }

    /// The same behind TLS, with `cert.pem` and `key.pem` from the folder.
    pub(crate) async fn with_tls(
        folder: &Path,
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::listen(listener, script, Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn listen(
        listener: TcpListener,
        script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let address: SocketAddr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            connections: Mutex::default(),
            go_on: Notify::new(),
            published: Mutex::new(r#"{"keys":[]}"#.to_owned()),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let serving = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, client)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&serving), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, client.port(), &shared).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, client.port(), &shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url: format!("{scheme}://{address}"), shared, accepting }
    }

    /// Always the same answer.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| vec![Step::Send(answer.clone())]).await
    }

    /// The same answer to each request in turn as here; the last one again and again.
    pub(crate) async fn answering_in_turn(answers: Vec<Vec<Step>>) -> Self {
        let turn = Mutex::new(0);
        Self::start(move |_| {
            let mut turn = turn.lock().unwrap();
            let steps = answers[(*turn).min(answers.len() - 1)].clone();
            *turn += 1;
            steps
        })
        .await
    }

    /// What arrived so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Forgets what arrived so far: for tests that go on for long.
    pub(crate) fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
        for connection in self.shared.connections.lock().unwrap().iter_mut() {
            connection.bytes = Vec::new();
        }
    }

    /// Connections on which something arrived, also those whose request never became whole.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        let connections = self.shared.connections.lock().unwrap();
        connections.iter().filter(|one| !one.bytes.is_empty() && !is_probe(&one.bytes)).cloned().collect()
    }

    /// Waits until its connections are as expected.
    pub(crate) async fn until(&self, what: &str, expected: impl Fn(&[Connection]) -> bool) {
        let began = Instant::now();
        while !expected(&self.connections()) {
            assert!(began.elapsed() < Duration::from_secs(10), "{what}: never; {:?}", self.connections());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits for a request whose first line begins so.
    pub(crate) async fn arrived(&self, line: &str) -> Seen {
        self.arrived_times(line, 1).await
    }

    /// Waits until so many have come; the last of them.
    pub(crate) async fn arrived_times(&self, line: &str, times: usize) -> Seen {
        for _ in 0..5000 {
            let seen = self.seen();
            let mut meant = seen.iter().filter(|seen| seen.request_line().starts_with(line));
            if let Some(seen) = meant.nth(times - 1) {
                return seen.clone();
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{line} did not come {times} times: {:?}", self.seen());
    }

    /// The key set from now on, a JSON document.
    pub(crate) fn publish(&self, jwks: &str) {
        jwks.clone_into(&mut self.shared.published.lock().unwrap());
    }

    /// Ends the [`Step::Hold`] of one request: one that waits, else the next.
    pub(crate) fn go_on(&self) {
        self.shared.go_on.notify_one();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An answer with a body of known length, headers as given.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    let headers = lines.collect::<Vec<_>>().concat();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn is_probe(bytes: &[u8]) -> bool {
    bytes.starts_with(b"GET /health ") || bytes.starts_with(b"GET /.well-known/jwks.json ")
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, from: u16, shared: &Shared) {
    let index = {
        let mut connections = shared.connections.lock().unwrap();
        connections.push(Connection { from, ..Connection::default() });
        connections.len() - 1
    };
    let mut incoming = Incoming { stream, buffer: Vec::new(), shared, index };
    converse(&mut incoming).await;
    drop(incoming); // closed before it is said to have ended
    shared.connections.lock().unwrap()[index].ended = true;
}

async fn converse(incoming: &mut Incoming<'_, impl AsyncRead + AsyncWrite + Unpin>) {
    while let Some(seen) = incoming.next().await {
        let mut steps = VecDeque::from(incoming.shared.steps(&seen));
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Send(bytes) => {
                    if incoming.stream.write_all(&bytes).await.is_err()
                        || incoming.stream.flush().await.is_err()
                    {
                        return;
                    }
                }
                Step::Wait(time) => {
                    if incoming.pause(tokio::time::sleep(time)).await.is_none() {
                        return;
                    }
                }
                Step::Hold => {
                    if incoming.pause(incoming.shared.go_on.notified()).await.is_none() {
                        return;
                    }
                }
                Step::Until(gate) => {
                    if incoming.pause(gate.opened()).await.is_none() {
                        return;
                    }
                }
                Step::Then(decide) => {
                    for step in decide().into_iter().rev() {
                        steps.push_front(step);
                    }
                }
                Step::Close => return,
            }
        }
    }
}

impl Shared {
    fn steps(&self, seen: &Seen) -> Vec<Step> {
        let from_a_client = !seen.header("x-forwarded-for").is_empty();
        match seen.request_line() {
            "GET /health HTTP/1.1" if !from_a_client => vec![Step::Send(answer("200 OK", &[], "{}"))],
            "GET /.well-known/jwks.json HTTP/1.1" if !from_a_client => {
                let published = self.published.lock().unwrap();
                let headers = [("Content-Type", "application/json")];
                vec![Step::Send(answer("200 OK", &headers, &published))]
            }
            _ => {
                self.seen.lock().unwrap().push(seen.clone());
                (self.script)(seen)
            }
        }
    }
}

struct Incoming<'a, S> {
    stream: S,
    buffer: Vec<u8>,
    shared: &'a Shared,
    index: usize,
}

impl<S: AsyncRead + Unpin> Incoming<'_, S> {
    /// The next request of a connection; `None` at its end.
    async fn next(&mut self) -> Option<Seen> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer.drain(..end).collect::<Vec<_>>()).into_owned();
        let mut seen = Seen { head, body: Vec::new() };
        let length = match seen.header("content-length").first() {
            Some(length) => length.parse().unwrap(),
            None if seen.header("transfer-encoding") == ["chunked"] => loop {
                match end_of_chunks(&self.buffer) {
                    Some(end) => break end,
                    None => self.more().await?,
                }
            },
            None => 0,
        };
        while self.buffer.len() < length {
            self.more().await?;
        }
        seen.body = self.buffer.drain(..length).collect();
        Some(seen)
    }

    /// Waits, and notices when the sidecar has closed the connection meanwhile.
    async fn pause(&mut self, end: impl Future<Output = ()>) -> Option<()> {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return Some(()),
                more = self.more() => more?,
            }
        }
    }

    async fn more(&mut self) -> Option<()> {
        let before = self.buffer.len();
        let read = self.stream.read_buf(&mut self.buffer).await.ok()?;
        let mut connections = self.shared.connections.lock().unwrap();
        connections[self.index].bytes.extend_from_slice(&self.buffer[before..]);
        (read > 0).then_some(())
    }
}
