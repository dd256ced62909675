//! Sessions as the mirror knows them: ids, the record, and the changes that can happen to it.
//!
//! Everything here is plain data. What a change *means* is the store's business (`store`), when it
//! happens is the mirror's (`mirror`).

mod holder;
mod id;
mod limits;
mod listed;
mod outcome;
mod sought;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use self::{
    holder::{Holder, TokenOf},
    id::{FactorId, SessionId, UserId},
    limits::{AboveCap, Cap, Limits},
    listed::{Listed, Wanted},
    outcome::{Evicted, Outcome},
    sought::Sought,
};

/// Seconds since the epoch, UTC: the unit of every time in the store and in a token.
pub type Seconds = u64;

/// What stands in the store for a refresh token: its keyed hash, base64url, 43 characters.
/// The token cannot be had back from it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefreshRef(String);

impl RefreshRef {
    /// Takes text that is already a reference (from the store, or just computed).
    /// `None` unless it has the length and the alphabet of one.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 43
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        fits.then(|| Self(text.to_owned()))
    }

    /// From the 32 bytes of the keyed hash.
    pub(crate) fn from_tag(tag: &[u8]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(tag))
    }

    /// The text that stands in keys and fields.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RefreshRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshRef(…)")
    }
}

/// Authenticator assurance level of a session (`aal` claim).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aal {
    /// One factor.
    Aal1,
    /// Two factors.
    Aal2,
    /// Reserved by GoTrue's schema.
    Aal3,
}

impl Aal {
    /// The claim's text; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "aal1" => Some(Self::Aal1),
            "aal2" => Some(Self::Aal2),
            "aal3" => Some(Self::Aal3),
            _ => None,
        }
    }

    /// The claim's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aal1 => "aal1",
            Self::Aal2 => "aal2",
            Self::Aal3 => "aal3",
        }
    }
}

/// One live session, as the store holds it under `P:{user_id}:session:<session_id>`.
///
/// An absent field has nothing to say (product contract §5). Text that came from a request or a
/// claim is cut to a bound by whoever makes the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose session it is.
    pub user: UserId,
    /// Which one.
    pub session: SessionId,
    /// The current refresh token, where a reference key is known.
    pub refresh_ref: Option<RefreshRef>,
    /// The refresh token before that: GoTrue accepts it again, so it still names this session.
    pub previous_ref: Option<RefreshRef>,
    /// Counter inside a v2 refresh token; orders refreshes within one second.
    pub counter: Option<u64>,
    /// When the session began: the answer that created it, else the oldest `amr` time, else `iat`.
    pub created_at: Seconds,
    /// Milliseconds since the epoch when the sidecar saw the session begin; orders a sign-in
    /// against an ending that was under way in the same second. Zero when first seen at a refresh.
    pub began_ms: u64,
    /// Milliseconds since the epoch when the earliest request was sent that GoTrue answered with this session,
    /// where its beginning was not seen: it had begun by then. Else zero.
    pub begun_by_ms: u64,
    /// `iat` of the newest access token.
    pub refreshed_at: Seconds,
    /// When a request with one of its tokens was last seen; touched at most once a minute.
    pub seen_at: Option<Seconds>,
    /// `exp` of the newest access token.
    pub expires_at: Seconds,
    /// Assurance level.
    pub aal: Option<Aal>,
    /// The second factor that raised it to that, where the sidecar saw it: when that one is removed, the
    /// session falls.
    pub factor_id: Option<FactorId>,
    /// Methods, newest first, separated by commas.
    pub amr: Option<String>,
    /// `role` claim.
    pub role: Option<String>,
    /// OAuth client that holds the session.
    pub client_id: Option<String>,
    /// An anonymous user's session.
    pub anonymous: bool,
    /// Client address at the last sign-in or refresh, as GoTrue would read it.
    pub ip: Option<String>,
    /// `User-Agent` at the last sign-in or refresh.
    pub user_agent: Option<String>,
}

impl Record {
    /// Which of its refresh tokens that one is, if it is one.
    pub fn names(&self, token: &RefreshRef) -> Option<TokenOf> {
        let tokens = [(&self.refresh_ref, TokenOf::Current), (&self.previous_ref, TokenOf::Previous)];
        tokens.into_iter().find_map(|(named, which)| (named.as_ref() == Some(token)).then_some(which))
    }
}

/// Why a session ended; the text of the tombstone and of the audit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `POST /logout`, any scope.
    Logout,
    /// A new password for the user.
    PasswordChanged,
    /// The user was deleted.
    UserDeleted,
    /// Another session of the user verified a second factor.
    MfaVerified,
    /// The MFA hook rejected the attempt and logged the user out.
    MfaRejected,
    /// GoTrue detected that a refresh token was used twice.
    RefreshReuse,
    /// GoTrue no longer knows the session.
    UnknownToGotrue,
    /// The user revoked an OAuth client's grant.
    GrantRevoked,
    /// The OAuth client was deleted.
    ClientDeleted,
    /// Somebody revoked it through the sidecar.
    Revoked,
    /// Its time was over: `session.idle_timeout` or `session.absolute_timeout`.
    Expired,
    /// It made room for another one of its user: `session.max_per_user`.
    Evicted,
    /// Its user had as many as `session.max_per_user` allows when it began: nobody got its tokens.
    Denied,
}

impl Reason {
    /// Every reason, for tables and for metrics that start at zero.
    pub const ALL: [Self; 13] = [
        Self::Logout,
        Self::PasswordChanged,
        Self::UserDeleted,
        Self::MfaVerified,
        Self::MfaRejected,
        Self::RefreshReuse,
        Self::UnknownToGotrue,
        Self::GrantRevoked,
        Self::ClientDeleted,
        Self::Revoked,
        Self::Expired,
        Self::Evicted,
        Self::Denied,
    ];

    /// The word for it in the store, in logs and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::PasswordChanged => "password_changed",
            Self::UserDeleted => "user_deleted",
            Self::MfaVerified => "mfa_verified",
            Self::MfaRejected => "mfa_rejected",
            Self::RefreshReuse => "refresh_reuse",
            Self::UnknownToGotrue => "unknown_to_gotrue",
            Self::GrantRevoked => "grant_revoked",
            Self::ClientDeleted => "client_deleted",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Denied => "denied",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// Which of a user's sessions an ending means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one.
    One(SessionId),
    /// This one, if it is live; of one that is not known to be, nothing is kept.
    Live(SessionId),
    /// All but this one.
    Others(SessionId),
    /// All.
    All,
    /// Those at `aal1`, but not this one.
    Aal1Except(SessionId),
    /// Those of this OAuth client.
    Client(String),
}

impl Which {
    /// When an ending counts as sent, milliseconds since the epoch, that was sent at this time. One that names a session
    /// ends it whenever it began, for it was there: clocks of replicas differ.
    pub fn sent(&self, at_ms: u64) -> u64 {
        match self {
            Self::One(_) | Self::Live(_) => u64::MAX,
            Self::Others(_) | Self::All | Self::Aal1Except(_) | Self::Client(_) => at_ms,
        }
    }
}

/// How a record came to be: decides what may stop it from being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A sign-in: GoTrue made the session in the request that was just answered.
    SignIn,
    /// The same, while its answer is held back: nobody has its tokens, so it can still be denied. Never waits for the
    /// store: see [`Change::let_go`].
    HeldSignIn,
    /// A refresh, or an upgrade to a higher assurance level: the session existed before.
    Refresh,
}

impl Origin {
    /// Whether the session began with it.
    pub fn is_sign_in(self) -> bool {
        matches!(self, Self::SignIn | Self::HeldSignIn)
    }
}

/// One change to a user's sessions. Applied atomically; applying it twice, or two of them in the
/// wrong order, leaves the same state as once and in order (I9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session began, was refreshed or was upgraded.
    Record {
        /// How it came to be.
        origin: Origin,
        /// What to write; not written when it has been revoked meanwhile (I3).
        record: Box<Record>,
        /// Milliseconds since the epoch when the request was sent on, where GoTrue would have refused it
        /// to a banned user: whoever was banned before is so no longer.
        allowed_ms: Option<u64>,
    },
    /// Sessions ended: tombstones are set, records go.
    End {
        /// Whose.
        user: UserId,
        /// Which of them.
        which: Which,
        /// Why.
        reason: Reason,
        /// Milliseconds since the epoch when the request that ended them was sent on to GoTrue.
        /// A session that began later lives (contract §6.1).
        sent_ms: u64,
        /// `exp` of the access token that is known to be affected, for sessions the mirror has no
        /// record of; their tombstone must outlive it.
        expires_at: Option<Seconds>,
        /// GoTrue is known to have ended them too, so the tombstone need not outlive the access
        /// token; else it lives as long as a session could.
        ended_in_gotrue: bool,
    },
    /// The user is banned until then; sessions stay. `None` lifts the ban. The last decision counts,
    /// whichever is written last.
    Suspend {
        /// Whom.
        user: UserId,
        /// Until when.
        until: Option<Seconds>,
        /// Milliseconds since the epoch when GoTrue answered that it is so.
        decided_ms: u64,
    },
    /// GoTrue refused a banned user, without saying until when: suspended at least until then, unless
    /// something later is known, or a ban that explains it.
    Banned {
        /// Whom.
        user: UserId,
        /// Until when at least.
        until: Seconds,
        /// Milliseconds since the epoch when the refused request was sent on.
        seen_ms: u64,
    },
    /// GoTrue handed tokens out that a banned user would not have got: whoever was banned before is so no longer. What
    /// is left of a record whose session has ended before it could be written.
    Allowed {
        /// Whom.
        user: UserId,
        /// Milliseconds since the epoch when the request was sent on.
        allowed_ms: u64,
    },
    /// A second factor was removed: sessions of this user that stand on it fall to `aal1`. Of a session that
    /// was not seen to be raised nobody here knows the factor; its next refresh tells.
    LowerAal {
        /// Whose.
        user: UserId,
        /// Which.
        factor: FactorId,
    },
}

impl Change {
    /// Whose sessions change.
    pub fn user(&self) -> UserId {
        match self {
            Self::Record { record, .. } => record.user,
            Self::End { user, .. }
            | Self::Suspend { user, .. }
            | Self::Banned { user, .. }
            | Self::Allowed { user, .. }
            | Self::LowerAal { user, .. } => *user,
        }
    }

    /// The answer that it comes from is held back until the change is made.
    pub fn hold(&mut self) {
        if let Self::Record { origin: origin @ Origin::SignIn, .. } = self {
            *origin = Origin::HeldSignIn;
        }
    }

    /// As it is once the answer has gone out: what began cannot be denied any more.
    #[must_use]
    pub fn let_go(&self) -> Self {
        let mut change = self.clone();
        if let Self::Record { origin: origin @ Origin::HeldSignIn, .. } = &mut change {
            *origin = Origin::SignIn;
        }
        change
    }
}

/// What the store knows of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is live.
    Live(Box<Record>),
    /// Its user is banned until then.
    Suspended(Seconds),
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// The mirror never saw it, or forgot it: GoTrue decides.
    Unknown,
}

/// Why an answer that looked as if it would change a session changed nothing: counted, never silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unrecorded {
    /// The answer was larger than `limits.response_body_bytes`.
    TooLarge,
    /// The answer was compressed.
    Encoded,
    /// The answer broke off.
    CutOff,
    /// The access token is not one: no JWT, or without `sub` and `exp`.
    BadToken,
    /// No source names a session by UUID.
    NoSession,
    /// The sources of session or user id contradict each other.
    Contradiction,
    /// GoTrue agreed, but the request's token does not verify with the keys that are known here.
    Unverified,
    /// The embedded store is full.
    StoreFull,
    /// The store did not take it.
    StoreFailed,
}

impl Unrecorded {
    /// Every cause, for metrics that start at zero.
    pub const ALL: [Self; 9] = [
        Self::TooLarge,
        Self::Encoded,
        Self::CutOff,
        Self::BadToken,
        Self::NoSession,
        Self::Contradiction,
        Self::Unverified,
        Self::StoreFull,
        Self::StoreFailed,
    ];

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Encoded => "encoded",
            Self::CutOff => "cut_off",
            Self::BadToken => "bad_token",
            Self::NoSession => "no_session",
            Self::Contradiction => "contradiction",
            Self::Unverified => "unverified",
            Self::StoreFull => "store_full",
            Self::StoreFailed => "store_failed",
        }
    }
}

#[cfg(test)]
impl Record {
    /// One of which nothing is told but times, for tests to add what theirs are about.
    pub(crate) fn bare(user: UserId, session: SessionId, began: Seconds) -> Self {
        Self {
            user,
            session,
            refresh_ref: None,
            previous_ref: None,
            counter: None,
            created_at: began,
            began_ms: 0,
            begun_by_ms: 0,
            refreshed_at: began,
            seen_at: None,
            expires_at: began + 3_600,
            aal: None,
            factor_id: None,
            amr: None,
            role: None,
            client_id: None,
            anonymous: false,
            ip: None,
            user_agent: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
    }
}
