//! Lists of a user's sessions.

use super::{Record, SessionId};

/// Which of a user's live sessions to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those that come after the first `skip`, newest first, and no more than `take` of them.
    Page {
        /// So many are left out.
        skip: u64,
        /// So many at most.
        take: u32,
    },
    /// This one.
    One(SessionId),
}

/// Some of a user's live sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Those that were wanted, newest first: by `created_at`, within a second as far as it is known.
    pub records: Vec<Record>,
    /// How many live sessions the user has in all; for one that was wanted by its id, how many were found.
    pub total: u64,
}
