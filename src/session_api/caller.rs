//! Who asks. From a token that verifies here, and from nothing else: no id in path or query makes anybody somebody.

use super::Logout;
use crate::{
    audit::Actor,
    config::Secret,
    keys::Verdict,
    metrics::Refusal,
    session::{SessionId, UserId, Which},
    token::{Claims, Named},
};

/// Somebody whose token is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A user, for their own sessions.
    User {
        /// `sub`
        user: UserId,
        /// `session_id`, where there is one.
        session: Option<SessionId>,
        /// The token, which can log out in GoTrue.
        token: Secret,
    },
    /// Whoever may ask for anybody's sessions.
    Admin {
        /// `role`
        role: String,
        /// `sub`, if it is somebody.
        user: Option<UserId>,
        /// `session_id`, where there is one.
        session: Option<SessionId>,
    },
}

/// A user, as GoTrue's `requireAuthentication` lets them in (`internal/api/auth.go`).
///
/// # Errors
/// What GoTrue's `/user` would answer.
pub fn user(verdict: &Verdict, token: &Secret) -> Result<Caller, Refusal> {
    let claims = good(verdict)?;
    let user = subject(claims)?;
    let session = session(claims)?;
    Ok(Caller::User { user, session, token: token.clone() })
}

/// An admin, as GoTrue's `requireAdminCredentials` lets them in (`internal/api/middleware.go`): the role counts, and a
/// session must be one where there is one.
///
/// # Errors
/// What GoTrue's admin routes would answer.
pub fn admin(verdict: &Verdict, roles: &[String]) -> Result<Caller, Refusal> {
    let claims = good(verdict)?;
    if claims.session != Named::Nothing {
        subject(claims)?;
    }
    let session = session(claims)?;
    let role = claims.role.as_ref().filter(|role| roles.contains(role)).ok_or(Refusal::NotAdmin)?;
    Ok(Caller::Admin { role: role.clone(), user: claims.user.id(), session })
}

fn good(verdict: &Verdict) -> Result<&Claims, Refusal> {
    match verdict {
        Verdict::Good(claims) => Ok(claims),
        Verdict::Expired(_) => Err(Refusal::TokenExpired),
        Verdict::NoKeys(_) => Err(Refusal::NoKeys),
        Verdict::UnknownKey(_) | Verdict::Bad => Err(Refusal::BadToken),
    }
}

fn subject(claims: &Claims) -> Result<UserId, Refusal> {
    match claims.user {
        Named::Id(user) => Ok(user),
        Named::Nothing => Err(Refusal::TokenWithoutUser),
        Named::Odd => Err(Refusal::TokenOddUser),
    }
}

fn session(claims: &Claims) -> Result<Option<SessionId>, Refusal> {
    match claims.session {
        Named::Id(session) => Ok(Some(session)),
        Named::Nothing => Ok(None),
        Named::Odd => Err(Refusal::TokenOddSession),
    }
}

impl Caller {
    /// The user of the token.
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::User { user, .. } => Some(*user),
            Self::Admin { user, .. } => *user,
        }
    }

    /// The session of the token.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::User { session, .. } | Self::Admin { session, .. } => *session,
        }
    }

    /// For the audit.
    pub fn actor(&self) -> Actor<'_> {
        match self {
            Self::User { session, .. } => Actor::User(*session),
            Self::Admin { role, user, .. } => Actor::Admin(role, *user),
        }
    }

    /// The logout at GoTrue that the caller's own token is good for.
    pub fn logout(&self, which: &Which) -> Option<Logout> {
        let Self::User { session, token, .. } = self else {
            return None;
        };
        let scope = match which {
            Which::All => "global",
            Which::Others(_) => "others",
            Which::One(one) if Some(*one) == *session => "local",
            _ => return None,
        };
        Some(Logout { token: token.clone(), scope })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::token::BASE64URL;
    use base64::Engine as _;

    const USER: &str = "0191d1a0-0000-7000-8000-00000000000a";
    const SESSION: &str = "0191d1a0-0000-7000-8000-000000000001";
    const NIL: &str = "00000000-0000-0000-0000-000000000000";

    fn claims(payload: &serde_json::Value) -> Arc<Claims> {
        Arc::new(Claims::unverified(&format!("e30.{}.x", BASE64URL.encode(payload.to_string()))).unwrap())
    }

    fn judged(caller: Result<Caller, Refusal>) -> Result<(Option<UserId>, Option<SessionId>), Refusal> {
        caller.map(|caller| (caller.user(), caller.session()))
    }

    #[test]
    fn a_user_is_whom_gotrue_would_let_in() {
        let (user_id, session_id) = (UserId::parse(USER), SessionId::parse(SESSION));
        let table = [
            (json!({"sub": USER, "session_id": SESSION}), Ok((user_id, session_id))),
            (json!({"sub": USER}), Ok((user_id, None))),
            (json!({"sub": USER, "session_id": NIL}), Ok((user_id, None))),
            (json!({"role": "service_role"}), Err(Refusal::TokenWithoutUser)),
            (json!({"role": "anon", "session_id": SESSION}), Err(Refusal::TokenWithoutUser)),
            (json!({"sub": "me", "session_id": SESSION}), Err(Refusal::TokenOddUser)),
            (json!({"sub": USER, "session_id": "mine"}), Err(Refusal::TokenOddSession)),
        ];
        for (payload, expected) in table {
            let verdict = Verdict::Good(claims(&payload));
            assert_eq!(judged(user(&verdict, &Secret::new("token"))), expected, "{payload}");
        }
    }

    #[test]
    fn only_a_token_that_verifies_makes_somebody() {
        let roles = ["service_role".to_owned()];
        let claims = claims(&json!({"sub": USER, "session_id": SESSION, "role": "service_role"}));
        let table = [
            (Verdict::Expired(claims.clone()), Refusal::TokenExpired),
            (Verdict::NoKeys(claims.clone()), Refusal::NoKeys),
            (Verdict::UnknownKey(claims), Refusal::BadToken),
            (Verdict::Bad, Refusal::BadToken),
        ];
        for (verdict, refusal) in table {
            assert_eq!(user(&verdict, &Secret::new("token")), Err(refusal), "{verdict:?}");
            assert_eq!(admin(&verdict, &roles), Err(refusal), "{verdict:?}");
        }
    }

    #[test]
    fn an_admin_is_one_by_role_alone() {
        let roles = ["service_role".to_owned(), "supabase_admin".to_owned()];
        let (user_id, session_id) = (UserId::parse(USER), SessionId::parse(SESSION));
        let table = [
            (json!({"role": "service_role"}), Ok((None, None))),
            (json!({"role": "supabase_admin", "sub": USER}), Ok((user_id, None))),
            (json!({"role": "service_role", "sub": "me"}), Ok((None, None))),
            (json!({"role": "service_role", "sub": USER, "session_id": SESSION}), Ok((user_id, session_id))),
            (json!({"role": "service_role", "session_id": SESSION}), Err(Refusal::TokenWithoutUser)),
            (json!({"role": "service_role", "sub": USER, "session_id": "x"}), Err(Refusal::TokenOddSession)),
            (json!({"role": "Service_Role"}), Err(Refusal::NotAdmin)),
            (json!({"role": "authenticated", "sub": USER, "session_id": SESSION}), Err(Refusal::NotAdmin)),
            (json!({"sub": USER, "app_metadata": {"role": "service_role"}}), Err(Refusal::NotAdmin)),
        ];
        for (payload, expected) in table {
            assert_eq!(judged(admin(&Verdict::Good(claims(&payload)), &roles)), expected, "{payload}");
        }
    }

    #[test]
    fn a_users_own_token_tells_gotrue_what_it_may() {
        let (own, other) = (SessionId::parse(SESSION).unwrap(), SessionId::parse(USER).unwrap());
        let caller =
            Caller::User { user: UserId::parse(USER).unwrap(), session: Some(own), token: Secret::new("t") };
        let scope = |which| caller.logout(&which).map(|logout| logout.scope);
        assert_eq!(scope(Which::All), Some("global"));
        assert_eq!(scope(Which::Others(own)), Some("others"));
        assert_eq!(scope(Which::One(own)), Some("local"));
        assert_eq!(scope(Which::Live(other)), None);
        assert!(!format!("{caller:?}").contains("\"t\""));
        let admin = Caller::Admin { role: "service_role".to_owned(), user: None, session: None };
        assert!(admin.logout(&Which::All).is_none());
    }
}
