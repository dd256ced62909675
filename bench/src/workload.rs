//! What supabase-js sends, as bytes made before anything is measured.

use crate::gotrue::{Login, api_key};

/// The requests a row of the table sends.
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
}

impl Workload {
    /// In the order of the table. [`Workload::Login`] comes before [`Workload::Lookup`]: it records the sessions.
    pub const ALL: [Self; 5] = [Self::Settings, Self::Key, Self::Login, Self::Lookup, Self::Connect];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Key => "key",
            Self::Lookup => "lookup",
            Self::Login => "login",
            Self::Connect => "connect",
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
        }
    }

    /// Parses the name on the command line.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// Complete requests, to be sent in turn.
    pub fn requests(self, logins: &[Login]) -> Vec<Vec<u8>> {
        let key = api_key();
        match self {
            Self::Settings => vec![get("/settings", "keep-alive", &key, None)],
            Self::Connect => vec![get("/settings", "close", &key, None)],
            Self::Key => vec![get("/user", "keep-alive", &key, Some(&key))],
            Self::Lookup => logins
                .iter()
                .map(|login| get("/user", "keep-alive", &key, Some(&login.access_token)))
                .collect(),
            Self::Login => vec![sign_in(&key)],
        }
    }
}

fn get(path: &str, connection: &str, api_key: &str, bearer: Option<&str>) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{}\r\n", headers(connection, api_key, bearer)).into_bytes()
}

fn sign_in(api_key: &str) -> Vec<u8> {
    let body = r#"{"email":"user-0000@example.com","password":"correct-horse-1","gotrue_meta_security":{}}"#;
    format!(
        "POST /token?grant_type=password HTTP/1.1\r\n{}\
         content-type: application/json;charset=UTF-8\r\ncontent-length: {}\r\n\r\n{body}",
        headers("keep-alive", api_key, Some(api_key)),
        body.len()
    )
    .into_bytes()
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
        let request = Workload::Settings.requests(&[]).remove(0);
        assert!((480..580).contains(&request.len()), "{} bytes", request.len());
    }
}
