//! The time of day, read in one place.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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

/// The clock that sessions go by: the system's, or one that is set by hand, for exchanges that were
/// recorded at another time. Clones of one that is set by hand show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    by_hand: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// One that stands at this time until it is [set](Self::set).
    pub fn standing_at(now: Millis) -> Self {
        Self { by_hand: Some(Arc::new(AtomicU64::new(now))) }
    }

    /// Sets it. The system's is not ours to set.
    pub fn set(&self, now: Millis) {
        if let Some(clock) = &self.by_hand {
            clock.store(now, Relaxed);
        }
    }

    /// Now, in milliseconds since the epoch.
    pub fn millis(&self) -> Millis {
        self.by_hand.as_ref().map_or_else(millis, |clock| clock.load(Relaxed))
    }

    /// Now, in seconds since the epoch.
    pub fn seconds(&self) -> Seconds {
        self.millis() / 1000
    }
}
