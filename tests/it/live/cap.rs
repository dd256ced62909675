//! Users with as many sessions as may be, before a GoTrue that is not scripted (contract §6.3, §6.4, §6.5, I4).

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    client::{Client, PASSWORD, new_email},
    client_js::{self, assert_same},
    gotrue::Settings,
    pod::{Pod, before},
    until,
};

const MINT: &str = "--revoke-upstream=mint";

/// All but the first at once.
const LOGINS: usize = 40;
const MOST: usize = 5;

async fn pod(flags: &[&str]) -> Pod {
    Pod::start_with(Settings::default(), flags).await
}

#[tokio::test]
async fn of_many_logins_at_once_gotrue_keeps_as_many_as_may_be() {
    for policy in ["deny", "evict_oldest"] {
        let policy_flag = format!("--session-max-policy={policy}");
        let flags = ["--session-max-per-user=5", &policy_flag, MINT];
        let pod = pod(&flags).await;
        let replica = before(&pod.gotrue, &pod.redis, &flags);
        let email = new_email();
        pod.client().sign_up(&email).await;
        let mut all = JoinSet::new();
        for number in 1..LOGINS {
            let through = if number % 2 == 0 { pod.client() } else { Client::new(&replica.url) };
            let email = email.clone();
            all.spawn(async move { through.signed_in(&email, PASSWORD).await });
        }
        let answers = all.join_all().await;
        let denied = answers.iter().filter(|answer| answer.error_code() == Some("too_many_sessions")).count();
        assert_eq!(denied, if policy == "deny" { LOGINS - MOST } else { 0 });
        assert!(answers.iter().filter(|answer| answer.status == 200).count() + denied == LOGINS - 1);
        assert_eq!(pod.stored().await.len(), MOST, "{policy}");
        until("GoTrue has ended the others", async || pod.gotrue.sessions().await.len() == MOST).await;
        pod.assert_true(policy).await;
    }
}

/// Who made room is out here at once, and in GoTrue at the next refresh.
#[tokio::test]
async fn whoever_made_room_ends_in_gotrue_at_the_next_refresh() {
    let pod = pod(&["--session-max-per-user=1", "--enforce=true"]).await;
    let (client, email) = (pod.client(), new_email());
    let phone = client.sign_up(&email).await;
    let laptop = client.sign_in(&email).await;
    assert_eq!(client.user(&phone).await.error_code(), Some("session_not_found"));
    assert_eq!(pod.gotrue.sessions().await.len(), 2);
    assert_eq!(client.refresh(&phone).await.error_code(), Some("refresh_token_not_found"));
    until("GoTrue has ended it", async || pod.gotrue.sessions().await == [(laptop.session, laptop.user)])
        .await;
    assert_eq!(client.user(&laptop).await.status, 200);
    pod.assert_true("who was evicted has refreshed").await;
}

/// A mail's link leads to a redirect with the error in the place of the tokens.
#[tokio::test]
async fn a_link_of_a_mail_that_is_denied_leads_to_an_error() {
    let pod = pod(&["--session-max-per-user=1", "--session-max-policy=deny"]).await;
    let (client, email) = (pod.client(), new_email());
    let phone = client.sign_up(&email).await;
    client.recover(&email).await;
    let token = pod.gotrue.recovery_token(&email).await;
    let answer = client.follow("recovery", &token).await;
    let location = answer.header("location").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(location.starts_with("http://localhost:3000/back#error=access_denied&"), "{location}");
    assert!(location.contains("error_code=too_many_sessions") && !location.contains("token="), "{location}");
    until("GoTrue has ended it", async || pod.gotrue.sessions().await == [(phone.session, phone.user)]).await;
    assert_eq!(client.user(&phone).await.status, 200);
    pod.assert_true("a link that was denied").await;
}

/// supabase-js gets an error with a code, and loses nothing for it.
#[tokio::test]
async fn the_official_client_understands_that_it_is_denied() {
    let pod = pod(&["--session-max-per-user=1", "--session-max-policy=deny"]).await;
    let report: serde_json::Value =
        serde_json::from_str(&client_js::run("denied.mjs", &pod.sidecar.url).await).unwrap();
    let error = json!({"name": "AuthApiError", "code": "too_many_sessions", "status": 403});
    let mut denied = error.clone();
    denied["session"] = json!(null);
    assert_eq!(
        report,
        json!({
            "denied": denied,
            "refreshed": true,
            "again": error,
            "keptSession": true,
            "keptUser": true,
            "signedOut": true,
            "phoneSawSignedOut": 1,
            "laptopSawSignedOut": 0,
            "then": true,
        })
    );
}

/// Contract I1: whoever has no more sessions than may be sees no difference.
#[tokio::test]
async fn the_official_client_sees_no_difference_below_the_cap() {
    let pod = pod(&["--session-max-per-user=2", "--session-max-policy=deny"]).await;
    let without = client_js::transcript(&pod.gotrue.url).await;
    assert_same(&client_js::transcript(&pod.sidecar.url).await, &without);
}
