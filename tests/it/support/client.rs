//! Somebody who uses GoTrue: signs up, in, refreshes, gets the user, signs out.

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
        Self { url: url.to_owned() }
    }

    pub(crate) async fn sign_up(&self, email: &str) -> Tokens {
        let answer = self.post("/signup", &json!({"email": email, "password": PASSWORD})).await;
        Tokens::of(&answer)
    }

    pub(crate) async fn sign_in(&self, email: &str) -> Tokens {
        let credentials = json!({"email": email, "password": PASSWORD});
        Tokens::of(&self.post("/token?grant_type=password", &credentials).await)
    }

    pub(crate) async fn refresh(&self, tokens: &Tokens) -> Answer {
        self.post("/token?grant_type=refresh_token", &json!({"refresh_token": tokens.refresh})).await
    }

    pub(crate) async fn user(&self, tokens: &Tokens) -> Answer {
        self.get("/user", tokens).await
    }

    /// `query` is `?scope=…`, or nothing, which does not mean the same to all upstreams.
    pub(crate) async fn logout(&self, tokens: &Tokens, query: &str) -> Answer {
        self.request(Method::POST, &format!("/logout{query}"), Some(tokens), None).await
    }

    pub(crate) async fn change_password(&self, tokens: &Tokens, password: &str) -> Answer {
        self.request(Method::PUT, "/user", Some(tokens), Some(&json!({"password": password}))).await
    }

    pub(crate) async fn get(&self, path: &str, tokens: &Tokens) -> Answer {
        self.request(Method::GET, path, Some(tokens), None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, None, Some(body)).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        tokens: Option<&Tokens>,
        body: Option<&Value>,
    ) -> Answer {
        let uri = format!("{}{path}", self.url);
        let mut request = Request::builder().method(method).uri(&uri);
        if let Some(tokens) = tokens {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", tokens.access));
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
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let body = answer.json();
        let access = body["access_token"].as_str().unwrap().to_owned();
        let payload = BASE64_URL_SAFE_NO_PAD.decode(access.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        Self {
            refresh: body["refresh_token"].as_str().unwrap().to_owned(),
            user: UserId::parse(claims["sub"].as_str().unwrap()).unwrap(),
            session: SessionId::parse(claims["session_id"].as_str().unwrap()).unwrap(),
            access,
        }
    }
}

/// An address that nobody has signed up with.
pub(crate) fn new_email() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("someone-{}@example.com", NEXT.fetch_add(1, Ordering::Relaxed))
}
