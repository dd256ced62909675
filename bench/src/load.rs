//! The load: a closed loop of connections, each sending its next request when the last was answered.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::wire::{Message, Wire, WireError};

/// Whether connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// This many, kept alive.
    Kept(usize),
    /// This many at a time, each for one request.
    New(usize),
}

/// What is sent, one after the other and then again from the start.
pub enum Requests {
    /// These.
    Made(Rc<[Vec<u8>]>),
    /// So many, each made by its number when its turn comes.
    Making(usize, fn(usize) -> Vec<u8>),
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection, or it broke.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The other side closed instead of answering.
    #[error("closed without an answer")]
    NoAnswer,
    /// Another status.
    #[error("answered {got:?} instead of {expected}")]
    Status {
        /// The status line.
        got: String,
        /// What it should say.
        expected: &'static str,
    },
    /// Another body than the upstream sent.
    #[error("the answer's body is {got} bytes long, the upstream sent {sent}")]
    Body {
        /// Received.
        got: usize,
        /// Sent.
        sent: usize,
    },
    /// What must happen before anything is measured takes too long.
    #[error("only {answered} of {count} requests were answered in time")]
    Slow {
        /// Answered.
        answered: u64,
        /// To be sent.
        count: usize,
    },
    /// The connections did not finish their last request.
    #[error("requests were still unanswered after {0:?}")]
    Stuck(Duration),
}

/// A load that is running.
pub struct Load {
    shared: Rc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    target: SocketAddr,
    requests: Requests,
    /// The status of every answer.
    expected: &'static str,
    turn: Cell<usize>,
    answered: Cell<u64>,
    stopping: Cell<bool>,
    failure: RefCell<Option<LoadError>>,
}

const LAST_ANSWER: Duration = Duration::from_secs(10);

impl Load {
    /// Sends `requests` in turn to `target`; all answers must have the status that is expected.
    pub fn start(
        target: SocketAddr,
        requests: Requests,
        expected: &'static str,
        connections: Connections,
    ) -> Self {
        let shared = Rc::new(Shared {
            target,
            requests,
            expected,
            turn: Cell::new(0),
            answered: Cell::new(0),
            stopping: Cell::new(false),
            failure: RefCell::new(None),
        });
        let mut tasks = JoinSet::new();
        let (Connections::Kept(count) | Connections::New(count)) = connections;
        for _ in 0..count {
            let shared = shared.clone();
            tasks.spawn_local(async move {
                let ended = match connections {
                    Connections::Kept(_) => shared.keep_one_connection().await,
                    Connections::New(_) => shared.make_new_connections().await,
                };
                if let Err(error) = ended {
                    shared.stopping.set(true);
                    shared.failure.borrow_mut().get_or_insert(error);
                }
            });
        }
        Self { shared, tasks }
    }

    /// Requests answered as expected so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.get()
    }

    /// Whether a request has failed.
    pub fn has_failed(&self) -> bool {
        self.shared.failure.borrow().is_some()
    }

    /// Ends after the answers that are due. One failed request fails the whole load: nothing but what is expected
    /// is measured.
    pub async fn stop(mut self) -> Result<(), LoadError> {
        self.shared.stopping.set(true);
        timeout(LAST_ANSWER, async { while self.tasks.join_next().await.is_some() {} })
            .await
            .map_err(|_| LoadError::Stuck(LAST_ANSWER))?;
        self.shared.failure.borrow_mut().take().map_or(Ok(()), Err)
    }
}

impl Shared {
    async fn keep_one_connection(&self) -> Result<(), LoadError> {
        let mut wire = connect(self.target).await?;
        while !self.stopping.get() {
            self.exchange(&mut wire).await?;
        }
        Ok(())
    }

    async fn make_new_connections(&self) -> Result<(), LoadError> {
        while !self.stopping.get() {
            let mut wire = connect(self.target).await?;
            self.exchange(&mut wire).await?;
            // `Connection: close` was sent: the other side closes first, so that TIME_WAIT is not ours
            wire.receive(|_| ()).await?;
        }
        Ok(())
    }

    async fn exchange(&self, wire: &mut Wire) -> Result<(), LoadError> {
        let turn = self.turn.get();
        let next = turn + 1;
        self.turn.set(if next < self.requests.count() { next } else { 0 });
        wire.send(&self.requests.get(turn)).await?;
        let answer = wire.receive(|answer| check_status(answer, self.expected));
        answer.await?.ok_or(LoadError::NoAnswer)??;
        self.answered.set(self.answered.get() + 1);
        Ok(())
    }
}

impl Requests {
    fn count(&self) -> usize {
        match self {
            Self::Made(requests) => requests.len(),
            Self::Making(count, _) => *count,
        }
    }

    fn get(&self, turn: usize) -> Cow<'_, [u8]> {
        match self {
            Self::Made(requests) => Cow::Borrowed(requests.get(turn).map(Vec::as_slice).unwrap_or_default()),
            Self::Making(_, make) => Cow::Owned(make(turn)),
        }
    }
}

/// Connects to a contestant.
pub async fn connect(target: SocketAddr) -> Result<Wire, WireError> {
    Ok(Wire::new(TcpStream::connect(target).await?)?)
}

/// One request on a connection; the answer's body must be the one that the upstream sends.
pub async fn compare_one(wire: &mut Wire, request: &[u8], sent: &[u8]) -> Result<(), LoadError> {
    wire.send(request).await?;
    let compared = wire.receive(|answer| {
        check_status(answer, "200")?;
        if answer.body == sent {
            return Ok(());
        }
        Err(LoadError::Body { got: answer.body.len(), sent: sent.len() })
    });
    compared.await?.ok_or(LoadError::NoAnswer)?
}

fn check_status(answer: Message<'_>, expected: &'static str) -> Result<(), LoadError> {
    let status = answer.head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..expected.len()));
    if status == Some(expected.as_bytes()) {
        return Ok(());
    }
    let line = answer.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Err(LoadError::Status { got: String::from_utf8_lossy(line).into_owned(), expected })
}
