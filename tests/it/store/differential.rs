//! The two stores side by side: whatever happens, they say the same. Redis deals with as many sessions at
//! once as it would, or with so few that changes to many stay pending across what comes next; the embedded
//! store, which makes every change at once, shows what they mean.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use redis::{AsyncCommands, aio::MultiplexedConnection};

use super::{keys::assert_every_key_expires, *};

/// Few of everything, so that they meet.
const USERS: u64 = 2;
const SESSIONS: u64 = 6;
const TOKENS: u64 = 5;

const NO_LIMITS: Limits = Limits { idle: None, absolute: None, cap: None };

/// One step of a random history; users, sessions and tokens by number.
#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Change>),
    Lookup(Sought),
    Owner(RefreshRef),
    List(UserId, Wanted),
    Sweep(UserId),
    Wait(Seconds),
}

fn a_user() -> impl Strategy<Value = UserId> {
    (1..=USERS).prop_map(user_id)
}

fn a_session() -> impl Strategy<Value = SessionId> {
    (1..=SESSIONS).prop_map(session_id)
}

/// One of a session's tokens; GoTrue gives none to two sessions.
fn token_of(user: u64, session: u64, number: u64) -> RefreshRef {
    token(user * 10_000 + session * 100 + number)
}

fn a_token() -> impl Strategy<Value = Option<u64>> {
    prop::option::weighted(0.9, 1..=TOKENS)
}

fn a_client() -> impl Strategy<Value = Option<String>> {
    select(vec![None, Some("one".to_owned()), Some("two".to_owned())])
}

fn a_factor() -> impl Strategy<Value = Option<u64>> {
    select(vec![None, Some(1), Some(2)])
}

fn a_record() -> impl Strategy<Value = Record> {
    let who = (1..=USERS, 1..=SESSIONS);
    let tokens = (a_token(), a_token(), prop::option::of(1..4_u64));
    let ms = || prop::option::of(0..4000_u64);
    let times = (0..4_u64, ms(), 0..4_u64, prop::option::of(0..90_u64), 0..3_u64, ms());
    let rest = (select(vec![None, Some(Aal::Aal1), Some(Aal::Aal2)]), a_client(), any::<bool>(), a_factor());
    (who, tokens, times, rest).prop_map(|(who, tokens, times, rest)| Record {
        user: user_id(who.0),
        session: session_id(who.1),
        refresh_ref: tokens.0.map(|number| token_of(who.0, who.1, number)),
        previous_ref: tokens.1.map(|number| token_of(who.0, who.1, number)),
        counter: tokens.2,
        created_at: NOW + times.0,
        began_ms: times.1.map_or(0, |ms| NOW * 1000 + ms),
        begun_by_ms: times.5.filter(|_| times.1.is_none()).map_or(0, |ms| NOW * 1000 + ms),
        refreshed_at: NOW + times.2,
        seen_at: times.3.map(|later| NOW + later),
        expires_at: NOW + 3600 + times.4,
        aal: rest.0,
        factor_id: rest.3.map(factor_id),
        amr: None,
        role: None,
        client_id: rest.1,
        anonymous: rest.2,
        ip: None,
        user_agent: rest.2.then(|| "agent".to_owned()),
    })
}

fn an_ending() -> impl Strategy<Value = Change> {
    let which = prop_oneof![
        4 => a_session().prop_map(Which::One),
        2 => a_session().prop_map(Which::Live),
        1 => a_session().prop_map(Which::Others),
        1 => Just(Which::All),
        1 => a_session().prop_map(Which::Aal1Except),
        2 => select(vec!["one", "two"]).prop_map(|client| Which::Client(client.to_owned())),
    ];
    let times = (0..4000_u64, prop::option::of(0..4000_u64), any::<bool>());
    let sensible = |which: &Which, reason| {
        // time ends sessions one by one
        reason != Reason::Expired || matches!(which, Which::One(_) | Which::Live(_))
    };
    let ending = (a_user(), which, select(Reason::ALL.to_vec()), times);
    ending.prop_map(move |(user, which, reason, times)| {
        let reason = if sensible(&which, reason) { reason } else { Reason::Logout };
        Change::End {
            user,
            which,
            reason,
            sent_ms: NOW * 1000 + times.0,
            expires_at: times.1.map(|later| NOW + later),
            ended_in_gotrue: times.2,
        }
    })
}

/// Few moments, so that they coincide.
fn a_ban() -> impl Strategy<Value = Change> {
    prop_oneof![
        (a_user(), prop::option::of(0..120_u64), 0..6_u64).prop_map(|(user, until, ms)| suspend(
            user,
            until.map(|later| NOW + later),
            ms
        )),
        (a_user(), 0..120_u64, prop_oneof![0..6_u64, 50_000..50_006_u64])
            .prop_map(|(user, until, ms)| banned(user, NOW + until, ms)),
    ]
}

fn a_change() -> impl Strategy<Value = Change> {
    let origin = select(vec![Origin::SignIn, Origin::HeldSignIn, Origin::Refresh]);
    let (sent, ban) = (|| 0..6_u64, a_ban());
    prop_oneof![
        12 => (origin, a_record(), prop::option::of(sent())).prop_map(|(origin, record, sent)| {
            let allowed_ms = sent.map(|sent| NOW * 1000 + sent);
            Change::Record { origin, record: Box::new(record), allowed_ms }
        }),
        4 => an_ending(),
        3 => ban,
        1 => (a_user(), sent()).prop_map(|(user, ms)| Change::Allowed { user, allowed_ms: NOW * 1000 + ms }),
        1 => (a_user(), 1..3_u64).prop_map(|(user, factor)| Change::LowerAal { user, factor: factor_id(factor) }),
    ]
}

fn a_wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        3 => (0..3_u64, 1..4_u32).prop_map(|(skip, take)| Wanted::Page { skip, take }),
        1 => a_session().prop_map(Wanted::One),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(a_change(), 1..3).prop_map(Step::Apply),
        3 => (a_user(), a_session(), prop::option::of(0..4_u64), any::<bool>()).prop_map(
            |(user, session, began, touch)| {
                let began = began.map(|later| NOW + later);
                Step::Lookup(Sought { user, session, began, touch })
            }
        ),
        1 => (1..=USERS, 1..=SESSIONS, 1..=TOKENS)
            .prop_map(|(user, session, number)| Step::Owner(token_of(user, session, number))),
        2 => (a_user(), a_wanted()).prop_map(|(user, wanted)| Step::List(user, wanted)),
        2 => a_user().prop_map(Step::Sweep),
        // Redis goes by its own clock, so histories stay shorter than anything lives.
        1 => (0..8_u64).prop_map(Step::Wait),
    ]
}

/// What a store says at every step, and of everything at the end, before and after what is pending was swept.
/// How many sessions ended, and why, is told last: Redis says of pending ones later.
async fn told(store: &Store, history: &[Step], mut redis: Option<MultiplexedConnection>) -> Vec<String> {
    let mut now = NOW;
    let mut told = Vec::new();
    let mut tally = Tally::default();
    for step in history {
        told.push(match step {
            Step::Apply(changes) => {
                let outcomes = store.apply(changes, now).await.unwrap();
                let made = changes.iter().zip(outcomes);
                format!("{:?}", made.map(|(change, outcome)| tally.take(change, outcome)).collect::<Vec<_>>())
            }
            Step::Sweep(user) => {
                tally.sweep(store, *user, now).await;
                String::new()
            }
            Step::Lookup(sought) => shown(&store.lookup(sought, now).await.unwrap()),
            Step::Owner(token) => owner(store, token, now).await,
            Step::List(user, wanted) => format!("{:?}", store.list(*user, *wanted, now).await),
            Step::Wait(seconds) => {
                now += seconds;
                String::new()
            }
        });
        if let Some(redis) = &mut redis {
            assert_every_key_expires(redis).await;
        }
    }
    told.extend(everything(store, now).await);
    while let Some(user) = tally.pending.first().copied() {
        tally.sweep(store, user, now).await;
    }
    told.extend(everything(store, now).await);
    told.push(format!("{:?}", tally.ended));
    told
}

/// What a sidecar would count, and whom it would sweep.
#[derive(Default)]
struct Tally {
    ended: BTreeMap<&'static str, u64>,
    pending: BTreeSet<UserId>,
}

impl Tally {
    /// Gives back what the change did, whether it is done with all sessions or not.
    fn take(&mut self, change: &Change, outcome: Outcome) -> Outcome {
        if matches!(outcome, Outcome::Pending(_)) {
            self.pending.insert(change.user());
        }
        match (change, outcome) {
            (Change::End { reason, .. }, Outcome::Ended(count) | Outcome::Pending(count)) => {
                self.add(*reason, count);
                Outcome::Ended(0)
            }
            (Change::LowerAal { .. }, Outcome::Pending(0)) => Outcome::Marked,
            (_, Outcome::Evicted(evicted)) => {
                self.add(Reason::Evicted, evicted.sessions.len() as u64);
                Outcome::Evicted(evicted)
            }
            (_, outcome) => outcome,
        }
    }

    async fn sweep(&mut self, store: &Store, user: UserId, now: Seconds) {
        let swept = store.sweep(user, now).await.unwrap();
        swept.ended.into_iter().for_each(|(reason, count)| self.add(reason, count));
        if !swept.pending {
            self.pending.remove(&user);
        }
    }

    fn add(&mut self, reason: Reason, count: u64) {
        if count > 0 {
            *self.ended.entry(reason.as_str()).or_default() += count;
        }
    }
}

/// Whose the token is, and what is known of the session that it was last seen with.
async fn owner(store: &Store, token: &RefreshRef, now: Seconds) -> String {
    let holder = holder(store, token, now).await.unwrap();
    // what GoTrue knows is not noted while an ending is pending
    let holder = holder.map(|it| format!("{} {} {}", it.user, it.session, shown(&it.state)));
    format!("{:?} {holder:?}", session_of(store, token, now).await)
}

async fn everything(store: &Store, now: Seconds) -> Vec<String> {
    let mut told = Vec::new();
    for (user, session) in (1..=USERS).flat_map(|user| (1..=SESSIONS).map(move |session| (user, session))) {
        for began in [None, Some(NOW), Some(NOW + 2)] {
            let sought = Sought { began, ..Sought::of(user_id(user), session_id(session)) };
            told.push(shown(&store.lookup(&sought, now).await.unwrap()));
        }
        for number in 1..=TOKENS {
            told.push(owner(store, &token_of(user, session, number), now).await);
        }
    }
    told
}

/// With the tokens' references, which `Debug` keeps to itself.
fn shown(state: &State) -> String {
    let tokens = match state {
        State::Live(record) => [&record.refresh_ref, &record.previous_ref]
            .map(|token| token.as_ref().map(RefreshRef::as_str).unwrap_or_default().to_owned()),
        _ => Default::default(),
    };
    format!("{state:?} {tokens:?}")
}

async fn flush(redis: &mut MultiplexedConnection) {
    let _: () = redis::cmd("FLUSHALL").query_async(redis).await.unwrap();
}

/// Runs a property against one Redis that is emptied for every case.
fn for_all<S: Strategy>(cases: u32, strategy: &S, property: &impl AsyncFn(&RedisServer, &Store, S::Value)) {
    for_all_in_steps(256, NO_LIMITS, cases, strategy, property);
}

fn for_all_in_steps<S: Strategy>(
    step: u32,
    limits: Limits,
    cases: u32,
    strategy: &S,
    property: &impl AsyncFn(&RedisServer, &Store, S::Value),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = RedisServer::start();
    let store = open_with_limits(&config(redis_target(server.unix_url())), step, limits);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(strategy, |value| {
        runtime.block_on(async {
            flush(&mut server.client().await).await;
            property(&server, &store, value).await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_embedded_store_says_what_redis_says() {
    same_in_steps_of(256, NO_LIMITS);
}

#[test]
fn it_says_the_same_while_changes_are_pending() {
    same_in_steps_of(1, NO_LIMITS);
    same_in_steps_of(2, NO_LIMITS);
}

/// Limits that the few seconds of a history reach.
#[test]
fn it_says_the_same_of_sessions_whose_time_is_over() {
    for (idle, absolute) in [(Some(3), None), (None, Some(5)), (Some(4), Some(9))] {
        for step in [1, 256] {
            same_in_steps_of(step, Limits { idle, absolute, cap: None });
        }
    }
}

/// Caps that the few sessions of a user reach, beside limits that make some of them count no more.
#[test]
fn it_says_the_same_of_sessions_that_are_too_many() {
    use AboveCap::{Deny, EvictOldest};
    for (above, most, idle, step) in [
        (EvictOldest, 1, None, 1),
        (EvictOldest, 3, Some(3), 256),
        (Deny, 1, None, 256),
        (Deny, 3, Some(3), 1),
    ] {
        let cap = Some(Cap { most, above });
        same_in_steps_of(step, Limits { idle, absolute: None, cap });
    }
}

fn same_in_steps_of(step: u32, limits: Limits) {
    let history = prop::collection::vec(a_step(), 1..60);
    for_all_in_steps(step, limits, cases(300), &history, &async |server, store, history| {
        let redis = told(store, &history, Some(server.client().await)).await;
        let embedded = open_with_limits(&config(StoreTarget::Memory), step, limits);
        let embedded = told(&embedded, &history, None).await;
        for (index, (redis, embedded)) in redis.iter().zip(&embedded).enumerate() {
            assert_eq!(redis, embedded, "at {:?}", history.get(index));
        }
        assert_nothing_pends(&mut server.client().await).await;
    });
}

/// Once everything was swept, nothing is left of changes to many.
pub(super) async fn assert_nothing_pends(redis: &mut MultiplexedConnection) {
    let sets: Vec<String> = redis.keys("*:ending:*").await.unwrap();
    assert_eq!(sets, [""; 0]);
    for marks in redis.keys::<_, Vec<String>>("*:marks").await.unwrap() {
        for field in redis.hkeys::<_, Vec<String>>(&marks).await.unwrap() {
            let is_of_a_change = field.starts_with("ending") || field.starts_with("ended");
            assert!(!is_of_a_change, "{marks} has {field}");
        }
    }
}

#[test]
fn a_history_told_twice_revokes_the_same() {
    for step in [1, 256] {
        told_twice_in_steps_of(step);
    }
}

fn told_twice_in_steps_of(step: u32) {
    let history = prop::collection::vec(a_change(), 1..20);
    for_all_in_steps(step, NO_LIMITS, 100, &history, &async |_, store, history| {
        let mut revoked = Vec::new();
        for change in history.iter().chain(&history) {
            apply(store, change).await;
            for (user, session) in &revoked {
                // one that only a mark revokes has no tombstone yet: the ending that names it says why
                let ended = matches!(look(store, *user, *session).await, State::Revoked | State::Expired);
                assert!(ended, "came back after {change:?}");
            }
            for user in (1..=USERS).map(user_id) {
                for session in (1..=SESSIONS).map(session_id) {
                    if look(store, user, session).await == State::Revoked
                        && !revoked.contains(&(user, session))
                    {
                        revoked.push((user, session));
                    }
                }
            }
        }
    });
}

/// Bans, their ends and refusals, whichever replica writes them when.
#[test]
fn bans_leave_the_same_state_in_any_order_and_number() {
    let shuffled = prop::collection::vec(a_ban(), 1..8).prop_flat_map(|bans| {
        let twice: Vec<_> = bans.iter().chain(&bans).cloned().collect();
        (Just(bans), Just(twice).prop_shuffle())
    });
    for_all(150, &shuffled, &async |server, store, (bans, shuffled)| {
        let mut states = Vec::new();
        for changes in [&bans, &shuffled] {
            flush(&mut server.client().await).await;
            for change in changes {
                apply(store, change).await;
            }
            let mut of_all = String::new();
            for user in (1..=USERS).map(user_id) {
                of_all += &shown(&look(store, user, session_id(1)).await);
            }
            states.push(of_all);
        }
        assert_eq!(states[0], states[1]);
    });
}

/// A chain of refreshes of one session: v2 tokens within a second or not, v1 tokens in seconds of their own.
fn a_chain() -> impl Strategy<Value = Vec<Change>> {
    let steps = prop::collection::vec(0..3_u64, 1..6);
    (any::<bool>(), steps).prop_flat_map(|(counted, steps)| {
        let mut record = signed_in(user_id(1), session_id(1));
        record.counter = counted.then_some(7);
        record.refresh_ref = Some(token(1));
        let mut changes = vec![sign_in(&record)];
        for (number, step) in (2..).zip(steps) {
            let later = if counted { step } else { step + 1 };
            record = refreshed(&record, later);
            record.refresh_ref = Some(token(number));
            record.counter = record.counter.map(|counter| counter + 1);
            changes.push(refresh(&record));
        }
        Just(changes)
    })
}

#[test]
fn refreshes_leave_the_same_state_in_any_order_and_number() {
    let shuffled = a_chain().prop_flat_map(|chain| {
        let twice: Vec<_> = chain.iter().chain(&chain).cloned().collect();
        (Just(chain), Just(twice).prop_shuffle())
    });
    for_all(150, &shuffled, &async |server, store, (chain, shuffled)| {
        let mut states = Vec::new();
        for changes in [&chain, &shuffled] {
            flush(&mut server.client().await).await;
            for change in changes {
                apply(store, change).await;
            }
            states.push(shown(&look(store, user_id(1), session_id(1)).await));
        }
        assert_eq!(states[0], states[1]);
    });
}

/// `PROPTEST_CASES`, where somebody wants more.
#[expect(clippy::disallowed_methods, reason = "a test's own knob, as proptest has it")]
fn cases(ordinary: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(ordinary)
}
