//! Sessions that differed at the first look. Database and store are not read at the same moment, so only
//! what still differs in the same way a while later is drift.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::compare::Difference;
use crate::session::{SessionId, UserId};

/// Suspects that wait at once. An audit that suspects more of them has to wait, too: this bounds its memory.
const MOST: usize = 50_000;

/// One that is to be looked at again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub(super) user: UserId,
    pub(super) session: SessionId,
    /// At the first look.
    pub(super) seen: Difference,
    since: Instant,
}

/// Those that wait, in the order in which they were seen.
#[derive(Debug)]
pub(super) struct Suspects {
    waiting: VecDeque<Suspect>,
    settle: Duration,
}

impl Suspects {
    /// `settle`: how long what is under way needs to arrive in both.
    pub(super) fn new(settle: Duration) -> Self {
        Self { waiting: VecDeque::new(), settle }
    }

    pub(super) fn add(&mut self, user: UserId, session: SessionId, seen: Difference) {
        self.waiting.push_back(Suspect { user, session, seen, since: Instant::now() });
    }

    /// The next ones, at most `most`, that have waited long enough.
    pub(super) fn due(&mut self, most: usize) -> Vec<Suspect> {
        let now = Instant::now();
        let due = |it: &Suspect| now.saturating_duration_since(it.since) >= self.settle;
        let count = self.waiting.iter().take(most).take_while(|it| due(it)).count();
        self.waiting.drain(..count).collect()
    }

    /// Until when to wait before anything else is done: where too many wait, or with `all` any.
    pub(super) fn wait_until(&self, all: bool) -> Option<Instant> {
        let full = all || self.waiting.len() >= MOST;
        self.waiting.front().filter(|_| full).map(|it| it.since + self.settle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::compare::Cause;

    fn with(count: usize) -> Suspects {
        let id = "0191d1a0-0000-7000-8000-000000000001";
        let (user, session) = (UserId::parse(id).unwrap(), SessionId::parse(id).unwrap());
        let mut suspects = Suspects::new(Duration::from_secs(2));
        for _ in 0..count {
            suspects.add(user, session, Difference { cause: Cause::Unknown, stamps: None });
        }
        suspects
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_is_due_when_it_has_waited() {
        let mut suspects = with(3);
        assert!(suspects.due(10).is_empty());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(suspects.due(2).len(), 2);
        assert_eq!(suspects.due(2).len(), 1);
        assert!(suspects.wait_until(true).is_none(), "nobody is left");
    }

    #[tokio::test(start_paused = true)]
    async fn the_audit_waits_only_for_too_many_or_for_all() {
        assert!(with(3).wait_until(false).is_none());
        assert_eq!(with(3).wait_until(true), Some(Instant::now() + Duration::from_secs(2)));
        assert!(with(MOST).wait_until(false).is_some());
    }
}
