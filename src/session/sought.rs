//! A session that the store is asked about.

use super::{Seconds, SessionId, UserId};

/// Which session, and what its token tells that the store may not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub session: SessionId,
    /// When it began, as its token says, seconds since the epoch: counts where the store has no record of it.
    pub began: Option<Seconds>,
    /// Somebody acts by it: it counts as seen.
    pub touch: bool,
}

impl Sought {
    /// One of which nothing else is known, and that nobody acts by.
    pub fn of(user: UserId, session: SessionId) -> Self {
        Self { user, session, began: None, touch: false }
    }
}
