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
mod tests;
