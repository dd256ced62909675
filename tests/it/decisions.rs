//! The mirror's decisions, held against every recorded exchange: after each step the live sessions
//! of a small model store equal the rows of `auth.sessions`, but for differences that have a name.
//!
//! A difference is named by the rule that made it ([`Rule`]), at the step where it appears; one
//! that no rule explains fails the test, and so does a count that differs from [`EXPECTED`], so
//! that the exceptions cannot silently grow.

pub(crate) mod model;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gotrue_sidecar::keys::{KeyRing, Verdict, bearer};
use gotrue_sidecar::mirror::{Answered, Asked, Body, Decision, Inspection, Mirror, client_ip};
use gotrue_sidecar::route::Route;
use gotrue_sidecar::session::{Change, Origin};
use gotrue_sidecar::token::RefKey;
use http::{Method, StatusCode};

use crate::support::corpus::{Recording, SessionRow, Step, recordings};
use model::Model;
use rules::{Rule, Seen};

/// How often each rule explains a difference, over all recordings.
const EXPECTED: [(Rule, usize); 13] = [
    (Rule::TokensNeverSent, 5),
    (Rule::IdsContradict, 8),
    (Rule::HookRewroteUnseen, 1),
    (Rule::HookInventedSession, 1),
    (Rule::PasswordHook, 8),
    (Rule::InvitedUser, 2),
    (Rule::MintedForeign, 2),
    (Rule::ExpiredLogout, 1),
    (Rule::RefusedLogout, 1),
    (Rule::AalFromHook, 3),
    (Rule::AmrUntilRefresh, 10),
    (Rule::AdminFactorBefore2193, 1),
    (Rule::OperatorSql, 2),
];

/// One recording being replayed.
pub(crate) struct Replay<'a> {
    recording: &'a Recording,
    keys: KeyRing,
    mirror: Mirror,
    pub(crate) model: Model,
    differences: BTreeSet<String>,
    counts: BTreeMap<Rule, usize>,
    pub(crate) failures: Vec<String>,
    /// GoTrue renewed a session in the last step that was revoked here.
    pub(crate) renewed_revoked: bool,
}

#[test]
fn the_mirror_equals_the_rows_after_every_recorded_step() {
    let mut counts: BTreeMap<Rule, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut table = Table::default();
    for recording in recordings() {
        let mut replay = Replay::of(&recording);
        for step in &recording.steps {
            replay.step(step);
        }
        table.add(&recording, replay.failures.len());
        failures.append(&mut replay.failures);
        for (rule, count) in replay.counts {
            *counts.entry(rule).or_default() += count;
        }
    }
    table.print();
    println!("differences explained: {counts:#?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(counts, EXPECTED.into_iter().filter(|(_, count)| *count > 0).collect());
}

impl<'a> Replay<'a> {
    pub(crate) fn of(recording: &'a Recording) -> Self {
        let jwt = &recording.metadata.jwt;
        let mut keys = KeyRing::new(Some(jwt.secret.as_bytes()), None).unwrap();
        if let Some(jwks) = &jwt.jwks {
            keys = keys.with_jwks(jwks.to_string().as_bytes()).unwrap();
        }
        let ref_key = RefKey::derived(jwt.secret.as_bytes());
        Self {
            recording,
            keys,
            mirror: Mirror::new(Some(ref_key), Duration::from_secs(3600)),
            model: Model::default(),
            differences: BTreeSet::new(),
            counts: BTreeMap::new(),
            failures: Vec::new(),
            renewed_revoked: false,
        }
    }

    /// Takes one exchange through the decisions, as the proxy does, and compares.
    pub(crate) fn step(&mut self, step: &Step) {
        let method = Method::from_bytes(step.request.method.as_bytes()).unwrap();
        let headers = step.request.headers();
        let now_ms = step.at_ms();
        let verdict = bearer(&headers).map(|token| self.keys.verify(token, now_ms / 1000));
        let body = step.request.body();
        let ip = client_ip(&headers, [127, 0, 0, 1].into()).to_string();
        let mut asked = Asked {
            route: Route::of(&method, step.request.path()),
            method: &method,
            path: step.request.path(),
            query: step.request.query(),
            headers: &headers,
            body: None,
            bearer: verdict.as_ref(),
            client_ip: Some(&ip),
            sent_ms: now_ms,
        };
        if asked.reads_body() {
            asked.body = Some(&body);
        }
        let before = self.mirror.before(&asked);
        if let Some(change) = &before {
            self.model.apply(change);
        }
        let answer_headers = step.response.headers();
        let status = StatusCode::from_u16(step.response.status).unwrap();
        let answered = Answered {
            status,
            headers: &answer_headers,
            body: match asked.inspection(status, &answer_headers) {
                Inspection::Pass => Body::Unread,
                Inspection::Tee | Inspection::Hold => Body::Whole(step.response.body()),
            },
            now_ms,
        };
        let decision = self.mirror.after(&asked, &answered);
        self.apply(&decision);
        let seen = Seen {
            scenario: &self.recording.metadata.scenario,
            step,
            verdict: verdict.as_ref(),
            before: before.as_ref(),
            decision: &decision,
        };
        self.compare(&seen);
        self.check_tokens(&seen, &asked);
    }

    fn apply(&mut self, decision: &Decision<'_>) {
        self.renewed_revoked = false;
        for change in &decision.changes {
            let renews = matches!(change, Change::Record { origin: Origin::Refresh, .. });
            let made = self.model.apply(change);
            self.renewed_revoked |= renews && !made;
        }
        if let Some(by_ref) = &decision.by_ref
            && let Some((user, session)) = self.model.session_of(by_ref)
        {
            self.model.apply(&by_ref.change(user, session));
        }
    }

    /// Every answer that carries tokens is seen as one, and no other.
    fn check_tokens(&mut self, seen: &Seen<'_>, asked: &Asked<'_>) {
        let step = seen.step;
        let carries = matches!(step.expect.action.as_str(), "create" | "refresh" | "upgrade");
        let issued = seen.decision.issued.is_some();
        if carries != issued {
            self.fail(step, &format!("tokens seen: {issued}, handed out: {carries}"));
        }
        if issued && asked.route == Route::Other {
            self.fail(step, "tokens on a route that is not classified");
        }
    }

    fn compare(&mut self, seen: &Seen<'_>) {
        let step = seen.step;
        let rows: BTreeMap<&str, &SessionRow> =
            step.after.sessions.iter().map(|row| (row.id.as_str(), row)).collect();
        let live: BTreeMap<String, _> = self.model.live();
        let mut differences = BTreeSet::new();
        for id in rows.keys().filter(|id| !live.contains_key(**id)) {
            self.explain(seen, &mut differences, &format!("missing {id}"), seen.missing(id));
        }
        for id in live.keys().filter(|id| !rows.contains_key(id.as_str())) {
            self.explain(seen, &mut differences, &format!("surplus {id}"), seen.surplus(id));
        }
        for (id, record) in &live {
            if let Some(row) = rows.get(id.as_str()) {
                for (what, rule) in seen.differing(record, row) {
                    self.explain(seen, &mut differences, &format!("{what} of {id}"), rule);
                }
            }
        }
        for user in &step.after.users {
            let now = step.at_ms() / 1000;
            // A ban is known to the second, and holds through it.
            let banned = user.banned_until_ms().map(|until| until.div_ceil(1000));
            let banned = banned.filter(|until| *until > now);
            let suspended = self.model.suspended_until(&user.id, now);
            if banned != suspended {
                self.fail(step, &format!("ban of {}: {banned:?}, mark: {suspended:?}", user.id));
            }
        }
        self.differences = differences;
    }

    /// A difference that was there before needs no new explanation.
    fn explain(
        &mut self,
        seen: &Seen<'_>,
        differences: &mut BTreeSet<String>,
        what: &str,
        rule: Option<Rule>,
    ) {
        differences.insert(what.to_owned());
        if self.differences.contains(what) {
            return;
        }
        match rule {
            Some(rule) => *self.counts.entry(rule).or_default() += 1,
            None => self.fail(seen.step, what),
        }
    }

    fn fail(&mut self, step: &Step, what: &str) {
        self.failures.push(format!("{} {}: {what}", self.recording.name, step.name));
    }
}

/// Scenarios by release: steps, and how many of them are wrong.
#[derive(Default)]
pub(crate) struct Table(BTreeMap<String, BTreeMap<String, (usize, usize)>>);

impl Table {
    pub(crate) fn add(&mut self, recording: &Recording, failed: usize) {
        let column = format!("{} {}", recording.release(), recording.metadata.token_mode);
        let row = self.0.entry(recording.metadata.scenario.clone()).or_default();
        row.insert(column, (recording.steps.len(), failed));
    }

    pub(crate) fn print(&self) {
        let columns: BTreeSet<&String> = self.0.values().flat_map(BTreeMap::keys).collect();
        print!("{:<32}", "scenario");
        for column in &columns {
            print!("{column:>12}");
        }
        println!();
        for (scenario, cells) in &self.0 {
            print!("{scenario:<32}");
            for column in &columns {
                let cell = cells.get(*column).map_or(String::new(), |(steps, failed)| {
                    if *failed == 0 { format!("{steps} ok") } else { format!("{failed} WRONG") }
                });
                print!("{cell:>12}");
            }
            println!();
        }
    }
}

/// Whether a change ends the session of that id.
fn ends(change: &Change, session: &str) -> bool {
    use gotrue_sidecar::session::Which;
    matches!(change, Change::End { which: Which::One(id), .. } if id.to_string() == session)
}

/// The verdict is one on a token that has run out.
fn expired(verdict: Option<&Verdict>) -> bool {
    matches!(verdict, Some(Verdict::Expired(_)))
}
