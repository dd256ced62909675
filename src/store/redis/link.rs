//! One connection to Redis that is made when it is needed and replaced when it is no good.
//!
//! Waiting is bounded: by `store.timeout` for an answer, connecting included. A connection that was
//! found closed is replaced and asked once more, which the idempotence of every change allows. One
//! that is silent may be half open (the peer vanished without a word) and is replaced when several calls
//! in a row had no answer, and none came for as long as one may wait; at most once a second.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ::redis::{AsyncConnectionConfig, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{sync::watch, time::timeout};

use super::{access::Access, failure, reply, target::Role};
use crate::{config::store_url::Address, store::Error};

/// Bound on making a connection: TCP, TLS and login. Goes on when those who wait for it have given up.
const CONNECT: Duration = Duration::from_secs(1);

/// So many calls in a row without an answer make a connection suspect.
const UNANSWERED: u32 = 3;

/// If there was none for this part of `store.timeout`, which callers count from a little earlier.
const SILENT: f64 = 0.9;

/// A connection is not replaced on suspicion more often than this.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

/// Commands that are on their way at once; more wait.
const IN_FLIGHT: usize = 1024;

/// The connection, or the attempt at one.
pub(super) struct Link {
    access: Arc<Access>,
    /// Else the first in the configuration's address.
    address: Option<Address>,
    role: Role,
    timeout: Duration,
    current: Mutex<Current>,
}

struct Current {
    /// Tells attempts apart, so that nobody throws away a newer one than they used.
    generation: u64,
    attempt: Option<watch::Receiver<Attempt>>,
    /// When the last one began.
    began: Instant,
    silence: Silence,
    /// When it last did what it was asked.
    did: Option<Instant>,
    replaced: Option<Instant>,
}

/// Calls in a row that had no answer, however soon their callers left.
#[derive(Debug, Default)]
struct Silence {
    calls: u32,
    /// When the first of them was sent.
    since: Option<Instant>,
}

impl Silence {
    /// One more, `sent` then and given up at `now`. Whether they are too many by now, for too long.
    fn goes_on(&mut self, sent: Instant, now: Instant, timeout: Duration) -> bool {
        let since = self.since.map_or(sent, |since| since.min(sent));
        *self = Self { calls: self.calls.saturating_add(1), since: Some(since) };
        self.calls >= UNANSWERED && now.saturating_duration_since(since) >= timeout.mul_f64(SILENT)
    }
}

/// Not yet, or how it went.
type Attempt = Option<RedisResult<MultiplexedConnection>>;

impl Link {
    /// To the server at that address, else at the first of the configuration's. Connects to nothing yet.
    pub(super) fn new(access: Arc<Access>, address: Option<Address>, role: Role, timeout: Duration) -> Self {
        Self {
            access,
            address,
            role,
            timeout,
            current: Mutex::new(Current {
                generation: 0,
                attempt: None,
                began: Instant::now(),
                silence: Silence::default(),
                did: None,
                replaced: None,
            }),
        }
    }

    /// Sends commands in one go; the replies are in their order, errors of single commands among them.
    ///
    /// # Errors
    /// When there are no replies.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Error> {
        let mut waiting = Waiting::new(self);
        let replies = match timeout(self.timeout, self.deliver(pipeline)).await {
            Ok(replies) => replies.map_err(|error| failure::error_of(&error)),
            Err(_elapsed) => Err(Error::Timeout),
        };
        waiting.answered = !matches!(replies, Err(Error::Timeout));
        if waiting.answered {
            self.answered(replies.as_deref().ok());
        }
        replies
    }

    /// Waits until there is a connection, for as long as for an answer.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn connected(&self) -> Result<(), Error> {
        match timeout(self.timeout, self.connection()).await {
            Ok(connected) => connected.map(drop).map_err(|error| failure::error_of(&error)),
            Err(_elapsed) => Err(Error::Timeout),
        }
    }

    /// Makes the next call over a new connection, unless this one has done since then what it was asked, or was begun
    /// since: to make one and to be answered over it may take longer than a call waits. Calls that are under way keep
    /// theirs.
    pub(super) fn renew(&self, since: Instant) {
        let mut current = self.current();
        if current.began >= since || current.did.is_some_and(|did| did >= since) {
            return;
        }
        current.silence = Silence::default();
        current.attempt = None;
    }

    async fn deliver(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let (generation, mut connection) = self.connection().await?;
        let failure = match replies(&mut connection, pipeline).await {
            Err(error) if error.is_unrecoverable_error() => error,
            other => return other,
        };
        self.abandon(generation);
        if !failure.is_connection_dropped() {
            return Err(failure);
        }
        let (_, mut connection) = self.connection().await?;
        replies(&mut connection, pipeline).await
    }

    async fn connection(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        let (generation, mut attempt) = self.attempt();
        let outcome = match attempt.wait_for(Option::is_some).await {
            Ok(outcome) => (*outcome).clone(),
            Err(_stopped) => None,
        };
        match outcome {
            Some(Ok(connection)) => Ok((generation, connection)),
            Some(Err(error)) => {
                self.abandon(generation);
                Err(error)
            }
            None => {
                self.abandon(generation);
                Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into())
            }
        }
    }

    /// The attempt that is there, or a new one. It runs on its own: whoever waits for it may give up.
    fn attempt(&self) -> (u64, watch::Receiver<Attempt>) {
        let mut current = self.current();
        // One that failed while nobody waited says nothing of now.
        if let Some(attempt) = &current.attempt
            && !matches!(*attempt.borrow(), Some(Err(_)))
        {
            return (current.generation, attempt.clone());
        }
        let (sender, attempt) = watch::channel(None);
        let (access, address, role) = (Arc::clone(&self.access), self.address.clone(), self.role);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(IN_FLIGHT)
            .set_concurrency_limit(IN_FLIGHT);
        tokio::spawn(async move {
            sender.send_replace(Some(access.connect(address.as_ref(), role, &config).await));
        });
        current.generation += 1;
        current.began = Instant::now();
        current.attempt = Some(attempt.clone());
        (current.generation, attempt)
    }

    /// Drops the attempt that was used, if it is still the one: the next call makes another.
    fn abandon(&self, generation: u64) {
        let mut current = self.current();
        if current.generation == generation {
            current.attempt = None;
        }
    }

    /// Drops the connection because something is wrong with what is behind it; at most once a second.
    fn suspect(&self) {
        let mut current = self.current();
        if current.replaced.is_none_or(|at| at.elapsed() >= REPLACE_AFTER) {
            current.replaced = Some(Instant::now());
            current.silence = Silence::default();
            current.attempt = None;
        }
    }

    /// It is not silent. `None`: that was all it had to say.
    fn answered(&self, replies: Option<&[Value]>) {
        let refuses = replies.is_some_and(|replies| replies.iter().any(reply::is_lasting_refusal));
        let mut current = self.current();
        current.silence = Silence::default();
        if replies.is_some() && !refuses {
            current.did = Some(Instant::now());
        }
        drop(current);
        if refuses {
            self.suspect();
        }
    }

    /// Nobody waits any more for the answer to a call that was sent then.
    fn unanswered(&self, sent: Instant) {
        let too_long = self.current().silence.goes_on(sent, Instant::now(), self.timeout);
        if too_long {
            self.suspect();
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("address", &self.address)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

async fn replies(connection: &mut MultiplexedConnection, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
    connection.send_packed_commands(pipeline, 0, pipeline.len()).await
}

/// Somebody waits for an answer. Whoever gives up on it, the caller included, the silence is counted.
struct Waiting<'a> {
    link: &'a Link,
    sent: Instant,
    answered: bool,
}

impl<'a> Waiting<'a> {
    fn new(link: &'a Link) -> Self {
        Self { link, sent: Instant::now(), answered: false }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.link.unanswered(self.sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_many_calls_and_a_long_time() {
        const TIMEOUT: Duration = Duration::from_millis(250);
        // when each call was sent and given up, in milliseconds, and with which that is too long
        let table = [
            (vec![(0, 250), (250, 500), (500, 750)], Some(2)),
            (vec![(0, 250), (0, 250), (0, 250)], Some(2)),
            (vec![(0, 100), (100, 200), (200, 300)], Some(2)),
            (vec![(0, 10), (10, 20), (20, 30), (30, 40)], None),
            (vec![(0, 10), (10, 20), (20, 30), (900_000, 900_010)], Some(3)),
            (vec![(0, 250), (250, 500)], None),
        ];
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        for (calls, expected) in table {
            let mut silence = Silence::default();
            let found = calls.iter().position(|&(sent, now)| silence.goes_on(at(sent), at(now), TIMEOUT));
            assert_eq!(found, expected, "{calls:?}");
        }
    }
}
