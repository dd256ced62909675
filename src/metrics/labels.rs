//! The closed sets that labels take their values from.

use http::Method;

use crate::session::{Change, Origin, Outcome};

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident: $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word for it in metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

labels! {
    /// Why the sidecar answered a request itself.
    Refusal:
    /// The request's end is ambiguous, or its head is malformed.
    BadFraming = "bad_framing",
    /// A body the sidecar must read is larger than it reads.
    BodyTooLarge = "body_too_large",
    /// The head is larger than the limit.
    HeadTooLarge = "head_too_large",
    /// The path is not below `path_prefix`.
    WrongPrefix = "wrong_prefix",
    /// No connection to GoTrue, or it broke before the answer.
    UpstreamUnreachable = "upstream_unreachable",
    /// GoTrue did not answer in time.
    UpstreamTimeout = "upstream_timeout",
    /// The session was revoked.
    SessionRevoked = "session_revoked",
    /// The session's time was over.
    SessionExpired = "session_expired",
    /// The user is banned.
    UserSuspended = "user_suspended",
    /// The refresh token's session was revoked.
    RefreshRevoked = "refresh_revoked",
    /// The time of the refresh token's session was over.
    RefreshExpired = "refresh_expired",
    /// Its user has as many sessions as may be.
    TooManySessions = "too_many_sessions",
    /// The store did not answer and must be asked.
    StoreUnavailable = "store_unavailable",
    /// The session API was called without a Bearer token.
    NoToken = "no_token",
    /// Its token does not verify.
    BadToken = "bad_token",
    /// Its token has expired.
    TokenExpired = "token_expired",
    /// Its token names no user.
    TokenWithoutUser = "token_without_user",
    /// What its token names as user is no id.
    TokenOddUser = "token_odd_user",
    /// What its token names as session is no id.
    TokenOddSession = "token_odd_session",
    /// A token to be checked belongs to no session.
    TokenWithoutSession = "token_without_session",
    /// A token to be checked never expires.
    TokenWithoutExpiry = "token_without_expiry",
    /// Its token is none of an admin.
    NotAdmin = "not_admin",
    /// There is no key to verify its token with.
    NoKeys = "no_keys",
    /// Its path names a user by something that is no id.
    OddUserPath = "odd_user_path",
    /// Its path names a session by something that is no id.
    OddSessionPath = "odd_session_path",
    /// It was told to end sessions, but not which.
    UnknownScope = "unknown_scope",
    /// It was not told whose session is meant.
    NoUserId = "no_user_id",
    /// It was asked for a page that cannot be.
    BadPage = "bad_page",
    /// The session is not known, or somebody else's.
    NoSuchSession = "no_such_session",
}

labels! {
    /// How a session differs between the store and GoTrue's database.
    DriftKind:
    /// The database has it, the store does not.
    Missing = "missing",
    /// The store has it, the database does not.
    Surplus = "surplus",
    /// Both have it, and say different things.
    Differing = "differing",
}

labels! {
    /// How an exchange with GoTrue failed.
    UpstreamFailure:
    /// No connection.
    Connect = "connect",
    /// No answer in time.
    Timeout = "timeout",
    /// The connection closed before the answer's head was complete.
    Reset = "reset",
    /// The answer is not HTTP.
    Protocol = "protocol",
}

labels! {
    /// A command of the session store.
    StoreCommand:
    /// Apply a change.
    Apply = "apply",
    /// Look a session up.
    Lookup = "lookup",
    /// List sessions of a user.
    List = "list",
    /// Find the session of a refresh token.
    Resolve = "resolve",
    /// Deal with a step of a change to very many sessions.
    Sweep = "sweep",
    /// Ask whether it would take a change.
    Ping = "ping",
}

labels! {
    /// How a command of the session store went: what its errors are called, in logs too.
    StoreResult:
    /// It was done.
    Ok = "ok",
    /// No answer in time.
    Timeout = "timeout",
    /// No connection.
    Refused = "refused",
    /// Our user or password is refused, or what the user may do.
    Auth = "auth",
    /// It is a replica.
    ReadOnly = "read_only",
    /// It is full and may not evict.
    OutOfMemory = "out_of_memory",
    /// It is reading its data.
    Loading = "loading",
    /// It holds or answers what this program does not write.
    Protocol = "protocol",
    /// The embedded store is full.
    Full = "full",
    /// No TLS with it.
    Tls = "tls",
    /// Another server has the key.
    Moved = "moved",
    /// Part of the Cluster has no master.
    ClusterDown = "cluster_down",
    /// Too few replicas have the change.
    Replicas = "replicas",
    /// It was not asked.
    Skipped = "skipped",
    /// Another error of the server's.
    Other = "other",
}

labels! {
    /// How the breaker before a part of the store stands.
    BreakerState:
    /// Calls go through.
    Closed = "closed",
    /// None does.
    Open = "open",
    /// One does.
    HalfOpen = "half_open",
}

labels! {
    /// What a check came to.
    CheckResult:
    /// The token is good, and so is its session.
    Allow = "allow",
    /// There is no token, or it is not good.
    Unauthenticated = "unauthenticated",
    /// The session was revoked, or is not allowed.
    Forbidden = "forbidden",
    /// It could not be decided.
    Error = "error",
}

labels! {
    /// What checks remember.
    CheckCache:
    /// Tokens that were verified.
    Token = "token",
    /// What the store said of sessions.
    Session = "session",
}

labels! {
    /// A kind of change to a user's sessions.
    MirrorEvent:
    /// A session began.
    SignIn = "sign_in",
    /// A session was refreshed or upgraded.
    Refresh = "refresh",
    /// Sessions ended.
    End = "end",
    /// A user was banned, or the ban was lifted.
    Suspend = "suspend",
    /// A second factor was removed.
    LowerAal = "lower_aal",
}

labels! {
    /// What a change did.
    MirrorResult:
    /// A record is there that was not.
    Created = "created",
    /// A record is newer.
    Refreshed = "refreshed",
    /// There was nothing to do.
    Unchanged = "unchanged",
    /// The session had been revoked; nothing was written.
    Revoked = "revoked",
    /// The session's time was over; nothing was written.
    Expired = "expired",
    /// Its user has as many sessions as may be; nothing was written.
    Denied = "denied",
    /// Sessions ended.
    Ended = "ended",
    /// It holds for very many sessions, which are dealt with one after the other.
    Pending = "pending",
    /// A mark was set or lifted.
    Marked = "marked",
    /// The store was away: it waits.
    Queued = "queued",
    /// The store did not take it.
    Failed = "failed",
}

labels! {
    /// What a change is that waits for the store, by what its loss would cost.
    QueuedKind:
    /// GoTrue does not know a refresh token: if it belongs to a session, that one has ended.
    Unproven = "unproven",
    /// A session began or went on: the next refresh tells it again.
    Creation = "creation",
    /// A ban, its end, a lower level.
    Other = "other",
    /// Sessions ended.
    Ending = "ending",
}

labels! {
    /// What became of a change that waited for the store.
    Replayed:
    /// The store took it.
    Written = "written",
    /// Its session would have expired by now, or may have ended elsewhere.
    Expired = "expired",
    /// Nobody knows whose refresh token it was about.
    Unresolved = "unresolved",
    /// The store works and refuses it.
    Refused = "refused",
}

impl MirrorEvent {
    /// The kind of `change`.
    pub fn of(change: &Change) -> Self {
        match change {
            Change::Record { origin: Origin::SignIn | Origin::HeldSignIn, .. } => Self::SignIn,
            Change::Record { origin: Origin::Refresh, .. } => Self::Refresh,
            Change::End { .. } => Self::End,
            Change::Suspend { .. } | Change::Banned { .. } | Change::Allowed { .. } => Self::Suspend,
            Change::LowerAal { .. } => Self::LowerAal,
        }
    }

    /// The results it can have: only these have a series.
    pub(super) fn results(self) -> &'static [MirrorResult] {
        match self {
            Self::SignIn => &[
                MirrorResult::Created,
                MirrorResult::Refreshed,
                MirrorResult::Unchanged,
                MirrorResult::Revoked,
                MirrorResult::Expired,
                MirrorResult::Denied,
                MirrorResult::Queued,
                MirrorResult::Failed,
            ],
            Self::Refresh => &[
                MirrorResult::Created,
                MirrorResult::Refreshed,
                MirrorResult::Unchanged,
                MirrorResult::Revoked,
                MirrorResult::Expired,
                MirrorResult::Queued,
                MirrorResult::Failed,
            ],
            Self::End => &[
                MirrorResult::Ended,
                MirrorResult::Pending,
                MirrorResult::Unchanged,
                MirrorResult::Queued,
                MirrorResult::Failed,
            ],
            Self::Suspend => {
                &[MirrorResult::Marked, MirrorResult::Unchanged, MirrorResult::Queued, MirrorResult::Failed]
            }
            Self::LowerAal => &[
                MirrorResult::Marked,
                MirrorResult::Pending,
                MirrorResult::Unchanged,
                MirrorResult::Queued,
                MirrorResult::Failed,
            ],
        }
    }
}

impl From<&Outcome> for MirrorResult {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Created => Self::Created,
            Outcome::Refreshed => Self::Refreshed,
            Outcome::Unchanged => Self::Unchanged,
            Outcome::Revoked => Self::Revoked,
            Outcome::Expired(_) => Self::Expired,
            Outcome::Evicted(evicted) => Self::from(&*evicted.recorded),
            Outcome::Denied => Self::Denied,
            Outcome::Ended(_) => Self::Ended,
            Outcome::Pending(_) => Self::Pending,
            Outcome::Marked => Self::Marked,
        }
    }
}

/// The `code` labels; the last stands for all that are not here.
pub(super) const CODES: [&str; 21] = [
    "200", "201", "204", "302", "303", "400", "401", "403", "404", "405", "409", "413", "422", "429", "431",
    "499", "500", "502", "503", "504", "other",
];

/// The place of `status` in [`CODES`].
pub(super) fn code_index(status: u16) -> usize {
    match status {
        200 => 0,
        201 => 1,
        204 => 2,
        302 => 3,
        303 => 4,
        400 => 5,
        401 => 6,
        403 => 7,
        404 => 8,
        405 => 9,
        409 => 10,
        413 => 11,
        422 => 12,
        429 => 13,
        431 => 14,
        499 => 15,
        500 => 16,
        502 => 17,
        503 => 18,
        504 => 19,
        _ => 20,
    }
}

/// The place of `method` in [`crate::route::METHODS`].
pub(super) fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::POST => 1,
        Method::PUT => 2,
        Method::PATCH => 3,
        Method::DELETE => 4,
        Method::HEAD => 5,
        Method::OPTIONS => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        route::{METHODS, Route, method_label},
        session::{Reason, Unrecorded},
    };

    #[test]
    fn places_agree_with_the_lists() {
        for (place, code) in CODES.iter().enumerate() {
            let status = code.parse().unwrap_or(418);
            assert_eq!(code_index(status), place, "{code}");
        }
        for name in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(METHODS[method_index(&method)], method_label(&method), "{name}");
        }
    }

    #[test]
    fn a_variants_number_is_its_place_in_all() {
        for (place, (route, _)) in Route::ALL.iter().enumerate() {
            assert_eq!(*route as usize, place);
        }
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        for (place, why) in Unrecorded::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
    }
}
