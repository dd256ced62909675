//! GoTrue in a few lines: users with sessions, and what requests do to them (GS §2, §3.3). Commits when it
//! is told to, answers what it has committed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use gotrue_sidecar::{
    clock::Clock,
    rfc3339,
    session::{Seconds, SessionId, UserId},
    token::RefreshToken,
};
use serde_json::{Value, json};

use crate::support::{
    signer::{Login, Signer},
    upstream::{Seen, answer},
};

/// A GoTrue without a network.
pub(crate) struct Gotrue {
    clock: Clock,
    signer: Signer,
    /// How long an access token lives, in seconds.
    life: Seconds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: BTreeMap<SessionId, Login>,
    banned: Vec<UserId>,
    deleted: Vec<UserId>,
}

type Refusal = (&'static str, &'static str);

const NO_SESSION: Refusal = ("403 Forbidden", "session_not_found");
const NO_USER: Refusal = ("403 Forbidden", "user_not_found");
const NO_TOKEN: Refusal = ("400 Bad Request", "refresh_token_not_found");

impl Gotrue {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self::with_life(clock, 3600)
    }

    /// Whose access tokens live for so many seconds.
    pub(crate) fn with_life(clock: &Clock, life: Seconds) -> Self {
        Self { clock: clock.clone(), signer: Signer::trusted(), life, state: Mutex::default() }
    }

    /// Nobody has ever signed in.
    pub(crate) fn clear(&self) {
        *self.state() = State::default();
    }

    /// The sessions it has.
    pub(crate) fn sessions(&self) -> BTreeMap<SessionId, Login> {
        self.state().sessions.clone()
    }

    /// Whether the user is banned.
    pub(crate) fn bans(&self, user: UserId) -> bool {
        self.state().banned.contains(&user)
    }

    /// What a client knows of a session from its tokens.
    pub(crate) fn login_of(access: &str, refresh: &str) -> Login {
        let claims = claims(access);
        let time = |name: &str| claims[name].as_u64().unwrap();
        let mut login = Login {
            user: UserId::parse(claims["sub"].as_str().unwrap()).unwrap(),
            session: SessionId::parse(claims["session_id"].as_str().unwrap()).unwrap(),
            counter: RefreshToken::new(refresh).counter().unwrap(),
            began: claims["amr"][0]["timestamp"].as_u64().unwrap(),
            issued: time("iat"),
            expires: time("exp"),
            aal: "aal1",
        };
        if claims["aal"] == "aal2" {
            login.aal = "aal2";
        }
        login
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Does what a request asks for, and says what it answers.
    pub(crate) fn commit(&self, seen: &Seen) -> Vec<u8> {
        self.answer(seen).unwrap_or_else(|(status, code)| {
            let body = json!({"code": 0, "error_code": code, "msg": ""}).to_string();
            answer(status, &[("Content-Type", "application/json"), ("X-Sb-Error-Code", code)], &body)
        })
    }

    fn answer(&self, seen: &Seen) -> Result<Vec<u8>, Refusal> {
        let mut state = self.state();
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let request = seen.request_line().strip_suffix(" HTTP/1.1").unwrap();
        if let Some(user) = request.strip_prefix("PUT /admin/users/") {
            return Ok(state.update(UserId::parse(user).unwrap(), &body, self.clock.seconds()));
        }
        if let Some(user) = request.strip_prefix("DELETE /admin/users/") {
            let user = UserId::parse(user).unwrap();
            state.sessions.retain(|_, login| login.user != user);
            state.deleted.push(user);
            return Ok(ok("{}"));
        }
        match request {
            "POST /token?grant_type=password" => {
                let user = UserId::parse(body["user"].as_str().unwrap()).unwrap();
                self.sign_in(&mut state, user)
            }
            "POST /token?grant_type=refresh_token" => {
                self.refresh(&mut state, body["refresh_token"].as_str().unwrap())
            }
            "GET /settings" => Ok(ok("{}")),
            _ => self.of_user(&mut state, seen, request),
        }
    }

    fn sign_in(&self, state: &mut State, user: UserId) -> Result<Vec<u8>, Refusal> {
        if state.deleted.contains(&user) {
            return Err(("400 Bad Request", "invalid_credentials"));
        }
        if state.banned.contains(&user) {
            return Err(("400 Bad Request", "user_banned"));
        }
        let now = self.clock.seconds();
        let login = Login { expires: now + self.life, ..Login::of(user, now) };
        state.sessions.insert(login.session, login.clone());
        Ok(login.answer(&self.signer))
    }

    /// The current token is exchanged, the one before gives the current one once more.
    fn refresh(&self, state: &mut State, token: &str) -> Result<Vec<u8>, Refusal> {
        let now = self.clock.seconds();
        let is = |login: &Login, counter: u64| Login { counter, ..login.clone() }.refresh() == token;
        let session = RefreshToken::new(token).session().ok_or(NO_TOKEN)?;
        let named = |login: &&Login| (0..=login.counter).any(|counter| is(login, counter));
        let login = state.sessions.get(&session).filter(named).cloned().ok_or(NO_TOKEN)?;
        if state.banned.contains(&login.user) {
            return Err(("400 Bad Request", "user_banned"));
        }
        let renewed = if is(&login, login.counter) {
            Login { expires: now + self.life, ..login.refreshed(now) }
        } else {
            Login { issued: now, expires: now + self.life, ..login }
        };
        state.sessions.insert(renewed.session, renewed.clone());
        Ok(renewed.answer(&self.signer))
    }

    /// What users ask for, with their access token.
    fn of_user(&self, state: &mut State, seen: &Seen, request: &str) -> Result<Vec<u8>, Refusal> {
        let (user, session) = bearer(seen);
        if state.deleted.contains(&user) {
            return Err(NO_USER);
        }
        let login = state.sessions.get(&session).cloned().ok_or(NO_SESSION)?;
        if state.banned.contains(&user) {
            return Err(("403 Forbidden", "user_banned"));
        }
        let of_user = |other: &Login| other.user == user;
        match request {
            "GET /user" => Ok(ok("{}")),
            "POST /logout?scope=local" => Ok(state.end(|other| other.session == session)),
            "POST /logout?scope=others" => Ok(state.end(|other| of_user(other) && other.session != session)),
            "POST /logout" => Ok(state.end(of_user)),
            "PUT /user" => {
                state.end(|other| of_user(other) && other.session != session);
                Ok(ok("{}"))
            }
            verify if verify.starts_with("POST /factors/") => {
                state.end(|other| of_user(other) && other.session != session && other.aal == "aal1");
                let raised = Login {
                    aal: "aal2",
                    counter: login.counter + 2,
                    ..login.refreshed(self.clock.seconds())
                };
                state.sessions.insert(session, raised.clone());
                Ok(ok(&raised.body(&self.signer)))
            }
            other => panic!("{other} is not in the model"),
        }
    }
}

impl State {
    fn end(&mut self, meant: impl Fn(&Login) -> bool) -> Vec<u8> {
        self.sessions.retain(|_, login| !meant(login));
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
    }

    /// `PUT /admin/users/{id}`
    fn update(&mut self, user: UserId, body: &Value, now: u64) -> Vec<u8> {
        if body.get("password").is_some() {
            self.sessions.retain(|_, login| login.user != user);
        }
        match body["ban_duration"].as_str() {
            Some("none") => self.banned.retain(|banned| *banned != user),
            Some(_) => self.banned.push(user),
            None => {}
        }
        let banned_until = self.banned.contains(&user).then(|| until(now + 1000));
        ok(&json!({"id": user.to_string(), "banned_until": banned_until}).to_string())
    }
}

/// User and session of the access token, which nobody forges here.
fn bearer(seen: &Seen) -> (UserId, SessionId) {
    let claims = claims(seen.header("authorization")[0]);
    let text = |name: &str| claims[name].as_str().unwrap().to_owned();
    (UserId::parse(&text("sub")).unwrap(), SessionId::parse(&text("session_id")).unwrap())
}

fn claims(token: &str) -> Value {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// As Go prints a time.
fn until(seconds: u64) -> String {
    let mut text = Vec::new();
    rfc3339::write(&mut text, UNIX_EPOCH + Duration::from_secs(seconds));
    String::from_utf8(text).unwrap()
}

fn ok(body: &str) -> Vec<u8> {
    answer("200 OK", &[("Content-Type", "application/json")], body)
}
