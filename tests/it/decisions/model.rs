//! A store in a few lines: what changes mean, without time-outs, replicas or a wire.

use std::collections::{BTreeMap, HashMap, HashSet};

use gotrue_sidecar::{
    mirror::ByRef,
    session::{Aal, Change, Origin, Record, RefreshRef, Seconds, SessionId, UserId, Which},
};

#[derive(Default)]
pub(crate) struct Model {
    sessions: HashMap<SessionId, Record>,
    revoked: HashSet<(UserId, SessionId)>,
    /// All of a user's sessions that began before it are revoked, in milliseconds.
    not_before: HashMap<UserId, u64>,
    /// What GoTrue decided last, and what was seen since: when, and until when.
    banned: HashMap<UserId, [(u64, Seconds); 2]>,
    by_ref: HashMap<RefreshRef, (UserId, SessionId)>,
}

impl Model {
    pub(crate) fn live(&self) -> BTreeMap<String, Record> {
        self.sessions.iter().map(|(id, record)| (id.to_string(), record.clone())).collect()
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.sessions.values()
    }

    pub(crate) fn suspended_until(&self, user: &str, now: Seconds) -> Option<Seconds> {
        let user = UserId::parse(user)?;
        let [decided, seen] = *self.banned.get(&user)?;
        let is_news = seen.0 > decided.0 && seen.0 >= decided.1 * 1000;
        let until = if is_news { seen.1 } else { decided.1 };
        Some(until).filter(|until| *until > now)
    }

    pub(crate) fn session_of(&self, by_ref: &ByRef) -> Option<(UserId, SessionId)> {
        let (user, session) = *self.by_ref.get(&by_ref.reference)?;
        let token = self.sessions.get(&session)?.names(&by_ref.reference)?;
        by_ref.is_about(token).then_some((user, session))
    }

    /// Whether it was made; a session that was revoked is not written back.
    pub(crate) fn apply(&mut self, change: &Change) -> bool {
        match change {
            Change::Record { origin, record, allowed_ms } => {
                if let Some(allowed_ms) = allowed_ms {
                    self.decide(record.user, *allowed_ms, 0);
                }
                return self.record(*origin, record);
            }
            Change::End { user, which, sent_ms, .. } => self.end(*user, which, *sent_ms),
            Change::Banned { user, until, seen_ms } => {
                let [_, seen] = self.banned.entry(*user).or_default();
                *seen = (seen.0.max(*seen_ms), seen.1.max(*until));
            }
            Change::Suspend { user, until, decided_ms } => {
                self.decide(*user, *decided_ms, until.unwrap_or(0));
            }
            Change::Allowed { user, allowed_ms } => self.decide(*user, *allowed_ms, 0),
            Change::LowerAal { user, factor } => {
                let stands = |one: &&mut Record| one.user == *user && one.factor_id == Some(*factor);
                for record in self.sessions.values_mut().filter(stands) {
                    (record.aal, record.factor_id) = (Some(Aal::Aal1), None);
                }
            }
        }
        true
    }

    fn decide(&mut self, user: UserId, decided_ms: u64, until: Seconds) {
        let [decided, _] = self.banned.entry(user).or_default();
        *decided = (*decided).max((decided_ms, until));
    }

    fn record(&mut self, origin: Origin, record: &Record) -> bool {
        let not_before = self.not_before.get(&record.user).copied().unwrap_or(0);
        let too_old = match origin {
            Origin::SignIn | Origin::HeldSignIn => record.began_ms <= not_before,
            Origin::Refresh => record.created_at < not_before / 1000,
        };
        let known = self.sessions.get(&record.session);
        if self.revoked.contains(&(record.user, record.session)) || (known.is_none() && too_old) {
            return false;
        }
        for reference in record.refresh_ref.iter().chain(&record.previous_ref) {
            self.by_ref.insert(reference.clone(), (record.user, record.session));
        }
        let merged = known.map_or_else(|| record.clone(), |known| merged(known, record));
        self.sessions.insert(record.session, merged);
        true
    }

    fn end(&mut self, user: UserId, which: &Which, sent_ms: u64) {
        if *which == Which::All {
            self.not_before.insert(user, sent_ms);
        }
        if let Which::One(session) = which {
            self.revoked.insert((user, *session));
        }
        let meant = |record: &Record| {
            record.user == user
                && record.began_ms <= sent_ms
                && match which {
                    Which::One(session) | Which::Live(session) => record.session == *session,
                    Which::Others(session) => record.session != *session,
                    Which::All => true,
                    Which::Aal1Except(session) => record.session != *session && record.aal == Some(Aal::Aal1),
                    Which::Client(client) => record.client_id.as_ref() == Some(client),
                }
        };
        let ended: Vec<SessionId> =
            self.sessions.values().filter(|one| meant(one)).map(|one| one.session).collect();
        for session in ended {
            self.sessions.remove(&session);
            self.revoked.insert((user, session));
        }
    }
}

/// The newer of two states, with what only the older one knows. Absent means "nothing to say".
fn merged(known: &Record, new: &Record) -> Record {
    let order = |record: &Record| (record.refreshed_at, record.counter);
    if order(new) < order(known) {
        return known.clone();
    }
    let known = known.clone();
    let new = new.clone();
    Record {
        created_at: known.created_at,
        began_ms: known.began_ms,
        begun_by_ms: known.begun_by_ms,
        previous_ref: if new.refresh_ref == known.refresh_ref {
            known.previous_ref.or(new.previous_ref)
        } else {
            new.previous_ref.or(known.refresh_ref)
        },
        counter: new.counter.or(known.counter),
        client_id: new.client_id.or(known.client_id),
        factor_id: new.factor_id.or(known.factor_id),
        amr: new.amr.or(known.amr),
        ip: new.ip.or(known.ip),
        user_agent: new.user_agent.or(known.user_agent),
        ..new
    }
}
