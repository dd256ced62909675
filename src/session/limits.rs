//! Limits of sessions (contract §6.5).

use super::Seconds;

/// When the time of a session is over, seconds, and how many a user may have; `None` where there is no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `session.idle_timeout`: since it was last seen, refreshed, or began.
    pub idle: Option<Seconds>,
    /// `session.absolute_timeout`: since it began.
    pub absolute: Option<Seconds>,
    /// `session.max_per_user`, with `session.max_policy`.
    pub cap: Option<Cap>,
}

/// How many live sessions a user may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// At least 1, at most 256.
    pub most: u32,
    /// What happens when one more begins.
    pub above: AboveCap,
}

/// What happens when a user has as many sessions as may be, and one more begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AboveCap {
    /// The oldest ends.
    EvictOldest,
    /// The new one is refused, as long as nobody has its tokens; else it is one more.
    Deny,
}

impl Limits {
    /// Whether sessions end by time.
    pub fn end_by_time(self) -> bool {
        self.idle.is_some() || self.absolute.is_some()
    }
}
