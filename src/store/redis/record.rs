//! A record as a hash in Redis: field names are a public interface (contract §5).

use std::{borrow::Cow, collections::HashMap};

use crate::session::{Aal, FactorId, Record, RefreshRef, SessionId, UserId};

/// The version of this form, field `v`.
const VERSION: &str = "1";

/// The fields that say something; a field with nothing to say is absent.
pub(super) fn fields(record: &Record) -> Vec<(&'static str, Cow<'_, str>)> {
    let number = |number: u64| Cow::Owned(number.to_string());
    let all = [
        ("v", Some(Cow::Borrowed(VERSION))),
        ("user_id", Some(Cow::Owned(record.user.to_string()))),
        ("session_id", Some(Cow::Owned(record.session.to_string()))),
        ("refresh_ref", record.refresh_ref.as_ref().map(|it| Cow::Borrowed(it.as_str()))),
        ("previous_ref", record.previous_ref.as_ref().map(|it| Cow::Borrowed(it.as_str()))),
        ("counter", record.counter.map(number)),
        ("created_at", Some(number(record.created_at))),
        ("began_ms", (record.began_ms > 0).then(|| number(record.began_ms))),
        ("begun_by_ms", (record.begun_by_ms > 0).then(|| number(record.begun_by_ms))),
        ("refreshed_at", Some(number(record.refreshed_at))),
        ("seen_at", record.seen_at.map(number)),
        ("expires_at", Some(number(record.expires_at))),
        ("earlier_until", record.earlier_until.map(number)),
        ("aal", record.aal.map(|aal| Cow::Borrowed(aal.as_str()))),
        ("factor_id", record.factor_id.map(|factor| Cow::Owned(factor.to_string()))),
        ("amr", record.amr.as_deref().map(Cow::Borrowed)),
        ("role", record.role.as_deref().map(Cow::Borrowed)),
        ("client_id", record.client_id.as_deref().map(Cow::Borrowed)),
        ("anonymous", Some(Cow::Borrowed(if record.anonymous { "1" } else { "0" }))),
        ("ip", record.ip.as_deref().map(Cow::Borrowed)),
        ("user_agent", record.user_agent.as_deref().map(Cow::Borrowed)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Reads the fields back. `None` when they are of another version, or lack a time that every record has;
/// another field that does not read is absent. The ids are those of the key.
pub(super) fn read(user: UserId, session: SessionId, fields: &HashMap<&str, &str>) -> Option<Record> {
    if fields.get("v") != Some(&VERSION) {
        return None;
    }
    let number = |name| fields.get(name)?.parse().ok();
    let text = |name| fields.get(name).map(|&text| text.to_owned());
    let token = |name| RefreshRef::parse(fields.get(name)?);
    Some(Record {
        user,
        session,
        refresh_ref: token("refresh_ref"),
        previous_ref: token("previous_ref"),
        counter: number("counter"),
        created_at: number("created_at")?,
        began_ms: number("began_ms").unwrap_or(0),
        begun_by_ms: number("begun_by_ms").unwrap_or(0),
        refreshed_at: number("refreshed_at")?,
        seen_at: number("seen_at"),
        expires_at: number("expires_at")?,
        earlier_until: number("earlier_until"),
        aal: fields.get("aal").and_then(|aal| Aal::parse(aal)),
        factor_id: fields.get("factor_id").and_then(|id| FactorId::parse_as_gotrue(id)),
        amr: text("amr"),
        role: text("role"),
        client_id: text("client_id"),
        anonymous: fields.get("anonymous") == Some(&"1"),
        ip: text("ip"),
        user_agent: text("user_agent"),
    })
}
