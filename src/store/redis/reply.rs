//! What Redis answers, read with suspicion.

use std::collections::HashMap;

use ::redis::{ServerErrorKind, Value};

use super::{failure, record, redirect, sentinel::Said};
use crate::{
    config::store_url::Address,
    session::{Evicted, Listed, Outcome, Reason, RefreshRef, Seconds, SessionId, State, TokenOf, UserId},
    store::{Error, Swept},
};

/// The first reply of a pipeline that asked one thing.
pub(super) fn first(replies: &[Value]) -> Result<&Value, Error> {
    replies.first().ok_or(Error::Protocol)
}

/// Whether a reply is none of an error.
pub(super) fn sound(reply: &Value) -> Result<(), Error> {
    match reply {
        Value::ServerError(error) => Err(failure::error_of(&error.clone().into())),
        _ => Ok(()),
    }
}

/// Redis does not know the script by its hash.
pub(super) fn is_unknown_script(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

/// A server that will go on refusing on this connection: it was a master, or wants a password now.
pub(super) fn is_lasting_refusal(reply: &Value) -> bool {
    matches!(sound(reply), Err(Error::ReadOnly | Error::Auth))
}

/// What a change did.
pub(super) fn outcome(reply: &Value) -> Result<Outcome, Error> {
    sound(reply)?;
    if let Value::Array(items) = reply {
        return counted(items);
    }
    match (reply, text(reply)) {
        (Value::Int(ended), _) => u64::try_from(*ended).map(Outcome::Ended).map_err(|_| Error::Protocol),
        (_, Some("created")) => Ok(Outcome::Created),
        (_, Some("refreshed")) => Ok(Outcome::Refreshed),
        (_, Some("unchanged")) => Ok(Outcome::Unchanged),
        (_, Some("revoked")) => Ok(Outcome::Revoked),
        (_, Some("denied")) => Ok(Outcome::Denied),
        (_, Some("marked")) => Ok(Outcome::Marked),
        _ => Err(Error::Protocol),
    }
}

fn counted(items: &[Value]) -> Result<Outcome, Error> {
    let [head, Value::Int(ended)] = items else {
        return evicted(items).map(Outcome::Evicted).ok_or(Error::Protocol);
    };
    let ended = u64::try_from(*ended).map_err(|_| Error::Protocol)?;
    match text(head) {
        Some("pending") => Ok(Outcome::Pending(ended)),
        Some("expired") => Ok(Outcome::Expired(ended)),
        _ => Err(Error::Protocol),
    }
}

/// Who had to go for a record.
fn evicted(items: &[Value]) -> Option<Evicted> {
    let [head, recorded, Value::Int(more), sessions @ ..] = items else {
        return None;
    };
    let recorded = match (text(head)?, text(recorded)?) {
        ("evicted", "created") => Outcome::Created,
        ("evicted", "refreshed") => Outcome::Refreshed,
        ("evicted", "unchanged") => Outcome::Unchanged,
        _ => return None,
    };
    let sessions = sessions.iter().map(|id| SessionId::parse(text(id)?)).collect::<Option<_>>()?;
    Some(Evicted { recorded: Box::new(recorded), sessions, more: *more == 1 })
}

/// What a sweep did. Reasons that are none of ours are left out.
pub(super) fn swept(reply: &Value) -> Result<Swept, Error> {
    sound(reply)?;
    let Value::Array(items) = reply else {
        return Err(Error::Protocol);
    };
    let (head, counts) = items.split_first().ok_or(Error::Protocol)?;
    let pending = match text(head) {
        Some("0") => false,
        Some("1") => true,
        _ => return Err(Error::Protocol),
    };
    let of_reason = |(reason, count): (&str, &str)| Some((Reason::parse(reason)?, count.parse().ok()?));
    Ok(Swept { ended: pairs(counts).into_iter().filter_map(of_reason).collect(), pending })
}

/// What is known of a session. A record that does not read as one is unknown.
pub(super) fn state(user: UserId, session: SessionId, reply: &Value) -> Result<State, Error> {
    sound(reply)?;
    let Value::Array(items) = reply else {
        return Err(Error::Protocol);
    };
    let (head, rest) = items.split_first().ok_or(Error::Protocol)?;
    match (text(head), rest) {
        (Some("revoked"), _) => Ok(State::Revoked),
        (Some("expired"), _) => Ok(State::Expired),
        (Some("unknown"), _) => Ok(State::Unknown),
        (Some("suspended"), [until]) => {
            text(until).and_then(|until| until.parse().ok()).map(State::Suspended).ok_or(Error::Protocol)
        }
        (Some("live"), fields) => {
            let fields = pairs(fields);
            let record = record::read(user, session, &fields);
            Ok(record.map_or(State::Unknown, |record| State::Live(Box::new(record))))
        }
        _ => Err(Error::Protocol),
    }
}

/// Some of a user's live sessions. A record that does not read as one is left out.
pub(super) fn listed(user: UserId, reply: &Value) -> Result<Listed, Error> {
    sound(reply)?;
    let Value::Array(items) = reply else {
        return Err(Error::Protocol);
    };
    let Some((Value::Int(total), sessions)) = items.split_first() else {
        return Err(Error::Protocol);
    };
    let total = u64::try_from(*total).map_err(|_| Error::Protocol)?;
    let (sessions, _) = sessions.as_chunks();
    let records = sessions.iter().filter_map(|[id, fields]| {
        let session = SessionId::parse(text(id)?)?;
        record::read(user, session, &fields_of(fields))
    });
    Ok(Listed { records: records.collect(), total })
}

/// A hash, as either version of the protocol has it.
fn fields_of(reply: &Value) -> HashMap<&str, &str> {
    match reply {
        Value::Array(items) => pairs(items),
        Value::Map(items) => {
            items.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
        }
        _ => HashMap::new(),
    }
}

/// What `survey.lua` says of a session.
#[derive(Debug)]
pub(super) struct Surveyed<'a> {
    /// Its word for it.
    pub(super) state: &'a str,
    /// The mark of its user; 0: none.
    pub(super) not_before: Seconds,
    /// An ending of all finds it.
    pub(super) indexed: bool,
    /// Its record.
    pub(super) fields: HashMap<&'a str, &'a str>,
}

pub(super) fn surveyed(reply: &Value) -> Result<Surveyed<'_>, Error> {
    sound(reply)?;
    let Value::Array(items) = reply else {
        return Err(Error::Protocol);
    };
    let [state, not_before, Value::Int(indexed), fields @ ..] = items.as_slice() else {
        return Err(Error::Protocol);
    };
    let state = text(state).ok_or(Error::Protocol)?;
    let not_before = text(not_before).and_then(|at| at.parse().ok()).unwrap_or(0);
    Ok(Surveyed { state, not_before, indexed: *indexed == 1, fields: pairs(fields) })
}

/// Under the key stands something of another type than was asked for.
pub(super) fn is_of_another_type(reply: &Value) -> bool {
    let Value::ServerError(error) = reply else {
        return false;
    };
    let wrong = |text: &str| text.contains("WRONGTYPE");
    wrong(error.code()) || error.details().is_some_and(wrong)
}

/// One step of `SCAN`: where to go on, and the keys that read as text.
pub(super) fn scanned(reply: &Value) -> Result<(u64, Vec<&str>), Error> {
    sound(reply)?;
    let Value::Array(items) = reply else {
        return Err(Error::Protocol);
    };
    let [cursor, Value::Array(keys)] = items.as_slice() else {
        return Err(Error::Protocol);
    };
    let cursor = text(cursor).and_then(|cursor| cursor.parse().ok()).ok_or(Error::Protocol)?;
    Ok((cursor, keys.iter().filter_map(text).collect()))
}

/// Whether a script did what it is for.
pub(super) fn yes(reply: &Value) -> Result<bool, Error> {
    sound(reply)?;
    match reply {
        Value::Int(did) => Ok(*did == 1),
        _ => Err(Error::Protocol),
    }
}

/// How many.
pub(super) fn count(reply: &Value) -> Result<u64, Error> {
    sound(reply)?;
    match reply {
        Value::Int(count) => u64::try_from(*count).map_err(|_| Error::Protocol),
        _ => Err(Error::Protocol),
    }
}

/// Whose token it is, as the hint says; a hint that does not read as one is none.
pub(super) fn hint(reply: &Value) -> Result<Option<(UserId, SessionId)>, Error> {
    sound(reply)?;
    let owner = text(reply).and_then(|owner| owner.split_once('/'));
    Ok(owner.and_then(|(user, session)| Some((UserId::parse(user)?, SessionId::parse(session)?))))
}

/// Whether a tombstone says that GoTrue has ended its session (`carry_out.lua`: `bury`). One that somebody set by hand
/// says nothing of GoTrue.
pub(super) fn knows_gotrue(tombstone: &Value) -> bool {
    let parts: Vec<_> = text(tombstone).unwrap_or_default().split(':').collect();
    matches!(parts.as_slice(), [_, _, _, "1"])
}

/// Which of a session's tokens, the current one and the previous one, that one is.
pub(super) fn token_of(reply: &Value, token: &RefreshRef) -> Result<Option<TokenOf>, Error> {
    let tokens = texts(reply)?.into_iter().zip([TokenOf::Current, TokenOf::Previous]);
    Ok(tokens.into_iter().find_map(|(named, which)| (named == Some(token.as_str())).then_some(which)))
}

/// A list of texts, some of them absent.
pub(super) fn texts(reply: &Value) -> Result<Vec<Option<&str>>, Error> {
    sound(reply)?;
    match reply {
        Value::Array(items) => Ok(items.iter().map(text).collect()),
        _ => Err(Error::Protocol),
    }
}

fn pairs(items: &[Value]) -> HashMap<&str, &str> {
    let (pairs, _) = items.as_chunks();
    pairs.iter().filter_map(|[name, value]| Some((text(name)?, text(value)?))).collect()
}

/// Whether a reply to `ROLE` is that of a master.
pub(super) fn is_master(reply: &Value) -> Result<(), Error> {
    sound(reply)?;
    match reply {
        Value::Array(items) if items.first().and_then(text) == Some("master") => Ok(()),
        Value::Array(_) => Err(Error::ReadOnly),
        _ => Err(Error::Protocol),
    }
}

/// What the Sentinel at `asked` says of the master: its address, and what else it knows of it.
pub(super) fn said_of_master(address: &Value, master: &Value, asked: &Address) -> Result<Said, Error> {
    sound(master)?;
    let Value::Array(items) = address else {
        return Err(Error::Protocol);
    };
    let [Some(host), Some(port)] = items.iter().map(text).collect::<Vec<_>>()[..] else {
        return Err(Error::Protocol);
    };
    let port = port.parse().map_err(|_| Error::Protocol)?;
    let master_at = redirect::address(host, port, Some(asked)).ok_or(Error::Protocol)?;
    let epoch = fields_of(master).get("config-epoch").and_then(|epoch| epoch.parse().ok());
    Ok(Said { epoch: epoch.unwrap_or(0), master: master_at })
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn ids() -> (UserId, SessionId) {
        let id = "0191d1a0-0000-7000-8000-000000000001";
        (UserId::parse(id).unwrap(), SessionId::parse(id).unwrap())
    }

    #[test]
    fn a_reply_that_was_not_expected_is_an_error_and_no_panic() {
        let odd = [
            Value::Nil,
            Value::Okay,
            Value::Int(-1),
            Value::Array(Vec::new()),
            Value::Array(vec![bulk("suspended"), bulk("soon")]),
            Value::Array(vec![bulk("suspended")]),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![bulk("pending")]),
            Value::Array(vec![bulk("pending"), Value::Int(-1)]),
            bulk("created?"),
            Value::BulkString(vec![0xff]),
        ];
        let (user, session) = ids();
        for reply in odd {
            assert_eq!(outcome(&reply), Err(Error::Protocol));
            assert_eq!(state(user, session, &reply), Err(Error::Protocol));
            assert_eq!(swept(&reply), Err(Error::Protocol));
            assert_eq!(hint(&reply), Ok(None));
            assert!(matches!(surveyed(&reply), Err(Error::Protocol)));
        }
    }

    #[test]
    fn whoever_had_to_go_is_named() {
        let (_, session) = ids();
        let items = [bulk("evicted"), bulk("created"), Value::Int(1), bulk(&session.to_string())];
        let expected = Evicted { recorded: Box::new(Outcome::Created), sessions: vec![session], more: true };
        assert_eq!(outcome(&Value::Array(items.into())), Ok(Outcome::Evicted(expected)));
        for odd in [
            &[bulk("evicted"), bulk("created")][..],
            &[bulk("evicted"), bulk("revoked"), Value::Int(0)],
            &[bulk("expelled"), bulk("created"), Value::Int(0)],
            &[bulk("evicted"), bulk("created"), Value::Int(0), bulk("nobody")],
        ] {
            assert_eq!(outcome(&Value::Array(odd.to_vec())), Err(Error::Protocol));
        }
    }

    #[test]
    fn of_a_sweep_only_known_reasons_count() {
        let items = ["1", "logout", "3", "canary", "4", "revoked", "many"].map(bulk);
        let expected = Swept { ended: vec![(Reason::Logout, 3)], pending: true };
        assert_eq!(swept(&Value::Array(items.into())), Ok(expected));
    }

    #[test]
    fn a_record_that_does_not_read_as_one_is_unknown() {
        let (user, session) = ids();
        let tables: [&[&str]; 4] = [
            &[],
            &["v", "2", "created_at", "1", "refreshed_at", "1", "expires_at", "1"],
            &["v", "1", "created_at", "yesterday", "refreshed_at", "1", "expires_at", "1"],
            &["v", "1", "created_at", "1", "refreshed_at"],
        ];
        for fields in tables {
            let items = [&["live"], fields].concat().into_iter().map(bulk).collect();
            assert_eq!(state(user, session, &Value::Array(items)), Ok(State::Unknown));
        }
    }

    #[test]
    fn only_a_tombstone_of_ours_says_what_gotrue_knows() {
        for (text, knows) in [
            ("logout:1800000000:1800003600:1", true),
            ("logout:1800000000:1800003600:0", false),
            ("revoked:1", false),
            ("1", false),
            ("", false),
        ] {
            assert_eq!(knows_gotrue(&bulk(text)), knows, "{text}");
        }
        assert!(!knows_gotrue(&Value::Nil));
    }

    #[test]
    fn a_hint_that_names_no_ids_is_none() {
        let (user, session) = ids();
        assert_eq!(hint(&bulk(&format!("{user}/{session}"))), Ok(Some((user, session))));
        for odd in ["", "/", "a/b", &format!("{user}"), &format!("{user}/{session}/x")] {
            assert_eq!(hint(&bulk(odd)), Ok(None));
        }
    }
}
