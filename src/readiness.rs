//! Whether this process should get traffic, as named conditions; what `/readyz` says.
//!
//! Not ready is not dead: liveness asks nothing of GoTrue or the store (`/livez`), and by default a
//! store that is away costs no readiness, because every replica would leave at once.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::config;

/// The conditions, each set by whoever knows.
#[derive(Debug)]
pub struct Readiness {
    require: config::Readiness,
    has_store: bool,
    listening: AtomicBool,
    upstream: AtomicBool,
    store: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Nothing is well yet. Without a store, `readiness.require` cannot ask for one.
    pub fn new(require: config::Readiness, has_store: bool) -> Self {
        Self {
            require,
            has_store,
            listening: AtomicBool::new(false),
            upstream: AtomicBool::new(false),
            store: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// The public listener accepts.
    pub fn set_listening(&self, listening: bool) {
        self.listening.store(listening, Ordering::Relaxed);
    }

    /// GoTrue's `/health` answers.
    pub fn set_upstream(&self, answers: bool) {
        self.upstream.store(answers, Ordering::Relaxed);
    }

    /// The store answers.
    pub fn set_store(&self, answers: bool) {
        self.store.store(answers, Ordering::Relaxed);
    }

    /// A drain has begun. There is no way back.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// How things stand now.
    pub fn report(&self) -> Report {
        let holds = |condition: &AtomicBool| condition.load(Ordering::Relaxed);
        let says = |condition, well, ill| {
            if holds(condition) { Standing::Well(well) } else { Standing::Ill(ill) }
        };
        let conditions = [
            Condition {
                name: "listening",
                required: true,
                standing: says(&self.listening, "ok", "not yet, or not any more"),
            },
            Condition {
                name: "upstream",
                required: self.require.upstream,
                standing: says(&self.upstream, "ok", "does not answer"),
            },
            Condition {
                name: "store",
                required: self.require.store && self.has_store,
                standing: if self.has_store {
                    says(&self.store, "ok", "does not answer")
                } else {
                    Standing::Well("not configured")
                },
            },
            Condition {
                name: "draining",
                required: true,
                standing: if holds(&self.draining) { Standing::Ill("yes") } else { Standing::Well("no") },
            },
        ];
        Report { ready: conditions.iter().all(Condition::lets_be_ready), conditions }
    }
}

/// How things stood when it was asked for. Prints the text of `/readyz?verbose`: a line for every
/// condition, then the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// `/readyz` is 200, else 503.
    pub ready: bool,
    conditions: [Condition; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    name: &'static str,
    required: bool,
    standing: Standing,
}

/// Good or bad, and the word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Well(&'static str),
    Ill(&'static str),
}

impl Condition {
    fn lets_be_ready(&self) -> bool {
        !self.required || matches!(self.standing, Standing::Well(_))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.conditions {
            writeln!(f, "{condition}")?;
        }
        f.write_str(if self.ready { "ready\n" } else { "not ready\n" })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, word) = match self.standing {
            Standing::Well(word) => ('+', word),
            Standing::Ill(word) => ('-', word),
        };
        let required = if self.required { "required" } else { "not required" };
        write!(f, "[{mark}] {}: {word} ({required})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: config::Readiness = config::Readiness { upstream: true, store: false };
    const BOTH: config::Readiness = config::Readiness { upstream: true, store: true };
    const NEITHER: config::Readiness = config::Readiness { upstream: false, store: false };

    #[test]
    fn what_is_required_decides() {
        // required, has a store, listening, upstream, store → ready
        let table = [
            (UPSTREAM, true, true, true, true, true),
            (UPSTREAM, true, true, true, false, true),
            (UPSTREAM, true, true, false, true, false),
            (UPSTREAM, true, false, true, true, false),
            (UPSTREAM, false, true, true, false, true),
            (BOTH, true, true, true, true, true),
            (BOTH, true, true, true, false, false),
            (BOTH, false, true, true, false, true),
            (NEITHER, true, true, false, false, true),
            (NEITHER, true, false, true, true, false),
        ];
        for (require, has_store, listening, upstream, store, ready) in table {
            let readiness = Readiness::new(require, has_store);
            readiness.set_listening(listening);
            readiness.set_upstream(upstream);
            readiness.set_store(store);
            let report = readiness.report();
            assert_eq!(report.ready, ready, "{report}");
            readiness.set_draining();
            assert!(!readiness.report().ready, "draining");
        }
    }

    #[test]
    fn every_condition_is_always_listed() {
        let fresh = Readiness::new(UPSTREAM, false);
        assert_eq!(
            fresh.report().to_string(),
            "[-] listening: not yet, or not any more (required)\n\
             [-] upstream: does not answer (required)\n\
             [+] store: not configured (not required)\n\
             [+] draining: no (required)\n\
             not ready\n"
        );
        let well = Readiness::new(UPSTREAM, true);
        well.set_listening(true);
        well.set_upstream(true);
        assert_eq!(
            well.report().to_string(),
            "[+] listening: ok (required)\n\
             [+] upstream: ok (required)\n\
             [-] store: does not answer (not required)\n\
             [+] draining: no (required)\n\
             ready\n"
        );
    }
}
