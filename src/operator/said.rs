//! What is told: text for people, JSON for programs.

use std::fmt::Write as _;

use serde_json::json;

use crate::{
    rfc3339,
    session::Record,
    session_api::shown::{List, Shown},
};

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A user's live sessions, newest first.
    Sessions(Vec<Record>),
    /// One of them.
    Session(Box<Record>),
    /// So many live sessions ended.
    Revoked(u64),
    /// There is no such live session of this user.
    Nothing,
}

impl Said {
    /// For stdout; one JSON object, in the form of the session API.
    pub fn json(&self) -> String {
        let text = match self {
            Self::Sessions(records) => {
                let sessions = records.iter().map(|record| Shown::of(record, None)).collect();
                serde_json::to_string(&List { sessions })
            }
            Self::Session(record) => serde_json::to_string(&Shown::of(record, None)),
            Self::Revoked(count) => Ok(json!({"revoked": count}).to_string()),
            Self::Nothing => return String::new(),
        };
        // agents come from clients, and some letters command a terminal
        let text: String = text.unwrap_or_default().chars().map(in_json).collect();
        text + "\n"
    }

    /// For stdout: a line for each session, or one for each thing that is known of one.
    pub fn text(&self) -> String {
        match self {
            Self::Sessions(records) if records.is_empty() => "no live sessions\n".to_owned(),
            Self::Sessions(records) => records.iter().map(line).collect(),
            Self::Session(record) => lines(record),
            Self::Revoked(count) => format!("revoked: {count}\n"),
            Self::Nothing => String::new(),
        }
    }
}

fn in_json(letter: char) -> String {
    if letter.is_control() { format!("\\u{:04x}", u32::from(letter)) } else { letter.to_string() }
}

fn printed(text: Option<&str>) -> String {
    let text = text.unwrap_or("-");
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// What is known of a session, by name.
fn known(record: &Record) -> [(&'static str, String); 12] {
    let time = rfc3339::seconds;
    [
        ("session", record.session.to_string()),
        ("user", record.user.to_string()),
        ("created", time(record.created_at)),
        ("refreshed", time(record.refreshed_at)),
        ("seen", record.seen_at.map_or_else(|| "-".to_owned(), time)),
        ("expires", time(record.expires_at)),
        ("aal", record.aal.map_or("-", |aal| aal.as_str()).to_owned()),
        ("amr", printed(record.amr.as_deref())),
        ("client", printed(record.client_id.as_deref())),
        ("anonymous", record.anonymous.to_string()),
        ("ip", printed(record.ip.as_deref())),
        ("agent", printed(record.user_agent.as_deref())),
    ]
}

fn line(record: &Record) -> String {
    let mut out = String::new();
    for (name, value) in known(record).into_iter().filter(|(name, _)| !matches!(*name, "user" | "anonymous"))
    {
        let gap = if out.is_empty() { "" } else { "  " };
        let _ = match name {
            "session" => write!(out, "{value}"),
            _ => write!(out, "{gap}{name}={value}"),
        };
    }
    out + "\n"
}

fn lines(record: &Record) -> String {
    known(record).into_iter().fold(String::new(), |mut out, (name, value)| {
        let _ = writeln!(out, "{:<10} {value}", format!("{name}:"));
        out
    })
}
