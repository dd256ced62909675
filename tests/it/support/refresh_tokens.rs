//! What a store makes of a refresh token, part after part.

use gotrue_sidecar::{
    session::{Holder, RefreshRef, Seconds, SessionId, UserId},
    store::{Error, Store},
};

/// The live session that it belongs to.
pub(crate) async fn session_of(
    store: &Store,
    token: &RefreshRef,
    now: Seconds,
) -> Result<Option<(UserId, SessionId)>, Error> {
    match store.noted(token, now).await? {
        Some(noted) => Ok(store.names(noted, token, now).await?.map(|_| noted)),
        None => Ok(None),
    }
}

/// The session that it was last seen with, and what became of that.
pub(crate) async fn holder(store: &Store, token: &RefreshRef, now: Seconds) -> Result<Option<Holder>, Error> {
    match store.noted(token, now).await? {
        Some(noted) => store.holder(noted, now).await.map(Some),
        None => Ok(None),
    }
}
