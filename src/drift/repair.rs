//! Brings the store to what the database says of a session. Every step is conditional, so that what the
//! sidecars do meanwhile wins: nothing comes back that was ended (contract I3), and whatever an answer of
//! GoTrue says stands against what a row says.

use std::collections::HashSet;

use super::{
    Error,
    compare::{Cause, is_later},
    database::{Database, Row},
};
use crate::{
    clock::{self, Millis},
    session::{Change, Origin, Outcome, Reason, Record, SessionId, UserId, Which},
    store::{
        self,
        redis::{Amendment, Held, Known, Redis},
    },
};

/// A session that differed twice.
#[derive(Debug)]
pub(super) struct Drifted<'a> {
    pub(super) user: UserId,
    pub(super) session: SessionId,
    pub(super) cause: Cause,
    pub(super) row: Option<&'a Row>,
    pub(super) held: Held,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repaired {
    /// The store says what the database says.
    Done,
    /// Somebody else changed the session in this moment: it did not differ for good.
    Moot,
    /// It still differs.
    Left,
}

/// Repairs what can be repaired; what became of each, in their order. `seen_ms`: when the rows were looked at.
pub(super) async fn repair(
    store: &Redis,
    database: &Database,
    drifted: &[Drifted<'_>],
    seen_ms: Millis,
) -> Result<Vec<Repaired>, Error> {
    let mut repaired = vec![Repaired::Left; drifted.len()];
    let (mut changes, mut amendments) = (Vec::new(), Vec::new());
    for (place, it) in drifted.iter().enumerate() {
        match (it.cause.means(), it.row, &it.held) {
            (Means::End, ..) => changes.push((place, end(it.user, it.session, seen_ms))),
            (Means::Record, Some(row), _) => changes.push((place, record(row))),
            (Means::Amend, Some(row), Held::Live(known)) => amendments.push((place, amendment(row, known))),
            (Means::Record | Means::Amend, ..) => {}
        }
    }
    let mut set = |place: usize, to| {
        if let Some(slot) = repaired.get_mut(place) {
            *slot = to;
        }
    };
    let mut written = Vec::new();
    for ((place, change), outcome) in changes.iter().zip(apply(store, &changes).await?) {
        set(*place, of_outcome(outcome.as_ref()));
        if let (Change::Record { record, .. }, Some(Outcome::Created | Outcome::Refreshed)) =
            (change, outcome)
        {
            written.push((*place, record.user, record.session));
        }
    }
    for place in take_back(store, database, &written).await? {
        set(place, Repaired::Moot);
    }
    for ((place, _), amended) in amendments.iter().zip(amend(store, &amendments).await?) {
        set(*place, amended);
    }
    Ok(repaired)
}

/// Ends those sessions again whose row went while its record was written; says which. The sidecar may have
/// ended them before the record was there, and had nothing to end.
async fn take_back(
    store: &Redis,
    database: &Database,
    written: &[(usize, UserId, SessionId)],
) -> Result<Vec<usize>, Error> {
    if written.is_empty() {
        return Ok(Vec::new());
    }
    let seen_ms = clock::millis();
    let ids: Vec<SessionId> = written.iter().map(|(_, _, session)| *session).collect();
    let there: HashSet<SessionId> = database.rows_of(&ids).await?.iter().map(|row| row.session).collect();
    let gone = written.iter().filter(|(_, _, session)| !there.contains(session));
    let ends: Vec<_> = gone.map(|&(place, user, session)| (place, end(user, session, seen_ms))).collect();
    apply(store, &ends).await?;
    Ok(ends.into_iter().map(|(place, _)| place).collect())
}

fn of_outcome(outcome: Option<&Outcome>) -> Repaired {
    match outcome {
        Some(Outcome::Created | Outcome::Refreshed | Outcome::Ended(1..) | Outcome::Pending(_)) => {
            Repaired::Done
        }
        // no limits hold in an audit, so nobody is evicted
        Some(Outcome::Evicted(evicted)) => of_outcome(Some(&evicted.recorded)),
        Some(
            Outcome::Unchanged
            | Outcome::Revoked
            | Outcome::Expired(_)
            | Outcome::Denied
            | Outcome::Ended(0)
            | Outcome::Marked,
        ) => Repaired::Moot,
        None => Repaired::Left,
    }
}

/// Makes the changes; `None` for one that what stands under its keys does not allow.
async fn apply(store: &Redis, changes: &[(usize, Change)]) -> Result<Vec<Option<Outcome>>, Error> {
    let all: Vec<Change> = changes.iter().map(|(_, change)| change.clone()).collect();
    match store.apply(&all, clock::seconds()).await {
        Ok(outcomes) => return Ok(outcomes.into_iter().map(Some).collect()),
        Err(store::Error::Protocol) => {} // one of them was not made; the others may be made again
        Err(error) => return Err(error.into()),
    }
    let mut outcomes = Vec::with_capacity(all.len());
    for change in all {
        match store.apply(&[change], clock::seconds()).await {
            Ok(outcome) => outcomes.push(outcome.into_iter().next().map(of_first_time)),
            Err(store::Error::Protocol) => outcomes.push(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(outcomes)
}

/// What a change did that was made a second time and had nothing left to do.
fn of_first_time(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Unchanged => Outcome::Created,
        Outcome::Ended(0) => Outcome::Ended(1),
        outcome => outcome,
    }
}

async fn amend(store: &Redis, amendments: &[(usize, Amendment)]) -> Result<Vec<Repaired>, Error> {
    let all: Vec<Amendment> = amendments.iter().map(|(_, amendment)| amendment.clone()).collect();
    match store.amend(&all, clock::seconds()).await {
        Ok(amended) => {
            Ok(amended.into_iter().map(|done| if done { Repaired::Done } else { Repaired::Moot }).collect())
        }
        Err(store::Error::Protocol) => Ok(vec![Repaired::Left; all.len()]),
        Err(error) => Err(error.into()),
    }
}

/// What a row says of a session that the store does not know. The access token's end is 0, nobody knows it: a
/// tombstone then lives as long as a session. Refresh tokens, methods and role come with the next refresh.
pub(super) fn record(row: &Row) -> Change {
    Change::Record {
        origin: Origin::Refresh,
        allowed_ms: None,
        record: Box::new(Record {
            user: row.user,
            session: row.session,
            refresh_ref: None,
            previous_ref: None,
            counter: row.stamp.counter,
            created_at: row.created_at,
            began_ms: 0,
            begun_by_ms: 0,
            refreshed_at: row.stamp.refreshed_at,
            seen_at: None,
            expires_at: 0,
            earlier_until: None,
            aal: row.aal,
            factor_id: None,
            amr: None,
            role: None,
            client_id: row.client.clone(),
            anonymous: false,
            ip: row.ip.clone(),
            user_agent: row.user_agent.clone(),
        }),
    }
}

/// The end of a session whose row was seen to be absent at `seen_ms`.
pub(super) fn end(user: UserId, session: SessionId, seen_ms: Millis) -> Change {
    Change::End {
        user,
        which: Which::One(session),
        reason: Reason::UnknownToGotrue,
        sent_ms: seen_ms,
        expires_at: None,
        ended_in_gotrue: true,
    }
}

/// What the record lacks of the row.
pub(super) fn amendment(row: &Row, known: &Known) -> Amendment {
    Amendment {
        user: row.user,
        session: row.session,
        compared: known.stamp,
        aal: row.aal.or(known.aal),
        client: row.client.clone(),
        refreshed: is_later(row.stamp, known.stamp).then_some(row.stamp),
    }
}

/// How a cause is repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// The row's record is written, unless the session was ended.
    Record,
    /// The session is ended here, too.
    End,
    /// Its record is amended, unless it has changed.
    Amend,
}

impl Cause {
    pub(super) fn means(self) -> Means {
        match self {
            // its user's own record is missing, and reported as that
            Self::RowGone | Self::User => Means::End,
            Self::Unknown | Self::Unreadable => Means::Record,
            Self::Stale | Self::Aal | Self::Client | Self::Unindexed => Means::Amend,
        }
    }
}
