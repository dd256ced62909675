//! What a check comes to: pure functions from what is known of the token and its session.

use http::StatusCode;

use crate::{
    config::{Check, Policy},
    keys::Verdict,
    metrics::{CheckResult, Refusal},
    session::{Seconds, Sought, State},
    sessions::{Reader, Without, without_store},
    token::{Claims, Named},
};

/// Whose token it is, where it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A session's: the store is to be asked.
    Session(Sought),
    /// Nobody's session: an anonymous or a service key.
    Key,
}

/// What is known of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is live.
    Live,
    /// The store has never heard of it, or not any more.
    Unknown,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// Its user is banned for now.
    Suspended,
    /// The store did not say.
    Undecided,
}

impl From<&State> for Known {
    fn from(state: &State) -> Self {
        match state {
            State::Live(_) => Self::Live,
            State::Unknown => Self::Unknown,
            State::Revoked => Self::Revoked,
            State::Expired => Self::Expired,
            State::Suspended(_) => Self::Suspended,
        }
    }
}

/// Whose token it is, from what its signature and its claims say at `now`.
///
/// # Errors
/// The refusal of a token that is not good whatever the store says; [`Refusal::NoKeys`] where that cannot be told.
pub fn subject(verdict: &Verdict, now: Seconds) -> Result<Subject, Refusal> {
    match verdict {
        Verdict::Good(claims) => claimed(claims, now),
        Verdict::Expired(_) => Err(Refusal::TokenExpired),
        Verdict::UnknownKey(_) | Verdict::Bad => Err(Refusal::BadToken),
        // what no key could mend needs none
        Verdict::NoKeys(claims) => claimed(claims, now).and(Err(Refusal::NoKeys)),
    }
}

fn claimed(claims: &Claims, now: Seconds) -> Result<Subject, Refusal> {
    let expires_at = claims.expires_at.ok_or(Refusal::TokenWithoutExpiry)?;
    if now >= expires_at {
        return Err(Refusal::TokenExpired);
    }
    if claims.not_before.is_some_and(|start| now < start) {
        return Err(Refusal::BadToken);
    }
    match (claims.user, claims.session) {
        (Named::Odd, _) => Err(Refusal::TokenOddUser),
        (_, Named::Odd) => Err(Refusal::TokenOddSession),
        (Named::Id(user), Named::Id(session)) => {
            Ok(Subject::Session(Sought { user, session, began: claims.began(), touch: true }))
        }
        (Named::Nothing, Named::Id(_)) => Err(Refusal::TokenWithoutUser),
        (_, Named::Nothing) => Ok(Subject::Key),
    }
}

/// Whether a good token that belongs to no session is let through.
///
/// # Errors
/// The refusal.
pub fn permit_key(config: &Check) -> Result<(), Refusal> {
    match config.keys {
        Policy::Allow => Ok(()),
        Policy::Deny => Err(Refusal::TokenWithoutSession),
    }
}

/// Whether a good token of a session is let through.
///
/// # Errors
/// The refusal.
pub fn permit_session(known: Known, config: &Check) -> Result<(), Refusal> {
    match known {
        Known::Live => Ok(()),
        Known::Unknown if config.unknown == Policy::Allow => Ok(()),
        // to GoTrue there is no difference either
        Known::Revoked | Known::Unknown => Err(Refusal::SessionRevoked),
        Known::Expired => Err(Refusal::SessionExpired),
        Known::Suspended => Err(Refusal::UserSuspended),
        Known::Undecided => match without_store(Reader::Check(config.on_store_error)) {
            Without::TokenDecides => Ok(()),
            Without::Unavailable | Without::LeftToGotrue => Err(Refusal::StoreUnavailable),
        },
    }
}

/// The status of a refusal: 401, 403 or 503, because gateways understand no other.
pub fn status(refusal: Refusal) -> StatusCode {
    match refusal {
        Refusal::SessionRevoked | Refusal::SessionExpired | Refusal::UserSuspended => StatusCode::FORBIDDEN,
        Refusal::StoreUnavailable | Refusal::NoKeys => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    }
}

/// What metrics call it.
pub fn result(decision: Result<(), Refusal>) -> CheckResult {
    match decision.map_err(status) {
        Ok(()) => CheckResult::Allow,
        Err(StatusCode::FORBIDDEN) => CheckResult::Forbidden,
        Err(StatusCode::SERVICE_UNAVAILABLE) => CheckResult::Error,
        Err(_) => CheckResult::Unauthenticated,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use base64::Engine as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::session::{SessionId, UserId};
    use crate::token::BASE64URL;

    const USER: &str = "0191d1a0-0000-7000-8000-00000000000a";
    const SESSION: &str = "0191d1a0-0000-7000-8000-000000000001";
    const NIL: &str = "00000000-0000-0000-0000-000000000000";
    const NOW: Seconds = 1_800_000_000;

    const DEFAULT: Check = Check {
        unknown: Policy::Allow,
        keys: Policy::Deny,
        on_store_error: Policy::Deny,
        max_staleness: Duration::from_secs(1),
        timeout: Duration::from_millis(100),
    };
    const OTHER: Check =
        Check { unknown: Policy::Deny, keys: Policy::Allow, on_store_error: Policy::Allow, ..DEFAULT };

    fn claims(payload: &Value) -> Arc<Claims> {
        Arc::new(Claims::unverified(&format!("e30.{}.x", BASE64URL.encode(payload.to_string()))).unwrap())
    }

    fn good(payload: &Value) -> Result<Subject, Refusal> {
        subject(&Verdict::Good(claims(payload)), NOW)
    }

    #[test]
    fn a_good_token_is_a_sessions_or_a_key() {
        let (user, session) = (UserId::parse(USER).unwrap(), SessionId::parse(SESSION).unwrap());
        let sought = |began| Sought { user, session, began, touch: true };
        let table = [
            (json!({"sub": USER, "session_id": SESSION, "exp": NOW + 1}), Ok(Subject::Session(sought(None)))),
            (
                json!({"sub": USER, "session_id": SESSION, "exp": NOW + 1, "iat": NOW - 9}),
                Ok(Subject::Session(sought(Some(NOW - 9)))),
            ),
            (json!({"role": "anon", "exp": NOW + 1}), Ok(Subject::Key)),
            (json!({"role": "service_role", "sub": USER, "exp": NOW + 1}), Ok(Subject::Key)),
            (json!({"sub": USER, "session_id": NIL, "exp": NOW + 1}), Ok(Subject::Key)),
            (json!({"sub": USER, "session_id": SESSION}), Err(Refusal::TokenWithoutExpiry)),
            (json!({"sub": USER, "session_id": SESSION, "exp": NOW}), Err(Refusal::TokenExpired)),
            (
                json!({"sub": USER, "session_id": SESSION, "exp": NOW + 9, "nbf": NOW + 1}),
                Err(Refusal::BadToken),
            ),
            (json!({"sub": USER, "session_id": "mine", "exp": NOW + 1}), Err(Refusal::TokenOddSession)),
            (json!({"sub": "me", "session_id": SESSION, "exp": NOW + 1}), Err(Refusal::TokenOddUser)),
            (json!({"sub": "me", "exp": NOW + 1}), Err(Refusal::TokenOddUser)),
            (json!({"session_id": SESSION, "exp": NOW + 1}), Err(Refusal::TokenWithoutUser)),
        ];
        for (payload, expected) in table {
            assert_eq!(good(&payload), expected, "{payload}");
        }
    }

    #[test]
    fn a_token_that_is_not_proven_is_nobodys() {
        let live = claims(&json!({"sub": USER, "session_id": SESSION, "exp": NOW + 1}));
        let dead = claims(&json!({"sub": USER, "session_id": SESSION, "exp": NOW}));
        let endless = claims(&json!({"sub": USER, "session_id": SESSION}));
        let table = [
            (Verdict::Expired(dead.clone()), Refusal::TokenExpired),
            (Verdict::UnknownKey(live.clone()), Refusal::BadToken),
            (Verdict::Bad, Refusal::BadToken),
            (Verdict::NoKeys(live), Refusal::NoKeys),
            (Verdict::NoKeys(dead), Refusal::TokenExpired),
            (Verdict::NoKeys(endless), Refusal::TokenWithoutExpiry),
        ];
        for (verdict, expected) in table {
            assert_eq!(subject(&verdict, NOW), Err(expected), "{verdict:?}");
        }
    }

    #[test]
    fn what_is_known_and_what_is_configured_decide() {
        let table = [
            (Known::Live, Ok(()), Ok(())),
            (Known::Unknown, Ok(()), Err(Refusal::SessionRevoked)),
            (Known::Revoked, Err(Refusal::SessionRevoked), Err(Refusal::SessionRevoked)),
            (Known::Expired, Err(Refusal::SessionExpired), Err(Refusal::SessionExpired)),
            (Known::Suspended, Err(Refusal::UserSuspended), Err(Refusal::UserSuspended)),
            (Known::Undecided, Err(Refusal::StoreUnavailable), Ok(())),
        ];
        for (known, by_default, otherwise) in table {
            assert_eq!(permit_session(known, &DEFAULT), by_default, "{known:?}");
            assert_eq!(permit_session(known, &OTHER), otherwise, "{known:?}");
        }
        assert_eq!(permit_key(&DEFAULT), Err(Refusal::TokenWithoutSession));
        assert_eq!(permit_key(&OTHER), Ok(()));
    }

    /// Contract §8: known, but revoked or suspended. A token that is past its own time is none.
    #[test]
    fn a_good_token_of_a_session_that_has_ended_is_forbidden_and_no_other_is() {
        for refusal in Refusal::ALL {
            let of_its_session =
                matches!(refusal, Refusal::SessionRevoked | Refusal::SessionExpired | Refusal::UserSuspended);
            assert_eq!(status(refusal) == StatusCode::FORBIDDEN, of_its_session, "{refusal:?}");
        }
    }

    #[test]
    fn gateways_get_no_status_but_those_they_understand() {
        for refusal in Refusal::ALL {
            let (status, result) = (status(refusal), result(Err(refusal)));
            let expected = match status.as_u16() {
                401 => CheckResult::Unauthenticated,
                403 => CheckResult::Forbidden,
                503 => CheckResult::Error,
                other => panic!("{refusal:?} is {other}"),
            };
            assert_eq!(result, expected, "{refusal:?}");
        }
        assert_eq!(result(Ok(())), CheckResult::Allow);
    }
}
