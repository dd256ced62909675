//! What GoTrue answers, as bytes made before anything is measured.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::oauth2_proxy;

/// GoTrue's HS256 secret, in the sidecar's environment as `GOTRUE_JWT_SECRET`.
pub const JWT_SECRET: &str = "bench-secret-that-guards-nothing-0123456789";

/// How many different sign-ins a row is about; the upstream has their answers ready.
pub const LOGINS: usize = 4096;

/// Bytes of every body that is measured: GoTrue's sign-in of a user with a little metadata.
const BODY_BYTES: usize = 1970;

/// When the tokens were issued (2026-01-01), and for how long: GoTrue's clock does not matter here.
const ISSUED_AT: u64 = 1_767_225_600;
const LIFETIME: u64 = 315_360_000;

/// Complete answers of the upstream.
pub struct Answers {
    /// `GET /settings`
    pub settings: Vec<u8>,
    /// `GET /user`
    pub user: Vec<u8>,
    /// `POST /token` of the first ones, by number.
    pub logins: Vec<Vec<u8>>,
    /// `POST /logout`
    pub logged_out: Vec<u8>,
    /// oauth2-proxy asks for a token and whose it is.
    pub provider: [Vec<u8>; 2],
    /// `GET /.well-known/jwks.json`
    pub jwks: Vec<u8>,
    /// `GET /health`
    pub health: Vec<u8>,
    /// Everything else.
    pub not_found: Vec<u8>,
}

impl Answers {
    /// Answers for these sign-ins.
    pub fn new(logins: &[Login]) -> Self {
        let ok = |body: &str| answer("200 OK", "", body);
        Self {
            settings: ok(&settings_body()),
            user: ok(&user_body()),
            logins: logins.iter().map(Login::answer).collect(),
            logged_out: answer("204 No Content", "", ""),
            provider: [ok(oauth2_proxy::TOKEN), ok(oauth2_proxy::USER)],
            jwks: ok(r#"{"keys":[]}"#),
            health: ok(
                r#"{"version":"","name":"GoTrue","description":"GoTrue is a user registration and authentication API"}"#,
            ),
            not_found: answer("404 Not Found", "", "404 page not found\n"),
        }
    }
}

/// One sign-in: a user, a session and its tokens.
pub struct Login {
    user_id: String,
    session_id: String,
    refresh_token: String,
    email: String,
    /// The Bearer token of the session.
    pub access_token: String,
}

impl Login {
    /// [`LOGINS`] of them, each of another user.
    pub fn all() -> Vec<Self> {
        (0..LOGINS).map(Self::new).collect()
    }

    /// The sign-in of this number.
    pub fn new(number: usize) -> Self {
        Self {
            access_token: session_token(number),
            refresh_token: refresh_token(number),
            user_id: user_id(number),
            session_id: session_id(number),
            email: email(number),
        }
    }

    /// GoTrue's answer, refresh token v1.
    pub fn answer(&self) -> Vec<u8> {
        let prefix: String = self.refresh_token.chars().take(5).collect();
        let headers = format!(
            "Sb-Auth-Refresh-Token-Prefix: {prefix}\r\nSb-Auth-Session-Id: {}\r\nSb-Auth-User-Id: {}\r\n",
            self.session_id, self.user_id
        );
        answer("200 OK", &headers, &self.body())
    }

    fn body(&self) -> String {
        padded(|padding| {
            format!(
                concat!(
                    r#"{{"access_token":"{}","token_type":"bearer","expires_in":{},"expires_at":{},"#,
                    r#""refresh_token":"{}","user":{},"weak_password":null}}"#
                ),
                self.access_token,
                LIFETIME,
                ISSUED_AT + LIFETIME,
                self.refresh_token,
                user(&self.user_id, &self.email, padding)
            )
        })
    }
}

/// The body of `GET /settings`.
pub fn settings_body() -> String {
    padded(|padding| {
        format!(
            concat!(
                r#"{{"external":{{"anonymous_users":true,"apple":false,"azure":false,"bitbucket":false,"#,
                r#""email":true,"phone":false,"bench":"{}"}},"disable_signup":false,"mailer_autoconfirm":true,"#,
                r#""phone_autoconfirm":false,"sms_provider":"","saml_enabled":false}}"#
            ),
            padding
        )
    })
}

fn user_body() -> String {
    padded(|padding| user(&user_id(0), &email(0), padding))
}

fn user(id: &str, email: &str, padding: &str) -> String {
    let at = "2026-01-01T00:00:00.123456Z";
    format!(
        concat!(
            r#"{{"id":"{id}","aud":"authenticated","role":"authenticated","email":"{email}","#,
            r#""email_confirmed_at":"{at}","phone":"","confirmed_at":"{at}","last_sign_in_at":"{at}","#,
            r#""app_metadata":{{"provider":"email","providers":["email"]}},"#,
            r#""user_metadata":{{"email_verified":true,"about":"{padding}"}},"#,
            r#""identities":[{{"identity_id":"99bc11db-a6cd-4044-9107-81b44234116d","id":"{id}","user_id":"{id}","#,
            r#""identity_data":{{"email":"{email}","email_verified":false,"phone_verified":false,"sub":"{id}"}},"#,
            r#""provider":"email","last_sign_in_at":"{at}","created_at":"{at}","updated_at":"{at}","email":"{email}"}}],"#,
            r#""created_at":"{at}","updated_at":"{at}","is_anonymous":false}}"#
        ),
        id = id,
        email = email,
        at = at,
        padding = padding
    )
}

/// The body with as much padding as makes it [`BODY_BYTES`] long.
fn padded(body: impl Fn(&str) -> String) -> String {
    let missing = BODY_BYTES.saturating_sub(body("").len());
    body(&"x".repeat(missing))
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Vary: Origin\r\n\
         Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The access token of the session of this number.
pub fn session_token(number: usize) -> String {
    signed(&format!(
        concat!(
            r#"{{"sub":"{}","aud":"authenticated","exp":{},"iat":{},"email":"{}","phone":"","#,
            r#""app_metadata":{{"provider":"email","providers":["email"]}},"user_metadata":{{"email_verified":true}},"#,
            r#""role":"authenticated","aal":"aal1","amr":[{{"method":"password","timestamp":{}}}],"#,
            r#""session_id":"{}","is_anonymous":false}}"#
        ),
        user_id(number),
        ISSUED_AT + LIFETIME,
        ISSUED_AT,
        email(number),
        ISSUED_AT,
        session_id(number)
    ))
}

/// Whose session it is: each is another user's.
pub fn email(number: usize) -> String {
    format!("user-{number:07}@example.com")
}

/// The number in the [`email`] of a sign-in.
pub fn number_of(sign_in: &[u8]) -> Option<usize> {
    let begin = memchr::memmem::find(sign_in, b"\"user-")? + 6;
    let digits = sign_in.get(begin..begin + 7)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn user_id(number: usize) -> String {
    uuid(number, "8a5e")
}

fn session_id(number: usize) -> String {
    uuid(number, "9b1f")
}

/// The anonymous key of a project: a token without `sub` and without `session_id`.
pub fn api_key() -> String {
    signed(&format!(
        r#"{{"iss":"supabase","ref":"abcdefghijklmnopqrst","role":"anon","iat":{},"exp":{}}}"#,
        ISSUED_AT,
        ISSUED_AT + LIFETIME
    ))
}

fn signed(claims: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac_sha256(&input);
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
fn hmac_sha256(input: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(JWT_SECRET.as_bytes()).expect("a key of any length");
    mac.update(input.as_bytes());
    mac.finalize().into_bytes().into()
}

fn uuid(number: usize, kind: &str) -> String {
    format!("{number:08x}-{kind}-4000-8000-{number:012x}")
}

/// Twelve characters of `[a-z2-7]`, as GoTrue's v1 tokens have, different for every number.
fn refresh_token(number: usize) -> String {
    let mut rest = number;
    let digits = std::iter::repeat_with(|| {
        let digit = b"abcdefghijklmnopqrstuvwxyz234567".get(rest % 32).copied();
        rest /= 32;
        char::from(digit.unwrap_or(b'a'))
    });
    digits.take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn body_of(message: &[u8]) -> &str {
        let text = std::str::from_utf8(message).unwrap();
        text.split_once("\r\n\r\n").unwrap().1
    }

    #[test]
    fn every_sign_in_is_another_one() {
        let logins = Login::all();
        for part in [
            |login: &Login| login.access_token.clone(),
            |login: &Login| login.refresh_token.clone(),
            |login: &Login| login.session_id.clone(),
        ] {
            let different: HashSet<_> = logins.iter().map(part).collect();
            assert_eq!(different.len(), LOGINS);
        }
    }

    #[test]
    fn a_sign_in_says_which_it_is() {
        for number in [0, 4_096, 1_000_999] {
            assert_eq!(number_of(&crate::workload::sign_in(number)), Some(number));
        }
        assert_eq!(number_of(b"somebody"), None);
    }

    #[test]
    fn bodies_have_the_size_that_is_claimed() {
        let logins = Login::all();
        let answers = Answers::new(&logins);
        let all = answers.logins.iter().chain([&answers.settings, &answers.user]);
        for message in all {
            assert_eq!(body_of(message).len(), BODY_BYTES);
        }
    }

    #[test]
    fn tokens_are_signed_as_rfc_7515_says() {
        let token = signed("{}");
        assert_eq!(token.split('.').count(), 3);
        assert!(token.starts_with("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30."));
    }
}
