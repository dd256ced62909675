//! A scripted upstream: answers each request with what the script says, byte for byte, and keeps what
//! it got. Only for what no server can be made to do (break off, hang, answer wrongly), and to see
//! exactly what was sent on.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// One step of an answer.
#[derive(Clone)]
pub(crate) enum Step {
    /// These bytes, as they are.
    Send(Vec<u8>),
    /// A pause.
    Wait(Duration),
    /// A pause until the gate opens.
    Hold(Gate),
    /// What is decided only now.
    Then(Arc<dyn Fn() -> Vec<Step> + Send + Sync>),
    /// The connection is closed, with a reset if something is left unread.
    Close,
}

/// Closed until somebody opens it; then it stays open.
#[derive(Clone, Default)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    /// Lets everybody through.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
}

/// The keys it publishes, and how often they were asked for.
struct Published {
    jwks: String,
    asked: usize,
}

/// A request as it arrived: the head with its line ends, and the body by its framing.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) head: String,
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
}

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

/// What its connections share.
struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    published: Mutex<Published>,
}

/// Listens until it is dropped.
pub(crate) struct Upstream {
    pub(crate) url: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Answers with what `script` says to each request. What the sidecar asks by itself, `GET /health`
    /// and the key set, is answered without the script and not kept.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            published: Mutex::new(Published { jwks: r#"{"keys":[]}"#.to_owned(), asked: 0 }),
        });
        let serving = Arc::clone(&shared);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { url: format!("http://{address}"), shared, accepting }
    }

    /// Always the same answer.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| vec![Step::Send(answer.clone())]).await
    }

    /// What arrived so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
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
        jwks.clone_into(&mut self.shared.published.lock().unwrap().jwks);
    }

    /// How often the sidecar asked for the key set.
    pub(crate) fn asked_for_keys(&self) -> usize {
        self.shared.published.lock().unwrap().asked
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An answer with a body of known length, headers as given.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(seen) = next(&mut stream, &mut buffer).await {
        let mut steps = VecDeque::from(shared.steps(&seen));
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Hold(gate) => gate.passed().await,
                Step::Then(decide) => {
                    for step in decide().into_iter().rev() {
                        steps.push_front(step);
                    }
                }
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(time) => tokio::time::sleep(time).await,
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
                let mut published = self.published.lock().unwrap();
                published.asked += 1;
                let headers = [("Content-Type", "application/json")];
                vec![Step::Send(answer("200 OK", &headers, &published.jwks))]
            }
            _ => {
                self.seen.lock().unwrap().push(seen.clone());
                (self.script)(seen)
            }
        }
    }
}

/// The next request of a connection; `None` at its end.
async fn next(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        read_more(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let mut seen = Seen { head, body: Vec::new() };
    if let Some(length) = seen.header("content-length").first() {
        let length: usize = length.parse().unwrap();
        while buffer.len() < length {
            read_more(stream, buffer).await?;
        }
        seen.body = buffer.drain(..length).collect();
    } else if seen.header("transfer-encoding") == ["chunked"] {
        while !buffer.ends_with(b"0\r\n\r\n") {
            read_more(stream, buffer).await?;
        }
        seen.body = std::mem::take(buffer); // with its chunk lines
    }
    Some(seen)
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(buffer).await.ok()? > 0).then_some(())
}
