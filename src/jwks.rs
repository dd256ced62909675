//! The keys that verify tokens, kept current: those configured, and those that GoTrue publishes.
//!
//! GoTrue rotates keys without telling anybody. A token that names an unknown key makes us fetch
//! the set again, but not more often than every few seconds, whatever clients send.

mod judge;
pub mod remembered;

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header::HOST};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::Instant,
};

pub use self::judge::Judge;
use crate::{
    body::{self, Read, Stream},
    keys::{KeyRing, Verdict},
    metrics::Metrics,
    session::{Seconds, SessionId, UserId},
    upstream::{self, Outgoing, Upstream},
};

/// Between two fetches, however many tokens name unknown keys.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// GoTrue lets its set be cached for so long (`Cache-Control: max-age=600`).
const MAX_AGE: Duration = Duration::from_secs(600);
/// A JWKS document larger than this is refused.
const MAX_BYTES: usize = 256 * 1024;
/// How long a request waits for keys that it needs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the key set cannot be fetched")]
    Upstream(#[from] upstream::Error),
    #[error("the key set was answered with status {0}")]
    Status(u16),
    #[error("the key set is cut off, or larger than {MAX_BYTES} bytes")]
    Body,
    #[error("the key set is not understood")]
    Keys(#[from] crate::keys::KeyError),
}

/// Where the published keys are.
#[derive(Debug)]
pub struct Endpoint {
    /// The way there.
    pub upstream: Upstream,
    /// Path and query.
    pub target: Uri,
    /// The `Host` to ask for.
    pub host: HeaderValue,
}

/// Verifies tokens with the keys of the moment. Shared by all workers.
#[derive(Debug)]
pub struct Verifier {
    ring: ArcSwap<KeyRing>,
    /// Of the ring: grows after it was exchanged.
    generation: AtomicU64,
    endpoint: Option<Endpoint>,
    /// Whoever holds it fetches, everybody else waits for the result.
    last_fetch: Mutex<LastFetch>,
    /// Somebody named a key that is not here, and nothing was fetched since.
    is_wanted: AtomicBool,
    /// Somebody waits for that key.
    wanted: Notify,
    /// How many fetches have ended.
    fetched: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct LastFetch {
    began: Option<Instant>,
    /// What the keys in use were read from.
    document: Bytes,
}

impl LastFetch {
    fn is_older_than(&self, age: Duration) -> bool {
        self.began.is_none_or(|began| began.elapsed() >= age)
    }
}

impl Verifier {
    /// Starts with the configured keys; without an `endpoint` it stays with them.
    pub fn new(configured: KeyRing, endpoint: Option<Endpoint>, metrics: Arc<Metrics>) -> Self {
        Self {
            ring: ArcSwap::from_pointee(configured),
            generation: AtomicU64::new(0),
            endpoint,
            last_fetch: Mutex::default(),
            is_wanted: AtomicBool::new(false),
            wanted: Notify::new(),
            fetched: watch::Sender::new(0),
            metrics,
        }
    }

    /// Judges a token with the keys that are here. Where its key is not, the published ones are fetched once
    /// more by [`keep_current`](Self::keep_current), and nobody waits for them.
    pub fn verify(&self, token: &str, now: Seconds) -> Verdict {
        let verdict = self.ring.load().verify(token, now);
        if matches!(verdict, Verdict::NoKeys(_) | Verdict::UnknownKey(_)) {
            self.is_wanted.store(true, Relaxed);
        }
        verdict
    }

    /// Judges a token; where its key is not here, fetches the published ones once more before.
    pub async fn verify_fetching(&self, token: &str, now: Seconds) -> Verdict {
        match self.verify(token, now) {
            Verdict::NoKeys(_) | Verdict::UnknownKey(_) if self.endpoint.is_some() => {
                let _ = tokio::time::timeout(PATIENCE, self.fetch(MIN_INTERVAL)).await;
                self.verify(token, now)
            }
            verdict => verdict,
        }
    }

    /// Judges a token; where its key is not here, has somebody else fetch the published ones, unless that was just
    /// done, and waits for them for so long. Whoever leaves meanwhile breaks nothing off.
    pub async fn verify_within(&self, token: &str, now: Seconds, patience: Duration) -> Verdict {
        let mut fetched = self.fetched.subscribe(); // before looking, so that no end of a fetch is missed
        let verdict = self.verify(token, now);
        match verdict {
            Verdict::NoKeys(_) | Verdict::UnknownKey(_) if self.endpoint.is_some() && self.may_fetch() => {
                self.wanted.notify_one();
                let _ = tokio::time::timeout(patience, fetched.changed()).await;
                self.verify(token, now)
            }
            verdict => verdict,
        }
    }

    /// Until [`keep_current`](Self::keep_current) should be called without waiting for its time.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Tells keys apart that were exchanged: what one ring says of a token need not hold for another.
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// Whether a fetch is under way, or the last one began long enough ago.
    fn may_fetch(&self) -> bool {
        let last = self.last_fetch.try_lock();
        last.is_err() || last.is_ok_and(|last| last.is_older_than(MIN_INTERVAL))
    }

    /// A token of our own, to end sessions in GoTrue: see [`KeyRing::mint`].
    pub fn mint(&self, user: UserId, session: Option<SessionId>, now: Seconds) -> Option<String> {
        self.ring.load().mint(user, session, now)
    }

    /// Fetches when nobody has for ten minutes, or for a few seconds where the last attempt gave nothing or a
    /// key is wanted.
    pub async fn keep_current(&self) {
        let is_due = self.ring.load().is_empty() || self.is_wanted.load(Relaxed);
        let age = if is_due { MIN_INTERVAL } else { MAX_AGE };
        self.fetch(age).await;
    }

    /// Takes the configured keys anew; the published ones stay.
    pub fn configured(&self, ring: &KeyRing) {
        self.ring.rcu(|current| current.with_configured(ring));
        self.generation.fetch_add(1, Release);
    }

    async fn fetch(&self, min_age: Duration) {
        let Some(endpoint) = &self.endpoint else { return };
        let mut last = self.last_fetch.lock().await;
        if !last.is_older_than(min_age) {
            return;
        }
        last.began = Some(Instant::now());
        self.is_wanted.store(false, Relaxed);
        let taken = endpoint.fetch().await.and_then(|document| self.take(document, &mut last));
        self.metrics.jwks_fetched(taken.is_ok());
        if let Err(error) = taken {
            tracing::warn!(error = &error as &dyn std::error::Error, "no current signing keys from GoTrue");
        }
        drop(last);
        self.fetched.send_modify(|count| *count += 1);
    }

    /// Takes the keys of a document, unless it is the one that they are from already.
    fn take(&self, document: Bytes, last: &mut LastFetch) -> Result<(), Error> {
        if document == last.document {
            return Ok(());
        }
        let ring = self.ring.load().with_jwks(&document)?;
        self.ring.store(Arc::new(ring));
        self.generation.fetch_add(1, Release);
        last.document = document;
        Ok(())
    }
}

impl Endpoint {
    async fn fetch(&self) -> Result<Bytes, Error> {
        let mut request = Request::new(Outgoing::Full(None));
        *request.uri_mut() = self.target.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        let (response, lease) = self.upstream.send(request).await?;
        if !response.status().is_success() {
            return Err(Error::Status(response.status().as_u16()));
        }
        let stream = Stream::new(response.into_body(), lease);
        match body::read(stream, MAX_BYTES, PATIENCE).await {
            Read::Whole(held) => Ok(held.contiguous()),
            Read::TooLarge(_) | Read::CutOff(_) => Err(Error::Body),
        }
    }
}
