//! Somebody who holds a service key: the admin API.

use gotrue_sidecar::session::UserId;
use http::Method;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{Answer, Client};

/// Talks to `/admin`.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    client: Client,
    token: String,
}

/// What the mail to a user would have carried.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) token_hash: String,
    pub(crate) otp: String,
}

impl Admin {
    /// `secret` is GoTrue's, and signs the service key.
    pub(crate) fn new(client: Client, secret: &str) -> Self {
        let claims = json!({"role": "service_role", "exp": 4_102_444_800_u64});
        Self { client, token: signed(secret, &claims) }
    }

    pub(crate) async fn user(&self, user: UserId) -> Answer {
        self.request(Method::GET, &format!("/users/{user}"), None).await
    }

    pub(crate) async fn update(&self, user: UserId, fields: &Value) -> Answer {
        self.request(Method::PUT, &format!("/users/{user}"), Some(fields)).await
    }

    pub(crate) async fn delete(&self, user: UserId, softly: bool) -> Answer {
        let body = json!({"should_soft_delete": softly});
        self.request(Method::DELETE, &format!("/users/{user}"), Some(&body)).await
    }

    pub(crate) async fn remove_factor(&self, user: UserId, factor: &str) -> Answer {
        self.request(Method::DELETE, &format!("/users/{user}/factors/{factor}"), None).await
    }

    /// `kind` is `magiclink`, `recovery`, `invite` …; `None` when GoTrue refused.
    pub(crate) async fn link(&self, kind: &str, email: &str) -> Option<Link> {
        let body = json!({"type": kind, "email": email});
        let answer = self.request(Method::POST, "/generate_link", Some(&body)).await.json();
        Some(Link {
            token_hash: answer["hashed_token"].as_str()?.to_owned(),
            otp: answer["email_otp"].as_str()?.to_owned(),
        })
    }

    pub(super) async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.client.request(method, &format!("/admin{path}"), Some(&self.token), body).await
    }
}

/// A token of which a GoTrue with that secret believes every claim.
pub(crate) fn signed(secret: &str, claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}
