//! That something changed, told across threads: a count for each of many groups of users, and one for all. Whoever
//! remembers what the store said notes the counts before asking, and forgets when they have moved.
//!
//! It says nothing of what changed, and may say so of users who share a group and changed nothing.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::Error;
use crate::session::UserId;

/// Groups of users: at thousands of changes a second, few others are forgotten in vain.
const GROUPS: usize = 4096;

/// The counts. They only grow.
#[derive(Debug)]
pub struct Changes {
    all: AtomicU64,
    groups: Box<[AtomicU64]>,
}

/// Whether the store tells of changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// It does.
    Yes,
    /// The connection is lost; the next one is being made.
    NotNow,
    /// It does not.
    No(Error),
}

impl Heard {
    /// What several masters together amount to.
    pub(super) fn by_all<'a>(each: impl Iterator<Item = &'a Self>) -> Self {
        let (mut all, mut any) = (Self::Yes, false);
        for heard in each {
            any = true;
            match (heard, &all) {
                (Self::No(_), Self::Yes | Self::NotNow) | (Self::NotNow, Self::Yes) => all = heard.clone(),
                _ => {}
            }
        }
        if any { all } else { Self::NotNow }
    }
}

/// The counts of one user at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    all: u64,
    group: u64,
}

impl Default for Changes {
    fn default() -> Self {
        Self { all: AtomicU64::new(0), groups: (0..GROUPS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Changes {
    /// The counts now; to be taken before the store is asked.
    pub fn noted(&self, user: UserId) -> Noted {
        let group = self.group(user).map_or(0, |count| count.load(SeqCst));
        Noted { all: self.all.load(SeqCst), group }
    }

    /// Something of this user's changed, or may have.
    pub fn of(&self, user: UserId) {
        if let Some(count) = self.group(user) {
            count.fetch_add(1, SeqCst);
        }
    }

    /// Anything may have changed.
    pub fn of_everybody(&self) {
        self.all.fetch_add(1, SeqCst);
    }

    fn group(&self, user: UserId) -> Option<&AtomicU64> {
        let bits = user.bits();
        let folded = (bits ^ (bits >> 64)) & (GROUPS as u128 - 1);
        self.groups.get(usize::try_from(folded).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_by_its_user_and_one_of_everybody_by_all() {
        let [one, other] = ["0191d1a0-0000-7000-8000-000000000001", "0191d1a0-0000-7000-8000-000000000002"]
            .map(|text| UserId::parse(text).unwrap());
        let changes = Changes::default();
        let before = [changes.noted(one), changes.noted(other)];
        changes.of(one);
        assert_ne!(changes.noted(one), before[0]);
        assert_eq!(changes.noted(other), before[1]);
        changes.of_everybody();
        assert_ne!(changes.noted(other), before[1]);
    }
}
