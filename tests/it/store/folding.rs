//! Changes that waited, folded and written late, leave what they would have left had they been written at once: over
//! random histories in which a replica loses sight of the store and finds it again, on the embedded store.

use std::{collections::BTreeMap, sync::Arc};

use gotrue_sidecar::{
    audit::By,
    metrics::Metrics,
    replay::{Queue, Queued, What},
    store::may_overtake,
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};

use super::*;

const SESSIONS: u64 = 8;
const BY: By<'_> = By { route: "/token", request_id: b"" };

/// What happens next in GoTrue, as far as one step of a history decides it.
#[derive(Clone, Copy, Debug)]
enum Step {
    SignIn(u64),
    Refresh(u64),
    /// Of the session before it was forwarded, and as GoTrue agreed.
    Logout(u64, Scope),
    RaiseAal(u64),
    RemoveFactor,
    Ban,
    Refused,
    Pardon,
}

#[derive(Clone, Copy, Debug)]
enum Scope {
    Local,
    Others,
    Global,
}

/// Where the change of a step goes: straight to the store, as by another replica, or into the queue.
#[derive(Clone, Copy, Debug)]
struct Told {
    step: Step,
    directly: bool,
    flush: bool,
}

fn a_step() -> impl Strategy<Value = Step> {
    let session = || 1..=SESSIONS;
    prop_oneof![
        4 => session().prop_map(Step::SignIn),
        6 => session().prop_map(Step::Refresh),
        4 => (session(), select(vec![Scope::Local, Scope::Others, Scope::Global]))
            .prop_map(|(session, scope)| Step::Logout(session, scope)),
        1 => session().prop_map(Step::RaiseAal),
        1 => Just(Step::RemoveFactor),
        1 => Just(Step::Ban),
        1 => Just(Step::Refused),
        1 => Just(Step::Pardon),
    ]
}

fn a_history(directly: u32) -> impl Strategy<Value = Vec<Told>> {
    let one = (a_step(), 0..100_u32, 0..12_u32).prop_map(move |(step, way, flush)| Told {
        step,
        directly: way < directly,
        flush: flush == 0,
    });
    prop::collection::vec(one, 1..40)
}

/// GoTrue, as far as a history needs it: which sessions there are and what was last issued for each.
struct Gotrue {
    user: UserId,
    counted: bool,
    /// Whether it is told that whoever got tokens was not banned: see `may_overtake`.
    allows: bool,
    records: BTreeMap<u64, Record>,
    begun: BTreeMap<u64, Seconds>,
    tokens: u64,
    now: Seconds,
}

impl Gotrue {
    fn new(counted: bool, allows: bool) -> Self {
        Self {
            user: user_id(1),
            counted,
            allows,
            records: BTreeMap::new(),
            begun: BTreeMap::new(),
            tokens: 0,
            now: NOW,
        }
    }

    /// The changes that the mirror makes of a step; none where GoTrue would refuse.
    fn does(&mut self, step: Step) -> Vec<Change> {
        self.now += 1;
        let (user, sent_ms) = (self.user, self.now * 1000 + 500);
        match step {
            Step::SignIn(number) => self.sign_in(number).into_iter().collect(),
            Step::Refresh(number) => self.refresh(number, None).into_iter().collect(),
            Step::RaiseAal(number) => {
                let raised = self.refresh(number, Some(factor_id(1)));
                if raised.is_some() {
                    self.records.retain(|known, record| *known == number || record.aal != Some(Aal::Aal1));
                }
                let others = raised.as_ref().map(|_| self.end(Which::Aal1Except(session_id(number))));
                raised.into_iter().chain(others).collect()
            }
            Step::RemoveFactor => vec![Change::LowerAal { user, factor: factor_id(1) }],
            Step::Ban => vec![Change::Suspend { user, until: Some(self.now + 9_000), decided_ms: sent_ms }],
            Step::Pardon => vec![Change::Suspend { user, until: None, decided_ms: sent_ms }],
            Step::Refused => vec![Change::Banned { user, until: self.now + 600, seen_ms: sent_ms }],
            Step::Logout(number, scope) => self.logout(number, scope),
        }
    }

    fn logout(&mut self, number: u64, scope: Scope) -> Vec<Change> {
        let Some(known) = self.records.get(&number).cloned() else { return Vec::new() };
        let own = Change::End {
            user: self.user,
            which: Which::One(session_id(number)),
            reason: Reason::Logout,
            sent_ms: self.now * 1000 + 500,
            expires_at: Some(known.expires_at),
            ended_in_gotrue: false,
        };
        match scope {
            Scope::Local => {
                self.records.remove(&number);
                vec![own, self.end(Which::One(session_id(number)))]
            }
            Scope::Others => {
                self.records.retain(|known, _| *known == number);
                vec![self.end(Which::Others(session_id(number)))]
            }
            Scope::Global => {
                self.records.clear();
                vec![own, self.end(Which::One(session_id(number))), self.end(Which::All)]
            }
        }
    }

    fn end(&self, which: Which) -> Change {
        Change::End {
            user: self.user,
            which,
            reason: Reason::Logout,
            sent_ms: self.now * 1000 + 500,
            expires_at: Some(self.now + 3_600),
            ended_in_gotrue: true,
        }
    }

    /// A session has its id once only.
    fn sign_in(&mut self, number: u64) -> Option<Change> {
        if self.begun.contains_key(&number) {
            return None;
        }
        self.begun.insert(number, self.now);
        let record = self.issued(Record {
            began_ms: self.now * 1000,
            created_at: self.now,
            counter: self.counted.then_some(0),
            ..signed_in(self.user, session_id(number))
        });
        self.records.insert(number, record.clone());
        Some(Change::Record {
            origin: Origin::SignIn,
            record: Box::new(record),
            allowed_ms: self.allows.then_some(self.now * 1000),
        })
    }

    fn refresh(&mut self, number: u64, factor: Option<FactorId>) -> Option<Change> {
        let old = self.records.get(&number).cloned()?;
        let mut record = self.issued(Record {
            previous_ref: old.refresh_ref.clone(),
            began_ms: 0,
            begun_by_ms: self.now * 1000,
            counter: old.counter.map(|counter| counter + 1),
            ..old.clone()
        });
        if factor.is_some() {
            (record.aal, record.factor_id) = (Some(Aal::Aal2), factor);
        }
        self.records.insert(number, record.clone());
        let allowed_ms = (self.allows && factor.is_none()).then_some(self.now * 1000);
        Some(Change::Record { origin: Origin::Refresh, record: Box::new(record), allowed_ms })
    }

    fn issued(&mut self, record: Record) -> Record {
        self.tokens += 1;
        Record {
            refresh_ref: Some(token(self.tokens)),
            refreshed_at: self.now,
            seen_at: Some(self.now),
            expires_at: self.now + 3_600,
            earlier_until: None,
            ..record
        }
    }
}

/// Writes everything that waits, as the errand does: by user, in order. Before the rest what may overtake it, where
/// there was no room for a while.
async fn flush(queue: &Queue, store: &Store, was_full: bool, now: Seconds) {
    let mut waiting = queue.next(0, usize::MAX);
    let overtakes = |queued: &Arc<Queued>| matches!(&queued.what, What::Change(it) if may_overtake(it));
    if was_full {
        waiting.sort_by_key(|queued| !overtakes(queued)); // stable
    }
    for queued in waiting {
        let What::Change(change) = &queued.what else { unreachable!() };
        store.apply(std::slice::from_ref(change), now).await.unwrap();
        assert!(queue.take(&queued));
    }
    assert!(queue.is_empty());
}

/// What whoever comes with tokens of the sessions is told.
async fn told(store: &Store, gotrue: &Gotrue) -> Vec<String> {
    let (now, tokens) = (gotrue.now, gotrue.tokens);
    let mut told = Vec::new();
    for number in 1..=SESSIONS {
        let began = gotrue.begun.get(&number).copied();
        let sought = Sought { began, ..Sought::of(user_id(1), session_id(number)) };
        let state = store.lookup(&sought, now).await.unwrap();
        told.push(match state {
            State::Live(record) => {
                let tokens = [&record.refresh_ref, &record.previous_ref];
                let tokens = tokens.map(|token| token.as_ref().map(RefreshRef::as_str));
                format!("{record:?} {tokens:?}")
            }
            other => format!("{other:?}"),
        });
    }
    for number in 1..=tokens {
        told.push(format!("{:?}", session_of(store, &token(number), now).await.unwrap()));
    }
    told
}

/// What the store once called revoked is so for good (contract I3).
async fn keep_revoked(store: &Store, gotrue: &Gotrue, revoked: &mut Vec<SessionId>) {
    for session in (1..=SESSIONS).map(session_id) {
        let is = store.lookup(&Sought::of(gotrue.user, session), gotrue.now).await == Ok(State::Revoked);
        assert!(is || !revoked.contains(&session), "{session} came back");
        if is && !revoked.contains(&session) {
            revoked.push(session);
        }
    }
}

fn compare(directly: u32, exactly: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let mut runner = TestRunner::new(Config { cases: 600, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(any::<[bool; 2]>(), a_history(directly)), |([counted, was_full], history)| {
        runtime.block_on(async {
            let (at_once, late) = (embedded(), embedded());
            let bounds = config::Queue { changes: 10_000, bytes: usize::MAX, spool_dir: None };
            let queue = Queue::open(&bounds, Arc::clone(&metrics)).unwrap();
            let mut gotrue = Gotrue::new(counted, !was_full);
            let (mut made, mut revoked) = (0, Vec::new());
            for told in &history {
                let changes = gotrue.does(told.step);
                made += changes.len();
                at_once.apply(&changes, gotrue.now).await.unwrap();
                if told.directly {
                    late.apply(&changes, gotrue.now).await.unwrap();
                } else {
                    for change in changes {
                        assert!(queue.put(What::Change(change), BY, gotrue.now * 1000));
                    }
                }
                if told.flush {
                    flush(&queue, &late, was_full, gotrue.now).await;
                }
                keep_revoked(&late, &gotrue, &mut revoked).await;
            }
            assert!(queue.len() <= made);
            flush(&queue, &late, was_full, gotrue.now).await;
            keep_revoked(&late, &gotrue, &mut revoked).await;
            let (at_once, late) = (told(&at_once, &gotrue).await, told(&late, &gotrue).await);
            if exactly {
                assert_eq!(at_once, late);
            }
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_waited_leaves_what_would_have_been_left_at_once() {
    compare(0, true);
}

/// Two replicas, one of which is cut off: the store hears of things in another order than they happened, but what it
/// has heard the end of does not come back.
#[test]
fn what_has_ended_stays_so_though_others_write_meanwhile() {
    compare(50, false);
}
