//! The keys that verify tokens, kept current: those configured, and those that GoTrue publishes.
//!
//! GoTrue rotates keys without telling anybody. A token that names an unknown key makes us fetch
//! the set again, but not more often than every few seconds, whatever clients send.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header::HOST};
use tokio::{sync::Mutex, time::Instant};

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
    endpoint: Option<Endpoint>,
    /// When the last fetch began; whoever holds it fetches, everybody else waits for the result.
    last_fetch: Mutex<Option<Instant>>,
    /// Somebody named a key that is not here, and nothing was fetched since.
    is_wanted: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Verifier {
    /// Starts with the configured keys; without an `endpoint` it stays with them.
    pub fn new(configured: KeyRing, endpoint: Option<Endpoint>, metrics: Arc<Metrics>) -> Self {
        Self {
            ring: ArcSwap::from_pointee(configured),
            endpoint,
            last_fetch: Mutex::new(None),
            is_wanted: AtomicBool::new(false),
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
    }

    async fn fetch(&self, min_age: Duration) {
        let Some(endpoint) = &self.endpoint else { return };
        let mut last = self.last_fetch.lock().await;
        if last.is_some_and(|last| last.elapsed() < min_age) {
            return;
        }
        *last = Some(Instant::now());
        self.is_wanted.store(false, Relaxed);
        let fetched = endpoint.fetch().await.and_then(|json| Ok(self.ring.load().with_jwks(&json)?));
        self.metrics.jwks_fetched(fetched.is_ok());
        match fetched {
            Ok(ring) => self.ring.store(Arc::new(ring)),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no current signing keys from GoTrue"
                );
            }
        }
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
