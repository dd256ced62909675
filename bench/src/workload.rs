//! What supabase-js sends, as bytes made before anything is measured.

use crate::gotrue::{Login, api_key, email, session_token};

/// So many sessions are checked again and again, and so many revoked ones.
pub const REMEMBERED: usize = 1_000;
/// As [`REMEMBERED`].
pub const REVOKED: usize = 1_000;
/// So many are checked in turn where none is to be remembered: the sidecar remembers 65,536.
pub const ASKED: usize = 98_304;

/// A table of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Requests on their way to GoTrue.
    Requests,
    /// Checks.
    Checks,
}

/// The requests a row of a table sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// `GET /settings` with an API key and no `Authorization`: nothing to look up.
    Settings,
    /// `GET /user` with the anonymous key as Bearer token: verified or not, it names no session.
    Key,
    /// `GET /user` with the Bearer token of a session that was recorded at its sign-in.
    Lookup,
    /// `POST /token?grant_type=password`: the answer is read and a session recorded.
    Login,
    /// [`Workload::Settings`], each on a connection of its own.
    Connect,
    /// A check of [`REMEMBERED`] live sessions in turn.
    Remembered,
    /// A check of [`REVOKED`] revoked sessions in turn.
    Revoked,
    /// A check of [`ASKED`] live sessions in turn.
    Asked,
}

impl Workload {
    /// In the order of the tables.
    pub const ALL: [Self; 8] = [
        Self::Settings,
        Self::Key,
        Self::Login,
        Self::Lookup,
        Self::Connect,
        Self::Remembered,
        Self::Revoked,
        Self::Asked,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Key => "key",
            Self::Lookup => "lookup",
            Self::Login => "login",
            Self::Connect => "connect",
            Self::Remembered => "check",
            Self::Revoked => "check-revoked",
            Self::Asked => "check-asked",
        }
    }

    /// What the row is called in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Settings => "pass-through: `GET /settings`",
            Self::Key => "pass-through: `GET /user`, Bearer without a session",
            Self::Lookup => "lookup: `GET /user`, Bearer of a known session",
            Self::Login => "login: `POST /token?grant_type=password`",
            Self::Connect => "`GET /settings`, a new connection per request",
            Self::Remembered => "check of 1,000 sessions in turn",
            Self::Revoked => "check of 1,000 revoked sessions in turn",
            Self::Asked => "check of 98,304 sessions in turn",
        }
    }

    /// Where the row stands.
    pub fn table(self) -> Table {
        match self {
            Self::Settings | Self::Key | Self::Lookup | Self::Login | Self::Connect => Table::Requests,
            Self::Remembered | Self::Revoked | Self::Asked => Table::Checks,
        }
    }

    /// Whether it is about sessions that a proxy has recorded before.
    pub fn needs_sessions(self) -> bool {
        matches!(self, Self::Login | Self::Lookup)
    }

    /// Parses the name on the command line.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// Complete requests, to be sent in turn. `held` live sessions are in the store.
    pub fn requests(self, logins: &[Login], held: usize) -> Vec<Vec<u8>> {
        let key = api_key();
        let check = |number| get("/check", "keep-alive", &key, Some(&session_token(number)));
        match self {
            Self::Settings => vec![get("/settings", "keep-alive", &key, None)],
            Self::Connect => vec![get("/settings", "close", &key, None)],
            Self::Key => vec![get("/user", "keep-alive", &key, Some(&key))],
            Self::Lookup => logins
                .iter()
                .map(|login| get("/user", "keep-alive", &key, Some(&login.access_token)))
                .collect(),
            Self::Login => (0..logins.len()).map(sign_in).collect(),
            Self::Remembered => spread(held, REMEMBERED).map(check).collect(),
            Self::Revoked => (held..held + REVOKED).map(check).collect(),
            Self::Asked => spread(held, ASKED).map(check).collect(),
        }
    }
}

/// At most `count` of the first `held` numbers, evenly.
fn spread(held: usize, count: usize) -> impl Iterator<Item = usize> {
    let step = (held / count).max(1);
    (0..held).step_by(step).take(count)
}

fn get(path: &str, connection: &str, api_key: &str, bearer: Option<&str>) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{}\r\n", headers(connection, api_key, bearer)).into_bytes()
}

/// The sign-in that the upstream answers with the session of this number.
pub fn sign_in(number: usize) -> Vec<u8> {
    let key = api_key();
    let email = email(number);
    let body = format!(r#"{{"email":"{email}","password":"correct-horse-1","gotrue_meta_security":{{}}}}"#);
    format!(
        "POST /token?grant_type=password HTTP/1.1\r\n{}\
         content-type: application/json;charset=UTF-8\r\ncontent-length: {}\r\n\r\n{body}",
        headers("keep-alive", &key, Some(&key)),
        body.len()
    )
    .into_bytes()
}

/// Ends the session that this token is of.
pub fn log_out(token: &str) -> Vec<u8> {
    let headers = headers("keep-alive", &api_key(), Some(token));
    format!("POST /logout?scope=local HTTP/1.1\r\n{headers}content-length: 0\r\n\r\n").into_bytes()
}

/// A check with another credential than a Bearer token.
pub fn check_beside(path: &str, credential: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{}{credential}\r\n", headers("keep-alive", &api_key(), None)).into_bytes()
}

fn headers(connection: &str, api_key: &str, bearer: Option<&str>) -> String {
    let authorization = bearer.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    format!(
        "host: abcdefghijklmnopqrst.example.com\r\nconnection: {connection}\r\napikey: {api_key}\r\n{authorization}\
         x-client-info: supabase-js-node/2.86.0; runtime=node\r\nx-supabase-api-version: 2024-01-01\r\naccept: */*\r\n\
         accept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node\r\naccept-encoding: br, gzip, deflate\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_through_request_is_as_large_as_supabase_js_makes_it() {
        let request = Workload::Settings.requests(&[], 0).remove(0);
        assert!((480..580).contains(&request.len()), "{} bytes", request.len());
    }

    #[test]
    fn checks_are_spread_over_all_sessions_and_never_of_revoked_ones() {
        for (held, count, expected, last) in [
            (1_000_000, 100_000, 100_000, 999_990),
            (1_000, 1_000, 1_000, 999),
            (1_500, 1_000, 1_000, 999),
            (7, 1_000, 7, 6),
        ] {
            let numbers: Vec<_> = spread(held, count).collect();
            assert_eq!((numbers.len(), numbers.last()), (expected, Some(&last)), "{held}");
        }
        let live = Workload::Remembered.requests(&[], 10);
        assert!(Workload::Revoked.requests(&[], 10).iter().all(|revoked| !live.contains(revoked)));
    }
}
