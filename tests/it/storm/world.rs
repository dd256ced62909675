//! GoTrue as it should be, two replicas before it, and a witness of all that GoTrue says.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use gotrue_sidecar::{
    clock::Clock,
    session::{Seconds, SessionId, UserId},
    token::{RefKey, RefreshToken},
};
use http::StatusCode;

use crate::{
    model::gotrue::Gotrue,
    support::{
        http::Answer,
        pod::Stored,
        process::Process,
        signer::{Login, SECRET, Signer},
        upstream::{Seen, Step, Upstream},
    },
};

/// `store.timeout` in these tests, the default.
pub(super) const TIMEOUT: Duration = Duration::from_millis(250);

/// GoTrue, and what it said.
pub(super) struct Witness {
    gotrue: Gotrue,
    notes: Mutex<Notes>,
    pub(super) signer: Signer,
}

#[derive(Default)]
struct Notes {
    /// By the id of the request; taken out by whoever compares.
    said: HashMap<String, Vec<u8>>,
    /// When GoTrue last changed a session, and its newest tokens.
    changed: BTreeMap<SessionId, (Instant, Login)>,
    /// When a session's sign-in was under way, as its client saw it.
    signed_in: HashMap<SessionId, Range<Instant>>,
    /// When logouts of several sessions of a user were.
    logged_out: HashMap<UserId, Vec<Range<Instant>>>,
}

/// How the store's word on a session differs from GoTrue's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// GoTrue has the session, the store does not.
    Missing,
    /// The store has it, GoTrue does not.
    Surplus,
    /// Both have it, and the store knows an older refresh token.
    Stale,
}

/// A session that differs.
#[derive(Clone, Debug)]
pub(super) struct Differing {
    pub(super) how: Difference,
    pub(super) login: Login,
    /// When GoTrue last changed it.
    pub(super) changed: Instant,
}

impl Witness {
    fn new(life: Seconds) -> Self {
        Self {
            gotrue: Gotrue::with_life(&Clock::default(), life),
            notes: Mutex::default(),
            signer: Signer::trusted(),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap()
    }

    /// Does what a request asks for, and notes it.
    fn answer(&self, seen: &Seen) -> Vec<u8> {
        let mut notes = self.notes();
        let before = self.gotrue.sessions();
        let bytes = self.gotrue.commit(seen);
        let (after, now) = (self.gotrue.sessions(), Instant::now());
        for (session, login) in &after {
            if before.get(session).is_none_or(|old| old.counter != login.counter) {
                notes.changed.insert(*session, (now, login.clone()));
            }
        }
        for (session, login) in before.iter().filter(|(session, _)| !after.contains_key(session)) {
            notes.changed.insert(*session, (now, login.clone()));
        }
        if let [id] = seen.header("x-request-id")[..] {
            notes.said.insert(id.to_owned(), bytes.clone());
        }
        bytes
    }

    /// Whether the session is live.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.gotrue.sessions().contains_key(&session)
    }

    /// The live sessions with their newest tokens.
    pub(super) fn live(&self) -> BTreeMap<SessionId, Login> {
        self.gotrue.sessions()
    }

    /// What is wrong about the answer to a request in a session; nothing, where it is GoTrue's own, or one by
    /// which the sidecar refuses a session that has ended in GoTrue as well (enforce, §6.3).
    pub(super) fn judge(&self, id: &str, answer: &Answer, session: Option<SessionId>) -> Option<String> {
        let said = self.notes().said.remove(id);
        if said.as_deref().is_some_and(|said| is_same(said, answer)) {
            return None;
        }
        let refusal = (answer.status, answer.error_code());
        let named = matches!(
            refusal,
            (StatusCode::FORBIDDEN, Some("session_not_found"))
                | (StatusCode::BAD_REQUEST, Some("refresh_token_not_found"))
        );
        if named && session.is_none_or(|session| !self.has(session)) {
            return None;
        }
        let said = said.map(|said| String::from_utf8_lossy(&said).into_owned());
        Some(format!("{answer:?} where GoTrue said {said:?}"))
    }

    /// A session began.
    pub(super) fn note_sign_in(&self, session: SessionId, under_way: Range<Instant>) {
        self.notes().signed_in.insert(session, under_way);
    }

    /// A user logged out elsewhere, or everywhere.
    pub(super) fn note_logout(&self, user: UserId, under_way: Range<Instant>) {
        self.notes().logged_out.entry(user).or_default().push(under_way);
    }

    /// Whether a logout of several sessions and the session's sign-in were under way at once: nobody can tell which of
    /// them GoTrue did first, and the session counts as live until GoTrue says otherwise (contract §6.1).
    pub(super) fn was_crossed(&self, login: &Login) -> bool {
        let notes = self.notes();
        let logouts = notes.logged_out.get(&login.user).map(Vec::as_slice).unwrap_or_default();
        let crossed =
            |one: &Range<Instant>| logouts.iter().any(|other| other.start < one.end && one.start < other.end);
        notes.signed_in.get(&login.session).is_some_and(crossed)
    }

    /// What stored sessions differ in from GoTrue's.
    pub(super) fn differing(&self, stored: &[Stored]) -> Vec<Differing> {
        let notes = self.notes();
        let live = self.gotrue.sessions();
        let stored: BTreeMap<_, _> = stored.iter().map(|stored| (stored.session, stored)).collect();
        let differing = |session: &SessionId, how| {
            let (changed, login) = notes.changed[session].clone();
            Differing { how, login, changed }
        };
        let surplus = stored.keys().filter(|session| !live.contains_key(session));
        let mut all: Vec<_> = surplus.map(|session| differing(session, Difference::Surplus)).collect();
        let key = RefKey::derived(SECRET.as_bytes());
        for (session, login) in &live {
            let reference = key.reference(&RefreshToken::new(login.refresh()));
            match stored.get(session) {
                None => all.push(differing(session, Difference::Missing)),
                Some(stored)
                    if stored.fields.get("refresh_ref").map(String::as_str) != Some(reference.as_str()) =>
                {
                    all.push(differing(session, Difference::Stale));
                }
                Some(_) => {}
            }
        }
        all
    }

    /// Forgets sessions that ended a while ago, for runs that go on for long.
    pub(super) fn forget(&self) {
        let mut notes = self.notes();
        let live = self.gotrue.sessions();
        let is_news = |at: &Instant| at.elapsed() < Duration::from_secs(2 * 60);
        notes.changed.retain(|session, (at, _)| live.contains_key(session) || is_news(at));
        notes.signed_in.retain(|session, one| live.contains_key(session) || is_news(&one.end));
        for logouts in notes.logged_out.values_mut() {
            logouts.retain(|one| is_news(&one.end));
        }
    }
}

/// Whether an answer has the status and the body of one that was sent.
fn is_same(sent: &[u8], answer: &Answer) -> bool {
    let sent = std::str::from_utf8(sent).unwrap();
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    head.split(' ').nth(1) == Some(answer.status.as_str()) && body.as_bytes() == answer.body
}

/// GoTrue and two replicas of the sidecar. Both keep to the defaults, but the second one enforces.
pub(super) struct World {
    pub(super) witness: Arc<Witness>,
    pub(super) upstream: Upstream,
    pub(super) replicas: [Process; 2],
}

impl World {
    /// Each replica is started with flags of its own besides the common ones.
    pub(super) async fn start(flags: [&[String]; 2]) -> Self {
        Self::start_with(3600, flags).await
    }

    /// With access tokens that live for so many seconds.
    pub(super) async fn start_with(life: Seconds, flags: [&[String]; 2]) -> Self {
        let witness = Arc::new(Witness::new(life));
        let speaking = Arc::clone(&witness);
        let upstream = Upstream::start(move |seen| vec![Step::Send(speaking.answer(seen))]).await;
        let replicas = [
            replica(&upstream.url, flags[0], &[]).await,
            replica(&upstream.url, flags[1], &["--enforce=true"]).await,
        ];
        for process in &replicas {
            process.metric_becomes("gotrue_sidecar_store_up", 1).await;
        }
        Self { witness, upstream, replicas }
    }

    /// How many changes wait for the store in both replicas.
    pub(super) async fn waiting(&self) -> u64 {
        let mut sum = 0;
        for process in &self.replicas {
            sum += process.metric("gotrue_sidecar_mirror_queue_length").await;
        }
        sum
    }

    /// Whether both replicas say that the store takes changes.
    pub(super) async fn is_up(&self) -> bool {
        for process in &self.replicas {
            if process.metric("gotrue_sidecar_store_up").await != 1 {
                return false;
            }
        }
        true
    }

    /// What each replica did to a user's session, by its audit lines.
    pub(super) fn history(&self, login: &Login) -> String {
        let (user, session) = (login.user.to_string(), login.session.to_string());
        let concerns = |line: &&str| {
            line.contains(&session) || (line.contains(&user) && !line.contains(r#""which":"one""#))
        };
        let mut lines = Vec::new();
        for (number, process) in self.replicas.iter().enumerate() {
            let log = process.stderr();
            lines.extend(log.lines().filter(concerns).map(|line| format!("  {line} (replica {number})")));
        }
        lines.sort(); // a line begins with its time
        lines.join("\n")
    }

    /// What the replicas logged, for whoever has to find out.
    pub(super) fn logs(&self) -> String {
        let own = |process: &Process| {
            let log = process.stderr();
            log.lines().filter(|line| !line.contains(r#""target":"audit""#)).collect::<Vec<_>>().join("\n")
        };
        self.replicas.iter().map(own).collect::<Vec<_>>().join("\n---\n")
    }
}

async fn replica(upstream: &str, flags: &[String], more: &[&str]) -> Process {
    let own = [
        format!("--upstream-url={upstream}"),
        format!("--jwt-secret={SECRET}"),
        format!("--store-timeout={}ms", TIMEOUT.as_millis()),
    ];
    let fixed = ["--jwt-jwks=off", "--log-access=false", "--reload-interval=500ms"];
    let all: Vec<&str> =
        own.iter().chain(flags).map(String::as_str).chain(fixed).chain(more.iter().copied()).collect();
    Process::start(&all).await
}
