//! An application to which users give a session of its own: GoTrue as an OAuth server.

use http::Method;
use serde_json::json;

use super::{
    Answer, Client, Tokens,
    admin::Admin,
    pkce::{VERIFIER, challenge},
};

const BACK: &str = "https://client.example.com/back";

impl Admin {
    /// Registers an application without a secret; its id.
    pub(crate) async fn register_application(&self) -> String {
        let body = json!({
            "client_name": "An application", "redirect_uris": [BACK],
            "client_type": "public", "token_endpoint_auth_method": "none",
        });
        let answer = self.request(Method::POST, "/oauth/clients", Some(&body)).await.json();
        answer["client_id"].as_str().unwrap_or_else(|| panic!("not registered: {answer}")).to_owned()
    }

    /// Takes it out; what users gave it stays.
    pub(crate) async fn delete_application(&self, application: &str) -> Answer {
        self.request(Method::DELETE, &format!("/oauth/clients/{application}"), None).await
    }
}

impl Client {
    /// The user of these tokens gives the application a session; the last answer on the way to it.
    pub(crate) async fn grant(&self, tokens: &Tokens, application: &str) -> Answer {
        let path = format!(
            "/oauth/authorize?client_id={application}&redirect_uri={BACK}&response_type=code&scope=email\
             &state=x&code_challenge={}&code_challenge_method=S256",
            challenge()
        );
        let asked = self.request(Method::GET, &path, None, None).await;
        let Some(id) = asked.header("location").and_then(|location| after(location, "authorization_id="))
        else {
            return asked;
        };
        let path = format!("/oauth/authorizations/{id}");
        let mut answer = self.get(&path, tokens).await;
        if answer.status.is_success() && answer.json()["redirect_url"].is_null() {
            let approved = json!({"action": "approve"});
            let path = format!("{path}/consent");
            answer = self.request(Method::POST, &path, Some(&tokens.access), Some(&approved)).await;
        }
        if !answer.status.is_success() {
            return answer;
        }
        let redirect = answer.json()["redirect_url"].as_str().unwrap().to_owned();
        let body = json!({
            "grant_type": "authorization_code", "code": after(&redirect, "code="), "redirect_uri": BACK,
            "code_verifier": VERIFIER, "client_id": application,
        });
        self.post("/oauth/token", &body).await
    }

    /// As the application.
    pub(crate) async fn refresh_as(&self, application: &str, token: &str) -> Answer {
        let body = json!({"grant_type": "refresh_token", "refresh_token": token, "client_id": application});
        self.post("/oauth/token", &body).await
    }

    /// The user takes it back.
    pub(crate) async fn revoke_grant(&self, tokens: &Tokens, application: &str) -> Answer {
        let path = format!("/user/oauth/grants?client_id={application}");
        self.request(Method::DELETE, &path, Some(&tokens.access), None).await
    }
}

fn after<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    url.split_once(name)?.1.split('&').next()
}
