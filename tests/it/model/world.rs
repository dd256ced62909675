//! The parts that histories share: two sidecars on one Redis before a model of GoTrue, which holds requests and answers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use gotrue_sidecar::{clock::Clock, session::Outcome, store::Store};

use super::gotrue::Gotrue;
use crate::support::{
    redis::RedisServer,
    sidecar::Sidecar,
    signer::{SECRET, Signer},
    upstream::{Gate, Seen, Step, Upstream},
};

const BEGINNING_MS: u64 = 1_800_000_000_000;

/// One request's way, as the upstream knows it by its `x-request-id`.
#[derive(Clone, Default)]
pub(super) struct Way {
    pub(super) before: Gate,
    pub(super) after: Gate,
    pub(super) arrived: Gate,
    pub(super) committed: Gate,
}

/// The parts that all histories share; each has users of its own.
pub(super) struct World {
    pub(super) gotrue: Arc<Gotrue>,
    pub(super) ways: Arc<Mutex<HashMap<String, Way>>>,
    pub(super) sidecars: [Sidecar; 2],
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) signer: Arc<Signer>,
    pending: AtomicUsize,
    _redis: RedisServer,
    _upstream: Upstream,
}

impl World {
    /// Redis deals with so many sessions of a user at once.
    pub(super) async fn in_steps_of(step: u32) -> Self {
        let clock = Clock::standing_at(BEGINNING_MS);
        let gotrue = Arc::new(Gotrue::new(&clock));
        let ways: Arc<Mutex<HashMap<String, Way>>> = Arc::default();
        let (model, known) = (Arc::clone(&gotrue), Arc::clone(&ways));
        let upstream = Upstream::start(move |seen| {
            let way = known.lock().unwrap().get(*seen.header("x-request-id").first().unwrap_or(&"")).cloned();
            way.map_or_else(|| vec![Step::Send(model.commit(seen))], |way| held(&model, seen, &way))
        })
        .await;
        let redis = RedisServer::start();
        let url = redis.unix_url();
        let flags = [
            "--upstream-url",
            &upstream.url,
            "--store-url",
            &url,
            "--jwt-secret",
            SECRET,
            "--store-timeout",
            "10s",
            "--log-access",
            "false",
        ];
        let sidecars = [(); 2].map(|()| Sidecar::start_in_steps(step, &clock, &flags));
        let store = sidecars[0].store();
        let signer = Arc::new(Signer::trusted());
        let pending = AtomicUsize::new(0);
        Self { gotrue, ways, sidecars, store, clock, signer, pending, _redis: redis, _upstream: upstream }
    }

    /// How often a change was pending so far.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Pending(_)) {
            self.pending.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn pass(&self, ms: u64) {
        self.clock.set(self.clock.millis() + ms);
    }
}

/// What the upstream does with a request that may be held.
fn held(model: &Arc<Gotrue>, seen: &Seen, way: &Way) -> Vec<Step> {
    way.arrived.open();
    let (model, seen, after, committed) =
        (Arc::clone(model), seen.clone(), way.after.clone(), way.committed.clone());
    let commit = move || {
        let bytes = model.commit(&seen);
        committed.open();
        vec![Step::Until(after.clone()), Step::Send(bytes)]
    };
    vec![Step::Until(way.before.clone()), Step::Then(Arc::new(commit))]
}
