//! What became of a change.

use super::SessionId;

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record was not there and is now.
    Created,
    /// The record was there and is newer now.
    Refreshed,
    /// The store held the same or something newer already.
    Unchanged,
    /// The session had been revoked: nothing was written.
    Revoked,
    /// The session's time was over when it was refreshed: it has ended. So many live sessions ended by this change,
    /// none where it had ended before.
    Expired(u64),
    /// One of these three, and other sessions of the user ended for it: `session.max_per_user`.
    Evicted(Evicted),
    /// Its user has as many sessions as `session.max_per_user` allows: nothing was written.
    Denied,
    /// So many live sessions ended.
    Ended(u64),
    /// A change to so many sessions that they are not dealt with at once. It holds for all of them from now on;
    /// so many have ended by now, sweeps deal with the rest.
    Pending(u64),
    /// A mark was set or lifted.
    Marked,
}

/// Who had to go for a session that began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// What became of the record: `Created`, `Refreshed` or `Unchanged`.
    pub recorded: Box<Outcome>,
    /// Whose place it took, the oldest first.
    pub sessions: Vec<SessionId>,
    /// There are still too many: the same change, made again, ends more of them.
    pub more: bool,
}

impl Outcome {
    /// How many sessions ended; one that was denied is one, for it lives in GoTrue.
    pub fn ended(&self) -> u64 {
        match self {
            Self::Ended(count) | Self::Pending(count) | Self::Expired(count) => *count,
            Self::Evicted(evicted) => evicted.sessions.len() as u64,
            Self::Denied => 1,
            Self::Created | Self::Refreshed | Self::Unchanged | Self::Revoked | Self::Marked => 0,
        }
    }
}
