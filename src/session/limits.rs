//! Limits of sessions (contract §6.5).

use super::Seconds;

/// When the time of a session is over, seconds; `None` where there is no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `session.idle_timeout`: since it was last seen, refreshed, or began.
    pub idle: Option<Seconds>,
    /// `session.absolute_timeout`: since it began.
    pub absolute: Option<Seconds>,
}

impl Limits {
    /// Whether sessions end by time.
    pub fn end_by_time(self) -> bool {
        self.idle.is_some() || self.absolute.is_some()
    }
}
