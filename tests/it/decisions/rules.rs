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
    /// … and the one that the hook made up is surplus, until GoTrue refuses its token.
    HookInventedSession,
    /// A password hook logged the user out on a request that names nobody. Lasts until GoTrue
    /// refuses one of the tokens.
    PasswordHook,
    /// An invited user without a password opened the invitation: older sessions end unannounced.
    /// Lasts as long.
    InvitedUser,
    /// A token minted with the secret ended another user's session by its id. Lasts as long.
    MintedForeign,
    /// A logout with an expired token ends the session here, while GoTrue refuses (contract §6.1).
    ExpiredLogout,
    /// A logout that GoTrue refused otherwise: the session stays ended here (contract §6.1).
    RefusedLogout,
    /// A token hook rewrote `aal`.
    AalFromHook,
    /// Which methods a removed factor stood for is only known at the next refresh.
    AmrUntilRefresh,
    /// Before v2.193.0 an admin's deletion of a factor left the sessions at aal2.
    AdminFactorBefore2193,
    /// The operator changed rows by SQL.
    OperatorSql,
}

/// What is known of a step when a difference is to be explained.
pub(crate) struct Seen<'a> {
    pub(crate) scenario: &'a str,
    pub(crate) step: &'a Step,
    pub(crate) verdict: Option<&'a Verdict>,
    pub(crate) before: Option<&'a Change>,
    pub(crate) decision: &'a Decision<'a>,
}

impl Seen<'_> {
    /// A row without a record.
    pub(crate) fn missing(&self, id: &str) -> Option<Rule> {
        let expect = &self.step.expect;
        if self.before.is_some_and(|change| ends(change, id)) {
            let refused = self.step.response.status >= 400;
            return match (refused, expired(self.verdict)) {
                (true, true) => Some(Rule::ExpiredLogout),
                (true, false) => Some(Rule::RefusedLogout),
                (false, _) => None,
            };
        }
        if !expect.added.iter().any(|added| added == id) {
            return None;
        }
        match (expect.action.as_str(), self.decision.unrecorded) {
            ("unknowable", None) => Some(Rule::TokensNeverSent),
            ("create", Some(Unrecorded::Contradiction | Unrecorded::NoSession)) if self.has_token_hook() => {
                Some(Rule::IdsContradict)
            }
            ("create", None) if self.has_token_hook() => Some(Rule::HookRewroteUnseen),
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
            "delete_one" if ended && self.ends_only(id) => Some(Rule::MintedForeign),
            "create" | "refresh" if !ended && self.has_token_hook() => Some(Rule::HookInventedSession),
            _ => None,
        }
    }

    /// What of a session differs from its row, and why it may.
    pub(crate) fn differing(&self, record: &Record, row: &SessionRow) -> Vec<(&'static str, Option<Rule>)> {
        let aal = record.aal.map(Aal::as_str);
        let apart = (record.created_at * 1000).abs_diff(row.created_ms());
        let counter = record.counter == row.refresh_token_counter;
        // Of requests sent at the same time, any may have been the last.
        let racing = self.step.concurrent.is_some();
        let checks = [
            ("user", record.user.to_string() == row.user_id, None),
            ("aal", aal == row.aal.as_deref(), self.other_aal()),
            ("client", record.client_id == row.oauth_client_id, None),
            ("amr", same_methods(record, row), self.other_amr()),
            ("ip", record.ip == row.ip, None),
            ("agent", racing || same_agent(record, row), None),
            ("beginning", apart < 3_000, self.by_operator()),
            ("counter", racing || counter, None),
        ];
        checks.into_iter().filter(|(_, same, _)| !same).map(|(what, _, rule)| (what, rule)).collect()
    }

    fn other_aal(&self) -> Option<Rule> {
        match self.step.name.as_str() {
            "admin-delete-factor" => Some(Rule::AdminFactorBefore2193),
            _ => self.has_token_hook().then_some(Rule::AalFromHook),
        }
    }

    fn other_amr(&self) -> Option<Rule> {
        let lowers = |change: &Change| matches!(change, Change::LowerAal { .. });
        let lowered = self.decision.changes.iter().any(lowers);
        lowered.then_some(Rule::AmrUntilRefresh)
    }

    fn by_operator(&self) -> Option<Rule> {
        let between = self.step.between.as_deref().unwrap_or_default();
        between.contains("SQL").then_some(Rule::OperatorSql)
    }

    fn has_token_hook(&self) -> bool {
        self.scenario == "hook-access-token"
    }

    /// The mirror ended the session the token named, in the name of another user.
    fn ends_only(&self, id: &str) -> bool {
        self.decision.changes.iter().all(|change| ends(change, id))
    }
}

/// The same, as far as the mirror keeps it.
fn same_agent(record: &Record, row: &SessionRow) -> bool {
    let kept = row.user_agent.as_deref().map(|agent| agent.get(..512).unwrap_or(agent));
    record.user_agent.as_deref() == kept
}

/// The same methods; those of one second stand in no particular order.
fn same_methods(record: &Record, row: &SessionRow) -> bool {
    let Some(known) = &record.amr else {
        return true;
    };
    let mut known: Vec<&str> = known.split(',').collect();
    let mut methods: Vec<&str> = row.amr.iter().map(String::as_str).collect();
    known.sort_unstable();
    methods.sort_unstable();
    known == methods
}
