//! The session that a refresh token belongs to, and as which of its tokens.

use super::{SessionId, State, UserId};

/// What a refresh token leads to, whether or not the session still names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Whose session.
    pub user: UserId,
    /// Which.
    pub session: SessionId,
    /// What is known of it.
    pub state: State,
    /// GoTrue is known to have ended it.
    pub ended_in_gotrue: bool,
}

/// Which of a session's refresh tokens one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOf {
    /// GoTrue handed it out last.
    Current,
    /// GoTrue has taken it for the current one.
    Previous,
}
