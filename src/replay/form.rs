//! How a change that waits is written down: one JSON object, with the words of the store's own fields. No token is in
//! it: a change holds keyed hashes, as the store does.

use serde::{Deserialize, Serialize};

use super::held::{Queued, What};
use crate::{
    audit::By,
    mirror::{ByRef, Fate},
    route::Route,
    session::{Aal, Change, FactorId, Origin, Reason, Record, RefreshRef, SessionId, UserId, Which},
};

/// In the place of a route that this version does not have.
const NO_ROUTE: &str = "other";

/// A change, whose doing it was, and since when it waits.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) since: u64,
    route: String,
    request_id: String,
    what: Form,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Record {
        sign_in: bool,
        record: Box<RecordForm>,
        allowed_ms: Option<u64>,
    },
    End {
        user: String,
        which: WhichForm,
        reason: String,
        sent_ms: u64,
        expires_at: Option<u64>,
        ended_in_gotrue: bool,
    },
    Suspend {
        user: String,
        until: Option<u64>,
        decided_ms: u64,
    },
    Banned {
        user: String,
        until: u64,
        seen_ms: u64,
    },
    Allowed {
        user: String,
        allowed_ms: u64,
    },
    LowerAal {
        user: String,
        factor: String,
    },
    ByRef {
        reference: String,
        ended: Option<String>,
        banned_until: Option<u64>,
        sent_ms: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WhichForm {
    One(String),
    Live(String),
    Others(String),
    All,
    Aal1Except(String),
    Client(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordForm {
    user_id: String,
    session_id: String,
    refresh_ref: Option<String>,
    previous_ref: Option<String>,
    counter: Option<u64>,
    created_at: u64,
    began_ms: u64,
    /// Versions before this one did not know it.
    #[serde(default)]
    begun_by_ms: u64,
    refreshed_at: u64,
    seen_at: Option<u64>,
    expires_at: u64,
    earlier_until: Option<u64>,
    aal: Option<String>,
    factor_id: Option<String>,
    amr: Option<String>,
    role: Option<String>,
    client_id: Option<String>,
    anonymous: bool,
    ip: Option<String>,
    user_agent: Option<String>,
}

impl Line {
    pub(super) fn of(queued: &Queued) -> Self {
        let By { route, request_id } = queued.by();
        Self {
            since: queued.since,
            route: route.to_owned(),
            request_id: String::from_utf8_lossy(request_id).into_owned(),
            what: Form::of(&queued.what),
        }
    }

    /// The change; `None` where it does not read as one of ours.
    pub(super) fn what(&self) -> Option<What> {
        self.what.read()
    }

    pub(super) fn by(&self) -> By<'_> {
        let known = Route::ALL.iter().map(|(route, _)| route.template()).find(|known| *known == self.route);
        By { route: known.unwrap_or(NO_ROUTE), request_id: self.request_id.as_bytes() }
    }
}

impl Form {
    fn of(what: &What) -> Self {
        match what {
            What::Change(change) => Self::of_change(change),
            What::ByRef(ByRef { reference, fate, sent_ms }) => {
                let (ended, banned_until) = match fate {
                    Fate::Ended(reason) => (Some(reason.as_str().to_owned()), None),
                    Fate::Banned(until) => (None, Some(*until)),
                };
                let reference = reference.as_str().to_owned();
                Self::ByRef { reference, ended, banned_until, sent_ms: *sent_ms }
            }
        }
    }

    fn of_change(change: &Change) -> Self {
        let user = change.user().to_string();
        match change {
            Change::Record { origin, record, allowed_ms } => Self::Record {
                sign_in: *origin == Origin::SignIn,
                record: Box::new(RecordForm::of(record)),
                allowed_ms: *allowed_ms,
            },
            Change::End { which, reason, sent_ms, expires_at, ended_in_gotrue, .. } => Self::End {
                user,
                which: WhichForm::of(which),
                reason: reason.as_str().to_owned(),
                sent_ms: *sent_ms,
                expires_at: *expires_at,
                ended_in_gotrue: *ended_in_gotrue,
            },
            Change::Suspend { until, decided_ms, .. } => {
                Self::Suspend { user, until: *until, decided_ms: *decided_ms }
            }
            Change::Banned { until, seen_ms, .. } => Self::Banned { user, until: *until, seen_ms: *seen_ms },
            Change::Allowed { allowed_ms, .. } => Self::Allowed { user, allowed_ms: *allowed_ms },
            Change::LowerAal { factor, .. } => Self::LowerAal { user, factor: factor.to_string() },
        }
    }

    fn read(&self) -> Option<What> {
        let change = match self {
            Self::Record { sign_in, record, allowed_ms } => Change::Record {
                origin: if *sign_in { Origin::SignIn } else { Origin::Refresh },
                record: Box::new(record.read()?),
                allowed_ms: *allowed_ms,
            },
            Self::End { user, which, reason, sent_ms, expires_at, ended_in_gotrue } => Change::End {
                user: UserId::parse(user)?,
                which: which.read()?,
                reason: Reason::parse(reason)?,
                sent_ms: *sent_ms,
                expires_at: *expires_at,
                ended_in_gotrue: *ended_in_gotrue,
            },
            Self::Suspend { user, until, decided_ms } => {
                Change::Suspend { user: UserId::parse(user)?, until: *until, decided_ms: *decided_ms }
            }
            Self::Banned { user, until, seen_ms } => {
                Change::Banned { user: UserId::parse(user)?, until: *until, seen_ms: *seen_ms }
            }
            Self::Allowed { user, allowed_ms } => {
                Change::Allowed { user: UserId::parse(user)?, allowed_ms: *allowed_ms }
            }
            Self::LowerAal { user, factor } => {
                Change::LowerAal { user: UserId::parse(user)?, factor: FactorId::parse_as_gotrue(factor)? }
            }
            Self::ByRef { reference, ended, banned_until, sent_ms } => {
                let fate = match (ended, banned_until) {
                    (Some(reason), None) => Fate::Ended(Reason::parse(reason)?),
                    (None, Some(until)) => Fate::Banned(*until),
                    _ => return None,
                };
                let reference = RefreshRef::parse(reference)?;
                return Some(What::ByRef(ByRef { reference, fate, sent_ms: *sent_ms }));
            }
        };
        Some(What::Change(change))
    }
}

impl WhichForm {
    fn of(which: &Which) -> Self {
        match which {
            Which::One(session) => Self::One(session.to_string()),
            Which::Live(session) => Self::Live(session.to_string()),
            Which::Others(session) => Self::Others(session.to_string()),
            Which::All => Self::All,
            Which::Aal1Except(session) => Self::Aal1Except(session.to_string()),
            Which::Client(client) => Self::Client(client.clone()),
        }
    }

    fn read(&self) -> Option<Which> {
        Some(match self {
            Self::One(session) => Which::One(SessionId::parse(session)?),
            Self::Live(session) => Which::Live(SessionId::parse(session)?),
            Self::Others(session) => Which::Others(SessionId::parse(session)?),
            Self::All => Which::All,
            Self::Aal1Except(session) => Which::Aal1Except(SessionId::parse(session)?),
            Self::Client(client) => Which::Client(client.clone()),
        })
    }
}

impl RecordForm {
    fn of(record: &Record) -> Self {
        let token = |token: &Option<RefreshRef>| token.as_ref().map(|token| token.as_str().to_owned());
        Self {
            user_id: record.user.to_string(),
            session_id: record.session.to_string(),
            refresh_ref: token(&record.refresh_ref),
            previous_ref: token(&record.previous_ref),
            counter: record.counter,
            created_at: record.created_at,
            began_ms: record.began_ms,
            begun_by_ms: record.begun_by_ms,
            refreshed_at: record.refreshed_at,
            seen_at: record.seen_at,
            expires_at: record.expires_at,
            earlier_until: record.earlier_until,
            aal: record.aal.map(|aal| aal.as_str().to_owned()),
            factor_id: record.factor_id.map(|factor| factor.to_string()),
            amr: record.amr.clone(),
            role: record.role.clone(),
            client_id: record.client_id.clone(),
            anonymous: record.anonymous,
            ip: record.ip.clone(),
            user_agent: record.user_agent.clone(),
        }
    }

    fn read(&self) -> Option<Record> {
        let token = |token: &Option<String>| token.as_deref().and_then(RefreshRef::parse);
        Some(Record {
            user: UserId::parse(&self.user_id)?,
            session: SessionId::parse(&self.session_id)?,
            refresh_ref: token(&self.refresh_ref),
            previous_ref: token(&self.previous_ref),
            counter: self.counter,
            created_at: self.created_at,
            began_ms: self.began_ms,
            begun_by_ms: self.begun_by_ms,
            refreshed_at: self.refreshed_at,
            seen_at: self.seen_at,
            expires_at: self.expires_at,
            earlier_until: self.earlier_until,
            aal: self.aal.as_deref().and_then(Aal::parse),
            factor_id: self.factor_id.as_deref().and_then(FactorId::parse_as_gotrue),
            amr: self.amr.clone(),
            role: self.role.clone(),
            client_id: self.client_id.clone(),
            anonymous: self.anonymous,
            ip: self.ip.clone(),
            user_agent: self.user_agent.clone(),
        })
    }
}
