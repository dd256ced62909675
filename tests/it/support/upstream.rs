//! A scripted upstream: answers each request with what the script says, byte for byte, and keeps what
//! it got. Only for what no server can be made to do (break off, hang, answer wrongly), and to see
//! exactly what was sent on.

use std::{
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
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// These bytes, as they are.
    Send(Vec<u8>),
    /// A pause.
    Wait(Duration),
    /// A pause until the gate is open.
    Until(Gate),
    /// The connection is closed, with a reset if something is left unread.
    Close,
}

/// Closed at first; clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        self.0.subscribe().wait_for(|open| *open).await.unwrap();
    }
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

/// Listens until it is dropped.
pub(crate) struct Upstream {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Answers with what `script` says to each request. `GET /health` and the key set are answered
    /// without the script and not kept, unless it is asked for them: the sidecar asks by itself.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, kept): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&seen));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&kept)));
            }
        });
        Self { url: format!("http://{address}"), seen, accepting }
    }

    /// Always the same answer.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_| vec![Step::Send(answer.clone())]).await
    }

    /// What arrived so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
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

async fn serve(mut stream: TcpStream, script: Arc<Script>, kept: Arc<Mutex<Vec<Seen>>>) {
    let mut buffer = Vec::new();
    while let Some(seen) = next(&mut stream, &mut buffer).await {
        let steps = match seen.request_line() {
            "GET /health HTTP/1.1" => vec![Step::Send(answer("200 OK", &[], "{}"))],
            "GET /.well-known/jwks.json HTTP/1.1" => {
                vec![Step::Send(answer("200 OK", &[("Content-Type", "application/json")], r#"{"keys":[]}"#))]
            }
            _ => {
                kept.lock().unwrap().push(seen.clone());
                script(&seen)
            }
        };
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Until(gate) => gate.opened().await,
                Step::Close => return,
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
