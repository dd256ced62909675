//! The check endpoint (contract §8): whether a Bearer token is good and its session not revoked, for gateways.
//!
//! Decided from the credential alone, so that no method, path or header that a gateway passes on can be forged into
//! a yes. From memory wherever that is fresh enough; `docs/check.md` says what fresh is.

pub mod decision;
mod states;
mod tokens;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE},
};
use tokio::time::Instant;

use self::{
    decision::{Known, Subject},
    states::States,
    tokens::Verified,
};
use crate::{
    body::Body,
    clock::Clock,
    config,
    error::{self, Form},
    headers::X_REQUEST_ID,
    jwks::{
        Verifier,
        remembered::{self, Hash, Remembered},
    },
    keys,
    metrics::{CheckCache, Metrics, Refusal},
    session::Sought,
    sessions::Sessions,
    store::changes::Changes,
};

/// So many verified tokens are kept, by each worker.
const MOST: usize = 65_536;
/// They take so much, by each worker; 400 bytes each, about.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// One worker's checks.
#[derive(Debug)]
pub struct Check {
    config: config::Check,
    verifier: Arc<Verifier>,
    tokens: Remembered<Verified>,
    states: Arc<States>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Whether a path is the check's. Gateways put what they like behind it.
pub fn is_check(path: &str) -> bool {
    path.strip_prefix("/check").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Check {
    /// Nothing is remembered yet. `changes` are those of the store that `sessions` asks, where it tells of any.
    pub fn new(
        config: config::Check,
        sessions: &Arc<Sessions>,
        verifier: Arc<Verifier>,
        changes: Option<Arc<Changes>>,
    ) -> Self {
        Self {
            config,
            verifier,
            tokens: Remembered::new(MOST, MOST_BYTES),
            states: Arc::new(States::new(Arc::clone(sessions), changes, config.max_staleness)),
            clock: sessions.clock.clone(),
            metrics: Arc::clone(&sessions.metrics),
        }
    }

    /// Answers whoever asks about a request with these headers.
    pub async fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let began = Instant::now();
        let decision = self.decide(headers, began).await;
        self.account(decision.as_ref().map(|_| ()).map_err(|refusal| *refusal), began.elapsed());
        match decision {
            Ok(verified) => allowed(&verified),
            Err(refusal) => denied(refusal, headers),
        }
    }

    /// The answer to a request that could not be read: whatever it was, it was no credential.
    pub fn unreadable(&self) -> Response<Body> {
        self.account(Err(Refusal::BadToken), Duration::ZERO);
        denied(Refusal::BadToken, &HeaderMap::new())
    }

    fn account(&self, decision: Result<(), Refusal>, took: Duration) {
        self.metrics.checked(decision::result(decision), took);
        if let Err(refusal) = decision {
            self.metrics.refused(refusal);
        }
    }

    async fn decide(&self, headers: &HeaderMap, began: Instant) -> Result<Arc<Verified>, Refusal> {
        let token = credential(headers)?;
        let (hash, generation, now) =
            (remembered::hash(token), self.verifier.generation(), self.clock.seconds());
        let (verified, at) = if let Some(verified) = self.tokens.get(&hash, generation, now) {
            self.metrics.check_cache_hit(CheckCache::Token);
            (verified, began)
        } else {
            // it may have waited for a key: what was fresh when the question came need not be so any more
            (Box::pin(self.verify(token, hash, generation)).await?, Instant::now())
        };
        match verified.subject {
            Subject::Key => decision::permit_key(&self.config)?,
            Subject::Session(sought) => {
                let known = match self.states.remembered(&sought, at) {
                    Some(known) => known,
                    None => Box::pin(self.ask(sought, began, headers)).await,
                };
                decision::permit_session(known, &self.config)?;
                if known == Known::Undecided {
                    self.metrics.check_let_through_undecided();
                }
            }
        }
        Ok(verified)
    }

    /// Asks the store. A session whose time is over is ended by whoever finds that out (contract §6.5).
    async fn ask(&self, sought: Sought, began: Instant, headers: &HeaderMap) -> Known {
        let known = self.states.ask(sought, self.left(began)).await;
        if known == Known::Expired {
            self.states.end_for_good(&sought, headers.get(X_REQUEST_ID));
        }
        known
    }

    /// Verifies a token, and remembers it if it is good.
    async fn verify(&self, token: &str, hash: Hash, generation: u64) -> Result<Arc<Verified>, Refusal> {
        let now = self.clock.seconds();
        let verdict = self.verifier.verify_within(token, now, self.config.timeout).await;
        let subject = decision::subject(&verdict, now)?;
        let claims = verdict.proven().ok_or(Refusal::BadToken)?;
        let verified = Arc::new(Verified::new(subject, claims));
        self.tokens.keep(hash, generation, &verified);
        Ok(verified)
    }

    /// What is left of `check.timeout`.
    fn left(&self, began: Instant) -> Duration {
        self.config.timeout.saturating_sub(began.elapsed())
    }
}

/// The one token, by GoTrue's rules. Of several, two readers could take different ones.
fn credential(headers: &HeaderMap) -> Result<&str, Refusal> {
    if headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        return Err(Refusal::BadToken);
    }
    let token = keys::bearer(headers).ok_or(Refusal::NoToken)?;
    if token.len() > keys::TOKEN_MAX { Err(Refusal::BadToken) } else { Ok(token) }
}

fn allowed(verified: &Verified) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::new()));
    *response.headers_mut() = verified.headers();
    response
}

fn denied(refusal: Refusal, asked_by: &HeaderMap) -> Response<Body> {
    let status = decision::status(refusal);
    let mut response = error::answer_with(status, refusal, Form::asked_beside(asked_by));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750 §3.1: who sent nothing is told nothing but how to
        let said = if refusal == Refusal::NoToken { "Bearer" } else { r#"Bearer error="invalid_token""# };
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(said));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_paths_are_check_and_what_is_below() {
        for (path, expected) in [
            ("/check", true),
            ("/check/", true),
            ("/check/rest/v1/todos", true),
            ("/checked", false),
            ("/Check", false),
            ("/x/check", false),
            ("/", false),
        ] {
            assert_eq!(is_check(path), expected, "{path}");
        }
    }

    #[test]
    fn one_bearer_token_is_a_credential() {
        let table: [(&[&str], Result<&str, Refusal>); 8] = [
            (&["Bearer a.b.c"], Ok("a.b.c")),
            (&["bEaReR a.b.c"], Ok("a.b.c")),
            (&[], Err(Refusal::NoToken)),
            (&[""], Err(Refusal::NoToken)),
            (&["Basic YTpi"], Err(Refusal::NoToken)),
            (&["Bearer  a.b.c"], Err(Refusal::NoToken)),
            (&["Bearer a.b.c, Bearer d.e.f"], Err(Refusal::NoToken)),
            (&["Bearer a.b.c", "Bearer a.b.c"], Err(Refusal::BadToken)),
        ];
        for (values, expected) in table {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(credential(&headers), expected, "{values:?}");
        }
        let long = format!("Bearer {}", "a".repeat(keys::TOKEN_MAX + 1));
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(long).unwrap())]);
        assert_eq!(credential(&headers), Err(Refusal::BadToken));
    }
}
