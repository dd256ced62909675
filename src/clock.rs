//! The time of day, read in one place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::session::Seconds;

/// Milliseconds since the epoch.
pub type Millis = u64;

/// Now, in milliseconds since the epoch; zero on a machine that believes to be before it.
pub fn millis() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Now, in seconds since the epoch.
pub fn seconds() -> Seconds {
    millis() / 1000
}
