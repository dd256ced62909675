//! Requests to which GoTrue agreed and that end sessions, or change them without handing out
//! tokens (GS §2 and §9).

use serde::Deserialize;

use super::{Answered, Asked, Body, Decision};
use crate::keys::Verdict;
use crate::rfc3339;
use crate::route::{Route, factor_in_path, user_in_path};
use crate::scope::{Scope, first_query_value};
use crate::session::{Change, Reason, Seconds, SessionId, Unrecorded, UserId, Which};
use crate::token::lenient::Text;
use crate::token::{Claims, Named};

/// The session of a logout, ended before GoTrue is asked (contract §6.1): only with a token that
/// verifies here, and only if the logout is meant for it. An expired token does it too, for a
/// while: the client has thrown its tokens away, and GoTrue will refuse.
pub(super) fn own_session(asked: &Asked<'_>, expired_grace: Seconds) -> Option<Change> {
    let claims = match asked.bearer? {
        Verdict::Good(claims) => claims,
        Verdict::Expired(claims) => {
            let since = (asked.sent_ms / 1000).saturating_sub(claims.expires_at?);
            (since < expired_grace).then_some(claims)?
        }
        Verdict::NoKeys(_) | Verdict::UnknownKey(_) | Verdict::Bad => return None,
    };
    match Scope::of(asked.query) {
        Scope::Global | Scope::Local => {}
        Scope::Others | Scope::Unknown => return None,
    }
    let (user, session) = (claims.user.id()?, claims.session.id()?);
    Some(end(asked, user, Which::One(session), Reason::Logout, tokens_until(asked, claims), false))
}

/// What a 2xx without tokens changes.
pub(super) fn agreed(asked: &Asked<'_>, answered: &Answered<'_>, decision: &mut Decision<'_>) {
    match asked.route {
        Route::Logout | Route::UserUpdate | Route::GrantRevoke | Route::FactorDelete => {
            match asked.bearer {
                // GoTrue took the token, and a key that is known here says it is forged.
                Some(Verdict::Bad) if changes_something(asked) => {
                    decision.unrecorded = Some(Unrecorded::Unverified);
                }
                Some(verdict) => {
                    if let Some(claims) = verdict.claimed() {
                        decision.changes.extend(own_session_again(asked, claims));
                        decision.changes.extend(by_user(asked, claims));
                    }
                }
                None => {}
            }
        }
        Route::AdminUserUpdate | Route::AdminUserDelete | Route::AdminFactorDelete => {
            if let Some(user) = user_in_path(asked.path) {
                by_admin(asked, answered, user, decision);
            }
        }
        // AdminClientDelete: GoTrue ends nothing, and the client's sessions are spread over users.
        _ => {}
    }
}

fn changes_something(asked: &Asked<'_>) -> bool {
    asked.route != Route::UserUpdate || sets_password(asked)
}

fn sets_password(asked: &Asked<'_>) -> bool {
    asked.fields().is_some_and(|fields| fields.password)
}

/// A global logout ended its own session here before GoTrue was asked. Now GoTrue has ended it, too, so
/// its tombstone need not live as long as a session; it is not among those that are still known.
fn own_session_again(asked: &Asked<'_>, claims: &Claims) -> Option<Change> {
    let global = asked.route == Route::Logout && Scope::of(asked.query) == Scope::Global;
    let (user, session) = (claims.user.id()?, claims.session.id()?);
    let which = Which::One(session);
    global.then(|| end(asked, user, which, Reason::Logout, tokens_until(asked, claims), true))
}

/// What users do to their own sessions.
fn by_user(asked: &Asked<'_>, claims: &Claims) -> Option<Change> {
    let user = claims.user.id()?;
    match asked.route {
        Route::Logout => {
            let which = logged_out(Scope::of(asked.query), claims.session)?;
            Some(end(asked, user, which, Reason::Logout, tokens_until(asked, claims), true))
        }
        Route::UserUpdate if sets_password(asked) => {
            let which = others(claims.session)?;
            Some(end(asked, user, which, Reason::PasswordChanged, None, true))
        }
        Route::GrantRevoke => {
            let client = first_query_value(asked.query, "client_id")?;
            // A UUID like any other, and written the same way in the record.
            let which = Which::Client(SessionId::parse_as_gotrue(&client)?.to_string());
            Some(end(asked, user, which, Reason::GrantRevoked, None, true))
        }
        Route::FactorDelete => {
            let factor = factor_in_path(asked.path)?;
            Some(Change::LowerAal { user, factor })
        }
        _ => None,
    }
}

/// `internal/api/logout.go`: without a session every known scope means all.
fn logged_out(scope: Scope, session: Named<SessionId>) -> Option<Which> {
    match (scope, session) {
        (Scope::Unknown, _) | (_, Named::Odd) => None,
        (Scope::Global, _) | (_, Named::Nothing) => Some(Which::All),
        (Scope::Local, Named::Id(session)) => Some(Which::One(session)),
        (Scope::Others, Named::Id(session)) => Some(Which::Others(session)),
    }
}

/// `internal/models/user.go:UpdatePassword`: the session that asked lives, if there is one.
fn others(session: Named<SessionId>) -> Option<Which> {
    match session {
        Named::Id(session) => Some(Which::Others(session)),
        Named::Nothing => Some(Which::All),
        Named::Odd => None,
    }
}

/// What admins do to a user's sessions. GoTrue's success is the proof; the user stands in the path.
fn by_admin(asked: &Asked<'_>, answered: &Answered<'_>, user: UserId, decision: &mut Decision<'_>) {
    match asked.route {
        Route::AdminUserDelete => {
            decision.changes.push(end(asked, user, Which::All, Reason::UserDeleted, None, true));
        }
        Route::AdminUserUpdate => {
            let fields = asked.fields().unwrap_or_default();
            if fields.password {
                let reason = Reason::PasswordChanged;
                decision.changes.push(end(asked, user, Which::All, reason, None, true));
            }
            if fields.ban
                && let Body::Whole(body) = answered.body
                && let Ok(until) = banned_until(body)
            {
                decision.changes.push(Change::Suspend { user, until, decided_ms: answered.now_ms });
            }
        }
        Route::AdminFactorDelete => {
            let factor = factor_in_path(asked.path);
            decision.changes.extend(factor.map(|factor| Change::LowerAal { user, factor }));
        }
        _ => {}
    }
}

/// Until when the user in an admin's answer is banned, rounded up to a whole second; `None` for a
/// user who is not banned, an error where it cannot be read.
fn banned_until(body: &[u8]) -> Result<Option<Seconds>, Unreadable> {
    #[derive(Deserialize)]
    struct User<'a> {
        #[serde(borrow, default)]
        banned_until: Text<'a>,
    }
    let user: User<'_> = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    match user.banned_until.0 {
        None => Ok(None),
        Some(text) => rfc3339::millis(&text).map(|until| Some(until.div_ceil(1000))).ok_or(Unreadable),
    }
}

#[derive(Debug)]
struct Unreadable;

/// When the last access token ends that GoTrue may have handed out for the session of this one before the request was
/// sent: a refresh since then may be recorded late, or never.
pub(super) fn tokens_until(asked: &Asked<'_>, claims: &Claims) -> Option<Seconds> {
    let expires_at = claims.expires_at?;
    let life = expires_at.saturating_sub(claims.issued_at.unwrap_or(expires_at));
    Some(expires_at.max((asked.sent_ms / 1000).saturating_add(life)))
}

pub(super) fn end(
    asked: &Asked<'_>,
    user: UserId,
    which: Which,
    reason: Reason,
    expires_at: Option<Seconds>,
    ended_in_gotrue: bool,
) -> Change {
    let sent_ms = which.sent(asked.sent_ms);
    Change::End { user, which, reason, sent_ms, expires_at, ended_in_gotrue }
}
