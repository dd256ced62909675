//! The people, what they share, and an account of all that was done.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use gotrue_sidecar::session::{SessionId, UserId};
use http::StatusCode;
use tokio::task::JoinSet;

use super::{device::Device, judge::Rule, operation::Operation};
use crate::support::{
    client::{Client, PASSWORD, Tokens, admin::Admin, new_email, second_factor::Factor},
    dice::Dice,
    gotrue::{Gotrue, Kind},
    http::Answer,
};

/// What all devices share.
pub(super) struct World {
    pub(super) gotrue: Gotrue,
    pub(super) admin: Admin,
    /// The id of an OAuth client; empty where there are none.
    pub(super) application: String,
    doors: Vec<Client>,
    ledger: Mutex<Ledger>,
}

/// What happened, as far as the judge asks.
#[derive(Default)]
pub(super) struct Ledger {
    done: usize,
    answers: BTreeMap<(Operation, String), usize>,
    excused: BTreeMap<Rule, HashSet<SessionId>>,
    /// Every session that anybody got tokens of.
    pub(super) known: HashMap<SessionId, Known>,
    pub(super) endings: Vec<(UserId, Span)>,
    pub(super) movings: Vec<(UserId, Span)>,
    pub(super) bans: Vec<(UserId, Span)>,
    /// GoTrue failed over a request of theirs, and may have done what was asked all the same.
    pub(super) failed: HashSet<UserId>,
    /// Ended here by a logout that GoTrue then refused.
    pub(super) ended_here_only: HashSet<SessionId>,
}

/// A session that somebody has.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) began: Span,
    pub(super) latest: Tokens,
}

/// From sending a request to having its answer, milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) sent: u64,
    pub(super) answered: u64,
}

/// Somebody with an account.
pub(super) struct Person {
    pub(super) email: String,
    pub(super) user: UserId,
    pub(super) password: Mutex<String>,
    pub(super) factors: Mutex<Vec<Factor>>,
    pub(super) gone: AtomicBool,
}

/// A person and the devices.
pub(super) struct Household {
    person: Arc<Person>,
    devices: Vec<Device>,
}

impl World {
    /// `addresses` are those of the sidecars.
    pub(super) async fn new<'a>(gotrue: Gotrue, addresses: impl Iterator<Item = &'a str>) -> Self {
        let doors: Vec<_> = addresses.map(Client::new).collect();
        let admin = Admin::new(doors[0].clone(), gotrue.secret);
        let application =
            if gotrue.kind().has_admin_api() { admin.register_application().await } else { String::new() };
        Self { gotrue, admin, application, doors, ledger: Mutex::default() }
    }

    pub(super) fn kind(&self) -> Kind {
        self.gotrue.kind()
    }

    /// Through any of the sidecars.
    pub(super) fn door(&self, dice: &mut Dice) -> &Client {
        dice.one_of(&self.doors).unwrap()
    }

    pub(super) fn first_door(&self) -> &Client {
        &self.doors[0]
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(super) fn done(&self) -> usize {
        self.ledger().done
    }

    /// Signs somebody up.
    pub(super) async fn new_household(&self, devices: usize, dice: &mut Dice) -> Household {
        let (email, sent) = (new_email(), now());
        let tokens = Tokens::of(&self.door(dice).signed_up(&email).await);
        self.ledger().issued(&tokens, sent);
        let person = Arc::new(Person {
            email,
            user: tokens.user,
            password: Mutex::new(PASSWORD.to_owned()),
            factors: Mutex::default(),
            gone: AtomicBool::new(false),
        });
        let devices = (0..devices).map(|_| Device::new(Arc::clone(&person), dice.fork())).collect();
        Household { person, devices }
    }

    /// What was done, how it was answered, and what had to be excused.
    pub(super) fn account(&self) -> String {
        let (ledger, mut text) = (self.ledger(), String::new());
        for ((operation, answer), times) in &ledger.answers {
            writeln!(text, "{times:6}  {operation:?}: {answer}").unwrap();
        }
        writeln!(text, "{:6}  sessions", ledger.known.len()).unwrap();
        for (rule, sessions) in &ledger.excused {
            writeln!(text, "{:6}  excused: {rule:?}", sessions.len()).unwrap();
        }
        text
    }
}

impl Ledger {
    /// Counts an answer. GoTrue's own failures are among them (Postgres breaks deadlocks that its transactions
    /// run into with 500; its time is up with 504), the sidecar's are none that may happen here.
    pub(super) fn answered(&mut self, operation: Operation, user: UserId, answer: &Answer) {
        if answer.status.is_server_error() {
            let text = String::from_utf8_lossy(&answer.body);
            let of_gotrue = answer.status == StatusCode::INTERNAL_SERVER_ERROR || text.contains("error_id");
            assert!(of_gotrue, "{operation:?}: {answer:?}");
            self.failed.insert(user);
        }
        let code = answer.error_code().unwrap_or_default();
        let words = format!("{} {code}", answer.status.as_u16());
        *self.answers.entry((operation, words)).or_default() += 1;
        self.done += 1;
    }

    /// Somebody got tokens.
    pub(super) fn issued(&mut self, tokens: &Tokens, sent: u64) {
        let began = Span { sent, answered: now() };
        let known =
            self.known.entry(tokens.session).or_insert_with(|| Known { began, latest: tokens.clone() });
        known.latest = tokens.clone();
    }

    pub(super) fn excused(&mut self, session: SessionId, rule: Rule) {
        self.excused.entry(rule).or_default().insert(session);
    }
}

impl Span {
    pub(super) fn crosses(self, other: Self) -> bool {
        self.sent <= other.answered && other.sent <= self.answered
    }
}

impl Household {
    pub(super) fn is_here(&self) -> bool {
        !self.person.gone.load(Ordering::Relaxed)
    }
}

/// All devices of all people at once, so many operations each.
pub(super) async fn run_batch(world: &Arc<World>, people: &mut [Household], operations: usize) {
    let mut tasks = JoinSet::new();
    for (home, household) in people.iter_mut().enumerate() {
        for mut device in household.devices.drain(..) {
            let world = Arc::clone(world);
            tasks.spawn(async move {
                for _ in 0..operations {
                    device.do_something(&world).await;
                }
                (home, device)
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        let (home, device) = done.unwrap();
        people[home].devices.push(device);
    }
}

/// Milliseconds since the epoch.
pub(super) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
