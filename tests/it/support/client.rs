//! Somebody who uses GoTrue: signs up, in, refreshes, gets the user, signs out.

pub(crate) mod admin;
pub(crate) mod oauth;
pub(crate) mod pkce;
pub(crate) mod second_factor;

use std::sync::atomic::{AtomicU32, Ordering};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use gotrue_sidecar::session::{SessionId, UserId};
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};

use super::http::{Answer, send};

/// The password of everybody here.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A client of the GoTrue, or of what stands before it, at one address.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    url: String,
    headers: Vec<(&'static str, String)>,
}

/// What a sign-in or a refresh gave.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
}

impl Client {
    /// `url` is where GoTrue's paths begin.
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), headers: Vec::new() }
    }

    /// Sends this header with every request from now on.
    pub(crate) fn with(mut self, header: &'static str, value: &str) -> Self {
        self.headers.push((header, value.to_owned()));
        self
    }

    pub(crate) async fn sign_up(&self, email: &str) -> Tokens {
        Tokens::of(&self.signed_up(email).await)
    }

    pub(crate) async fn signed_up(&self, email: &str) -> Answer {
        self.post("/signup", &json!({"email": email, "password": PASSWORD})).await
    }

    pub(crate) async fn sign_up_anonymously(&self) -> Answer {
        self.post("/signup", &json!({})).await
    }

    pub(crate) async fn sign_in(&self, email: &str) -> Tokens {
        Tokens::of(&self.signed_in(email, PASSWORD).await)
    }

    pub(crate) async fn signed_in(&self, email: &str, password: &str) -> Answer {
        self.post("/token?grant_type=password", &json!({"email": email, "password": password})).await
    }

    pub(crate) async fn refresh(&self, tokens: &Tokens) -> Answer {
        self.refresh_with(&tokens.refresh).await
    }

    pub(crate) async fn refresh_with(&self, token: &str) -> Answer {
        self.post("/token?grant_type=refresh_token", &json!({"refresh_token": token})).await
    }

    pub(crate) async fn user(&self, tokens: &Tokens) -> Answer {
        self.get("/user", tokens).await
    }

    /// `query` is `?scope=…`, or nothing, which does not mean the same to all upstreams.
    pub(crate) async fn logout(&self, tokens: &Tokens, query: &str) -> Answer {
        self.request(Method::POST, &format!("/logout{query}"), Some(&tokens.access), None).await
    }

    pub(crate) async fn change_password(&self, tokens: &Tokens, password: &str) -> Answer {
        self.update(tokens, &json!({"password": password})).await
    }

    /// `PUT /user`
    pub(crate) async fn update(&self, tokens: &Tokens, fields: &Value) -> Answer {
        self.request(Method::PUT, "/user", Some(&tokens.access), Some(fields)).await
    }

    /// A mail with a link; to a new address where GoTrue has no other way to say so.
    pub(crate) async fn otp(&self, email: &str) -> Answer {
        self.post("/otp", &json!({"email": email, "create_user": true})).await
    }

    /// A mail with a link that signs in, whoever has forgotten the password.
    pub(crate) async fn recover(&self, email: &str) -> Answer {
        self.post("/recover", &json!({"email": email})).await
    }

    /// Follows the link of a mail.
    pub(crate) async fn follow(&self, kind: &str, token: &str) -> Answer {
        let path = format!("/verify?type={kind}&token={token}&redirect_to=http://localhost:3000/back");
        self.request(Method::GET, &path, None, None).await
    }

    /// Uses what the link of a mail carries.
    pub(crate) async fn verify(&self, kind: &str, token_hash: &str) -> Answer {
        self.post("/verify", &json!({"type": kind, "token_hash": token_hash})).await
    }

    pub(crate) async fn get(&self, path: &str, tokens: &Tokens) -> Answer {
        self.request(Method::GET, path, Some(&tokens.access), None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, None, Some(body)).await
    }

    /// Any request; `bearer` is an access token.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        let uri = format!("{}{path}", self.url);
        let mut request = Request::builder().method(method).uri(&uri);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(body.map(Value::to_string).unwrap_or_default()).unwrap();
        send(request).await.unwrap_or_else(|error| panic!("{uri}: {error}"))
    }
}

impl Tokens {
    /// From an answer that must be a successful sign-in or refresh.
    pub(crate) fn of(answer: &Answer) -> Self {
        Self::in_answer(answer).unwrap_or_else(|| panic!("no tokens in {answer:?}"))
    }

    /// From a JSON answer or a redirect, if it has some.
    pub(crate) fn in_answer(answer: &Answer) -> Option<Self> {
        if answer.status == StatusCode::OK {
            let body: Value = serde_json::from_slice(&answer.body).ok()?;
            return Self::new(body["access_token"].as_str()?, body["refresh_token"].as_str()?);
        }
        let (_, fragment) = answer.header("location")?.rsplit_once('#')?;
        let value = |name| fragment.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        Self::new(value("access_token")?, value("refresh_token")?)
    }

    fn new(access: &str, refresh: &str) -> Option<Self> {
        let claims = claims_of(access);
        Some(Self {
            access: access.to_owned(),
            refresh: refresh.to_owned(),
            user: UserId::parse(claims["sub"].as_str()?)?,
            session: SessionId::parse(claims["session_id"].as_str()?)?,
        })
    }

    /// What the access token says.
    pub(crate) fn claims(&self) -> Value {
        claims_of(&self.access)
    }
}

fn claims_of(token: &str) -> Value {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// An address that nobody has signed up with.
pub(crate) fn new_email() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("someone-{}@example.com", NEXT.fetch_add(1, Ordering::Relaxed))
}
