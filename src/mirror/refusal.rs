//! What GoTrue's refusals tell: that it no longer knows a session or a user (contract §6.2), that a
//! user is banned, that a refresh token was used twice.
//!
//! A refusal is no success, so it only counts for a token that verifies here, or for the refresh
//! token that was sent along and that GoTrue's own answers tied to a session before.

use std::borrow::Cow;

use http::StatusCode;
use serde::Deserialize;

use super::ending::{end, tokens_until};
use super::inspect::{ERROR_CODE, hands_out_tokens};
use super::record::{SESSION_HEADER, USER_HEADER, spent_token, verifies_factor};
use super::{Answered, Asked, Body, Decision, Mirror};
use crate::keys::Verdict;
use crate::session::{Change, Reason, RefreshRef, Seconds, SessionId, TokenOf, Unrecorded, UserId, Which};
use crate::token::Claims;
use crate::token::lenient::Text;

/// How long a user counts as banned when GoTrue says so at a refresh, without saying until when:
/// GoTrue's default life of an access token. Whoever is still banned then is told so again.
const BANNED_FOR: Seconds = 3_600;

/// Set when a refresh token that was used twice has cost its session (`internal/tokens/service.go`).
const ROTATED_HEADER: &str = "sb-auth-refresh-token-rotated";

/// A change to the session that a refresh token belongs to. Which one that is stands in the store
/// (`P:refresh:<ref>`, a hint: the session's own record must agree).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByRef {
    /// The token's reference.
    pub reference: RefreshRef,
    /// What becomes of that session or its user.
    pub fate: Fate,
    /// Milliseconds since the epoch when the request was sent on that tells it.
    pub sent_ms: u64,
}

/// What a refused refresh tells of a session or its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The session has ended, for this reason.
    Ended(Reason),
    /// The user is banned, until then at least.
    Banned(Seconds),
}

impl ByRef {
    /// Whether it is about the session that has the token as that one. GoTrue deletes tokens that were exchanged a day
    /// ago (`internal/models/cleanup.go`), so one that it does not know says nothing of a session that has gone on.
    pub fn is_about(&self, token: TokenOf) -> bool {
        token == TokenOf::Current || self.fate != Fate::Ended(Reason::UnknownToGotrue)
    }

    /// The change, once it is known whose session it is and which.
    pub fn change(&self, user: UserId, session: SessionId) -> Change {
        match self.fate {
            Fate::Ended(reason) => Change::End {
                user,
                which: Which::One(session),
                reason,
                sent_ms: Which::One(session).sent(self.sent_ms),
                expires_at: None,
                ended_in_gotrue: true,
            },
            Fate::Banned(until) => Change::Banned { user, until, seen_ms: self.sent_ms },
        }
    }
}

/// The error codes that matter (`internal/api/apierrors/errorcode.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    SessionNotFound,
    UserNotFound,
    UserBanned,
    MfaRejected,
    RefreshTokenNotFound,
    RefreshTokenUsed,
}

impl Code {
    fn parse(code: &str) -> Option<Self> {
        match code {
            "session_not_found" => Some(Self::SessionNotFound),
            "user_not_found" => Some(Self::UserNotFound),
            "user_banned" => Some(Self::UserBanned),
            "mfa_verification_rejected" => Some(Self::MfaRejected),
            "refresh_token_not_found" => Some(Self::RefreshTokenNotFound),
            "refresh_token_already_used" => Some(Self::RefreshTokenUsed),
            _ => None,
        }
    }

    /// Before v2.164.0 a failed refresh has the OAuth form, and only its text tells why.
    fn of_oauth(description: &str) -> Option<Self> {
        match description {
            "Invalid Refresh Token: Refresh Token Not Found" => Some(Self::RefreshTokenNotFound),
            "Invalid Refresh Token: Already Used" => Some(Self::RefreshTokenUsed),
            "Invalid Refresh Token: User Banned" => Some(Self::UserBanned),
            _ => None,
        }
    }
}

impl Mirror {
    pub(super) fn refused(&self, asked: &Asked<'_>, answered: &Answered<'_>, decision: &mut Decision<'_>) {
        if !matches!(answered.status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN) {
            return;
        }
        let Some(code) = code_of(answered) else {
            return;
        };
        if answered.status == StatusCode::FORBIDDEN {
            of_bearer(asked, code, decision);
        } else if asked.is_refresh() {
            self.of_refresh(asked, answered, code, decision);
        }
    }

    /// 400 to a refresh.
    fn of_refresh(
        &self,
        asked: &Asked<'_>,
        answered: &Answered<'_>,
        code: Code,
        decision: &mut Decision<'_>,
    ) {
        let banned_until = answered.now() + BANNED_FOR;
        let user = answered.header(USER_HEADER).and_then(UserId::parse);
        let fate = match code {
            Code::RefreshTokenNotFound => Fate::Ended(Reason::UnknownToGotrue),
            Code::UserBanned => match user {
                Some(user) => {
                    let (until, seen_ms) = (banned_until, asked.sent_ms);
                    decision.changes.push(Change::Banned { user, until, seen_ms });
                    return;
                }
                None => Fate::Banned(banned_until),
            },
            Code::RefreshTokenUsed if answered.header(ROTATED_HEADER) == Some("true") => {
                let session = answered.header(SESSION_HEADER).and_then(SessionId::parse);
                if let (Some(user), Some(session)) = (user, session) {
                    reused(asked, user, session, decision);
                    return;
                }
                Fate::Ended(Reason::RefreshReuse)
            }
            _ => return,
        };
        let token = spent_token(asked);
        if let Some(reference) = token.and_then(|token| self.reference(&token)) {
            decision.by_ref = Some(ByRef { reference, fate, sent_ms: asked.sent_ms });
        }
    }
}

/// GoTrue deleted the session because its refresh token was used twice.
fn reused(asked: &Asked<'_>, user: UserId, session: SessionId, decision: &mut Decision<'_>) {
    let named = spent_token(asked).and_then(|token| token.session());
    if named.is_some_and(|named| named != session) {
        decision.unrecorded = Some(Unrecorded::Contradiction);
        return;
    }
    let which = Which::One(session);
    decision.changes.push(end(asked, user, which, Reason::RefreshReuse, None, true));
}

/// 403 to a Bearer token.
fn of_bearer(asked: &Asked<'_>, code: Code, decision: &mut Decision<'_>) {
    let says_something = match code {
        Code::SessionNotFound | Code::UserNotFound => true,
        // On the way to a new session this is about whoever signs in, not about the bearer.
        Code::UserBanned => !hands_out_tokens(asked.route) || verifies_factor(asked.route),
        Code::MfaRejected => verifies_factor(asked.route),
        Code::RefreshTokenNotFound | Code::RefreshTokenUsed => false,
    };
    if !says_something {
        return;
    }
    match asked.bearer.map(Verdict::proven) {
        Some(Some(claims)) => decision.changes.extend(of_proven(asked, claims, code)),
        Some(None) => decision.unrecorded = Some(Unrecorded::Unverified),
        None => {}
    }
}

fn of_proven(asked: &Asked<'_>, claims: &Claims, code: Code) -> Option<Change> {
    let user = claims.user.id()?;
    let (which, reason) = match code {
        Code::SessionNotFound => (Which::One(claims.session.id()?), Reason::UnknownToGotrue),
        Code::UserNotFound => (Which::All, Reason::UserDeleted),
        Code::MfaRejected => (Which::All, Reason::MfaRejected),
        // Until when GoTrue does not say: at least as long as this token would have been of use.
        Code::UserBanned => {
            let until = claims.expires_at?;
            return Some(Change::Banned { user, until, seen_ms: asked.sent_ms });
        }
        _ => return None,
    };
    Some(end(asked, user, which, reason, tokens_until(asked, claims), true))
}

/// GoTrue's error code: the header's where there is one, else the body's in any of its forms
/// (GS §4).
fn code_of(answered: &Answered<'_>) -> Option<Code> {
    #[derive(Deserialize)]
    struct Refusal<'a> {
        #[serde(borrow, default)]
        code: Text<'a>,
        #[serde(borrow, default)]
        error_code: Text<'a>,
        #[serde(borrow, default)]
        error: Text<'a>,
        #[serde(borrow, default)]
        error_description: Text<'a>,
    }
    if let Some(code) = answered.header(ERROR_CODE) {
        return Code::parse(code);
    }
    let Body::Whole(body) = answered.body else {
        return None;
    };
    let refusal: Refusal<'_> = serde_json::from_slice(body).ok()?;
    let text = |text: Text<'_>| text.0.map(Cow::into_owned);
    if let Some(code) = text(refusal.error_code).or(text(refusal.code)) {
        return Code::parse(&code);
    }
    (refusal.error.0? == "invalid_grant").then_some(())?;
    Code::of_oauth(&refusal.error_description.0?)
}
