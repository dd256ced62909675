//! The live upstream itself, where it differs from GoTrue; and in the modules, the sidecar before it.

mod audit;
mod authority;
mod cap;
mod official_client;
mod outage;
mod session_api;
mod sessions;
mod unseen;
mod workload;

use std::{fs, path::Path};

use http::StatusCode;
use serde_json::json;

use crate::support::{
    client::{
        Client, Tokens,
        admin::{Admin, signed},
        new_email,
    },
    documents,
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
async fn refresh_tokens_have_the_first_form_by_default() {
    refresh_tokens_are(RefreshTokens::V1).await;
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn refresh_tokens_have_the_second_form_where_it_was_asked_for() {
    Kind::must_be_real();
    refresh_tokens_are(RefreshTokens::V2).await;
}

async fn refresh_tokens_are(refresh_tokens: RefreshTokens) {
    let gotrue = Gotrue::start_with(Settings { refresh_tokens, ..Settings::default() }).await;
    let client = Client::new(&gotrue.url);
    let tokens = client.sign_up(&new_email()).await;
    // v1: 12 characters of GoTrue, 36 of the other; v2 has a signature.
    assert_eq!(tokens.refresh.len() > 36, refresh_tokens == RefreshTokens::V2, "{}", tokens.refresh);
    Tokens::of(&client.refresh(&tokens).await);
}

#[tokio::test]
async fn access_tokens_are_signed_with_the_secret_by_default() {
    access_tokens_are_signed(Signing::Hs256, jsonwebtoken::Algorithm::HS256).await;
}

#[tokio::test]
#[ignore = "needs a real GoTrue: bin/test-gotrue"]
async fn access_tokens_are_signed_with_a_key_pair_where_it_was_asked_for() {
    Kind::must_be_real();
    access_tokens_are_signed(Signing::Es256, jsonwebtoken::Algorithm::ES256).await;
}

async fn access_tokens_are_signed(signing: Signing, algorithm: jsonwebtoken::Algorithm) {
    let gotrue = Gotrue::start_with(Settings { signing, ..Settings::default() }).await;
    let tokens = Client::new(&gotrue.url).sign_up(&new_email()).await;
    assert_eq!(jsonwebtoken::decode_header(&tokens.access).unwrap().alg, algorithm);
}

/// A test that has nothing to say without a real GoTrue is listed as ignored by every run, and no test looks for itself
/// which server it has and goes home.
#[test]
fn no_live_test_stands_aside_in_silence() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/live");
    let mut ignored = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue; // what the workload consists of, no tests
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("of_this_run"), "{}", path.display());
        let marks: Vec<_> = text.lines().filter(|line| line.starts_with("#[ignore")).collect();
        for mark in &marks {
            assert_eq!(*mark, r#"#[ignore = "needs a real GoTrue: bin/test-gotrue"]"#, "{}", path.display());
        }
        assert_eq!(marks.is_empty(), !text.contains("must_be_real"), "{}", path.display());
        ignored += marks.len();
    }
    assert!(ignored > 0, "none was found");
    let runner = documents::read("bin/test-gotrue");
    assert!(runner.contains("--include-ignored"), "bin/test-gotrue runs them");
}

async fn two_sessions(client: &Client) -> (Tokens, Tokens) {
    let email = new_email();
    (client.sign_up(&email).await, client.sign_in(&email).await)
}
