//! A script for [`Upstream`](super::upstream::Upstream): hands out tokens in GoTrue's form, signed, and
//! agrees to everything. For what the live upstream cannot be made to do: fail half-way, say what it
//! saw, and sign thousands in without hashing a password each time.

use std::{
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use gotrue_sidecar::session::{SessionId, UserId};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{
    client::Tokens,
    upstream::{Seen, Step, answer},
};

/// Signs access tokens.
pub(crate) const SECRET: &str = "an-issuer-secret-with-at-least-32-characters";

/// Stands in every user's record, and must not be seen anywhere but in answers.
pub(crate) const EMAIL: &str = "canary@mailbox.example";

/// What GoTrue answers.
pub(crate) fn gotrue(seen: &Seen) -> Vec<Step> {
    vec![Step::Send(said(seen))]
}

/// As [`gotrue`], in bytes.
pub(crate) fn said(seen: &Seen) -> Vec<u8> {
    match seen.request_line().rsplit_once(' ').unwrap().0 {
        "POST /token?grant_type=password" => signed_in(&somebody()),
        "POST /token?grant_type=refresh_token" => {
            let body: Value = serde_json::from_slice(&seen.body).unwrap();
            signed_in(&refreshed(body["refresh_token"].as_str().unwrap()))
        }
        request if request.starts_with("GET /user") => {
            answer("200 OK", &JSON, &json!({"email": EMAIL}).to_string())
        }
        request if request.starts_with("POST /logout") => answer("204 No Content", &[], ""),
        _ => answer("404 Not Found", &JSON, r#"{"code":404,"error_code":"not_found","msg":"no such path"}"#),
    }
}

/// A new user's new session.
pub(crate) fn somebody() -> Tokens {
    somebody_for(LIFE)
}

/// With an access token that lives for so many seconds.
pub(crate) fn somebody_for(life: u64) -> Tokens {
    let (user, session) = (uuid(), uuid());
    tokens(&user, &session, 0, life)
}

/// With an access token that is so many seconds old.
pub(crate) fn somebody_since(ago: u64) -> Tokens {
    let (user, session) = (uuid(), uuid());
    tokens_at(now() - ago, &user, &session, 0, LIFE)
}

/// Another session of that user, which nobody has told of.
pub(crate) fn another_session_of(user: UserId) -> Tokens {
    tokens(&user.to_string(), &uuid(), 0, LIFE)
}

/// The answer that hands tokens out.
pub(crate) fn signed_in(tokens: &Tokens) -> Vec<u8> {
    let body = json!({
        "access_token": tokens.access,
        "token_type": "bearer",
        "expires_in": LIFE,
        "expires_at": now() + LIFE,
        "refresh_token": tokens.refresh,
        "user": {"id": tokens.user.to_string(), "email": EMAIL},
    });
    answer("200 OK", &JSON, &body.to_string())
}

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// Of an access token, seconds.
const LIFE: u64 = 3600;

fn tokens(user: &str, session: &str, counter: u64, life: u64) -> Tokens {
    tokens_at(now(), user, session, counter, life)
}

/// The refresh token says whose it is, so that nothing has to be kept.
fn tokens_at(now: u64, user: &str, session: &str, counter: u64, life: u64) -> Tokens {
    let claims = json!({
        "sub": user, "session_id": session, "email": EMAIL, "iat": now, "exp": now + life,
        "aud": "authenticated", "role": "authenticated", "aal": "aal1",
        "amr": [{"method": "password", "timestamp": now}],
    });
    Tokens {
        access: encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap(),
        refresh: format!("{user}.{session}.{counter}"),
        user: UserId::parse(user).unwrap(),
        session: SessionId::parse(session).unwrap(),
    }
}

fn refreshed(token: &str) -> Tokens {
    let parts: Vec<&str> = token.split('.').collect();
    tokens(parts[0], parts[1], parts[2].parse::<u64>().unwrap() + 1, LIFE)
}

fn uuid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{:08x}-0000-4000-8000-{:012x}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
