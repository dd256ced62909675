//! The audit log: who ended which sessions, why, by which request, and with what result; on the
//! `tracing` target `audit`. Never a token or an e-mail: ids and closed sets of words only, but for
//! the request's id and an OAuth client's, which are cut and escaped.

use std::{borrow::Cow, error::Error};

use tracing::{field, info, warn};

use crate::{
    keys::Verdict,
    metrics::{MirrorEvent, MirrorResult, Refusal},
    request_id,
    session::{
        Change, Evicted, Origin, Outcome, Reason, Record, Seconds, SessionId, Unrecorded, UserId, Which,
    },
};

/// Longest OAuth client id that is printed, in bytes; GoTrue's are UUIDs.
const CLIENT_ID_BYTES: usize = 128;

/// The request that something came of.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// `Route::template`.
    pub route: &'static str,
    /// `X-Request-Id`; from outside, so of any content.
    pub request_id: &'a [u8],
}

/// Who asked for a revocation.
#[derive(Clone, Copy, Debug)]
pub enum Actor<'a> {
    /// The user whose sessions they are, with a token of this session, if it named one.
    User(Option<SessionId>),
    /// Somebody with a token of this role, one of `jwt.admin_roles`; in whose name, if it named somebody.
    Admin(&'a str, Option<UserId>),
    /// Somebody with a shell, as this user of the system, at the command line.
    Operator(u32),
}

impl Actor<'_> {
    fn as_str(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Admin(..) => "admin",
            Self::Operator(_) => "operator",
        }
    }
}

impl By<'_> {
    fn id(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(request_id::shown(self.request_id))
    }
}

/// The store took a change: a line for endings and suspensions. Sessions that begin or go on are no audit matter;
/// metrics count them.
pub fn changed(change: &Change, outcome: &Outcome, by: By<'_>) {
    let result = MirrorResult::from(outcome).as_str();
    match change {
        Change::Record { origin, record, .. } => recorded(*origin, record, outcome, by),
        Change::End { user, which, reason, .. } => ended(*user, which, *reason, outcome, by),
        Change::Suspend { user, until, .. } => suspended(*user, *until, result, by),
        Change::Banned { user, until, .. } => suspended(*user, Some(*until), result, by),
        Change::Allowed { .. } | Change::LowerAal { .. } => {}
    }
}

/// A line for a sign-in that was denied, or whose session was revoked before it was recorded (for a refresh,
/// [`refused_refresh`] says so), for a refresh that found the time of its session over, and for each session that ended for
/// the new one.
fn recorded(origin: Origin, record: &Record, outcome: &Outcome, by: By<'_>) {
    let Record { user, session, .. } = *record;
    match outcome {
        Outcome::Expired(1..) => ended(user, &Which::One(session), Reason::Expired, outcome, by),
        Outcome::Evicted(Evicted { sessions, .. }) => evicted(user, sessions, by),
        Outcome::Denied => denied(user, session, by),
        Outcome::Revoked if origin.is_sign_in() => {
            not_recorded(user, session, MirrorResult::from(outcome).as_str(), by);
        }
        _ => {}
    }
}

/// Sessions made room for another one of their user: a line for each.
pub fn evicted(user: UserId, sessions: &[SessionId], by: By<'_>) {
    for session in sessions {
        ended(user, &Which::One(*session), Reason::Evicted, &Outcome::Ended(1), by);
    }
}

/// An ending that held for very many sessions was carried out: the count of those that its own line left out.
pub fn swept(user: UserId, reason: Reason, count: u64) {
    info!(
        target: "audit",
        user = %user,
        reason = reason.as_str(),
        result = MirrorResult::Ended.as_str(),
        count,
        "pending sessions ended"
    );
}

/// The store did not take a change, so it may know sessions otherwise than GoTrue does.
pub fn failed(change: &Change, error: &(dyn Error + 'static), by: By<'_>) {
    let subject = Subject::of(change);
    warn!(
        target: "audit",
        event = MirrorEvent::of(change).as_str(),
        user = %change.user(),
        which = subject.which,
        session = subject.session.map(field::display),
        kept = subject.kept.map(field::display),
        client_id = subject.client_id.as_deref(),
        reason = subject.reason.map(Reason::as_str),
        result = "failed",
        error,
        route = by.route,
        request_id = &*by.id(),
        "a change was not recorded"
    );
}

/// Somebody asked for a revocation, and this became of it: `ended`, `not_found` or `failed`.
pub fn revocation<E: Error + 'static>(
    change: &Change,
    outcome: &Result<Outcome, E>,
    actor: Actor<'_>,
    by: By<'_>,
) {
    let subject = Subject::of(change);
    let count = outcome.as_ref().map_or(0, Outcome::ended);
    let result = match outcome {
        Ok(_) if count == 0 && matches!(change, Change::End { which: Which::Live(_), .. }) => "not_found",
        Ok(outcome) => MirrorResult::from(outcome).as_str(),
        Err(_) => "failed",
    };
    let (actor_session, actor_role, actor_user, actor_uid) = match actor {
        Actor::User(session) => (session, None, None, None),
        Actor::Admin(role, user) => (None, Some(role), user, None),
        Actor::Operator(uid) => (None, None, None, Some(uid)),
    };
    info!(
        target: "audit",
        user = %change.user(),
        which = subject.which,
        session = subject.session.map(field::display),
        kept = subject.kept.map(field::display),
        reason = subject.reason.map(Reason::as_str),
        result,
        count,
        error = outcome.as_ref().err().map(|error| error as &(dyn Error + 'static)),
        actor = actor.as_str(),
        actor_session = actor_session.map(field::display),
        actor_role,
        actor_user = actor_user.map(field::display),
        actor_uid,
        route = by.route,
        request_id = &*by.id(),
        "revocation"
    );
}

/// GoTrue's answer looked as if it changed a session, and nothing was recorded.
pub fn unrecorded(why: Unrecorded, by: By<'_>) {
    warn!(
        target: "audit",
        reason = why.as_str(),
        result = "failed",
        route = by.route,
        request_id = &*by.id(),
        "an answer was not mirrored"
    );
}

/// A request was refused for what its session or user is. Names them only where a known key signed
/// the token.
pub fn refused(verdict: &Verdict, why: Refusal, by: By<'_>) {
    let claims = verdict.proven();
    info!(
        target: "audit",
        user = claims.and_then(|claims| claims.user.id()).map(field::display),
        session = claims.and_then(|claims| claims.session.id()).map(field::display),
        reason = why.as_str(),
        result = "refused",
        route = by.route,
        request_id = &*by.id(),
        "a request was refused"
    );
}

/// The client did not get the tokens that GoTrue handed out for a session that was revoked here
/// (contract §6.3), or whose time was over.
pub fn refused_refresh(user: UserId, session: SessionId, why: Refusal, by: By<'_>) {
    info!(
        target: "audit",
        user = %user,
        session = %session,
        reason = why.as_str(),
        result = "refused",
        route = by.route,
        request_id = &*by.id(),
        "a refresh of {} session was refused",
        if why == Refusal::RefreshRevoked { "a revoked" } else { "an expired" }
    );
}

fn ended(user: UserId, which: &Which, reason: Reason, outcome: &Outcome, by: By<'_>) {
    let subject = Subject::of_ending(which, reason);
    info!(
        target: "audit",
        user = %user,
        which = subject.which,
        session = subject.session.map(field::display),
        kept = subject.kept.map(field::display),
        client_id = subject.client_id.as_deref(),
        reason = reason.as_str(),
        result = MirrorResult::from(outcome).as_str(),
        count = outcome.ended(),
        route = by.route,
        request_id = &*by.id(),
        "sessions ended"
    );
}

fn suspended(user: UserId, until: Option<Seconds>, result: &str, by: By<'_>) {
    info!(
        target: "audit",
        user = %user,
        until,
        result,
        route = by.route,
        request_id = &*by.id(),
        "{}",
        if until.is_some() { "user suspended" } else { "suspension lifted" }
    );
}

fn not_recorded(user: UserId, session: SessionId, result: &str, by: By<'_>) {
    info!(
        target: "audit",
        user = %user,
        session = %session,
        result,
        route = by.route,
        request_id = &*by.id(),
        "a revoked session was not recorded"
    );
}

/// Its user had as many sessions as may be, so nobody got the tokens of this one.
fn denied(user: UserId, session: SessionId, by: By<'_>) {
    info!(
        target: "audit",
        user = %user,
        session = %session,
        reason = Refusal::TooManySessions.as_str(),
        result = MirrorResult::Denied.as_str(),
        route = by.route,
        request_id = &*by.id(),
        "a sign-in was denied"
    );
}

/// Which sessions a change is about, and why.
#[derive(Default)]
struct Subject<'a> {
    /// `one`, `others`, `all`, `aal1` or `client`.
    which: &'static str,
    session: Option<SessionId>,
    /// The one that an ending of others leaves alone.
    kept: Option<SessionId>,
    client_id: Option<Cow<'a, str>>,
    reason: Option<Reason>,
}

impl<'a> Subject<'a> {
    fn of(change: &'a Change) -> Self {
        match change {
            Change::End { which, reason, .. } => Self::of_ending(which, *reason),
            Change::Record { record, .. } => {
                Self { which: "one", session: Some(record.session), ..Self::default() }
            }
            Change::Suspend { .. }
            | Change::Banned { .. }
            | Change::Allowed { .. }
            | Change::LowerAal { .. } => Self { which: "all", ..Self::default() },
        }
    }

    fn of_ending(which: &'a Which, reason: Reason) -> Self {
        let reason = Some(reason);
        let (which, session, kept, client_id) = match which {
            Which::One(session) | Which::Live(session) => ("one", Some(*session), None, None),
            Which::Others(kept) => ("others", None, Some(*kept), None),
            Which::All => ("all", None, None, None),
            Which::Aal1Except(kept) => ("aal1", None, Some(*kept), None),
            Which::Client(client) => ("client", None, None, Some(cut(client))),
        };
        Self { which, session, kept, client_id, reason }
    }
}

fn cut(client: &str) -> Cow<'_, str> {
    let shown = client.as_bytes();
    String::from_utf8_lossy(shown.get(..CLIENT_ID_BYTES).unwrap_or(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::LogFormat,
        session::{FactorId, Record},
        telemetry::captured,
    };

    const BY: By<'_> = By { route: "/logout", request_id: b"r\"1" };

    fn user() -> UserId {
        UserId::parse("0191d1a0-0000-7000-8000-00000000000a").unwrap()
    }

    fn session() -> SessionId {
        SessionId::parse("0191d1a0-0000-7000-8000-000000000001").unwrap()
    }

    fn ending(which: Which) -> Change {
        Change::End {
            user: user(),
            which,
            reason: Reason::Logout,
            sent_ms: 1,
            expires_at: None,
            ended_in_gotrue: true,
        }
    }

    fn record(origin: Origin) -> Change {
        Change::Record {
            origin,
            record: Box::new(Record {
                user: user(),
                session: session(),
                refresh_ref: None,
                previous_ref: None,
                counter: None,
                created_at: 1,
                began_ms: 0,
                begun_by_ms: 0,
                refreshed_at: 1,
                seen_at: None,
                expires_at: 2,
                aal: None,
                factor_id: None,
                amr: None,
                role: None,
                client_id: None,
                anonymous: false,
                ip: None,
                user_agent: None,
            }),
            allowed_ms: None,
        }
    }

    /// What one call logs, after the time.
    fn logged(audit: impl FnOnce()) -> String {
        let log = captured(LogFormat::Text, audit);
        log.split_once(' ').map_or(String::new(), |(_, rest)| rest.to_owned())
    }

    #[test]
    fn an_ending_says_who_which_why_and_how_many() {
        let table = [
            (Which::One(session()), "which=one session=0191d1a0-0000-7000-8000-000000000001"),
            (Which::Others(session()), "which=others kept=0191d1a0-0000-7000-8000-000000000001"),
            (Which::All, "which=all"),
            (Which::Aal1Except(session()), "which=aal1 kept=0191d1a0-0000-7000-8000-000000000001"),
            (Which::Client("a b\n".to_owned()), "which=client client_id=\"a b\\n\""),
        ];
        for (which, words) in table {
            let line = logged(|| changed(&ending(which), &Outcome::Ended(3), BY));
            assert_eq!(
                line,
                format!(
                    "info audit: sessions ended user=0191d1a0-0000-7000-8000-00000000000a {words} \
                     reason=logout result=ended count=3 route=/logout request_id=\"r\\\"1\"\n"
                )
            );
        }
    }

    #[test]
    fn a_revocation_says_who_wanted_it_and_what_became_of_it() {
        let by = By { route: "/sessions/{id}", request_id: b"r1" };
        let failed = std::io::Error::other("the store did not answer in time");
        let one = ending(Which::Live(session()));
        let table = [
            (
                Ok(Outcome::Ended(1)),
                Actor::User(Some(session())),
                "result=ended count=1 actor=user actor_session=0191d1a0-0000-7000-8000-000000000001",
            ),
            (Ok(Outcome::Ended(0)), Actor::User(None), "result=not_found count=0 actor=user"),
            (
                Err(failed),
                Actor::Admin("service_role", Some(user())),
                "result=failed count=0 error=\"the store did not answer in time\" actor=admin \
                 actor_role=service_role actor_user=0191d1a0-0000-7000-8000-00000000000a",
            ),
            (Ok(Outcome::Ended(1)), Actor::Operator(0), "result=ended count=1 actor=operator actor_uid=0"),
        ];
        for (outcome, actor, words) in table {
            assert_eq!(
                logged(|| revocation(&one, &outcome, actor, by)),
                format!(
                    "info audit: revocation user=0191d1a0-0000-7000-8000-00000000000a which=one \
                     session=0191d1a0-0000-7000-8000-000000000001 reason=logout {words} route=/sessions/{{id}} \
                     request_id=r1\n"
                )
            );
        }
        let none: Result<_, std::io::Error> = Ok(Outcome::Ended(0));
        let all = logged(|| revocation(&ending(Which::All), &none, Actor::Operator(7), by));
        assert!(all.contains("which=all reason=logout result=ended count=0"), "{all}");
    }

    #[test]
    fn what_an_ending_left_out_is_told_when_it_is_done() {
        let line = logged(|| changed(&ending(Which::All), &Outcome::Pending(256), BY));
        assert!(line.contains("which=all reason=logout result=pending count=256"), "{line}");
        assert_eq!(
            logged(|| swept(user(), Reason::Logout, 744)),
            "info audit: pending sessions ended user=0191d1a0-0000-7000-8000-00000000000a \
             reason=logout result=ended count=744\n"
        );
    }

    #[test]
    fn whoever_made_room_has_a_line_each() {
        let other = SessionId::parse("0191d1a0-0000-7000-8000-000000000002").unwrap();
        let recorded = Box::new(Outcome::Created);
        let outcome = Outcome::Evicted(Evicted { recorded, sessions: vec![session(), other], more: true });
        let lines = captured(LogFormat::Text, || changed(&record(Origin::SignIn), &outcome, BY));
        assert_eq!(lines.lines().count(), 2, "{lines}");
        for (line, session) in lines.lines().zip([session(), other]) {
            let words = format!("which=one session={session} reason=evicted result=ended count=1");
            assert!(line.contains(&words), "{line}");
        }
    }

    #[test]
    fn of_changes_only_endings_and_suspensions_are_audited() {
        let ban = |until| Change::Suspend { user: user(), until, decided_ms: 1 };
        let lower = {
            let factor = FactorId::parse_as_gotrue("0191d1a0-0000-7000-8000-0000000000f1").unwrap();
            Change::LowerAal { user: user(), factor }
        };
        let table = [
            (record(Origin::SignIn), Outcome::Created, ""),
            (record(Origin::Refresh), Outcome::Refreshed, ""),
            (record(Origin::Refresh), Outcome::Unchanged, ""),
            (record(Origin::Refresh), Outcome::Revoked, ""),
            (record(Origin::SignIn), Outcome::Revoked, "info audit: a revoked session was not recorded"),
            (record(Origin::HeldSignIn), Outcome::Revoked, "info audit: a revoked session was not recorded"),
            (record(Origin::HeldSignIn), Outcome::Denied, "info audit: a sign-in was denied"),
            (ban(Some(7)), Outcome::Marked, "info audit: user suspended"),
            (
                Change::Banned { user: user(), until: 7, seen_ms: 1 },
                Outcome::Unchanged,
                "info audit: user suspended",
            ),
            (ban(None), Outcome::Marked, "info audit: suspension lifted"),
            (ending(Which::All), Outcome::Unchanged, "info audit: sessions ended"),
            (lower, Outcome::Marked, ""),
        ];
        for (change, outcome, words) in table {
            let line = logged(|| changed(&change, &outcome, BY));
            let begins = if words.is_empty() { line.is_empty() } else { line.starts_with(words) };
            assert!(begins, "{outcome:?}: {line}");
        }
    }

    #[test]
    fn a_change_that_failed_names_the_cause() {
        let cause = std::io::Error::other("the store did not answer in time");
        let line = logged(|| failed(&record(Origin::SignIn), &cause, BY));
        assert!(line.starts_with("warn audit: a change was not recorded event="), "{line}");
        assert!(
            line.contains(
                "user=0191d1a0-0000-7000-8000-00000000000a which=one \
                 session=0191d1a0-0000-7000-8000-000000000001 result=failed \
                 error=\"the store did not answer in time\""
            ),
            "{line}"
        );
        let line = logged(|| unrecorded(Unrecorded::TooLarge, BY));
        assert!(line.contains("reason=too_large result=failed"), "{line}");
    }

    #[test]
    fn a_refusal_names_nobody_whom_no_key_proved() {
        let line = logged(|| refused(&Verdict::Bad, Refusal::SessionRevoked, BY));
        assert_eq!(
            line,
            "info audit: a request was refused reason=session_revoked result=refused \
             route=/logout request_id=\"r\\\"1\"\n"
        );
    }

    #[test]
    fn a_refused_refresh_names_its_session() {
        let line = logged(|| refused_refresh(user(), session(), Refusal::RefreshRevoked, BY));
        assert!(
            line.starts_with(
                "info audit: a refresh of a revoked session was refused \
                 user=0191d1a0-0000-7000-8000-00000000000a session=0191d1a0-0000-7000-8000-000000000001 \
                 reason=refresh_revoked result=refused"
            ),
            "{line}"
        );
        let line = logged(|| refused_refresh(user(), session(), Refusal::RefreshExpired, BY));
        assert!(line.starts_with("info audit: a refresh of an expired session was refused user="), "{line}");
    }

    #[test]
    fn ids_from_outside_are_cut() {
        let by = By { route: "other", request_id: &[b'x'; 4_000] };
        let change = ending(Which::Client("y".repeat(4_000)));
        let line = logged(|| changed(&change, &Outcome::Ended(0), by));
        assert!(line.len() < 600, "{line}");
    }
}
