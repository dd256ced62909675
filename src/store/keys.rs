//! The names of keys in Redis: a public interface (contract §5).

use crate::session::{RefreshRef, SessionId, UserId};

/// Bytes of the longest name after the prefix: two ids, and what stands between them.
const ROOM: usize = 2 * 36 + ":{}:".len() + "session:".len();

/// Makes the names. The user id stands in braces: it is the Cluster hash tag, so that everything of
/// one user lives in one slot. Ids are parsed ones, never text from a request.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: Box<str>,
}

impl Keys {
    /// `store.key_prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The session's record.
    pub(super) fn record(&self, user: UserId, session: SessionId) -> String {
        let mut key = self.of_user(user, "session:");
        session.push_to(&mut key);
        key
    }

    /// The session's tombstone.
    pub(super) fn tombstone(&self, user: UserId, session: SessionId) -> String {
        let mut key = self.of_user(user, "revoked:");
        session.push_to(&mut key);
        key
    }

    /// The user's sessions.
    pub(super) fn index(&self, user: UserId) -> String {
        self.of_user(user, "sessions")
    }

    /// The user's marks. Scripts make the names of the user's other keys from this one.
    pub(super) fn marks(&self, user: UserId) -> String {
        self.of_user(user, "marks")
    }

    /// Written out, as every sign-in needs four of them: `format!` costs several times that.
    fn of_user(&self, user: UserId, what: &str) -> String {
        let mut key = String::with_capacity(self.prefix.len() + ROOM);
        key.push_str(&self.prefix);
        key.push_str(":{");
        user.push_to(&mut key);
        key.push_str("}:");
        key.push_str(what);
        key
    }

    /// Never there: what is asked for to learn whether Redis takes writes. In the slot of that tag.
    pub(super) fn probe(&self, tag: &str) -> String {
        format!("{}:{{{tag}}}:probe", self.prefix)
    }

    /// Never there, for scripts that look at more keys of the user's than they are given. While a slot is between two
    /// nodes, each refuses a script of several keys where one is missing; else what lies on the other node would be
    /// taken for absent.
    pub(super) fn never(&self, user: UserId) -> String {
        self.of_user(user, "never")
    }

    /// What every key of a user begins with.
    pub(super) fn of_users(&self) -> String {
        format!("{}:{{", self.prefix)
    }

    /// Whose key it is, if it is a user's.
    pub(super) fn user_of(&self, key: &str) -> Option<UserId> {
        let (user, _) = key.strip_prefix(&*self.prefix)?.strip_prefix(":{")?.split_once('}')?;
        UserId::parse(user)
    }

    /// The pattern of every record's key.
    pub(super) fn every_record(&self) -> String {
        format!("{}:{{*}}:session:*", self.prefix)
    }

    /// Whose record a key is; `None` if it is none.
    pub(super) fn session_of_record(&self, key: &str) -> Option<(UserId, SessionId)> {
        let rest = key.strip_prefix(&*self.prefix)?.strip_prefix(":{")?;
        let (user, session) = rest.split_once("}:session:")?;
        Some((UserId::parse(user)?, SessionId::parse(session)?))
    }

    /// What the last audit found.
    pub(super) fn audit(&self) -> String {
        format!("{}:audit", self.prefix)
    }

    /// Which session a refresh token belongs to; in another slot.
    pub(super) fn refresh(&self, token: &RefreshRef) -> String {
        format!("{}:refresh:{}", self.prefix, token.as_str())
    }
}
