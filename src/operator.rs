//! The operator's hand on the store: `sessions list`, `show` and `revoke`, for the night shift. Works on the shared
//! store itself, whether or not a sidecar runs; needs nothing but the way there. Shows what the session API shows, so
//! no secret.

mod said;

pub use self::said::Said;
use crate::{
    audit::{self, Actor, By},
    clock,
    config::Config,
    session::{Outcome, Reason, Record, SessionId, UserId, Wanted, Which},
    sessions,
    store::{self, Store},
};

/// So many sessions are asked for at once.
const PAGE: u32 = 1000;

/// In the place of a route in audit lines.
const ROUTE: &str = "sessions revoke";

/// What shall be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Show a user's live sessions.
    List(UserId),
    /// Show one of them.
    Show(UserId, SessionId),
    /// Revoke one of them, or without an id all, also those that no sidecar ever saw.
    Revoke(UserId, Option<SessionId>),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No store is configured; the command line refuses that before.
    #[error("store.url: expected a shared store")]
    NoStore,
    /// The store's address or files.
    #[error("store: cannot be set up")]
    Open(#[from] store::OpenError),
    /// The store did not do it, or did not say so.
    #[error("store")]
    Store(#[from] store::Error),
}

/// Does it. A revocation makes an audit line, as everywhere.
///
/// # Errors
/// See [`Error`].
pub async fn obey(order: Order, config: &Config) -> Result<Said, Error> {
    let store = config.store.as_ref().ok_or(Error::NoStore)?;
    let store = store::Source::new(store, config.session.ttl)?.with_limits(config.session.limits).connect();
    Ok(match order {
        Order::List(user) => Said::Sessions(list(&store, user).await?),
        Order::Show(user, session) => {
            let listed = store.list(user, Wanted::One(session), clock::seconds()).await?;
            listed.records.into_iter().next().map_or(Said::Nothing, |record| Said::Session(Box::new(record)))
        }
        Order::Revoke(user, session) => {
            let which = session.map_or(Which::All, Which::Live);
            match (revoke(&store, user, which).await?, session) {
                (0, Some(_)) => Said::Nothing,
                (count, _) => Said::Revoked(count),
            }
        }
    })
}

async fn list(store: &Store, user: UserId) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    let mut skip = 0;
    loop {
        let wanted = Wanted::Page { skip, take: PAGE };
        let listed = store.list(user, wanted, clock::seconds()).await?;
        records.extend(listed.records);
        skip += u64::from(PAGE);
        if skip >= listed.total {
            return Ok(records);
        }
    }
}

/// How many live sessions ended; those that were left for later, too.
async fn revoke(store: &Store, user: UserId, which: Which) -> Result<u64, Error> {
    let change = sessions::change(user, which, clock::millis());
    let outcome = store.apply_one(&change, clock::seconds()).await;
    let actor = Actor::Operator(rustix::process::getuid().as_raw());
    audit::revocation(&change, &outcome, actor, By { route: ROUTE, request_id: b"" });
    let outcome = outcome?;
    let mut ended = outcome.ended();
    let mut pending = matches!(outcome, Outcome::Pending(_));
    while pending {
        let swept = store.sweep(user, clock::seconds()).await?;
        ended +=
            swept.ended.iter().filter(|(reason, _)| *reason == Reason::Revoked).map(|(_, n)| n).sum::<u64>();
        pending = swept.pending;
    }
    Ok(ended)
}
