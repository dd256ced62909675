//! An answer that hands out tokens becomes a record of the session they belong to.

use super::ending::end;
use super::{Answered, Asked, Decision, Mirror, is_grant};
use crate::keys::Verdict;
use crate::route::{Route, factor_in_path};
use crate::session::{
    Aal, Change, Origin, Reason, Record, RefreshRef, Seconds, SessionId, Unrecorded, UserId, Which,
};
use crate::token::{Claims, Issued, Named, RefreshToken};

/// GoTrue's own word on session and user (≥ v2.181.0 at refresh, ≥ v2.186.0 at sign-in). Only
/// where tokens are handed out, or a session ended: elsewhere they may name what was rolled back.
pub(super) const SESSION_HEADER: &str = "sb-auth-session-id";
pub(super) const USER_HEADER: &str = "sb-auth-user-id";
/// Set at every refresh of a v2 token, never at a sign-in (`internal/tokens/service.go`).
const REUSE_HEADERS: [&str; 2] = ["sb-auth-refresh-token-reuse", "sb-auth-refresh-token-reuse-cause"];

impl Mirror {
    pub(super) fn issued<'a>(
        &self,
        asked: &Asked<'_>,
        answered: &Answered<'a>,
        issued: Issued<'a>,
        decision: &mut Decision<'a>,
    ) {
        match self.record(asked, answered, &issued) {
            Ok(change) => {
                let others = ended_by_second_factor(asked, &change);
                decision.changes.push(change);
                decision.changes.extend(others);
            }
            Err(cause) => decision.unrecorded = Some(cause),
        }
        decision.issued = Some(issued);
    }

    fn record(
        &self,
        asked: &Asked<'_>,
        answered: &Answered<'_>,
        issued: &Issued<'_>,
    ) -> Result<Change, Unrecorded> {
        let claims = Claims::unverified(issued.access_token()).ok_or(Unrecorded::BadToken)?;
        let expires_at = claims.expires_at.ok_or(Unrecorded::BadToken)?;
        if claims.user == Named::Nothing {
            return Err(Unrecorded::BadToken);
        }
        let spent = asked.is_refresh().then(|| spent_token(asked)).flatten();
        let session = session_of(asked, answered, issued, &claims, spent.as_ref())?;
        let user = user_of(asked, answered, issued, &claims)?;
        let origin = origin_of(asked, answered, issued);
        let now = answered.now();
        let Beginning { created_at, began_ms, begun_by_ms } = beginning(origin, &claims, asked, answered);
        let raised = verifies_factor(asked.route);
        let refresh_ref = self.reference(issued.refresh_token());
        let record = Record {
            user,
            session,
            previous_ref: spent
                .and_then(|token| self.reference(&token))
                .filter(|previous| Some(previous) != refresh_ref.as_ref()),
            refresh_ref,
            counter: issued.refresh_token().counter(),
            created_at,
            began_ms,
            begun_by_ms,
            refreshed_at: claims.issued_at.unwrap_or(now),
            seen_at: Some(now),
            expires_at,
            earlier_until: None,
            // GoTrue has just raised the row, whatever a token hook says in the claim.
            aal: if raised { Some(Aal::Aal2) } else { claims.aal },
            factor_id: raised.then(|| factor_in_path(asked.path)).flatten(),
            amr: claims.amr.methods,
            role: claims.role,
            client_id: claims.client_id,
            anonymous: claims.anonymous,
            // A second factor leaves the row's address and agent as they were.
            ip: asked.client_ip.filter(|_| !raised).map(str::to_owned),
            user_agent: asked.user_agent().filter(|_| !raised),
        };
        let allowed_ms = is_refused_to_banned(asked).then_some(asked.sent_ms);
        Ok(Change::Record { origin, record: Box::new(record), allowed_ms })
    }

    pub(super) fn reference(&self, token: &RefreshToken<'_>) -> Option<RefreshRef> {
        self.ref_key.load().as_ref().map(|key| key.reference(token))
    }
}

/// The refresh token that was used to ask.
pub(super) fn spent_token(asked: &Asked<'_>) -> Option<RefreshToken<'static>> {
    asked.fields()?.refresh_token.map(RefreshToken::new)
}

pub(super) fn verifies_factor(route: Route) -> bool {
    matches!(route, Route::FactorVerify | Route::RecoveryVerify)
}

/// Whether GoTrue refuses these tokens to users who are banned, in every release. It does not ask when
/// it trades a code (`internal/api/token.go:PKCE`, supabase/auth#2806), links an identity or signs up, and
/// before v2.195.0 not when a factor is verified.
fn is_refused_to_banned(asked: &Asked<'_>) -> bool {
    match asked.route {
        Route::Token => asked.is_refresh() || is_grant(asked.query, "password"),
        Route::OauthToken => asked.is_refresh(),
        Route::Verify => true,
        _ => false,
    }
}

/// A verified second factor ends the user's other sessions that have only one
/// (`internal/models/sessions.go:InvalidateSessionsWithAALLessThan`).
fn ended_by_second_factor(asked: &Asked<'_>, change: &Change) -> Option<Change> {
    let Change::Record { record, .. } = change else {
        return None;
    };
    let which = Which::Aal1Except(record.session);
    verifies_factor(asked.route).then_some(end(asked, record.user, which, Reason::MfaVerified, None, true))
}

/// Which session the tokens belong to, by order of trust (GS §1.2): the v2 refresh token, GoTrue's
/// header, the claim. All that speak must agree, and so must what the request itself named.
fn session_of(
    asked: &Asked<'_>,
    answered: &Answered<'_>,
    issued: &Issued<'_>,
    claims: &Claims,
    spent: Option<&RefreshToken<'_>>,
) -> Result<SessionId, Unrecorded> {
    let upgraded = verifies_factor(asked.route)
        .then(|| asked.bearer.and_then(Verdict::claimed))
        .flatten()
        .and_then(|bearer| bearer.session.id());
    agreed(&[
        issued.refresh_token().session().map_or(Named::Nothing, Named::Id),
        header(answered, SESSION_HEADER, SessionId::parse),
        claims.session,
        spent.and_then(RefreshToken::session).map_or(Named::Nothing, Named::Id),
        upgraded.map_or(Named::Nothing, Named::Id),
    ])
}

/// Whose the session is: a token hook can rewrite `sub`, but neither the header nor `user.id`.
fn user_of(
    asked: &Asked<'_>,
    answered: &Answered<'_>,
    issued: &Issued<'_>,
    claims: &Claims,
) -> Result<UserId, Unrecorded> {
    let upgraded = verifies_factor(asked.route)
        .then(|| asked.bearer.and_then(Verdict::claimed))
        .flatten()
        .and_then(|bearer| bearer.user.id());
    agreed(&[
        claims.user,
        header(answered, USER_HEADER, UserId::parse),
        issued.user_id().map_or(Named::Nothing, |id| UserId::parse(id).map_or(Named::Odd, Named::Id)),
        upgraded.map_or(Named::Nothing, Named::Id),
    ])
}

fn header<T>(answered: &Answered<'_>, name: &str, parse: fn(&str) -> Option<T>) -> Named<T> {
    match answered.header(name) {
        None | Some("") => Named::Nothing,
        Some(text) => parse(text).map_or(Named::Odd, Named::Id),
    }
}

/// What all sources that name something name. One that names something else, or nothing
/// intelligible beside one that names an id, is a contradiction: record nothing (contract §5).
fn agreed<T: Copy + PartialEq>(sources: &[Named<T>]) -> Result<T, Unrecorded> {
    let mut ids = sources.iter().filter_map(|source| source.id());
    let first = ids.next().ok_or(Unrecorded::NoSession)?;
    let odd = sources.iter().any(|source| matches!(source, Named::Odd));
    if odd || ids.any(|other| other != first) {
        return Err(Unrecorded::Contradiction);
    }
    Ok(first)
}

/// Whether the session began with this answer.
///
/// Taking a refresh for a sign-in would let a session come back that was ended meanwhile (I3), so
/// where neither endpoint nor grant tells, a sign-in must be proven: a v2 token whose counter is 0,
/// GoTrue's session header, and none of the headers that every refresh of a v2 token sets. Anything
/// else is taken for a refresh, whose only cost is that the beginning is read from the token.
fn origin_of(asked: &Asked<'_>, answered: &Answered<'_>, issued: &Issued<'_>) -> Origin {
    let sign_in = match asked.route {
        Route::Token => !asked.is_refresh(),
        Route::Signup | Route::Verify | Route::Callback | Route::SamlAcs | Route::PasskeyVerify => true,
        Route::FactorVerify | Route::RecoveryVerify => false,
        Route::OauthToken => match asked.fields().and_then(|fields| fields.grant_type) {
            Some(grant) => grant != "refresh_token",
            None => is_first(answered, issued),
        },
        _ => is_first(answered, issued),
    };
    if sign_in { Origin::SignIn } else { Origin::Refresh }
}

/// When a session began, as a record has it.
pub(super) struct Beginning {
    pub(super) created_at: Seconds,
    pub(super) began_ms: u64,
    pub(super) begun_by_ms: u64,
}

/// What an answer with a session says of its beginning.
pub(super) fn beginning(
    origin: Origin,
    claims: &Claims,
    asked: &Asked<'_>,
    answered: &Answered<'_>,
) -> Beginning {
    let now = answered.now();
    match origin {
        Origin::SignIn | Origin::HeldSignIn => {
            Beginning { created_at: now, began_ms: answered.now_ms, begun_by_ms: 0 }
        }
        Origin::Refresh => {
            let created_at = claims.began().unwrap_or(now);
            Beginning { created_at, began_ms: 0, begun_by_ms: asked.sent_ms }
        }
    }
}

fn is_first(answered: &Answered<'_>, issued: &Issued<'_>) -> bool {
    issued.refresh_token().counter() == Some(0)
        && answered.headers.contains_key(SESSION_HEADER)
        && !REUSE_HEADERS.iter().any(|name| answered.headers.contains_key(*name))
}
