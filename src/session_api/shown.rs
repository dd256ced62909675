//! A session as it is shown: never anything of its tokens, nor its factor's id.

use serde::Serialize;

use crate::{
    rfc3339,
    session::{Aal, Record, SessionId},
};

/// What the API answers to a list.
#[derive(Debug, Serialize)]
pub struct List<'a> {
    /// Newest first.
    pub sessions: Vec<Shown<'a>>,
}

/// One session; every field is always there, `null` where nothing is known. Times are RFC 3339, UTC.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    id: String,
    user_id: String,
    created_at: String,
    /// When its newest access token was issued.
    refreshed_at: String,
    /// To the minute.
    last_seen_at: Option<String>,
    /// When its newest access token expires; the session itself goes on if it is refreshed.
    expires_at: String,
    aal: Option<&'static str>,
    /// Methods, newest first.
    amr: Vec<&'a str>,
    client_id: Option<&'a str>,
    is_anonymous: bool,
    ip: Option<&'a str>,
    user_agent: Option<&'a str>,
    /// The session of the token that asks.
    current: bool,
}

impl<'a> Shown<'a> {
    /// What a record shows to whoever asks with a token of the session `own`.
    pub fn of(record: &'a Record, own: Option<SessionId>) -> Self {
        Self {
            id: record.session.to_string(),
            user_id: record.user.to_string(),
            created_at: rfc3339::seconds(record.created_at),
            refreshed_at: rfc3339::seconds(record.refreshed_at),
            last_seen_at: record.seen_at.map(rfc3339::seconds),
            expires_at: rfc3339::seconds(record.expires_at),
            aal: record.aal.map(Aal::as_str),
            amr: record.amr.as_deref().map_or(Vec::new(), |amr| amr.split(',').collect()),
            client_id: record.client_id.as_deref(),
            is_anonymous: record.anonymous,
            ip: record.ip.as_deref(),
            user_agent: record.user_agent.as_deref(),
            current: own == Some(record.session),
        }
    }
}
