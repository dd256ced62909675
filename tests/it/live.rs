//! The live upstream itself, where it differs from GoTrue; and in the modules, the sidecar before it.

mod audit;
mod authority;
mod official_client;
mod outage;
mod session_api;
mod sessions;
mod unseen;
mod workload;

use http::StatusCode;
use serde_json::json;

use crate::support::{
    client::{
        Client, Tokens,
        admin::{Admin, signed},
        new_email,
    },
    gotrue::{Gotrue, Kind, RefreshTokens, Settings, Signing},
};

#[tokio::test]
async fn the_live_upstream_signs_up_and_logs_out() {
    let gotrue = Gotrue::start().await;
    let client = Client::new(&gotrue.url);
    let (phone, laptop) = two_sessions(&client).await;
    let mut both = vec![(phone.session, phone.user), (laptop.session, laptop.user)];
    both.sort();
    assert_eq!(gotrue.sessions().await, both);

    let refreshed = Tokens::of(&client.refresh(&laptop).await);
    assert_eq!(refreshed.session, laptop.session);

    assert_eq!(client.logout(&phone, "?scope=others").await.status, StatusCode::NO_CONTENT);
    assert_eq!(gotrue.sessions().await, [(phone.session, phone.user)]);
    assert_eq!(client.user(&laptop).await.error_code(), Some("session_not_found"));
    assert_eq!(client.user(&phone).await.status, StatusCode::OK);

    assert_eq!(client.logout(&phone, "?scope=global").await.status, StatusCode::NO_CONTENT);
    assert_eq!(gotrue.sessions().await, []);
    assert!(client.refresh(&refreshed).await.error_code().is_some());
}

#[tokio::test]
async fn a_changed_password_ends_the_others_where_it_is_said_to() {
    let gotrue = Gotrue::start().await;
    let client = Client::new(&gotrue.url);
    let (phone, _laptop) = two_sessions(&client).await;
    let changed = client.change_password(&phone, "battery horse staple correct").await;
    assert_eq!(changed.status, StatusCode::OK);
    let alone = gotrue.sessions().await == [(phone.session, phone.user)];
    assert_eq!(alone, gotrue.kind().ends_others_on_password_change());
}

#[tokio::test]
async fn a_logout_without_scope_is_global_where_it_is_said_to() {
    let gotrue = Gotrue::start().await;
    let client = Client::new(&gotrue.url);
    let (phone, _laptop) = two_sessions(&client).await;
    assert_eq!(client.logout(&phone, "").await.status, StatusCode::NO_CONTENT);
    let nobody = gotrue.sessions().await.is_empty();
    assert_eq!(nobody, gotrue.kind().logs_out_everywhere_by_default());
}

#[tokio::test]
async fn a_token_without_a_session_id_logs_out_where_it_is_said_to() {
    let gotrue = Gotrue::start().await;
    let client = Client::new(&gotrue.url);
    let (phone, _laptop) = two_sessions(&client).await;
    let claims = json!({
        "sub": phone.user.to_string(), "aud": "authenticated", "role": "authenticated", "exp": 4_102_444_800_u64,
    });
    let without = Tokens { access: signed(gotrue.secret, &claims), ..phone };
    assert_eq!(client.logout(&without, "?scope=local").await.status, StatusCode::NO_CONTENT);
    let nobody = gotrue.sessions().await.is_empty();
    assert_eq!(nobody, gotrue.kind().logs_out_without_a_session_id());
}

#[tokio::test]
async fn the_admin_api_is_there_where_it_is_said_to_be() {
    let gotrue = Gotrue::start().await;
    let client = Client::new(&gotrue.url);
    let phone = client.sign_up(&new_email()).await;
    let admin = Admin::new(client, gotrue.secret);
    let there = admin.user(phone.user).await.status == StatusCode::OK;
    assert_eq!(there, gotrue.kind().has_admin_api());
}

#[tokio::test]
async fn refresh_tokens_have_the_form_that_was_asked_for() {
    let mut forms = vec![RefreshTokens::V1];
    if Kind::of_this_run().has_v2_refresh_tokens() {
        forms.push(RefreshTokens::V2);
    }
    for refresh_tokens in forms {
        let gotrue = Gotrue::start_with(Settings { refresh_tokens, ..Settings::default() }).await;
        let client = Client::new(&gotrue.url);
        let tokens = client.sign_up(&new_email()).await;
        // v1: 12 characters of GoTrue, 36 of the other; v2 has a signature.
        assert_eq!(tokens.refresh.len() > 36, refresh_tokens == RefreshTokens::V2, "{}", tokens.refresh);
        Tokens::of(&client.refresh(&tokens).await);
    }
}

#[tokio::test]
async fn access_tokens_are_signed_with_what_was_asked_for() {
    let mut signings = vec![Signing::Hs256];
    if Kind::of_this_run().signs_with_es256() {
        signings.push(Signing::Es256);
    }
    for signing in signings {
        let gotrue = Gotrue::start_with(Settings { signing, ..Settings::default() }).await;
        let tokens = Client::new(&gotrue.url).sign_up(&new_email()).await;
        let algorithm = jsonwebtoken::decode_header(&tokens.access).unwrap().alg;
        let expected = match signing {
            Signing::Hs256 => jsonwebtoken::Algorithm::HS256,
            Signing::Es256 => jsonwebtoken::Algorithm::ES256,
        };
        assert_eq!(algorithm, expected);
    }
}

async fn two_sessions(client: &Client) -> (Tokens, Tokens) {
    let email = new_email();
    (client.sign_up(&email).await, client.sign_in(&email).await)
}
