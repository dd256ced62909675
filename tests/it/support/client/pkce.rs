//! Sign-in with a code that only whoever asked for it can use (RFC 7636, method S256).

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use super::{Answer, Client};

pub(super) const VERIFIER: &str = "a-verifier-of-the-tests-with-more-than-forty-three-characters";

impl Client {
    /// A mail whose link leads to a code.
    pub(crate) async fn recover_with_code(&self, email: &str) -> Answer {
        let body = json!({"email": email, "code_challenge": challenge(), "code_challenge_method": "s256"});
        self.post("/recover", &body).await
    }

    /// Trades the code that a link led to for tokens.
    pub(crate) async fn trade_code(&self, redirect: &Answer) -> Answer {
        let location = redirect.header("location").unwrap();
        let (_, query) = location.split_once("?code=").unwrap_or_else(|| panic!("no code in {location}"));
        let code = query.split(['&', '#']).next().unwrap();
        let body = json!({"auth_code": code, "code_verifier": VERIFIER});
        self.post("/token?grant_type=pkce", &body).await
    }
}

/// What is shown of the verifier beforehand.
pub(super) fn challenge() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()))
}
