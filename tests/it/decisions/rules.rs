//! The differences between mirror and rows that have a name, and when they may appear.

use gotrue_sidecar::keys::Verdict;
use gotrue_sidecar::mirror::Decision;
use gotrue_sidecar::session::{Aal, Change, Record, Unrecorded};

use super::{ends, expired};
use crate::support::corpus::{SessionRow, Step};

/// Why mirror and rows may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// GoTrue made a session and threw its tokens away (GS §1.4): nobody can use it.
    TokensNeverSent,
    /// A token hook rewrote `sub` or `session_id`, and something else in the answer says so:
    /// nothing is recorded.
    IdsContradict,
    /// A token hook rewrote them, and nothing in the answer says so: the real session is missing …
    HookRewroteUnseen,
    /// … and the one that the hook made up is surplus.
    HookInventedSession,
    /// A password hook logged the user out on a request that names nobody.
    PasswordHook,
    /// An invited user without a password opened the invitation: older sessions end unannounced.
    InvitedUser,
    /// A token minted with the secret ended another user's session by its id.
    MintedForeign,
    /// A logout with an expired token ends the session here, while GoTrue refuses (contract §6.1).
    ExpiredLogout,
    /// A logout that GoTrue refused otherwise: the session stays ended here (contract §6.1).
    RefusedLogout,
    /// A token hook rewrote `aal`.
    AalFromHook,
    /// The row keeps another address or agent than that of the last request.
    AddressOfLastRequest,
}

/// What is known of a step when a difference is to be explained.
pub(crate) struct Seen<'a> {
    pub(crate) step: &'a Step,
    pub(crate) verdict: Option<&'a Verdict>,
    pub(crate) before: Option<&'a Change>,
    pub(crate) decision: &'a Decision<'a>,
}

impl Seen<'_> {
    /// A row without a record.
    pub(crate) fn missing(&self, id: &str) -> Option<Rule> {
        let expect = &self.step.expect;
        let created = expect.added.iter().any(|added| added == id);
        if self.before.is_some_and(|change| ends(change, id)) {
            let refused = self.step.response.status >= 400;
            return match (refused, expired(self.verdict)) {
                (true, true) => Some(Rule::ExpiredLogout),
                (true, false) => Some(Rule::RefusedLogout),
                (false, _) => None,
            };
        }
        if !created {
            return None;
        }
        match (expect.action.as_str(), self.decision.unrecorded) {
            ("unknowable", None) => Some(Rule::TokensNeverSent),
            ("create", Some(Unrecorded::Contradiction | Unrecorded::NoSession)) => Some(Rule::IdsContradict),
            ("create", None) if self.recorded_another(id) => Some(Rule::HookRewroteUnseen),
            _ => None,
        }
    }

    /// A record without a row.
    pub(crate) fn surplus(&self, id: &str) -> Option<Rule> {
        let expect = &self.step.expect;
        let ended = expect.removed.iter().any(|removed| removed == id);
        match expect.action.as_str() {
            "unknowable" if ended => Some(Rule::PasswordHook),
            "create" if ended => Some(Rule::InvitedUser),
            "delete_one" if ended && self.names_another_user() => Some(Rule::MintedForeign),
            "create" | "refresh" if !ended && self.by_hook() => Some(Rule::HookInventedSession),
            _ => None,
        }
    }

    /// What of a session differs from its row, and why it may.
    pub(crate) fn differing(&self, record: &Record, row: &SessionRow) -> Vec<(&'static str, Option<Rule>)> {
        let aal = record.aal.map(Aal::as_str);
        let amr: Option<Vec<&str>> = record.amr.as_deref().map(|amr| amr.split(',').collect());
        let rows_amr: Vec<&str> = row.amr.iter().map(String::as_str).collect();
        let hook = self.by_hook().then_some(Rule::AalFromHook);
        let apart = (record.created_at * 1000).abs_diff(row.created_ms());
        let checks = [
            ("user", record.user.to_string() == row.user_id, None),
            ("aal", aal == row.aal.as_deref(), hook),
            ("client", record.client_id == row.oauth_client_id, None),
            ("amr", amr.is_none_or(|amr| amr == rows_amr), None),
            ("ip", record.ip == row.ip, Some(Rule::AddressOfLastRequest)),
            (
                "agent",
                record.user_agent == row.user_agent,
                Some(Rule::AddressOfLastRequest),
            ),
            ("beginning", apart < 3_000, None),
            (
                "counter",
                self.step.concurrent.is_some() || record.counter == row.refresh_token_counter,
                None,
            ),
        ];
        checks
            .into_iter()
            .filter(|(_, same, _)| !same)
            .map(|(what, _, rule)| (what, rule))
            .collect()
    }

    fn by_hook(&self) -> bool {
        self.step.request.headers().contains_key("host") && self.step.step.contains("other-")
            || self.step.step.ends_with("-aal")
    }

    fn recorded_another(&self, id: &str) -> bool {
        self.decision.changes.iter().any(|change| {
            matches!(change, Change::Record { record, .. } if record.session.to_string() != id
                || !self.step.after.sessions.iter().any(|row| row.user_id == record.user.to_string()))
        })
    }

    fn names_another_user(&self) -> bool {
        let Some(claims) = self.verdict.and_then(Verdict::proven) else {
            return false;
        };
        self.decision
            .changes
            .iter()
            .all(|change| Some(change.user()) == claims.user.id())
    }
}
