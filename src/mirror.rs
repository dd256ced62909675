//! What an exchange with GoTrue means for its sessions: pure decisions, no I/O.
//!
//! The proxy asks four questions, in this order: must the request's body be read
//! ([`Asked::reads_body`]), what is known before the request is sent on ([`Mirror::before`]), must
//! the answer's body be read ([`Asked::inspection`]), and what does the answer change
//! ([`Mirror::after`]). The specification is the table of GS §9 as corrected by contract §5 and §6
//! and by recorded exchanges; `tests/it/decisions.rs` holds it against all of them.
//!
//! Proof (I2): a change needs GoTrue's own success, or a token that verifies here. Where GoTrue
//! *refuses*, only a verified token counts; where it agrees, a token that fails to verify with a
//! key that is known here stops the change.

mod body;
mod client;
mod ending;
mod inspect;
mod record;
mod refusal;
#[cfg(test)]
mod tests;
mod witness;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{HeaderMap, Method, StatusCode};

pub use client::client_ip;
pub use inspect::Inspection;
pub use refusal::{ByRef, Fate};
pub use witness::witnessed;

use crate::keys::Verdict;
use crate::route::Route;
use crate::scope::first_query_value;
use crate::session::{Change, RefreshRef, Seconds, Unrecorded};
use crate::token::{Issued, RefKey};

/// The request, as it was sent on to GoTrue. Prints nothing that a client sent.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What it means.
    pub route: Route,
    /// Its method.
    pub method: &'a Method,
    /// Its path, without the query and after the configured prefix was taken off.
    pub path: &'a str,
    /// Its raw query, empty where there is none.
    pub query: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, where [`Asked::reads_body`] said so and it was read in whole.
    pub body: Option<&'a [u8]>,
    /// What is known of its Bearer token; `None` where there is none.
    pub bearer: Option<&'a Verdict>,
    /// The client's address as GoTrue reads it, see [`client_ip`].
    pub client_ip: Option<&'a str>,
    /// Milliseconds since the epoch when it was sent on; before that, the present.
    pub sent_ms: u64,
}

/// GoTrue's answer. Prints nothing but its status.
#[derive(Clone, Copy)]
pub struct Answered<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body, or why it is not there.
    pub body: Body<'a>,
    /// Milliseconds since the epoch when its head came.
    pub now_ms: u64,
}

/// The body of an answer, as far as it was read.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// All of it, not compressed.
    Whole(&'a [u8]),
    /// Nobody looked, as [`Inspection::Pass`] says.
    Unread,
    /// It should have been read and could not be.
    Lost(Unrecorded),
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("route", &self.route)
            .field("sent_ms", &self.sent_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Answered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered")
            .field("status", &self.status)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(_) => f.write_str("Whole(…)"),
            Self::Unread => f.write_str("Unread"),
            Self::Lost(cause) => write!(f, "Lost({cause:?})"),
        }
    }
}

/// What an exchange changes.
#[derive(Debug, Default)]
pub struct Decision<'a> {
    /// Changes to apply, in this order.
    pub changes: Vec<Change>,
    /// A change to a session of which only the refresh token is known.
    pub by_ref: Option<ByRef>,
    /// Why an answer that looked as if it would change something does not.
    pub unrecorded: Option<Unrecorded>,
    /// The tokens that GoTrue handed out, recorded or not: what a revoked session must be ended
    /// with (contract §6.3).
    pub issued: Option<Issued<'a>>,
}

impl Decision<'_> {
    /// Nothing to do, nothing to count, no tokens.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.by_ref.is_none() && self.unrecorded.is_none() && self.issued.is_none()
    }
}

/// Decides. Holds what decisions depend on besides the exchange itself. Clones share their key.
#[derive(Clone, Debug)]
pub struct Mirror {
    ref_key: Arc<ArcSwapOption<RefKey>>,
    expired_grace: Seconds,
}

impl Mirror {
    /// Without `ref_key` no references to refresh tokens are made, and what only they could tell
    /// stays unknown. `expired_grace` is `logout.expired_grace`; zero switches it off.
    pub fn new(ref_key: Option<RefKey>, expired_grace: Duration) -> Self {
        let ref_key = Arc::new(ArcSwapOption::from_pointee(ref_key));
        Self { ref_key, expired_grace: expired_grace.as_secs() }
    }

    /// Makes references with another key from now on, in all clones. References that were made before lead
    /// nowhere any more, as after a restart with that key.
    pub fn exchange_ref_key(&self, ref_key: Option<RefKey>) {
        self.ref_key.store(ref_key.map(Arc::new));
    }

    /// What must be changed before the request is sent on: the session of a logout (contract
    /// §6.1), so that it stays ended here whatever becomes of the request.
    pub fn before(&self, asked: &Asked<'_>) -> Option<Change> {
        (asked.route == Route::Logout).then(|| ending::own_session(asked, self.expired_grace)).flatten()
    }

    /// What stands for the refresh token that a refresh is asked with, where a reference key is known.
    pub fn spent(&self, asked: &Asked<'_>) -> Option<RefreshRef> {
        let token = asked.is_refresh().then(|| record::spent_token(asked)).flatten()?;
        self.reference(&token)
    }

    /// What the answer changes.
    pub fn after<'a>(&self, asked: &Asked<'_>, answered: &Answered<'a>) -> Decision<'a> {
        let mut decision = Decision::default();
        if let Body::Lost(cause) = answered.body {
            decision.unrecorded = Some(cause);
        }
        if answered.status.is_client_error() {
            self.refused(asked, answered, &mut decision);
        } else if let Some(issued) = issued(answered) {
            self.issued(asked, answered, issued, &mut decision);
        } else if answered.status.is_success() {
            ending::agreed(asked, answered, &mut decision);
        }
        decision
    }
}

impl Asked<'_> {
    /// `grant_type` of `POST /token`, which GoTrue reads from the query: a form body would have
    /// to be JSON at the same time (`internal/api/token.go`).
    fn is_refresh(&self) -> bool {
        match self.route {
            Route::Token => is_grant(self.query, "refresh_token"),
            Route::OauthToken => {
                self.fields().is_some_and(|fields| fields.grant_type.as_deref() == Some("refresh_token"))
            }
            _ => false,
        }
    }

    fn fields(&self) -> Option<body::Fields> {
        body::Fields::read(self.body?, self.route, self.headers)
    }
}

/// Whether a query asks `POST /token` for this grant.
fn is_grant(query: &str, grant: &str) -> bool {
    first_query_value(query, "grant_type").as_deref() == Some(grant)
}

impl Answered<'_> {
    fn now(&self) -> Seconds {
        self.now_ms / 1000
    }

    /// A header's value, where it is text.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The tokens an answer carries, if it has the form of one that does.
fn issued<'a>(answered: &Answered<'a>) -> Option<Issued<'a>> {
    if answered.status.is_redirection() {
        let location = answered.headers.get(http::header::LOCATION)?;
        return Issued::in_location(location.to_str().ok()?);
    }
    match answered.body {
        Body::Whole(body) if answered.status.is_success() => Issued::in_json(body),
        _ => None,
    }
}
